"""A server that chooses its settings by the name the client asks for (SSLSNISocketConfig, SSL_ReconfigFD of ssl.h).

The engine has its settings before it sees the ClientHello.  So where there is a hook, the bytes of the first flight wait here until
the ClientHello is whole; the hook is asked; then the engine is made by the settings of then, and given what waited.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import DecodeError, IllegalParameter
from ..tls.codepoints import C, H, X
from ..tls.messages.extensions import decode_server_name
from ..tls.messages.hello import ClientHello

if TYPE_CHECKING:
    from ..tls.config import ServerConfig
    from ._settings import Settings
    from ._sslsocket import SSLLayer

SSL_SNI_CURRENT_CONFIG_IS_USED, SSL_SNI_SEND_ALERT = -1, -2

MAX_HELLO = 1 << 17  # bytes that wait; the engine refuses what is longer


class Opening:
    """Of one connection.  `received`: all bytes so far."""

    def __init__(self, layer: SSLLayer) -> None:
        self._layer = layer
        self.received = b""

    def take(self, data: bytes) -> bool:
        """Whether the engine can be made: the ClientHello is whole, or is none, of which the engine knows more."""
        self.received += data
        message, more = _first_message(self.received)
        return not more or len(message) > MAX_HELLO

    def settle(self) -> bool:
        """Ask the hook; False where the client is to hear that its name is unknown."""
        name = _server_name(_first_message(self.received)[0])
        function, argument = self._layer.settings.sni_socket_config or (None, None)
        if not name or function is None:
            return True
        return bool(function(self._layer.descriptor, [name], argument) != SSL_SNI_SEND_ALERT)


def knowing_no_name(config: ServerConfig) -> ServerConfig:
    """The same settings for a server that answers any name with unrecognized_name (RFC 6066 section 3)."""
    identities = tuple(replace(identity, names=()) for identity in config.identities)
    return replace(config, identities=identities, refuse_unknown_names=True)


def _first_message(data: bytes) -> tuple[bytes, bool]:
    """The first handshake message, as far as it is there, and whether more of it is to come."""
    message = b""
    while len(data) >= 5 and data[0] == C.handshake:
        length = int.from_bytes(data[3:5], "big")
        message += data[5 : 5 + length]
        if len(message) >= 4 and len(message) >= (end := 4 + int.from_bytes(message[1:4], "big")):
            return message[:end], False
        if len(data) < 5 + length:
            return message, True
        data = data[5 + length :]
    return message, not data or data[0] == C.handshake


def _server_name(message: bytes) -> str:
    """ "" where the client gives none; what is wrong with its hello the engine will say."""
    try:
        body = ClientHello.decode(message).extensions.get(X.server_name) if message[:1] == bytes((H.client_hello,)) else None
        return decode_server_name(body) if body else ""
    except (DecodeError, IllegalParameter):
        return ""


def reconfigured(own: Settings, model: Settings) -> Settings:
    """Everything of the model's, but hooks and names that it has not set."""
    new = model.copy()
    for name in (
        "auth_certificate",
        "bad_cert",
        "client_auth_data",
        "handshake",
        "sni_socket_config",
        "pin_arg",
        "url",
        "peer_id",
    ):
        if not getattr(model, name):
            setattr(new, name, getattr(own, name))
    return new
