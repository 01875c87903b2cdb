"""How a server opens: it reads one ClientHello, settles the version, and hands over to that version's handshake."""

from __future__ import annotations

from dataclasses import replace

from ..errors import InappropriateFallback, UnsupportedVersion
from .codepoints import H, V, Version
from .config import ServerConfig
from .link import Flow, Link
from .messages import ssl2
from .messages.hello import ClientHello
from .ssl2.keys import check as check_ssl2
from .ssl2.server import ServerHandshake as ServerHandshake2
from .ssl3 import renegotiation
from .ssl3.server import ServerHandshake as ServerHandshake12
from .suites import FALLBACK_SCSV
from .tls13.server import ServerHandshake as ServerHandshake13
from .waits import SSL2_MESSAGE, Receive, Ssl2Message

_VERSIONS = tuple(version for version in Version if version >= V.ssl3)  # to walk an Enum itself costs ten times as much


LONG_HELLO = 1 << 12  # bytes


def accept(link: Link, config: ServerConfig) -> Flow:
    """The whole life of a server connection."""
    link.records.hears_ssl2 = config.v2_hello or config.min_version == V.ssl2
    raw = yield Receive(H.client_hello, SSL2_MESSAGE)
    config = _for_hello(raw, config.at_start())
    hello: ClientHello
    if isinstance(raw, Ssl2Message):
        greeting = ssl2.ClientHello.decode(check_ssl2(link, raw, ssl2.MessageType.client_hello))
        if speaks_ssl2(config, greeting.version):
            link.info.version, link.info.client_random = V.ssl2, greeting.challenge
            yield from ServerHandshake2(link, config).run(greeting)
            return
        hello = greeting.newer(raw)
    else:
        hello = ClientHello.decode(raw)
    link.info.client_random = hello.random
    version = link.info.version = choose_version(config, hello)
    link.records.version = min(version, V.tls1_2)
    if version >= V.tls1_3:
        handshake = ServerHandshake13(link, config).run(hello)
        del hello  # a connection may be idle for long: nothing of its handshake stays behind
        connected = yield from handshake
        del handshake
        yield from connected.run()
    else:
        while True:
            flow = ServerHandshake12(link, config).run(hello)
            del hello
            yield from flow
            del flow
            hello, config = yield from renegotiation.as_server(link, config)
            config = _for_hello(hello.raw, config)


def _for_hello(raw: bytes, config: ServerConfig) -> ServerConfig:
    """The settings, with a memory of their own for a long ClientHello: by thousands of made-up suites and schemes, which what
    follows from them is remembered by, strangers could fill ours."""
    return config if len(raw) <= LONG_HELLO else replace(config)


def speaks_ssl2(config: ServerConfig, offered: int) -> bool:
    """Whether SSL 2.0 is enabled, and no newer version that a ClientHello of SSL 2.0 `offered`."""
    newer = (version for version in _VERSIONS if config.enables(version))
    return config.min_version == V.ssl2 and not any(version <= min(offered, V.tls1_2) for version in newer)


def choose_version(config: ServerConfig, hello: ClientHello) -> Version:
    """The newest version both sides enable.  Raises UnsupportedVersion, and InappropriateFallback where a client that fell
    back could have done better (RFC 7507 section 3)."""
    offered, fallback = hello.offered_versions(), FALLBACK_SCSV in hello.suites
    question = (hello.version, offered, fallback)
    return config.remember(question, lambda: _choose_version(config, hello.version, offered, fallback))


def _choose_version(config: ServerConfig, legacy_version: int, offered: tuple[int, ...], fallback: bool) -> Version:
    common = [version for version in _VERSIONS if version in offered and config.enables(version)]
    newest = max((version for version in offered if version in _VERSIONS), default=0)
    if fallback and newest < config.max_version:
        raise InappropriateFallback("client fell back to an older version though we know a newer one")
    if not common:
        what = Version(newest).label if newest else "nothing we know"
        raise UnsupportedVersion(
            f"client offers {what} at best; {config.min_version.label} to {config.max_version.label} are enabled"
        )
    if common[-1] >= V.tls1_3 and legacy_version <= V.ssl3:  # RFC 8446 appendix D.5
        raise UnsupportedVersion(f"ClientHello.legacy_version is {legacy_version:#06x}")
    return common[-1]
