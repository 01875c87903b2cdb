"""Simulated PKCS #11 hardware."""
