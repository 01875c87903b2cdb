"""Which foreign stacks there are, as servers and as clients, and what each can do: one table, from which the matrix grows.

What a stack lacks is written here with its reason and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nss_pk11.tls.codepoints import Group, SignatureScheme, Version
from nss_pk11.tls.suites import SUITES, Suite

from . import gnutls, node, nss, openssl, python_ssl
from .base import Result, Want
from .curl import curl
from .gnutls import GnuTLSServer, gnutls_cli
from .nassl_modern import nassl_client
from .node import NodeServer, node_client
from .nss import NSSServer, tstclnt
from .openssl import OpenSSLServer, s_client
from .python_ssl import PythonServer, python_client

if TYPE_CHECKING:
    from pathlib import Path

Server = OpenSSLServer | GnuTLSServer | NSSServer | NodeServer | PythonServer

CLIENTS: dict[str, Callable[[int, Want, Path], Result]] = {
    "openssl": lambda port, want, _: s_client(port, want),
    "gnutls": lambda port, want, _: gnutls_cli(port, want),
    "nss": tstclnt,
    "node": lambda port, want, _: node_client(port, want),
    "python": lambda port, want, _: python_client(port, want),
    "curl": lambda port, want, _: curl(port, want),
    "nassl": lambda port, want, _: nassl_client(port, want),
}
SERVERS: dict[str, Callable[[Want, Path], Server]] = {
    "openssl": lambda want, _: OpenSSLServer(want),
    "gnutls": lambda want, _: GnuTLSServer(want),
    "nss": NSSServer,
    "node": lambda want, _: NodeServer(want),
    "python": lambda want, _: PythonServer(want),
}


@dataclass(frozen=True)
class Abilities:
    """What a stack can be limited to.  `kinds`: of keys whose certificates it understands."""

    suites: frozenset[Suite]
    groups: frozenset[Group]
    schemes: frozenset[SignatureScheme]
    kinds: frozenset[str]


_ALL = frozenset(SUITES)
_NO_CCM = frozenset(suite for suite in SUITES if "CCM" not in suite.cipher.name)
_CLASSIC = frozenset({"rsa", "p256", "p384", "p521"})
_EDWARDS = _CLASSIC | {"ed25519", "ed448", "rsa-pss"}

ABILITIES: dict[str, Abilities] = {
    "openssl": Abilities(_ALL, frozenset(openssl.GROUPS), frozenset(openssl.SCHEMES), _EDWARDS),
    "gnutls": Abilities(_ALL, frozenset(gnutls.GROUPS), frozenset(gnutls.SCHEMES), _EDWARDS),
    # NSS has no CCM suites, no X448 and, in 3.87, no certificates with Edwards keys.
    "nss": Abilities(_NO_CCM, frozenset(nss.GROUPS), frozenset(nss.SCHEMES), _CLASSIC),
    "node": Abilities(_ALL, frozenset(node.GROUPS), frozenset(node.SCHEMES), _EDWARDS | {"mldsa44", "mldsa65", "mldsa87"}),
    "python": Abilities(_NO_CCM, frozenset(python_ssl.CURVES), frozenset(), _EDWARDS),
    "curl": Abilities(_ALL, frozenset(), frozenset(), _EDWARDS),
    "nassl": Abilities(_ALL, frozenset(), frozenset(), _EDWARDS),
}


def key_kind(suite: Suite) -> str:
    """The kind of key whose certificate serves a suite."""
    return "rsa" if suite.key_exchange.endswith("rsa") else "p256"


def version_of(suite: Suite) -> Version:
    return suite.max_version


class ServerPool:
    """Foreign servers, each started when first wanted and kept until the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._running: dict[tuple[str, Want], Server] = {}

    def __call__(self, name: str, want: Want) -> Server:
        if (name, want) not in self._running:
            server = self._running[name, want] = SERVERS[name](want, self._directory)
            self._stack.callback(server.stop)
        return self._running[name, want]

    def close(self) -> None:
        self._stack.close()
