"""Key exchange, the small interface behind which RSA, DHE and ECDHE lie (RFC 5246 sections 7.4.3 and 7.4.7).

A server shows parameters (what its ServerKeyExchange signs, none for RSA) and turns a ClientKeyExchange into the premaster
secret; a client reads parameters and turns them into its ClientKeyExchange and the premaster secret.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.x509 import Certificate, DuplicateExtension, ExtensionNotFound, KeyUsage

from ...errors import CertificateError, IllegalParameter
from ..codec import Reader
from ..codepoints import Group
from ..config import ClientConfig, Identity, ServerConfig
from ..link import Steps
from ..messages.hello import ClientHello
from ..signatures import key_kind
from ..suites import Suite
from .dhe import DheClient, DheServer
from .ecdhe import EcdheClient, EcdheServer
from .rsa import RsaClient, RsaServer


class ServerKeyExchange(Protocol):
    """`parameters`: what goes into ServerKeyExchange and is signed; b"" where there is no such message."""

    parameters: bytes

    def receive(self, raw: bytes) -> Steps[bytes]:
        """The premaster secret, from the ClientKeyExchange `raw`."""


class ClientKeyExchange(Protocol):
    """`group`: the named group that was used, None for RSA and unnamed groups."""

    group: Group | None

    def read_parameters(self, reader: Reader) -> None:
        """Takes the parameters off a ServerKeyExchange, up to its signature.  Not called where there is no such message."""

    def answer(self) -> tuple[bytes, bytes]:
        """The ClientKeyExchange message, and the premaster secret."""


def for_server(
    suite: Suite, identity: Identity, group: Group | None, hello: ClientHello, config: ServerConfig
) -> ServerKeyExchange:
    if suite.key_exchange == "rsa":
        return RsaServer(identity, hello.version, config.random)
    assert group is not None
    return DheServer(group) if suite.key_exchange == "dhe_rsa" else EcdheServer(group)


def for_client(suite: Suite, leaf: Certificate, hello: ClientHello, config: ClientConfig) -> ClientKeyExchange:
    """Raises IllegalParameter where the server's certificate does not fit the suite it chose, CertificateError where it must
    not be used so."""
    if not _fits(suite, key_kind(leaf)):
        raise IllegalParameter("server's certificate does not fit the suite it chose", name="SEC_ERROR_UNSUPPORTED_KEYALG")
    _check_usage(suite, leaf)
    if suite.key_exchange == "rsa":
        return RsaClient(leaf, hello.version, config.random)
    return DheClient() if suite.key_exchange == "dhe_rsa" else EcdheClient(config.groups)


def _fits(suite: Suite, kind: str) -> bool:
    """Whether a key of `kind` can do its part.  EdDSA keys go with ecdsa suites (RFC 8422 section 5.10)."""
    if suite.key_exchange == "rsa":
        return kind == "rsa"
    return kind.startswith("rsa") == (suite.key_exchange != "ecdhe_ecdsa")


def _check_usage(suite: Suite, leaf: Certificate) -> None:
    """keyUsage, where present, must allow what the suite does with the key (RFC 5246 section 7.4.2)."""
    try:
        usage = leaf.extensions.get_extension_for_class(KeyUsage).value
    except ExtensionNotFound:
        return
    except (ValueError, DuplicateExtension):
        raise CertificateError("server's certificate has extensions that do not parse", name="SEC_ERROR_BAD_DER") from None
    if not (usage.digital_signature if has_parameters(suite) else usage.key_encipherment):
        verb = "sign" if has_parameters(suite) else "decrypt"
        raise CertificateError(f"server's key may not {verb}, says its certificate", name="SEC_ERROR_INADEQUATE_KEY_USAGE")


def has_parameters(suite: Suite) -> bool:
    """Whether the server sends a ServerKeyExchange."""
    return suite.key_exchange != "rsa"
