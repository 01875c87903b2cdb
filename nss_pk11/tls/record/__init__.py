"""The record layer and its protections: AEAD (TLS 1.2 and 1.3), CBC, stream and null ciphers with a MAC (SSL 3.0 to TLS 1.2)."""
