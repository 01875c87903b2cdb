"""nss-pk11: TLS with private keys that never leave their PKCS #11 token."""
