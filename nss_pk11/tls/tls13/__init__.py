"""The handshake of TLS 1.3 and what follows it (RFC 8446)."""
