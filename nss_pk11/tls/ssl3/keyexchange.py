"""Key exchange, the small interface behind which RSA, DHE and ECDHE lie (RFC 5246 sections 7.4.3 and 7.4.7).

A server shows parameters (what its ServerKeyExchange signs, none for RSA) and turns a ClientKeyExchange into the premaster
secret; a client reads parameters and turns them into its ClientKeyExchange and the premaster secret.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.x509 import Certificate

from ...errors import IllegalParameter
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
    """Raises IllegalParameter where the server's certificate does not fit the suite it chose."""
    kind = key_kind(leaf)
    if authentication(suite) != ("rsa" if kind.startswith("rsa") else "ecdsa") or (kind, suite.key_exchange) == (
        "rsa-pss",
        "rsa",
    ):
        raise IllegalParameter("server's certificate does not fit the suite it chose", name="SEC_ERROR_UNSUPPORTED_KEYALG")
    if suite.key_exchange == "rsa":
        return RsaClient(leaf, hello.version, config.random)
    return DheClient() if suite.key_exchange == "dhe_rsa" else EcdheClient(config.groups)


def authentication(suite: Suite) -> str:
    """ "rsa" or "ecdsa": the key the server's certificate needs.  EdDSA keys go with ecdsa suites (RFC 8422 section 5.10)."""
    return "ecdsa" if suite.key_exchange == "ecdhe_ecdsa" else "rsa"


def has_parameters(suite: Suite) -> bool:
    """Whether the server sends a ServerKeyExchange."""
    return suite.key_exchange != "rsa"
