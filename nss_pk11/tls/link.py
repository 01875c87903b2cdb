"""What a handshake may do to its connection: send messages, change keys, report events.

Every call takes effect in the order it is made, so a key change can never overtake the message before it.  Handshake
messages are gathered and leave in as few records as fit; a key change flushes what belongs under the old keys.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol, TypeVar

from ..errors import UnexpectedMessage
from .codepoints import C
from .config import Config
from .events import ConnectionInfo, HandshakeCompleted
from .record.layer import ReadProtection, RecordLayer, WriteProtection
from .waits import Wait


class Connected(Protocol):
    """What TLS 1.3 can still do once connected."""

    def update_write_key(self, request_peer: bool) -> None: ...

    def request_certificate(self) -> None: ...


# A handshake: yields waits, is sent their results.
Flow = Generator[Wait, Any, None]
# A step of one, with a result.
T = TypeVar("T")
Steps = Generator[Wait, Any, T]


class Link:
    """`handshake_input`: bytes of handshake messages received and not yet consumed; `exporter_secret`, `randoms`, `finished`:
    left by the handshake for `exporter`."""

    __slots__ = (
        "_flight", "config", "connected", "events", "exporter_secret", "finished", "handshake_complete", "handshake_input",
        "info", "is_server", "randoms", "records", "session_id",
    )  # fmt: skip

    def __init__(self, config: Config, is_server: bool) -> None:
        self.config = config
        self.is_server = is_server
        self.info = ConnectionInfo()
        self.records = RecordLayer()
        self.events: list[object] = []
        self.handshake_input = bytearray()
        self._flight = bytearray()
        self.exporter_secret = b""  # TLS 1.3: exporter_master_secret; TLS 1.2: the master secret
        self.randoms = b""  # TLS 1.2: client_random + server_random, for exporters
        self.finished: bytes = b""  # TLS 1.2: first Finished's verify_data, for tls-unique (RFC 5929 section 3)
        self.handshake_complete = False
        self.connected: Connected | None = None
        self.session_id = b""  # of a TLS 1.2 session in the server's cache, to forget it after a fatal alert

    def send(self, message: bytes) -> None:
        """Queue a handshake message."""
        self._flight += message

    def flush(self) -> None:
        """Turn the gathered messages into records, under the keys in force now."""
        if self._flight:
            self.records.send(C.handshake, self._flight)
            self._flight = bytearray()

    def send_change_cipher_spec(self) -> None:
        self.flush()
        self.records.send(C.change_cipher_spec, b"\x01")

    def change_write_key(self, protection: WriteProtection) -> None:
        self.flush()
        self.records.write = protection

    def change_read_key(self, protection: ReadProtection) -> None:
        """No handshake message may straddle a key change (RFC 8446 section 5.1)."""
        if self.handshake_input:
            raise UnexpectedMessage("handshake message lies across a key change")
        self.records.read = protection

    def complete(self) -> None:
        """Both Finished messages are verified."""
        self.flush()
        self.handshake_complete = True
        self.events.append(HandshakeCompleted(self.info))

    def emit(self, event: object) -> None:
        self.events.append(event)

    def log_secret(self, label: str, secret: bytes) -> None:
        """One line of NSS key log, where the caller asked for it."""
        if self.config.keylog is not None:
            self.config.keylog(f"{label} {self.info.client_random.hex()} {secret.hex()}")
