"""Cryptography of old suites that no library gives in the form records and handshakes want it.  Bytes in, bytes out: nothing
here knows a connection."""
