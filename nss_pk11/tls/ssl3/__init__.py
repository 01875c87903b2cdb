"""The handshake of TLS 1.2, one file per key exchange; a room for the older versions of the same family."""
