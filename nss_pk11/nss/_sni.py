"""A server that chooses its settings by the name the client asks for (SSL_SNISocketConfigHook, SSL_ReconfigFD of ssl.h).

The engine has its settings before it sees the ClientHello.  So where there is a hook, the bytes of the first flight wait here
until the ClientHello is whole; the hook is asked; then the engine is made by the settings of then, and given what waited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, DecodeError, IllegalParameter
from ..tls.codepoints import C, H, X
from ..tls.messages.extensions import decode_server_name
from ..tls.messages.hello import ClientHello
from ..tls.record.layer import HEADER
from ._layers import PRFileDesc
from ._settings import settings_of
from .prerror import sets_error

if TYPE_CHECKING:
    from ..tls.config import ServerConfig
    from ._connection import Connection

SSL_SNI_CURRENT_CONFIG_IS_USED, SSL_SNI_SEND_ALERT = -1, -2

SSLSNISocketConfig = Callable[[PRFileDesc, list[str], Any], int]

MAX_HELLO = 1 << 17  # bytes that wait; what is longer the engine refuses


@sets_error
def SSL_SNISocketConfigHook(fd: PRFileDesc, func: SSLSNISocketConfig | None, arg: object = None) -> None:
    """Who chooses a server's settings by the names that the client asks for: `func(fd, names, arg)` (ssl.h).

    It calls SSL_ReconfigFD and returns the number of the name, or SSL_SNI_CURRENT_CONFIG_IS_USED, or SSL_SNI_SEND_ALERT, at
    which the handshake ends with unrecognized_name.  Not called where the client names nobody.  Differs: `names` are text, and
    tell their own count.  Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    settings_of(fd).sni_socket_config = None if func is None else (func, arg)


@sets_error
def SSL_ReconfigFD(model: PRFileDesc | None, fd: PRFileDesc) -> PRFileDesc:
    """Give an SSL socket the settings of another; hooks and names that this has not stay as they are (ssl.h).  Returns `fd`.

    Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) without a model, NSPRError (PR_BAD_DESCRIPTOR_ERROR)."""
    if model is None:
        raise ConfigurationError("there is nothing to take settings from")
    settings, own = settings_of(model), settings_of(fd)
    kept = {name: getattr(own, name) for name in _KEPT if not getattr(settings, name)}
    own.take_over(settings)
    for name, value in kept.items():
        setattr(own, name, value)
    return fd


_KEPT = ("auth_certificate", "bad_cert", "client_auth_data", "handshake", "sni_socket_config", "pin_arg", "url", "peer_id")


class Opening:
    """Of one connection.  `received`: all bytes so far, of which each is looked at once."""

    def __init__(self, layer: Connection) -> None:
        self._layer = layer
        self.received = bytearray()
        self._message = bytearray()  # what whole records held
        self._next = 0  # where the next record begins

    def take(self, data: bytes | bytearray | memoryview) -> bool:
        """Whether the engine can be made: the ClientHello is whole, or is none, of which the engine knows more."""
        self.received += data
        return not data or len(self.received) > MAX_HELLO or self._is_whole()

    def _is_whole(self) -> bool:
        received = self.received
        while len(received) >= self._next + HEADER:
            length = int.from_bytes(received[self._next + 3 : self._next + HEADER], "big")
            start, end = self._next + HEADER, self._next + HEADER + length
            if received[self._next] != C.handshake or not length:
                return True
            if len(received) < end:
                return False
            self._message += received[start:end]
            self._next = end
            if len(self._message) >= 4 and len(self._message) >= _length(self._message):
                return True
        return received[self._next : self._next + 1] not in (b"", bytes((C.handshake,)))

    def settle(self, make: Callable[[], ServerConfig]) -> ServerConfig:
        """Ask the hook, and make the settings of then."""
        name = _server_name(bytes(self._message[: _length(self._message)]))
        function, argument = self._layer.settings.sni_socket_config or (None, None)
        known = not name or function is None or function(self._layer.descriptor, [name], argument) != SSL_SNI_SEND_ALERT
        return make() if known else _knowing_no_name(make())


def _knowing_no_name(config: ServerConfig) -> ServerConfig:
    """The same for a server that answers any name with unrecognized_name (RFC 6066 section 3)."""
    identities = tuple(replace(identity, names=()) for identity in config.identities)
    return replace(config, identities=identities, refuse_unknown_names=True)


def _length(message: bytes | bytearray) -> int:
    """Of a handshake message, by its header."""
    return 4 + int.from_bytes(message[1:4], "big")


def _server_name(message: bytes) -> str:
    """ "" where the client gives none; what is wrong with its hello the engine will say."""
    try:
        body = ClientHello.decode(message).extensions.get(X.server_name) if message[:1] == bytes((H.client_hello,)) else None
        return decode_server_name(body) if body else ""
    except (DecodeError, IllegalParameter):
        return ""
