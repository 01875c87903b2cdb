"""A PKI as it was in the days of SSL 3.0: SHA-1 signatures, RSA keys of 512 and 1024 bits, DSA keys whose q has 160 bits.

Keys are in files, for foreign peers, and in a token, for us; the same certificate goes with both.  What it issues is
verified as NSS does it, since the Web PKI's rules refuse all of it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from nss_pk11 import pins
from nss_pk11.certs import nss
from nss_pk11.certs.nss import Usage
from nss_pk11.net.identity import load_identity

from .pki import PKI, Authority, Credential

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nss_pk11.slots import SlotManager
    from nss_pk11.tls.config import Identity

    from .softhsm import TokenOnDisk


class OldAuthority(Authority):
    """Signs with SHA-1, which `cryptography` reads but no longer makes."""

    def issue(self, *arguments: Any, **options: Any) -> x509.Certificate:
        modern = super().issue(*arguments, **options)
        old = asn1.Certificate.load(modern.public_bytes(Encoding.DER))
        old["signature_algorithm"] = old["tbs_certificate"]["signature"] = {"algorithm": "sha1_rsa"}
        old["signature_value"] = self.key.sign(old["tbs_certificate"].dump(force=True), padding.PKCS1v15(), hashes.SHA1())
        return x509.load_der_x509_certificate(old.dump(force=True))


class OldPKI(PKI):
    """One RSA root, which issues everything.  Kinds of keys: rsa, rsa1024, rsa512, dsa, p256."""

    @cached_property
    def authorities(self) -> dict[str, tuple[Authority, Authority]]:
        root = Authority.root(f"{self._name} root", "rsa")
        old = OldAuthority(root.certificate, root.key)
        return {"rsa": (old, old)}

    def authority_for(self, kind: str) -> Authority:
        return self.authorities["rsa"][1]


class OldTrust:
    """What decides on peers' certificates: the rules of NSS, with the PKI's root trusted for everything."""

    def __init__(self, pki: OldPKI) -> None:
        self._root = pki.authorities["rsa"][0].certificate
        self._der = self._root.public_bytes(Encoding.DER)

    @property
    def authorities(self) -> tuple[bytes, ...]:
        """Names of the CAs whose client certificates are welcome, DER."""
        return (self._root.subject.public_bytes(),)

    def find_by_subject(self, subject: bytes) -> Iterable[bytes]:
        return [self._der] if self._root.subject.public_bytes() == subject else []

    def trust(self, der: bytes) -> str:
        return "CT" if der == self._der else ""

    def crls(self, issuer: bytes) -> Iterable[bytes]:
        return ()

    def verify_server(self, chain: tuple[bytes, ...], server_name: str, *, now: float, ocsp: bytes | None = b"") -> object:
        return nss.verify_peer(chain, self, Usage.SERVER, now=now, host=server_name)

    def verify_client(self, chain: tuple[bytes, ...], *, now: float) -> object:
        return nss.verify_peer(chain, self, Usage.CLIENT, now=now)


class OldKeys:
    """Our identities: the PKI's credentials, their keys put into a token when first asked for."""

    def __init__(self, token: TokenOnDisk, manager: SlotManager) -> None:
        self._token, self._manager = token, manager
        self._identities: dict[str, Identity] = {}

    def identity(self, credential: Credential) -> Identity:
        if credential.name not in self._identities:
            key = load_pem_private_key(credential.key_file.read_bytes(), None)
            key_id = len(self._identities).to_bytes(4, "big")
            on_token = self._token.import_key(key, credential.name, key_id)  # type: ignore[arg-type]
            self._identities[credential.name] = load_identity(
                self._manager, on_token.uri, chain=credential.chain_file, pins=pins.value(self._token.pin)
            )
        return self._identities[credential.name]
