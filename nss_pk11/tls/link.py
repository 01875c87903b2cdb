"""What a handshake may do to its connection: send messages, change keys, report events.

Every call takes effect in the order it is made, so a key change can never overtake the message before it.  Handshake
messages are gathered and leave in as few records as fit; a key change flushes what belongs under the old keys.

Below TLS 1.3 a connection may shake hands again.  `open_again` sets aside what was agreed so far, which stays what the
connection is known by, until `complete` puts the new in its place, or `stay` the old.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol, TypeVar

from ..errors import UnexpectedMessage
from .codepoints import C
from .config import Config
from .events import ConnectionInfo, HandshakeCompleted, RenegotiationDeclined
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


class Agreed(NamedTuple):
    """What a handshake agreed: its `info`, and what exporters and channel bindings are made of.  No repr shows the secret."""

    info: ConnectionInfo
    exporter_secret: bytes  # TLS 1.3: exporter_master_secret; before: the master secret
    randoms: bytes  # before TLS 1.3: client_random + server_random
    client_finished: bytes  # before TLS 1.3: verify_data
    server_finished: bytes

    def __repr__(self) -> str:
        return f"Agreed(info={self.info!r})"


class Link:
    """`handshake_input`: bytes of handshake messages received and not yet consumed; `handshake_complete`: a handshake has been
    completed; `handshaking`: one is under way; `unverified`: the peer's new keys are in force, its Finished is not verified;
    `may_resume`: the handshake may be abbreviated; `exporter_secret`, `randoms`, `client_finished`, `server_finished`: as in
    `Agreed`; `secure_renegotiation`, `client_version`, `renegotiated`, `renegotiations`, `refusals`: for `ssl3.renegotiation`."""

    __slots__ = (
        "_flight", "_held", "client_finished", "client_version", "config", "connected", "events", "exporter_secret",
        "handshake_complete", "handshake_input", "handshaking", "info", "is_server", "may_resume", "previous", "randoms",
        "records", "refusals", "renegotiated", "renegotiations", "secure_renegotiation", "server_finished", "session_id",
        "unverified",
    )  # fmt: skip

    def __init__(self, config: Config, is_server: bool) -> None:
        self.config = config
        self.is_server = is_server
        self.info = ConnectionInfo()
        self.records = RecordLayer()
        self.events: list[object] = []
        self.handshake_input = bytearray()
        self._flight = bytearray()
        self._held: list[bytes] | None = None  # application data that waits for the end of a renegotiation
        self.previous: Agreed | None = None  # what holds while a renegotiation is under way
        self.exporter_secret = self.randoms = self.client_finished = self.server_finished = b""
        self.client_version = 0  # of the first ClientHello
        self.renegotiations = 0  # asked for by the peer
        self.refusals = 0  # of that, in a row
        self.handshake_complete = self.secure_renegotiation = self.renegotiated = self.unverified = False
        self.handshaking = self.may_resume = True
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
        self.unverified = self.handshaking

    def complete(self) -> None:
        """Both Finished messages are verified."""
        self.flush()
        self.handshake_complete = self.may_resume = True
        self.handshaking = self.unverified = False
        self.events.append(HandshakeCompleted(self.info))
        if self.previous is not None:
            self.previous, self.renegotiated = None, True
            self._release()

    # --- another handshake ---------------------------------------------------------------------------------------------------

    @property
    def agreed(self) -> Agreed:
        """What the last complete handshake agreed; during the first one, what it has so far."""
        return self.previous or Agreed(self.info, self.exporter_secret, self.randoms, self.client_finished, self.server_finished)

    def open_again(self) -> None:
        """A ClientHello begins another handshake."""
        self.previous = self.agreed
        self.handshaking = True
        self.info = ConnectionInfo()
        self.info.version = self.previous.info.version
        self.info.alpn = self.previous.info.alpn  # what speaks above does not change in the middle; NSS and OpenSSL agree

    def stay(self) -> None:
        """The peer wants no other handshake: go on as before."""
        if self.previous is not None:
            self.info = self.previous.info
            self.previous = None
        self.handshaking, self.may_resume = False, True
        self.events.append(RenegotiationDeclined())
        self._release()

    @property
    def held(self) -> int:
        """Bytes of application data that wait for the end of the handshake."""
        return sum(map(len, self._held or ()))

    def hold(self, data: bytes) -> None:
        """Keep application data until the handshake is over."""
        if self._held is None:
            self._held = []
        self._held.append(data)

    def _release(self) -> None:
        held, self._held = self._held or (), None
        for data in held:
            self.records.send(C.application_data, data)

    def emit(self, event: object) -> None:
        self.events.append(event)

    def log_secret(self, label: str, secret: bytes) -> None:
        """One line of NSS key log, where the caller asked for it."""
        if self.config.keylog is not None:
            self.config.keylog(f"{label} {self.info.client_random.hex()} {secret.hex()}")
