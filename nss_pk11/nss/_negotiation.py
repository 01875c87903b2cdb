"""What later NSS lets a socket negotiate beside suites and versions: application protocols, groups, signatures (ssl.h)."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigurationError, NSPRError
from ..tls.codepoints import Group, SignatureScheme
from ._configs import SCHEMES
from ._layers import PRFileDesc
from ._settings import settings_of
from .prerror import sets_error

__all__ = [
    "SSL_NamedGroupConfig",
    "SSL_SendAdditionalKeyShares",
    "SSL_SetNextProtoNego",
    "SSL_SignatureMaxCount",
    "SSL_SignatureSchemePrefGet",
    "SSL_SignatureSchemePrefSet",
]


@sets_error
def SSL_SetNextProtoNego(fd: PRFileDesc, data: bytes) -> None:
    r"""The application protocols to offer or to choose from, each after a byte with its length: b"\x08http/1.1" (ssl.h).

    The first is the last resort, the others are preferred in their order, as NPN had it.  b"": none.
    Raises NSPRError: SSL_ERROR_NEXT_PROTOCOL_DATA_INVALID, PR_BAD_DESCRIPTOR_ERROR.
    """
    settings = settings_of(fd)
    protocols = _protocols(data)
    settings.alpn = (*protocols[1:], *protocols[:1])
    settings.changed()


def _protocols(data: bytes) -> tuple[str, ...]:
    found: list[str] = []
    while data:
        length, name, data = data[0], data[1 : 1 + data[0]], data[1 + data[0] :]
        if not length or len(name) < length:
            raise NSPRError("a protocol's length is wrong", name="SSL_ERROR_NEXT_PROTOCOL_DATA_INVALID")
        found.append(name.decode("latin-1"))
    return tuple(found)


@sets_error
def SSL_NamedGroupConfig(fd: PRFileDesc, groups: Sequence[int] | None) -> None:
    """The groups to agree on keys in, `SSLNamedGroup` numbers, the best first; unknown ones are passed over (ssl.h).

    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) where none is known; NSPRError (PR_BAD_DESCRIPTOR_ERROR).
    Differs: C takes none, and every handshake that needs one fails."""
    settings = settings_of(fd)
    known = {group.value: group for group in Group}
    chosen = tuple(dict.fromkeys(known[group] for group in groups or () if group in known))
    if not chosen:
        raise ConfigurationError("none of these groups is known")
    settings.groups = chosen
    settings.changed()


@sets_error
def SSL_SendAdditionalKeyShares(fd: PRFileDesc, count: int) -> None:
    """For how many groups beyond the first a TLS 1.3 client sends a key share at once (ssl.h).

    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for less than 0; NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    settings = settings_of(fd)
    if count < 0:
        raise ConfigurationError("there cannot be less than no additional key shares")
    settings.additional_key_shares = int(count)
    settings.changed()


@sets_error
def SSL_SignatureSchemePrefSet(fd: PRFileDesc, schemes: Sequence[int]) -> None:
    """How peers and we ourselves may sign from TLS 1.2 on, `SSLSignatureScheme` numbers, the best first; unknown ones are passed
    over (ssl.h).

    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for none; NSPRError: SSL_ERROR_NO_SUPPORTED_SIGNATURE_ALGORITHM where no
    known one is among them, PR_BAD_DESCRIPTOR_ERROR."""
    settings = settings_of(fd)
    if not schemes:
        raise ConfigurationError("there has to be a signature scheme")
    chosen = tuple(dict.fromkeys(SignatureScheme(scheme) for scheme in schemes if scheme in SCHEMES))
    if not chosen:
        raise NSPRError("none of these signature schemes is known", name="SSL_ERROR_NO_SUPPORTED_SIGNATURE_ALGORITHM")
    settings.schemes = chosen
    settings.changed()


@sets_error
def SSL_SignatureSchemePrefGet(fd: PRFileDesc) -> list[int]:
    """The signature schemes that are permitted, the best first (ssl.h).  Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    settings = settings_of(fd)
    return [int(scheme) for scheme in settings.schemes or SCHEMES]


def SSL_SignatureMaxCount() -> int:
    """How many signature schemes there are (ssl.h)."""
    return len(SCHEMES)
