"""From an NSS nickname to an identity: `NAME` of a database, `TOKEN:NAME` of any module.

Asks `slots` for certificates and keys, `certs` for their order; as NSS does, of several certificates with one nickname the one
that is good the longest counts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..certs import describe
from ..certs.info import issuer_names, subject_name
from ..errors import CertificateError, NotFound
from ..net.identity import make_identity

if TYPE_CHECKING:
    from ..pins import PinProvider
    from ..slots import PrivateKey, SlotManager, Token, TokenCertificate
    from ..tls.config import Identity


def load_nickname(manager: SlotManager, nickname: str, pins: PinProvider | None = None, *, ocsp: bytes = b"") -> Identity:
    """The identity that `nickname` names, its chain out of the databases and the certificate's own token.

    Raises NotFound, CertificateError (a certificate without key, or expired), PinError, TokenError, DatabaseError.
    """
    found = manager.find_certificates_by_nickname(nickname, pins)
    if not found:
        raise NotFound(f"there is no certificate with the nickname {nickname!r}", name="SEC_ERROR_UNKNOWN_CERT")
    certificate, key = _best(manager, found, nickname, pins)
    return make_identity(key, _chain(manager, certificate), ocsp=ocsp)


def _best(
    manager: SlotManager, found: list[TokenCertificate], nickname: str, pins: PinProvider | None
) -> tuple[TokenCertificate, PrivateKey]:
    now = time.time()

    def worth(certificate: TokenCertificate) -> tuple[bool, float]:
        about = describe(certificate.der)
        return about.not_before.timestamp() <= now <= about.not_after.timestamp(), about.not_after.timestamp()

    for certificate in sorted(found, key=worth, reverse=True):
        try:
            key = manager.find_key_by_certificate(certificate.der, pins)
        except NotFound:
            continue
        _home(manager, key).login(pins)  # now, not in the first handshake
        return certificate, key
    raise CertificateError(f"no private key belongs to the certificate with the nickname {nickname!r}", name="SEC_ERROR_NO_KEY")


def _home(manager: SlotManager, key: PrivateKey) -> Token:
    return next(token for token in manager.tokens() if token.info == key.token)


def _chain(manager: SlotManager, certificate: TokenCertificate) -> tuple[bytes, ...]:
    """The certificate and its issuers by their names; whoever checks the signatures is the peer."""
    databases = [slot.contents for slot in manager.databases]
    homes = [token for token in manager.tokens() if token.info == certificate.token and token not in databases]
    beside = {subject_name(item.der): item.der for token in [*homes, *databases] for item in token.certificates()}
    chain = [certificate.der]
    beside.pop(subject_name(certificate.der), None)
    while (issuer := beside.pop(issuer_names((chain[-1],))[0], None)) is not None:
        chain.append(issuer)
    return tuple(chain)
