"""nss-pk11: TLS with private keys that never leave their PKCS #11 token.

The front door; every name is imported only when it is used.

    from nss_pk11 import ClientConfig, SlotManager, connect, load_identity, pins

    with SlotManager(pins.terminal()) as manager:
        manager.load("/usr/lib/softhsm/libsofthsm2.so")
        me = load_identity(manager, "pkcs11:token=card;object=me")
        with connect("example.org", 443, config=ClientConfig(server_name="example.org", identities=(me,))) as tls:
            tls.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import certs, errors, pins
    from .certs import Trust
    from .net.blocking import TLSSocket
    from .net.client import connect
    from .net.executor import KeyExecutor
    from .net.identity import load_identity
    from .net.server import Server
    from .sessions import ClientCache, ServerCache, TicketKeys
    from .slots import SlotManager
    from .tls.config import ClientConfig, Identity, ServerConfig
    from .tls.engine import Engine

__all__ = [
    "ClientCache",
    "ClientConfig",
    "Engine",
    "Identity",
    "KeyExecutor",
    "Server",
    "ServerCache",
    "ServerConfig",
    "SlotManager",
    "TLSSocket",
    "TicketKeys",
    "Trust",
    "certs",
    "connect",
    "errors",
    "load_identity",
    "pins",
]

# Where each name lives; a room stands for itself.
_HOMES = {
    "ClientCache": "sessions",
    "ClientConfig": "tls.config",
    "Engine": "tls.engine",
    "Identity": "tls.config",
    "KeyExecutor": "net.executor",
    "Server": "net.server",
    "ServerCache": "sessions",
    "ServerConfig": "tls.config",
    "SlotManager": "slots",
    "TLSSocket": "net.blocking",
    "TicketKeys": "sessions",
    "Trust": "certs",
    "connect": "net.client",
    "load_identity": "net.identity",
}
_ROOMS = ("certs", "errors", "pins")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
