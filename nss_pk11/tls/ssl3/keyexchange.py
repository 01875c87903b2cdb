"""Key exchange, the small interface behind which RSA, DHE and ECDHE lie (RFC 5246 sections 7.4.3 and 7.4.7).

A server shows parameters (what its ServerKeyExchange signs; RSA has some in export suites only) and turns a ClientKeyExchange
into the premaster secret; a client reads parameters and turns them into its ClientKeyExchange and the premaster secret.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import Certificate, ExtensionNotFound, KeyUsage

from ...errors import CertificateError, IllegalParameter
from ..codec import Reader
from ..codepoints import Group, Version
from ..config import ClientConfig, ServerConfig
from ..link import Steps
from ..messages.hello import ClientHello
from ..signatures import UNREADABLE, key_kind
from ..suites import Suite
from .choice import Choice
from .dhe import DheClient, DheServer
from .ecdhe import EcdheClient, EcdheServer
from .fortezza import FortezzaClient, FortezzaServer
from .rsa import RsaClient, RsaServer
from .rsa_export import RsaExportClient, RsaExportServer


class ServerKeyExchange(Protocol):
    """`parameters`: what goes into ServerKeyExchange, signed but in FORTEZZA suites; b"" where there is no such message."""

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


def for_server(choice: Choice, hello: ClientHello, version: Version, config: ServerConfig) -> ServerKeyExchange:
    suite = choice.suite
    if choice.group is not None:
        return EcdheServer(choice.group) if suite.key_exchange.startswith("ecdhe") else DheServer(choice.group)
    begins = hello.version.to_bytes(2, "big") if config.rollback_detection else b""
    if suite.key_exchange == "fortezza":
        return FortezzaServer(choice.identity, begins, suite.cipher.kind == "token", config.random)
    if choice.scheme is None:
        return RsaServer(choice.identity, begins, version, config.random)
    assert config.step_down is not None
    return RsaExportServer(config.step_down(suite.rsa_limit), begins, version, config.random)


def for_client(suite: Suite, leaf: Certificate, hello: ClientHello, version: Version, config: ClientConfig) -> ClientKeyExchange:
    """Raises IllegalParameter where the server's certificate does not fit the suite it chose, CertificateError where it must
    not be used so."""
    if not _fits(suite, key_kind(leaf)):
        raise IllegalParameter("server's certificate does not fit the suite it chose", name="SEC_ERROR_UNSUPPORTED_KEYALG")
    _check_usage(suite, leaf)
    if suite.key_exchange.startswith("ecdhe"):
        return EcdheClient(config.groups)
    if suite.key_exchange.startswith("dhe"):
        return DheClient(config.least_dh_bits, named_only=config.named_dh_groups_only)
    if suite.key_exchange == "fortezza":
        return FortezzaClient(hello.version.to_bytes(2, "big"), suite.cipher.kind == "token", config.random)
    if has_parameters(suite, leaf):
        return RsaExportClient(suite.rsa_limit, hello.version, version, config.random)
    key = leaf.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return RsaClient(key, hello.version, version, config.random)


# Key exchange -> kinds of the keys that can do their part; curves and EdDSA keys go with ecdsa suites (RFC 8422 section 5.10).
_KINDS = {
    "rsa": ("rsa",),
    "rsa_export": ("rsa",),
    "dhe_rsa": ("rsa", "rsa-pss"),
    "ecdhe_rsa": ("rsa", "rsa-pss"),
    "dhe_dss": ("dsa",),
    "fortezza": ("kea",),
}
_OTHERS = frozenset({"rsa", "rsa-pss", "dsa", "kea"})


def _fits(suite: Suite, kind: str) -> bool:
    """Whether a key of `kind` can do its part."""
    return kind in _KINDS[suite.key_exchange] if suite.key_exchange in _KINDS else kind not in _OTHERS


def _check_usage(suite: Suite, leaf: Certificate) -> None:
    """keyUsage, where present, must allow what the suite does with the key (RFC 5246 section 7.4.2)."""
    try:
        usage = leaf.extensions.get_extension_for_class(KeyUsage).value
    except ExtensionNotFound:
        return
    except UNREADABLE:
        raise CertificateError("server's certificate has extensions that do not parse", name="SEC_ERROR_BAD_DER") from None
    if suite.key_exchange == "fortezza":
        if not usage.key_agreement:
            raise CertificateError("server's key may not agree on keys", name="SEC_ERROR_INADEQUATE_KEY_USAGE")
        return
    signs = has_parameters(suite, leaf)
    if not (usage.digital_signature if signs else usage.key_encipherment):
        verb = "sign" if signs else "decrypt"
        raise CertificateError(f"server's key may not {verb}, says its certificate", name="SEC_ERROR_INADEQUATE_KEY_USAGE")


def has_parameters(suite: Suite, leaf: Certificate) -> bool:
    """Whether the server sends a ServerKeyExchange; in export suites if its own key, which fits, is too long for them."""
    if suite.export:
        key = leaf.public_key()
        return isinstance(key, rsa.RSAPublicKey) and key.key_size > suite.rsa_limit
    return suite.key_exchange != "rsa"
