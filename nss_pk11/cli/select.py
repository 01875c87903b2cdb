"""Finding what a command line names: tokens by label or URI, keys by URI or file.

Asks `slots`; a name that fits nothing is `NotFound`, one that fits several things `Ambiguous` with all of them listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Ambiguous, ConfigurationError, NotFound
from ..slots import PrivateKey, SlotManager, Token, TokenCertificate, Uri, is_uri

if TYPE_CHECKING:
    from ..pins import PinProvider


def _token_uri(name: str) -> Uri:
    return Uri.parse(name) if is_uri(name) else Uri(token=name)


def find_tokens(manager: SlotManager, name: str) -> list[Token]:
    """All present tokens that `name`, a label or a URI, fits; loads a URI's module.  Raises ConfigurationError, TokenError."""
    uri = _token_uri(name)
    if uri.module_path:
        manager.load(uri.module_path)
    if uri.vendor:  # not known, so nothing matches (RFC 7512 section 2.5)
        return []
    slots = [slot for slot in manager.slots() if uri.matches_module(slot.module) and uri.matches_slot(slot)]
    return [token for slot in slots if (token := slot.token) is not None and uri.matches_token(token.info)]


def find_token(manager: SlotManager, name: str) -> Token:
    """The one token that `name` fits.  Raises NotFound, Ambiguous."""
    tokens = find_tokens(manager, name)
    uri = _token_uri(name)  # for messages: as text it is without a PIN
    if not tokens:
        shown = [token.info for token in manager.tokens() if token.info.module]  # the internal one keeps nothing
        present = ", ".join(repr(info.label) for info in shown if info.label) or "none"
        raise NotFound(f"no token fits {uri}; present: {present}")
    if len(tokens) > 1:
        found = "; ".join(f"{token.info.label!r} serial {token.info.serial} in slot {token.info.slot_id}" for token in tokens)
        raise Ambiguous(f"{uri} fits {len(tokens)} tokens: {found}")
    return tokens[0]


def find_key(manager: SlotManager, source: str, pin: PinProvider | None) -> PrivateKey:
    """The key that a URI or the path of a file (PEM, PKCS#8, PKCS#12) names.  Raises NotFound, Ambiguous, PinError, OSError."""
    if is_uri(source):
        return manager.find_key(source, pin)
    key, _ = manager.load_key_file(source, pin)
    return key


def require_type(uri: str, kind: str) -> None:
    """Refuse, before something is deleted, a URI that names an object of another type than `kind`.  Raises ConfigurationError.

    Elsewhere a certificate's URI may stand for the key beside it; here that would delete what nobody named.
    """
    parsed = Uri.parse(uri)
    if parsed.type not in (None, kind):
        raise ConfigurationError(f"{parsed} names an object of type {parsed.type}, not {kind}")


def find_certificate(manager: SlotManager, uri: str, pin: PinProvider | None) -> TokenCertificate:
    """The one certificate that a URI names.  Raises NotFound, Ambiguous, PinError."""
    found = manager.find_certificates(uri, pin)
    if not found:
        raise NotFound(f"{Uri.parse(uri)}: no such certificate", name="SEC_ERROR_UNKNOWN_CERT")
    if len(found) > 1:
        raise Ambiguous(f"{Uri.parse(uri)} names {len(found)} certificates: {', '.join(one.uri for one in found)}")
    return found[0]


def token_of(manager: SlotManager, item: PrivateKey | TokenCertificate) -> Token:
    """The token that holds a key or certificate."""
    return next(token for token in manager.tokens() if token.info == item.token)


def named_tokens(manager: SlotManager, name: str | None) -> list[Token]:
    """The one token that `name` fits, or all initialised ones without a name.  Raises NotFound, Ambiguous."""
    if name is not None:
        return [find_token(manager, name)]
    return [token for token in manager.tokens() if "CKF_TOKEN_INITIALIZED" in token.flags]


# --- login -----------------------------------------------------------------------------------------------------------

_CAN_LOG_IN = frozenset({"CKF_LOGIN_REQUIRED", "CKF_USER_PIN_INITIALIZED"})


def pin_for(name: str | None, pin: PinProvider | None) -> PinProvider | None:
    """Who is asked for the PIN of what `name` names: a URI's own pin-value or pin-source wins.  Raises ConfigurationError."""
    return (_token_uri(name).provider() if name is not None else None) or pin


def log_in_all(tokens: list[Token], pin: PinProvider | None) -> list[str]:
    """Log in to all `tokens` that want it; without a PIN source to none.  The labels of those left out.

    Only a person may be asked for several: a PIN of one token never goes to another.  Raises PinError.
    """
    wanting = [token for token in tokens if token.flags >= _CAN_LOG_IN and not token.logged_in]
    labels = [token.info.label for token in wanting]
    if pin is None:
        return labels
    if len(wanting) > 1 and not pin.person:
        raise ConfigurationError(f"one PIN for several tokens ({', '.join(labels)}): name one with --token")
    for token in wanting:
        token.login(pin)
    return []
