"""The engine: a TLS connection without sockets, tokens, files or a clock of its own.

Theory of operation.  Bytes go in by `receive_data`; the record layer turns them into fragments; fragments of handshake type
are joined into messages; each message is handed to the *flow*, the generator that is the handshake, if it is one the flow
waits for, and is unexpected_message if not.  What the flow sends, and the keys it changes, happen on its `Link` in the order
of its statements.  When the flow needs something only the driver can do, it yields an `Operation`: the engine stops reading
(bytes are kept) and shows it among its events, until `complete` or `fail` answers.  The flow never ends: after a handshake
it waits for what may come next, below TLS 1.3 another handshake.  Nothing here ever blocks.

Every error leaves by one door, `_abort`: the one alert that `errors.alert_for` gives is queued, the engine is dead, the
caller gets the error.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..errors import (
    Alert,
    AlertReceived,
    ConfigurationError,
    DecodeError,
    InternalError,
    NSPRError,
    Truncated,
    UnexpectedMessage,
    alert_for,
)
from . import client, exporter, server
from .codepoints import C, H, HandshakeType, V
from .config import ClientConfig, Config, ServerConfig
from .events import ConnectionInfo, Data, ForgetSession, PeerClosed
from .link import Connected, Flow, Link
from .messages import tls12
from .record.layer import SSL2
from .ssl3 import renegotiation
from .waits import CHANGE_CIPHER_SPEC, NO_CERTIFICATE, NO_RENEGOTIATION, SSL2_MESSAGE, Operation, Receive, Ssl2Message

MAX_HANDSHAKE_MESSAGE = 1 << 17  # bytes
MAX_KEY_UPDATES = 32  # in a row, without application data between them
MAX_WARNINGS = 4  # warning alerts in a row
MAX_HELD = 1 << 20  # bytes of application data that wait for the end of a renegotiation

# Warnings that a flow may wait for, and what it calls them.
_SHOWN_ALERTS: dict[int, int] = {Alert.no_certificate: NO_CERTIFICATE, Alert.no_renegotiation: NO_RENEGOTIATION}

# SSL 3.0 knows few alerts (RFC 6101 section 5.4.2); what else is wrong is a handshake_failure there.
_SSL3_ALERTS: dict[Alert, Alert] = {
    alert: alert
    for alert in (
        Alert.close_notify, Alert.unexpected_message, Alert.bad_record_mac, Alert.decompression_failure, Alert.bad_certificate,
        Alert.unsupported_certificate, Alert.certificate_revoked, Alert.certificate_expired, Alert.certificate_unknown,
        Alert.illegal_parameter,
    )
} | {
    Alert.decode_error: Alert.illegal_parameter,
    Alert.record_overflow: Alert.illegal_parameter,
    Alert.unknown_ca: Alert.certificate_unknown,
    Alert.access_denied: Alert.certificate_unknown,
}  # fmt: skip

_MESSAGE_NAMES: dict[int, str] = {
    H.hello_request: "HELLO_REQUEST",
    H.client_hello: "CLIENT_HELLO",
    H.server_hello: "SERVER_HELLO",
    H.new_session_ticket: "NEW_SESSION_TICKET",
    H.encrypted_extensions: "ENCRYPTED_EXTENSIONS",
    H.certificate: "CERTIFICATE",
    H.compressed_certificate: "CERTIFICATE",
    H.server_key_exchange: "SERVER_KEY_EXCH",
    H.certificate_request: "CERT_REQUEST",
    H.server_hello_done: "HELLO_DONE",
    H.certificate_verify: "CERT_VERIFY",
    H.client_key_exchange: "CLIENT_KEY_EXCH",
    H.finished: "FINISHED",
    H.key_update: "KEY_UPDATE",
}


class Engine:
    """One connection.  Build with `Engine.client(config)` or `Engine.server(config)`; see the module's theory of operation."""

    __slots__ = (
        "_accepts",
        "_closing",
        "_connected",
        "_flow",
        "_key_updates",
        "_link",
        "_warnings",
        "config",
        "error",
        "peer_closed",
        "pending",
    )

    def __init__(self, config: Config, flow: Flow, link: Link) -> None:
        self.config = config
        self._link = link
        self._flow = flow
        self._accepts: tuple[int, ...] = ()
        self._closing = False
        self._connected: Connected | None = None
        self._key_updates = 0
        self._warnings = 0
        self.pending: Operation | None = None
        self.error: NSPRError | None = None
        self.peer_closed = False

    @classmethod
    def client(cls, config: ClientConfig) -> Engine:
        """A client engine; `start` queues its ClientHello."""
        link = Link(config, is_server=False)
        return cls(config, client.connect(link, config), link)

    @classmethod
    def server(cls, config: ServerConfig) -> Engine:
        """A server engine; it waits for a ClientHello."""
        link = Link(config, is_server=True)
        engine = cls(config, server.accept(link, config), link)
        engine._advance(None)
        return engine

    @property
    def info(self) -> ConnectionInfo:
        """What was negotiated; during the first handshake, so far.  During a renegotiation it is still the old that holds."""
        previous = self._link.previous
        return self._link.info if previous is None else previous.info

    @property
    def handshake_complete(self) -> bool:
        """Whether a handshake has been completed, be it that another is under way."""
        return self._link.handshake_complete

    @property
    def handshaking(self) -> bool:
        """Whether a handshake is under way: the first, or another from when we asked for it or the peer began it."""
        return self._link.handshaking

    @property
    def holding(self) -> bool:
        """Whether application data given to `send` now waits for the end of a renegotiation: a driver should wait, too."""
        return self._link.previous is not None

    # --- bytes in, bytes out -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Client: queue the first flight.  Server: nothing.  Raises ConfigurationError if nothing can be offered."""
        if not self._link.is_server and not self._accepts:
            self._guard(self._advance, None)

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes from the peer, any number.  Raises NSPRError once the alert is queued; send `data_to_send()` all the same."""
        self._check_alive()
        if self.peer_closed:
            return  # RFC 8446 section 6.1: what follows close_notify is ignored
        self._link.records.feed(data)
        self._guard(self._process)

    def receive_eof(self) -> None:
        """The transport ended.  Raises Truncated unless the peer said close_notify first (RFC 8446 section 6.1)."""
        if self.info.version == V.ssl2 and self.handshake_complete and self.error is None:
            self._end_without_close_notify()
        if self.error is None and not self.peer_closed:
            when = "" if self.handshake_complete else " during the handshake"
            self._abort(Truncated(f"peer closed the connection without close_notify{when}"))

    def _end_without_close_notify(self) -> None:
        """SSL 2.0 does not know one: whoever is in between can cut the data short."""
        if not self.peer_closed:
            self.peer_closed = True
            self._link.emit(PeerClosed())

    def data_to_send(self) -> bytes:
        """Everything queued, as one flight, and forgets it."""
        return self._link.records.data_to_send()

    def buffers_to_send(self) -> list[bytes]:
        """The same in pieces, for `socket.sendmsg`: bulk data is not copied together.  Empty when there is nothing."""
        return self._link.records.buffers_to_send()

    def events(self) -> list[object]:
        """What happened since the last call, in order."""
        events = self._link.events
        if events:
            self._link.events = []
        return events

    # --- answers ---------------------------------------------------------------------------------------------------------

    def complete(self, operation: Operation, result: object = None) -> None:
        """Answer the pending operation.  Raises NSPRError like `receive_data`; ValueError for an operation not pending."""
        self._settle_operation(operation)
        self._guard(self._resume, result)

    def fail(self, operation: Operation, error: BaseException) -> None:
        """The pending operation could not be done.  Ends the connection and raises what the caller is to see."""
        self._settle_operation(operation)
        if not isinstance(error, NSPRError):
            cause, error = error, InternalError(f"{type(operation).__name__} failed: {type(error).__name__}")
            error.__cause__ = cause
        self._abort(error)

    def _settle_operation(self, operation: Operation) -> None:
        self._check_alive()
        if operation is not self.pending:
            raise ValueError("that operation is not pending")
        self.pending = None

    # --- application data ------------------------------------------------------------------------------------------------

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Queue application data.  Raises ConfigurationError before the handshake is complete or after `close`.

        Between the hellos of a renegotiation and its end, data waits: RFC 5246 allows to send it, but few peers take it.  More
        than MAX_HELD bytes are not kept: PR_WOULD_BLOCK_ERROR, while the connection stays sound.
        """
        self._check_alive()
        if not self.handshake_complete or self._closing:
            name = "SSL_ERROR_HANDSHAKE_NOT_COMPLETED" if not self._closing else "PR_SOCKET_SHUTDOWN_ERROR"
            raise ConfigurationError("application data can only be sent on an open connection", name=name)
        if self._link.previous is not None:
            self._hold(data)
            return
        records = self._link.records
        if records.write is not None and records.write.exhausted:
            self._renew_write_key()
        if data:
            records.send(C.application_data, data if isinstance(data, bytes) else memoryview(data))

    def _hold(self, data: bytes | bytearray | memoryview) -> None:
        if self._link.held + len(data) > MAX_HELD:
            raise ConfigurationError("another handshake is under way", name="PR_WOULD_BLOCK_ERROR")
        if data:
            self._link.hold(bytes(data))

    def close(self) -> None:
        """Queue close_notify: no more data from us (RFC 8446 section 6.1).  Data may still be received."""
        if self.error is None and not self._closing:
            self._closing = True
            self._send_alert(Alert.close_notify, fatal=False)

    def renegotiate(self, *, resume: bool = True, config: Config | None = None) -> None:
        """Start another handshake on an open connection below TLS 1.3 (RFC 5246 section 7.4.1): a client sends its ClientHello,
        a server a HelloRequest.  A HandshakeCompleted ends it, or a RenegotiationDeclined if the peer does not want to.

        `config`: the settings from now on, of the same kind; a client offers its `session` again if `resume`, and a server
        that may not `resume` does a full handshake.  Raises ConfigurationError: SSL_ERROR_HANDSHAKE_NOT_COMPLETED where a
        handshake is under way, SSL_ERROR_RENEGOTIATION_NOT_ALLOWED by `Config.renegotiation` and what the peer knows,
        SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION in TLS 1.3, SSL_ERROR_NO_CIPHERS_SUPPORTED.
        """
        self._check_alive()
        link, config = self._link, config or self.config
        if not link.handshake_complete or link.handshaking:
            raise ConfigurationError("a handshake is under way", name="SSL_ERROR_HANDSHAKE_NOT_COMPLETED")
        if self._closing or self.peer_closed:
            raise ConfigurationError("the connection is being closed", name="PR_SOCKET_SHUTDOWN_ERROR")
        renegotiation.check_allowed(link, config)
        self.use(config)
        self._guard(self._advance, renegotiation.Again(resume))

    def use(self, config: Config) -> None:
        """Other settings, of the same kind, for the next handshake below TLS 1.3, whoever starts it."""
        self.config = self._link.config = config

    def update_keys(self, request_peer: bool = False) -> None:
        """Change our sending key, and ask the peer to change its own (RFC 8446 section 4.6.3).  TLS 1.3 only."""
        self._check_alive()
        self._need_connected("key updates").update_write_key(request_peer)

    def _renew_write_key(self) -> None:
        if self._connected is not None:
            self._connected.update_write_key(False)
        else:
            self._abort(InternalError("key has protected as many records as it may", name="SSL_ERROR_TOO_MANY_RECORDS"))

    def request_client_certificate(self) -> None:
        """Server: ask for a certificate after the handshake (RFC 8446 section 4.6.2).  Answered by a PeerCertificate event.

        Raises ConfigurationError where the client did not offer post_handshake_auth or a request is under way."""
        self._check_alive()
        self._need_connected("post-handshake authentication").request_certificate()

    def _need_connected(self, what: str) -> Connected:
        if not self.handshake_complete:
            raise ConfigurationError(f"{what}: the handshake is not complete", name="SSL_ERROR_HANDSHAKE_NOT_COMPLETED")
        if self._connected is None:
            raise ConfigurationError(f"{what} needs TLS 1.3", name="SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION")
        return self._connected

    def export(self, label: bytes, context: bytes | None, length: int) -> bytes:
        """Keying material, `length` bytes (RFC 8446 section 7.5, RFC 5705)."""
        if not self.handshake_complete:
            raise ConfigurationError("exporters need a complete handshake", name="SSL_ERROR_HANDSHAKE_NOT_COMPLETED")
        return exporter.export(self._link.agreed, label, context, length)

    def channel_binding(self, kind: str) -> bytes:
        """`tls-exporter` (RFC 9266), `tls-server-end-point` or `tls-unique` (RFC 5929).

        Raises ConfigurationError where undefined for this connection."""
        if not self.handshake_complete:
            raise ConfigurationError("channel bindings need a complete handshake", name="SSL_ERROR_HANDSHAKE_NOT_COMPLETED")
        return exporter.channel_binding(self._link.agreed, self._link.is_server, kind)

    # --- the machine -----------------------------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self.error is not None:
            raise self.error

    def _guard(self, step: Any, *arguments: object) -> None:
        """Run one step; the only place where an error of any kind ends the connection."""
        try:
            step(*arguments)
        except NSPRError as error:
            self._abort(error)
        except Exception as bug:  # of ours: the peer hears internal_error, the caller sees the bug itself
            with suppress(InternalError):
                self._abort(InternalError(f"{type(bug).__name__}: {bug}"))
            raise
        finally:
            self._link.records.settle()

    def _abort(self, error: NSPRError) -> None:
        """Queue the alert, close the flow, raise."""
        self.error = error
        self.pending = None
        self._flow.close()
        alert = alert_for(error)
        if alert is not None and not self._closing:
            self._send_alert(alert, fatal=alert != Alert.close_notify)
        if self._link.session_id and not isinstance(error, Truncated):  # no fatal alert: many clients end so, and come back
            self._link.emit(ForgetSession(self._link.session_id))
        raise error

    def _send_alert(self, alert: Alert, fatal: bool) -> None:
        self._link.flush()
        if alert == Alert.certificate_required and self.info.version != V.tls1_3:
            alert = Alert.handshake_failure  # RFC 5246 section 7.4.6
        if self.info.version == V.ssl3:
            alert = _SSL3_ALERTS.get(alert, Alert.handshake_failure)
        self._link.records.send(C.alert, bytes((2 if fatal else 1, alert)))

    def _advance(self, value: object) -> None:
        """Give the flow what it waited for; note what it waits for next."""
        try:
            wait = self._flow.send(value)
        except DecodeError as error:
            if error.name == DecodeError.default_name and isinstance(value, bytes):
                told = isinstance(value, Ssl2Message) and value[0] != H.client_hello
                error.name = _ssl2_error(self._link.is_server) if told else _error_name("MALFORMED", value[0])
            raise
        if isinstance(wait, Receive):
            self._accepts = wait.types
            link = self._link
            link.flush()
            if link.connected is not None:  # taken over, as it refers to the link: no cycles, so no garbage to collect
                self._connected, link.connected = link.connected, None
        else:
            assert isinstance(wait, Operation)
            self.pending = wait
            self._link.emit(wait)

    def _resume(self, result: object) -> None:
        self._advance(result)
        self._process()

    def _process(self) -> None:
        """Work through what has been received until bytes run out or an operation is pending."""
        link = self._link
        while self.pending is None and not self.peer_closed:
            records = link.records  # SSL 2.0's take the place of TLS's
            if link.handshake_input and self._next_message():
                continue
            if self.handshake_complete:
                run = records.next_run()
                if run is not None:
                    data, stray = run
                    if data:
                        self._receive_application_data(data)
                    if stray is not None:
                        self._dispatch(*stray)
                    continue
            record = records.next()
            if record is None:
                return
            self._dispatch(*record)

    def _dispatch(self, content_type: int, fragment: bytes) -> None:
        if self._link.handshake_input and content_type != C.handshake:
            raise UnexpectedMessage("another record inside a handshake message (RFC 8446 section 5.1)")
        if content_type == C.application_data:
            self._receive_application_data(fragment)
        elif content_type == C.handshake:
            self._link.handshake_input += fragment
        elif content_type == C.alert:
            self._receive_alert(fragment)
        elif content_type == C.change_cipher_spec:
            self._receive_change_cipher_spec(fragment)
        elif content_type == SSL2:
            self._receive_ssl2(fragment)
        else:
            raise UnexpectedMessage(f"record of type {content_type}", name="SSL_ERROR_RX_UNKNOWN_RECORD_TYPE")

    def _next_message(self) -> bool:
        """Hand one whole handshake message to the flow.  False when bytes are missing."""
        buffer = self._link.handshake_input
        if len(buffer) < 4:
            return False
        length = int.from_bytes(buffer[1:4], "big")
        if length > MAX_HANDSHAKE_MESSAGE:
            raise DecodeError(f"handshake message of {length} bytes", name="SSL_ERROR_RX_MALFORMED_HANDSHAKE")
        kind = buffer[0]
        if kind not in self._accepts and not (kind == H.hello_request and self._may_ignore_hello_request()):
            self._refuse(kind)
        if len(buffer) < 4 + length:
            return False
        message = bytes(buffer[: 4 + length])
        del buffer[: 4 + length]
        if kind not in self._accepts:
            tls12.require_empty(message)
            return True
        if self.handshake_complete and kind == H.key_update:
            self._key_updates += 1
            if self._key_updates > MAX_KEY_UPDATES:
                raise UnexpectedMessage(f"{self._key_updates} KeyUpdates in a row", name="SSL_ERROR_TOO_MANY_KEY_UPDATES")
        self._advance(message)
        return True

    def _may_ignore_hello_request(self) -> bool:
        """A client ignores HelloRequest while it shakes hands (RFC 5246 section 7.4.1.1), within reason."""
        self._warnings += 1
        old_client = not self._link.is_server and self.info.version != V.tls1_3
        return old_client and self._link.handshaking and self._warnings <= MAX_WARNINGS

    def _refuse(self, kind: int) -> None:
        if kind not in _MESSAGE_NAMES:
            raise UnexpectedMessage(f"handshake message of unknown type {kind}", name="SSL_ERROR_RX_UNKNOWN_HANDSHAKE")
        raise UnexpectedMessage(f"{HandshakeType(kind).name} has no place here", name=_error_name("UNEXPECTED", kind))

    def _receive_application_data(self, data: bytes | bytearray) -> None:
        """Also in a renegotiation, as long as the keys are those of a handshake that was completed."""
        if not self._link.handshake_complete or self._link.unverified:
            raise UnexpectedMessage(
                "application data before the handshake is complete", name="SSL_ERROR_RX_UNEXPECTED_APPLICATION_DATA"
            )
        if data:
            self._key_updates = self._warnings = self._link.refusals = 0
            self._link.emit(Data(data))

    def _receive_change_cipher_spec(self, fragment: bytes) -> None:
        """TLS 1.2's message of its own content type, shown to the flow as the pseudo-type CHANGE_CIPHER_SPEC."""
        if CHANGE_CIPHER_SPEC not in self._accepts or self._link.handshake_input:
            raise UnexpectedMessage("change_cipher_spec has no place here", name="SSL_ERROR_RX_UNEXPECTED_CHANGE_CIPHER")
        if fragment != b"\x01":
            raise UnexpectedMessage(
                "change_cipher_spec that is not the single byte 1", name="SSL_ERROR_RX_MALFORMED_CHANGE_CIPHER"
            )
        self._advance(fragment)

    def _receive_ssl2(self, fragment: bytes) -> None:
        """A message of SSL 2.0, whose records carry one each, is shown to the flow as the pseudo-type SSL2_MESSAGE."""
        if SSL2_MESSAGE not in self._accepts or not fragment:
            raise UnexpectedMessage("a message of SSL 2.0 has no place here", name=_ssl2_error(self._link.is_server))
        self._advance(Ssl2Message(fragment))

    def _receive_alert(self, fragment: bytes) -> None:
        """RFC 8446 section 6, RFC 5246 section 7.2."""
        if len(fragment) != 2:
            raise DecodeError(f"alert record of {len(fragment)} bytes", name="SSL_ERROR_RX_MALFORMED_ALERT")
        level, description = fragment
        if description == Alert.close_notify:
            self.peer_closed = True
            if not self.handshake_complete:
                raise AlertReceived(description, "peer closed the connection during the handshake")
            self._link.emit(PeerClosed())
            return
        if level == 1 and _SHOWN_ALERTS.get(description) in self._accepts:
            self._advance(fragment)
            return
        warning = level == 1 and (self.info.version != V.tls1_3 or description == Alert.user_canceled)
        if not warning:
            raise AlertReceived(description)
        self._warnings += 1
        if self._warnings > MAX_WARNINGS:
            raise UnexpectedMessage(f"{self._warnings} warning alerts in a row", name="SSL_ERROR_RX_UNEXPECTED_ALERT")


def _ssl2_error(is_server: bool) -> str:
    """Whose fault it is, which is all that NSS says of SSL 2.0."""
    return "SSL_ERROR_BAD_CLIENT" if is_server else "SSL_ERROR_BAD_SERVER"


def _error_name(what: str, kind: int) -> str:
    name = _MESSAGE_NAMES.get(kind, "HANDSHAKE")
    return f"SSL_ERROR_RX_{what}_{name}"
