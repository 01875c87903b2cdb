"""The record layer and its protections: AEAD (TLS 1.2 and 1.3) and CBC (TLS 1.2)."""
