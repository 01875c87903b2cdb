"""`selfserv -T`: OCSP responses made here, good ones and others, to staple to the server's certificate."""

from __future__ import annotations

from ...nss.cert import CERTCertificate
from .passwords import Passwords

SIGNED = ("good", "revoked", "unknown", "random")  # need -A
MODES = ("none", *SIGNED, "failure", "badsig", "corrupted", "ocsp")


class Stapler:
    """Makes what `-T` says."""

    def __init__(self, mode: str, ca: str, passwords: Passwords) -> None:
        self.mode, self._ca, self._passwords = mode, ca, passwords

    def responses(self, certificate: CERTCertificate) -> list[bytes]:
        return []
