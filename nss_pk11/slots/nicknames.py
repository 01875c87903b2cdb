"""What lies on one token by NSS's names: certificates by nickname or e-mail address, the private key of a certificate."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import NotFound, TokenError
from .internal import DatabaseToken
from .model import PrivateKey, Token, TokenCertificate
from .publickeys import spki

if TYPE_CHECKING:
    from ..pins import PinProvider

_log = logging.getLogger(__name__)


def nicknamed(token: Token, nickname: str, pins: PinProvider | None) -> list[TokenCertificate]:
    """The certificates of that nickname, or in a database of that e-mail address; logs in as `find_certificates_by_nickname`."""
    found = [item for item in token.certificates() if item.label == nickname]
    if not found and isinstance(token, DatabaseToken) and "@" in nickname:
        addressed = {
            record.der for record in token.database.certificates() if nickname.lower() in record.email.lower().split(",")
        }
        found = [item for item in token.certificates() if item.der in addressed]
    if not found and pins is not None and "CKF_LOGIN_REQUIRED" in token.flags and not token.logged_in:
        token.login(pins)
        found = [item for item in token.certificates() if item.label == nickname]
    return found


def private_half(token: Token, der: bytes, public: bytes, pins: PinProvider | None) -> PrivateKey | None:
    """The key on `token` that has the public half `public`."""
    try:
        found = _with_public(token.find_keys(pins), public)
        hidden = found is None and "CKF_LOGIN_REQUIRED" in token.flags and not token.logged_in
        if not hidden or isinstance(token, DatabaseToken) or all(item.der != der for item in token.certificates()):
            return found
    except TokenError as error:
        _log.info("looking for a key on token %s: %s", token.info.label, error)
        return None
    token.login(pins)
    return _with_public(token.find_keys(pins), public)


def _with_public(keys: Iterable[PrivateKey], public: bytes) -> PrivateKey | None:
    for key in keys:
        with contextlib.suppress(NotFound):  # a key without its public half
            if spki(key.public_key) == public:
                return key
    return None
