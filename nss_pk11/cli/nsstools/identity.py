"""`strsclnt -n`: the client's certificate and key, which are looked for again when their token was pulled."""

from __future__ import annotations

import os
import sys
import threading

from ...nss.cert import CERT_FindUserCertByUsage, CERT_GetDefaultCertDB, CERTCertificate, SECCertUsage
from ...nss.keyhi import SECKEYPrivateKey
from ...nss.pk11pub import PK11_FindKeyByAnyCert, PK11_IsLoggedIn, PK11_IsPresent, PK11_NeedLogin, PK11SlotInfo
from ...nss.prerror import NSPRError
from ...nss.prio import PRFileDesc
from ...nss.ssl import NSS_GetClientAuthData, SECFailure
from .passwords import Passwords
from .words import BadFlags

PROGRAM = "strsclnt"
MOST_SECONDS = 60  # to put a token back

Pair = tuple[CERTCertificate, SECKEYPrivateKey]


class Identity:
    """Who the client is.  `nickname`: None for whatever fits, "none" for nobody."""

    def __init__(self, nickname: str | None, passwords: Passwords) -> None:
        """Raises BadFlags."""
        self._nickname, self._passwords = nickname, passwords
        self._lock = threading.Lock()
        self._pair: Pair | None = None
        if nickname not in (None, "none"):
            self._pair = self._find()

    def _find(self) -> Pair:
        nickname = self._nickname or ""
        try:
            certificate = CERT_FindUserCertByUsage(
                CERT_GetDefaultCertDB(), nickname, SECCertUsage.certUsageSSLClient, False, self._passwords
            )
        except NSPRError:
            raise BadFlags(f"{PROGRAM}: Can't find certificate {nickname}", usage=False) from None
        try:
            return certificate, PK11_FindKeyByAnyCert(certificate, self._passwords)
        except NSPRError:
            raise BadFlags(f"{PROGRAM}: Can't find Private Key for cert {nickname}", usage=False) from None

    def choose(self, arg: object, fd: PRFileDesc, authorities: list[bytes]) -> Pair | int:
        """For SSL_GetClientAuthDataHook."""
        if self._nickname is None:
            return NSS_GetClientAuthData(None, fd, authorities)
        with self._lock:
            if self._pair is not None and not _is_there(self._pair):
                self._pair = self._await_token()
            return self._pair or SECFailure

    def _await_token(self) -> Pair:
        """Ends the program if the token is not put back."""
        for _ in range(MOST_SECONDS):
            try:
                return self._find()
            except BadFlags:
                threading.Event().wait(1)
        print("\nToken pulled and not reinserted early enough : aborting.")
        sys.stdout.flush()
        os._exit(1)

    def forget(self) -> None:
        """Give certificate and key back."""
        self._pair = None


def _is_there(pair: Pair) -> bool:
    """Whether their tokens are in, and logged in to."""
    certificate, key = pair
    slots: list[PK11SlotInfo | None] = [certificate.slot, key.pkcs11Slot]
    return all(slot is not None and PK11_IsPresent(slot) and _is_open(slot) for slot in slots)


def _is_open(slot: PK11SlotInfo) -> bool:
    return not PK11_NeedLogin(slot) or PK11_IsLoggedIn(slot, None)
