"""FORTEZZA: whose certificates are for it, and which of ours a server's goes with (pk11func.h).

Cards exchange keys with cards of their domain only, which certificates name.  Nothing here keeps anything.
"""

from __future__ import annotations

from contextlib import suppress
from enum import IntEnum

from asn1crypto.core import Sequence

from ..errors import HandshakeFailure, NotFound, NSPRError
from ..slots import kea
from ..tls.config import Identity
from ..tls.waits import KeaInitiate, KeaResume
from ._authentication import log_in
from ._objects import PK11_FindKeyByAnyCert, instances, is_user, lying_on, wrap
from ._slots import usable_slots
from .prerror import sets_error
from .types import CERTCertificate, PK11SlotInfo

_DERIVE = "CKM_KEA_KEY_DERIVE"
Client = KeaInitiate | KeaResume


class SECOidTag(IntEnum):
    """The numbers that NSS has for some object identifiers (secoidt.h): those that PK11_FortezzaMapSig knows."""

    SEC_OID_MISSI_KEA_DSS_OLD = 54
    SEC_OID_MISSI_DSS_OLD = 55
    SEC_OID_MISSI_KEA_DSS = 56
    SEC_OID_MISSI_DSS = 57
    SEC_OID_MISSI_KEA = 58
    SEC_OID_MISSI_ALT_KEA = 59
    SEC_OID_ANSIX9_DSA_SIGNATURE = 124
    SEC_OID_BOGUS_DSA_SIGNATURE_WITH_SHA1_DIGEST = 126


_MISSI = "2.16.840.1.101.2.1.1"
# Of keys that do KEA: alone, and together with DSS.
KEA_OIDS = frozenset(f"{_MISSI}.{last}" for last in (10, 22, 12, 20))
_SIGNING = frozenset(
    {
        SECOidTag.SEC_OID_MISSI_KEA_DSS,
        SECOidTag.SEC_OID_MISSI_DSS,
        SECOidTag.SEC_OID_MISSI_DSS_OLD,
        SECOidTag.SEC_OID_MISSI_KEA_DSS_OLD,
        SECOidTag.SEC_OID_BOGUS_DSA_SIGNATURE_WITH_SHA1_DIGEST,
    }
)


def PK11_FortezzaMapSig(algTag: int) -> int:
    """The plain DSA for the names that MISSI has for it, any other tag itself (pk11func.h)."""
    return SECOidTag.SEC_OID_ANSIX9_DSA_SIGNATURE if algTag in _SIGNING else algTag


@sets_error
def PK11_FortezzaHasKEA(cert: CERTCertificate) -> bool:
    """Whether a certificate is ours, and its key one for KEA (pk11func.h).

    Differs: the number that RFC 2528 gives to KEA counts too, which NSS compares with a number that no key has."""
    return _algorithm(cert) in KEA_OIDS and any(is_user(slot, item) for slot, item in instances() if item.der == cert.derCert)


@sets_error
def PK11_FindBestKEAMatch(serverCert: CERTCertificate, wincx: object = None) -> CERTCertificate:
    """The first certificate of ours, on a token that does KEA, in the domain of a server's (pk11func.h); logs in to these
    tokens.  Raises NotFound: SSL_ERROR_FORTEZZA_PQG where there is none, or the server's key is none of KEA."""
    server = kea.from_certificate(serverCert.derCert)
    for slot in usable_slots() if server is not None else ():
        with suppress(NSPRError):  # one that refuses, or has just gone, is passed over
            info = PK11SlotInfo(slot)
            if _DERIVE not in info.token.mechanisms():
                continue
            log_in(info, wincx)
            for item in lying_on(slot):
                own = kea.from_certificate(item.der)
                if server is not None and own is not None and own.domain == server.domain and is_user(slot, item):
                    return wrap(slot, item)
    raise NotFound("no token has a KEA certificate of the server's domain", name="SSL_ERROR_FORTEZZA_PQG")


def with_best_match(operation: Client, wincx: object) -> Client:
    """A client's part of a handshake, with the key that goes with the server's.  Raises HandshakeFailure, which is what the
    server is to hear, and what a login raises."""
    try:
        ours = PK11_FindBestKEAMatch(CERTCertificate.decode(operation.chain[0]), wincx)
    except NotFound as error:
        raise HandshakeFailure(error.detail, name=error.name) from None
    key = PK11_FindKeyByAnyCert(ours, wincx)
    operation.identities = (Identity(chain=(ours.derCert,), schemes=(), key=key.key, kea=True),)
    return operation


def _algorithm(cert: CERTCertificate) -> str:
    """The object identifier of a certificate's key, dotted."""
    return str(Sequence.load(cert.spki)[0][0].dotted)
