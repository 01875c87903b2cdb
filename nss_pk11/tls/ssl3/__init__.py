"""The handshake of SSL 3.0 to TLS 1.2, one file per key exchange."""
