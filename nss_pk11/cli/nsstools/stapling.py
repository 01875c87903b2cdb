"""`selfserv -T`: OCSP responses made here, good ones and others, to staple to the server's certificate."""

from __future__ import annotations

import random
import time

from ...nss.cert import CERT_DestroyCertificate, CERT_FindCertByNickname, CERT_GetDefaultCertDB, CERTCertificate
from ...nss.ocsp import (
    CERT_CreateEncodedOCSPErrorResponse,
    CERT_CreateEncodedOCSPSuccessResponse,
    CERT_CreateOCSPCertID,
    CERT_CreateOCSPSingleResponseGood,
    CERT_CreateOCSPSingleResponseRevoked,
    CERT_CreateOCSPSingleResponseUnknown,
    CERTOCSPCertID,
    CERTOCSPResponderIDType,
    CERTOCSPSingleResponse,
)
from ...nss.secerr import SEC_ERROR_OCSP_TRY_SERVER_LATER
from .passwords import Passwords
from .report import step

SIGNED = ("good", "revoked", "unknown", "random")  # need -A
MODES = ("none", *SIGNED, "failure", "badsig", "corrupted", "ocsp")
RANDOM = ("good", "revoked", "unknown", "badsig", "corrupted", "failure")
DAY = 86400.0


class Stapler:
    """Makes what `mode` says; `ca`: the nickname of who signs.  A random choice is made once, as in NSS's program."""

    def __init__(self, mode: str, ca: str, passwords: Passwords) -> None:
        self.mode = random.choice(RANDOM) if mode == "random" else mode
        self._ca, self._passwords = ca, passwords

    def responses(self, certificate: CERTCertificate) -> list[bytes]:
        """DER; none in mode "none".  Raises Fatal."""
        if self.mode == "none":
            return []
        if self.mode == "corrupted":
            return [b"\0"]
        if self.mode == "failure":
            return [CERT_CreateEncodedOCSPErrorResponse(SEC_ERROR_OCSP_TRY_SERVER_LATER)]
        return [self._signed(certificate)]

    def _signed(self, certificate: CERTCertificate) -> bytes:
        now = time.time()
        with step("cannot find CA"):
            ca = CERT_FindCertByNickname(CERT_GetDefaultCertDB(), self._ca)
        with step("cannot created cid"):
            single = _SINGLE[self.mode](CERT_CreateOCSPCertID(certificate, now), now)
        with step("cannot created ocspResponse"):
            response = CERT_CreateEncodedOCSPSuccessResponse(
                None if self.mode == "badsig" else ca,
                CERTOCSPResponderIDType.ocspResponderID_byName,
                now,
                [single],
                self._passwords,
            )
        CERT_DestroyCertificate(ca)
        return response


def _good(id: CERTOCSPCertID, now: float) -> CERTOCSPSingleResponse:
    return CERT_CreateOCSPSingleResponseGood(id, now, now + DAY)


def _unknown(id: CERTOCSPCertID, now: float) -> CERTOCSPSingleResponse:
    return CERT_CreateOCSPSingleResponseUnknown(id, now, now + DAY)


def _revoked(id: CERTOCSPCertID, now: float) -> CERTOCSPSingleResponse:
    return CERT_CreateOCSPSingleResponseRevoked(id, now, now + DAY, now - DAY)


_SINGLE = {"good": _good, "badsig": _good, "unknown": _unknown, "revoked": _revoked}
