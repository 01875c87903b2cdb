"""The SSL layer of a descriptor: an engine, driven by whatever calls the application makes.

Theory of operation
-------------------

Everything is a step that never waits (`_layers`): `_turn` sends what is queued, reads once, gives it to the engine, answers the
engine's questions in place (a token's key, a callback of the application), and sends what came of that.  A call repeats turns
until it has what it is for.  Steps run under one lock, which is not held while a call waits for the peer; so one thread may
read while another writes.  Two readers, or two writers, take turns, as in NSS.

The lock is the thread's own when a callback runs: it may ask about its socket.  Bytes leave in the order in which the engine made
them, whoever sends them: there is one queue, `_unsent` before what the engine still has.

A reader never waits to write: what reading makes us say (an alert, a KeyUpdate's answer) goes as the peer takes it.  A writer
waits until all is sent, on a blocking descriptor; on another it has NSS's way to say that some of it is still here (`_send_now`).

Touches sockets through the layer below; what the engine asks and tells is for `_connection`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ..errors import NSPRError
from ..net.sizes import SEND_SIZE
from ..tls.engine import Engine
from . import _sni
from ._connection import Connection
from ._layers import READ, WRITE, Blocked, Layer, PRNetAddr, SocketLayer

if TYPE_CHECKING:
    from ..tls.config import Config
    from ._settings import Settings

Buffer = bytes | bytearray | memoryview
T = TypeVar("T")

SEND, RECEIVE = 1, 2  # directions that PR_Shutdown ended
MAX_DRAINED = 4  # reads, when a socket is closed


class SSLLayer(Connection):
    """SSL on a socket: what the functions of prio.h do with it."""

    def __init__(self, lower: SocketLayer, settings: Settings, *, connected: bool = False) -> None:
        self._reading, self._writing = threading.RLock(), threading.RLock()
        self._shut, self.connected = 0, connected
        super().__init__(lower, settings)

    def _clear(self) -> None:
        super()._clear()
        self._unsent = memoryview(b"")
        self._owed = b""  # the byte that a non-blocking write did not count
        self._opening: _sni.Opening | None = None

    # --- connecting ------------------------------------------------------------------------------------------------------

    def connect(self, address: PRNetAddr, timeout: int) -> None:
        self._take_role(accepted=False)
        self.lower.connect(address, timeout)
        self.connected = True

    def connect_continue(self, out_flags: int) -> None:
        self.lower.connect_continue(out_flags)
        self.connected = True

    def accept(self, timeout: int) -> tuple[Layer, PRNetAddr]:
        """The new socket inherits every setting."""
        layer, address = self.lower.accept(timeout)
        accepted = SSLLayer(layer.bottom, self.settings.copy(), connected=True)
        accepted._take_role(accepted=True)
        return accepted, address

    def _take_role(self, *, accepted: bool) -> None:
        """SSL_HANDSHAKE_AS_CLIENT and _AS_SERVER turn round what comes by itself."""
        self.is_server = self.settings.role(accepted)

    def reset(self, as_server: bool) -> None:
        """Begin anew, with the next I/O.  Raises NSPRError (PR_INVALID_STATE_ERROR) in a callback that a handshake waits for."""
        with self.lock:
            if self._answering:
                raise NSPRError("the handshake waits for this callback", name="PR_INVALID_STATE_ERROR")
            self._clear()
            self.is_server = as_server

    # --- calls -----------------------------------------------------------------------------------------------------------

    def receive(self, amount: int, flags: int, timeout: int) -> bytes:
        if not self.secure:
            return self.lower.receive(amount, flags, timeout)
        if self._shut & RECEIVE:
            raise NSPRError("reading was shut down", name="PR_SOCKET_SHUTDOWN_ERROR")
        with self._reading:
            return self.drive(lambda: self._receive_now(amount, bool(flags)), timeout)

    def send(self, data: Buffer, flags: int, timeout: int) -> int:
        if not self.secure:
            return self.lower.send(data, flags, timeout)
        if self._shut & SEND:
            raise NSPRError("writing was shut down", name="PR_SOCKET_SHUTDOWN_ERROR")
        view = memoryview(data).cast("B")
        with self._writing:
            if self.lower.nonblocking:
                return self.drive(lambda: self._send_now(view), timeout)
            self.drive(self._ready_to_send, timeout)
            for start in range(0, len(view), SEND_SIZE):
                self.drive(self._queue_now(view[start : start + SEND_SIZE]), timeout)
            return len(view)

    def force_handshake(self, timeout: int) -> None:
        """Until the handshake under way is complete or, unless it is the first, data has come that must be read before."""
        self.drive(self._handshake_now, timeout)

    def begin_again(self, start: Callable[[Engine], None]) -> None:
        """Have the engine begin something, and send what fits of it now."""
        with self.lock:
            assert self.engine is not None
            start(self.engine)
            self._handle_events()
            self._send_what_fits()

    def renegotiate(self, *, resume: bool) -> None:
        """Begin another handshake by the settings of now."""
        config: Config
        if self.is_server:
            config = self._server_config(first=False)
        else:
            known = self.session.offered_again()
            config = self._client_config(known if resume else None)
        self.begin_again(lambda engine: engine.renegotiate(resume=resume, config=config))

    def request_certificate(self) -> None:
        """TLS 1.3: ask the client for its certificate; the next handshake step or read gets it."""
        self.begin_again(lambda engine: engine.request_client_certificate())
        self._awaits_certificate = True

    def available(self) -> int:
        return self.pending if self.secure else self.lower.available()

    def shutdown(self, how: int) -> None:
        if self.secure and how != 0:
            self._say_goodbye()
        self._shut |= {0: RECEIVE, 1: SEND, 2: SEND | RECEIVE}[how]
        self.lower.shutdown(how)

    def close(self) -> None:
        """With close_notify, where the first handshake is complete and none was received."""
        try:
            if self.secure:
                self._say_goodbye()
                self._drain()
        finally:
            with self.lock:
                self.peer_chain = []
                self.local_certificate = None
                self.settings.forget()
                if self.engine is not None and self.engine.error is not None:  # its frames hold what callbacks held
                    self.engine.error.with_traceback(None)
                self.lower.close()  # here, where nobody is about to read from a number that may be another's the next moment

    def _say_goodbye(self) -> None:
        with self.lock:
            engine = self.engine
            if engine is None or not self.first_done or engine.peer_closed or self._shut & SEND:
                return
            engine.close()
            self._send_what_fits()

    def _drain(self) -> None:
        """Throw away what has come and was not read, a server's tickets as a rule: a socket closed over unread data resets the
        connection, and what the peer has not read yet is lost."""
        with suppress(Blocked, NSPRError):
            for _ in range(MAX_DRAINED):
                if not self.lower.read_now():
                    break

    def poll(self, events: int) -> tuple[int, bool]:
        """NSS's ssl_Poll: a handshake waits for what it waits for, whatever the application wants to do after it."""
        if not self.secure or self.is_server is None:
            return events, False
        with self.lock:
            if self._paused is not None:  # nothing that comes changes that
                return WRITE if self._has_unsent() else 0, False
            if not events & (READ | WRITE):
                return events, False
            if self._is_dead():  # the next call tells why
                return events, True
            if not self.first_done and self.connected:
                if self.engine is None:
                    return READ if self.is_server else WRITE, False
                return WRITE if self._has_unsent() else READ, False
            if events & READ:
                waits = READ | WRITE if self._has_unsent() and not self.settings.full_duplex else READ
                return waits, bool(self._received or self._end)
            return READ if self._holds() and not self._has_unsent() else WRITE, False

    # --- steps -----------------------------------------------------------------------------------------------------------

    def drive(self, step: Callable[[], T], timeout: int) -> T:
        def locked() -> T:
            with self.lock:
                return step()

        return super().drive(locked, timeout)

    def _receive_now(self, amount: int, peek: bool) -> bytes:
        self._shake_hands()
        if not amount:
            return b""
        while not self._received and not self._end:
            self._turn_for_data()
        if not self._received:
            return b""
        chunk = self._received[0]
        if not peek:
            if len(chunk) > amount:
                self._received[0] = chunk[amount:]
            else:
                self._received.popleft()
        return bytes(chunk[:amount])

    def _ready_to_send(self) -> None:
        """The handshake is complete, and nothing of another has to wait."""
        self._shake_hands()
        engine = self.engine
        assert engine is not None
        while engine.holding:
            self._turn()
        self._raise_if_token_is_gone()
        self._flush()

    def _queue_now(self, data: memoryview) -> Callable[[], None]:
        """A step that gives `data` to the engine once, and is over when all is sent."""
        queued = False

        def step() -> None:
            nonlocal queued
            assert self.engine is not None
            if not queued:
                while self.engine.holding:
                    self._turn()
                self._raise_if_dead()
                self.engine.send(data)
                queued = True
            self._flush()

        return step

    def _send_now(self, view: memoryview) -> int:
        """On a non-blocking descriptor.  Where the peer does not take all that was encrypted, one byte less than that is counted;
        so the application comes back with this byte, and what is left here is sent (NSS's ssl3_SendApplicationData)."""
        self._ready_to_send()
        start = 0
        if self._owed and view:
            if view[:1] != self._owed:
                raise NSPRError("a write goes on with other data than it had", name="PR_INVALID_STATE_ERROR")
            self._owed, start = b"", 1
        engine = self.engine
        assert engine is not None
        sent = start
        while sent < len(view):
            engine.send(bytes(view[sent : sent + SEND_SIZE]))
            sent = min(len(view), sent + SEND_SIZE)
            try:
                self._flush()
            except Blocked:
                self._owed = bytes(view[sent - 1 : sent])
                if sent == 1:
                    raise
                return sent - 1
        return sent

    def _handshake_now(self) -> None:
        first = not self.first_done
        self._shake_hands()
        engine = self.engine
        assert engine is not None
        if not first or not self._received:
            self._raise_if_dead()
        while not first and (engine.handshaking or self._awaits_certificate) and not self._received:
            if self._end:
                raise NSPRError("the peer closed the connection", name="PR_END_OF_FILE_ERROR")
            self._turn()
        self._flush()

    def _shake_hands(self) -> None:
        """The first handshake, if it is not complete."""
        while not self.first_done or self.step_up.under_way:
            self._turn_for_data()
            if self.first_done and self._received:
                break

    def _begin(self) -> None:
        """Raises NSPRError for what cannot even begin."""
        if self.is_server is None:
            raise NSPRError(
                "nobody said which side this is: PR_Connect, PR_Accept or SSL_ResetHandshake", name="PR_NOT_CONNECTED_ERROR"
            )
        if not self.connected:
            self.lower.name(peer=True)  # raises where it is not
            self.connected = True
        if not self.is_server:
            self.engine = Engine.client(self._client_config(self.session.look_up()))
            self.engine.start()
        elif self.settings.sni_socket_config is None:
            self.engine = Engine.server(self._server_config(first=True))
        else:
            self._opening = _sni.Opening(self)

    def _open(self, opening: _sni.Opening, data: Buffer) -> None:
        """The beginning of a ClientHello by whose name the settings are chosen."""
        if opening.take(data):
            self.engine = Engine.server(opening.settle(lambda: self._server_config(first=True)))
            self._opening = None
            if opening.received:
                self._take_in(opening.received)
            if not data:
                self._take_in(b"")

    # --- turns -----------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Send what can be sent, read once, do what follows.  Raises Blocked where nothing can be read, or NSPRError."""
        if self.engine is None and self._opening is None:
            self._begin()
        self._raise_if_dead()
        self._raise_if_token_is_gone()
        waits, broken = READ, None
        try:
            self._flush()
        except Blocked:
            waits |= WRITE
        except NSPRError as error:  # what the peer said before it went, an alert as a rule, is still to be read
            broken = error
        if self._paused is not None:
            raise broken or Blocked(waits & WRITE)
        try:
            data = self.lower.read_now()
        except Blocked:
            raise broken or Blocked(waits) from None
        self._take_in(data)

    def _turn_for_data(self) -> None:
        """What came before an error is good; the error waits for the next call."""
        try:
            self._turn()
        except NSPRError:
            if not (self.first_done and self._received and self._is_dead()):
                raise

    def _take_in(self, data: Buffer) -> None:
        if self._opening is not None:
            self._open(self._opening, data)
            return
        engine = self.engine
        assert engine is not None
        try:
            if data:
                engine.receive_data(data)
            elif engine.handshaking:
                engine.receive_eof()
            else:
                self._end = True  # as in NSS, whether close_notify came before or not
            self._handle_events()
        except NSPRError:
            self._gather()
            self.session.failed()
            self._send_what_fits()  # the alert
            self._tell_application()  # of a handshake that was complete before
            raise
        self._send_what_fits()
        self._tell_application()

    def _is_dead(self) -> bool:
        return self.engine is not None and self.engine.error is not None

    def _holds(self) -> bool:
        """Whether data would have to wait for the end of a renegotiation."""
        return self.engine is not None and self.engine.holding

    def _raise_if_dead(self) -> None:
        engine = self.engine
        if engine is not None and engine.error is not None:
            raise engine.error.with_traceback(None)

    def _raise_if_token_is_gone(self) -> None:
        """A client's connection ends with the token that it has proved itself by."""
        if self.client_token is not None and self.first_done:
            self.client_token.check()

    def _flush(self) -> None:
        """Send all that is queued.  Raises Blocked."""
        while self._has_unsent():
            self._unsent = self._unsent[self.lower.send_now(self._unsent) :]

    def _has_unsent(self) -> bool:
        if not self._unsent and self.engine is not None:
            self._unsent = memoryview(self.engine.data_to_send())
        if self._shut & SEND and self.first_done:  # after close_notify nothing is to follow, and nothing can
            self._unsent = memoryview(b"")
        return bool(self._unsent)

    def _send_what_fits(self) -> None:
        """Without complaint: what broke is found out by reading."""
        with suppress(Blocked, NSPRError):
            self._flush()
