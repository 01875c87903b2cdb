"""TLS over a blocking socket: the driver for programs that use one thread per connection, and for clients.

Theory of operation
-------------------

The engine is a pure state machine: bytes and answers go in, bytes, events and questions come out.  This file moves them.
Three rules make it safe for one thread that reads and one that writes at the same time:

1. *The engine is touched only under `_lock`*, and the lock is never held over a system call, a token or a callback.  So
   neither thread waits for the other's socket.

2. *Bytes leave in the order in which the engine made them.*  Whoever sets `_sending` is the sender: it alone takes what the
   engine has queued and sends it, without the lock, again and again until nothing is queued; only then, in the same hold of
   the lock that found nothing, it clears `_sending`.  A writer becomes the sender *before* it gives its data to the engine,
   so nobody else ever sends it.  A thread that queues something while another sends may go: the sender will see it.

3. *A reader never waits to write.*  Reading may queue bytes too (a KeyUpdate's answer, an alert).  If the reader waited until
   they are gone, and that took until the peer reads, and the peer does not read before we do, nobody would ever go on.  So
   the reader leaves its bytes to the sender, if there is one; if not, it sends what the kernel takes at once and waits for
   either direction.  A writer does wait, for its turn and for the kernel: that is back-pressure.

Key operations run in place, between two holds of the lock; the engine itself keeps whatever arrives meanwhile.  They happen
in the handshake, which one thread does while others wait, and afterwards, for a renegotiation or post-handshake
authentication, in the reader.  While a connection renegotiates, who wants to send reads until that is over, or waits for
the thread that reads: `_reading` lets one read at a time, and who gets it looks first whether there is still a need.

A timeout is the socket's own, per system call, as in `ssl`; the handshake has one for its whole length on top.  A timeout
while sending leaves the rest queued here, so the connection stays whole, and a later call goes on.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from ..errors import HandshakeTimeout, NSPRError, RenegotiationRefused, Truncated
from ..tls.codepoints import Version
from ..tls.engine import Engine
from ..tls.events import (
    ConnectionInfo,
    Data,
    ForgetSession,
    HandshakeCompleted,
    NewSession,
    RenegotiationDeclined,
    StoreSession,
)
from ..tls.waits import Operation
from .sizes import READ_SIZE, SEND_SIZE

if TYPE_CHECKING:
    from ..tls.config import Config
    from ..tls.session import Session
    from .executor import KeyExecutor

Buffer = bytes | bytearray | memoryview

HANDSHAKE_TIMEOUT = 10.0  # seconds

_scratch = threading.local()


def _read_buffer() -> memoryview:
    """A buffer per thread, not per connection: the engine copies what it keeps, so an idle connection holds none."""
    view: memoryview | None = getattr(_scratch, "view", None)
    if view is None:
        view = _scratch.view = memoryview(bytearray(READ_SIZE))
    return view


class TLSSocket:
    """A TLS connection over a connected, blocking socket, which it owns from now on.

    `executor` runs the engine's operations; `handshake_timeout`: seconds for the whole handshake, None for no limit;
    `on_session`: called with each Session the server lets a client resume.  One thread may read while another writes.
    The handshake runs on first use if `do_handshake` was not called.
    """

    def __init__(
        self,
        sock: socket.socket,
        engine: Engine,
        executor: KeyExecutor,
        *,
        handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
        on_session: Callable[[Session], None] | None = None,
    ) -> None:
        self._sock, self._engine, self._executor = sock, engine, executor
        self._handshake_timeout, self._on_session = handshake_timeout, on_session
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._handshaking = threading.Lock()
        self._reading = threading.RLock()
        self._has_read = threading.Condition()
        self._waiting = 0
        self._until: float | None = None  # when the handshake has to be over
        self._sending = False
        self._unsent = memoryview(b"")
        self._received: deque[memoryview] = deque()
        self._started = self._handshake_done = self._declined = self._end = False

    # --- what is known ---------------------------------------------------------------------------------------------------

    @property
    def info(self) -> ConnectionInfo:
        """What was negotiated."""
        return self._engine.info

    @property
    def engine(self) -> Engine:
        """For what this class does not offer; touch it only while no other thread uses this socket."""
        return self._engine

    def fileno(self) -> int:
        return self._sock.fileno()

    def settimeout(self, timeout: float | None) -> None:
        """Seconds each `recv` or `send` may wait; None waits for ever."""
        self._sock.settimeout(timeout)

    def gettimeout(self) -> float | None:
        return self._sock.gettimeout()

    def pending(self) -> int:
        """Bytes of application data that `recv` returns without reading the socket."""
        return sum(map(len, self._received))

    # --- handshake -------------------------------------------------------------------------------------------------------

    def do_handshake(self) -> None:
        """Shake hands; returns at once if that is done.

        Raises HandshakeTimeout, any TLSError, CertificateError (the peer's certificate is refused), TokenError (our key
        failed) or OSError; the peer has been sent the alert by then.
        """
        if self._handshake_done:
            return
        with self._handshaking, self._deadline(self._handshake_timeout):
            if not self._started:
                self._started = True
                with self._lock:
                    self._engine.start()
                self._send_in_turn()
            self._read_while(self._not_opened)

    def renegotiate(self, *, resume: bool = True, config: Config | None = None) -> None:
        """Shake hands once more, below TLS 1.3, with other settings if `config` is given (`Engine.renegotiate`); returns when
        that is done.  Data that arrives meanwhile is kept for `recv`.

        Raises what `do_handshake` and `Engine.renegotiate` raise, and RenegotiationRefused if the peer does not want to
        (SSL_ERROR_NO_RENEGOTIATION_ALERT: the connection goes on as it was).  A peer may also not answer at all a server that
        asks (RFC 5246 section 7.4.1.1): HandshakeTimeout, and the connection goes on.
        """
        self.do_handshake()
        with self._handshaking, self._deadline(self._handshake_timeout):
            with self._lock:
                self._declined = False
                self._engine.renegotiate(resume=resume, config=config)
            self._send_in_turn()
            self._read_while(self._shaking)
        if self._declined:
            raise RenegotiationRefused("peer does not want to renegotiate", name="SSL_ERROR_NO_RENEGOTIATION_ALERT")

    def _not_opened(self) -> bool:
        if not self._handshake_done and self._engine.error is not None:
            raise self._engine.error
        return not self._handshake_done

    def _shaking(self) -> bool:
        """Whether a renegotiation is under way."""
        engine = self._engine
        if engine.error is not None:
            raise engine.error
        if engine.handshaking and self._end:
            raise Truncated("peer closed the connection instead of renegotiating")
        return engine.handshaking

    def _holding(self) -> bool:
        """Whether it is so far under way that data has to wait."""
        return self._engine.holding and self._shaking()

    @contextmanager
    def _deadline(self, seconds: float | None) -> Generator[None]:
        """The socket's timeouts within, all together, take at most `seconds`."""
        if seconds is None:
            yield
            return
        before = self._sock.gettimeout()
        self._until = time.monotonic() + seconds
        try:
            yield
        except TimeoutError:
            if before is not None and before < seconds and time.monotonic() < self._until:
                raise
            raise HandshakeTimeout(f"the peer did not finish the handshake within {seconds:g} s") from None
        finally:
            self._until = None
            with suppress(OSError):
                self._sock.settimeout(before)

    def _arm(self) -> None:
        """Before a system call during the handshake: the time that is left."""
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            current = self._sock.gettimeout()
            self._sock.settimeout(left if current is None or current > left else current)

    # --- receiving -------------------------------------------------------------------------------------------------------

    def recv(self, size: int = READ_SIZE) -> bytes:
        """At most `size` bytes of application data; b"" once the peer has sent close_notify.

        Raises Truncated if the peer's side ends without close_notify, any other TLSError, TimeoutError, OSError.
        """
        if not self._wait_for_data():
            return b""
        chunk = self._received[0]
        if len(chunk) > size:
            self._received[0] = chunk[size:]
            return bytes(chunk[:size])
        self._received.popleft()
        whole = chunk.obj
        return whole if isinstance(whole, bytes) and len(whole) == len(chunk) else bytes(chunk)

    def recv_into(self, buffer: Buffer, size: int = 0) -> int:
        """As `recv`, into `buffer`; returns how many bytes, 0 at the end.  Fills as much as is at hand."""
        target = memoryview(buffer).cast("B")
        room = size or len(target)
        if not self._wait_for_data():
            return 0
        filled = 0
        while self._received and filled < room:
            chunk = self._received.popleft()
            take = min(len(chunk), room - filled)
            target[filled : filled + take] = chunk[:take]
            filled += take
            if take < len(chunk):
                self._received.appendleft(chunk[take:])
        return filled

    def _wait_for_data(self) -> bool:
        self.do_handshake()
        self._read_while(self._starved)
        return bool(self._received)

    def _starved(self) -> bool:
        return not self._received and not self._end

    def _read_while(self, needed: Callable[[], bool], size: int = READ_SIZE) -> None:
        """Read, at most `size` bytes at a time, until there is no need any more, be it that another thread has read."""
        while needed() and (self._reading.acquire(blocking=False) or self._wait_to_read(needed)):
            try:
                if needed():  # still, now that nobody else reads
                    self._read(size)
            finally:
                self._reading.release()
                if self._waiting:
                    with self._has_read:
                        self._has_read.notify_all()

    def _wait_to_read(self, needed: Callable[[], bool]) -> bool:
        """While another thread reads: whether it is this one's turn, as there is still a need."""
        with self._has_read:
            self._waiting += 1
            try:
                while needed():
                    if self._reading.acquire(blocking=False):
                        return True
                    if not self._has_read.wait(None if self._until is None else max(0.0, self._until - time.monotonic())):
                        raise TimeoutError("timed out")
                return False
            finally:
                self._waiting -= 1

    def _read(self, size: int) -> None:
        """One read of the socket, of at most `size` bytes, and whatever follows from it."""
        if self._engine.error is not None:
            raise self._engine.error
        handshaking = not self._handshake_done
        self._arm()
        if self._unsent and not self._sending:
            self._wait_for_input()
        buffer = _read_buffer()
        count = self._sock.recv_into(buffer, size)
        try:
            with self._lock:
                if count:
                    self._engine.receive_data(buffer[:count])
                else:
                    self._end = True
                    self._engine.receive_eof()
            self._handle_events()
        except NSPRError:
            self._keep_data()  # what came before the error is good
            self._send_what_fits()  # the alert
            if not self._received:  # else whoever reads on hears of it
                raise
        if handshaking:
            self._send_in_turn()
        else:
            self._send_what_fits()

    def _wait_for_input(self) -> None:
        """Wait until there is something to read; meanwhile send what an earlier read left over."""
        poll, timeout = select.poll(), self._sock.gettimeout()
        until = None if timeout is None else time.monotonic() + timeout
        while self._unsent:
            poll.register(self._sock, select.POLLIN | select.POLLOUT)
            ready = poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000)
            if not ready:
                raise TimeoutError("timed out")
            if ready[0][1] & ~select.POLLOUT:
                return
            self._send_what_fits()

    def _keep_data(self) -> None:
        with self._lock:
            events = self._engine.events()
        for event in events:
            if isinstance(event, Data | ForgetSession | HandshakeCompleted):
                self._handle(event)

    def _handle_events(self) -> None:
        """Answer the engine until it asks no more."""
        while True:
            with self._lock:
                events = self._engine.events()
            if not events:
                break
            for event in events:
                self._handle(event)
        if self._engine.peer_closed:
            self._end = True

    def _handle(self, event: object) -> None:
        match event:
            case Data():
                self._received.append(memoryview(event.data))
            case Operation():
                self._operate(event)
            case HandshakeCompleted():
                self._handshake_done = True
            case RenegotiationDeclined():
                self._declined = True
            case NewSession():
                if self._on_session is not None:
                    self._on_session(event.session)
            case StoreSession():
                self._executor.store(event.session_id, event.state)
            case ForgetSession():
                self._executor.forget(event.session_id)

    def _operate(self, operation: Operation) -> None:
        try:
            left = {} if self._until is None else {"timeout": self._until - time.monotonic()}
            result = self._executor.run(operation, peer=self._peer(), **left)
        except Exception as error:
            with self._lock:
                self._engine.fail(operation, error)
        except BaseException as interruption:  # an operation that is never answered would keep the handshake waiting for ever
            with self._lock, suppress(NSPRError):
                self._engine.fail(operation, interruption)
            self._send_what_fits()
            raise
        else:
            with self._lock:
                self._engine.complete(operation, result)

    def _peer(self) -> object:
        try:
            return self._sock.getpeername()
        except OSError:  # it has gone
            return ()

    # --- sending ---------------------------------------------------------------------------------------------------------

    def send(self, data: Buffer) -> int:
        """Send all of `data`; returns its length.  Raises as `sendall`."""
        view = memoryview(data).cast("B")
        self.sendall(view)
        return len(view)

    def sendall(self, data: Buffer) -> None:
        """Send all of `data` (bytes-like; not to be changed before this returns).

        Raises TimeoutError (what was not sent stays queued and goes with the next call), OSError, or the error that ended
        the connection.
        """
        self.do_handshake()
        view = memoryview(data).cast("B")
        for start in range(0, len(view), SEND_SIZE):
            if self._engine.holding:
                self._read_while(self._holding)
            self._send_in_turn(view[start : start + SEND_SIZE])

    def _send_in_turn(self, data: memoryview | None = None) -> None:
        """Wait until no other thread sends; give `data` to the engine, and send all that is queued."""
        with self._turn:
            while self._sending:
                self._turn.wait()
            if data is not None:
                self._engine.send(data)
            self._sending = True
        self._pump(wait=True)

    def _send_what_fits(self) -> None:
        """The reader's way: leave it to the sender if there is one, wait for nothing, and let reading find out what broke."""
        with self._turn:
            if self._sending:
                return
            self._sending = True
        with suppress(OSError):
            self._pump(wait=False)

    def _pump(self, wait: bool) -> None:
        """As the sender: send until nothing is queued or, unless `wait`, the kernel takes no more."""
        try:
            while self._take():
                if wait:
                    self._arm()
                    sent = self._sock.send(self._unsent)
                else:
                    sent = self._sock.send(self._unsent, socket.MSG_DONTWAIT) if self._writable() else 0
                if not sent:
                    self._stop_sending()
                    return
                self._unsent = self._unsent[sent:]
        except BaseException:
            self._stop_sending()
            raise

    def _take(self) -> bool:
        """Whether there is something to send, now in `_unsent`; if not, this thread is the sender no more."""
        with self._turn:
            if not self._unsent:
                self._unsent = memoryview(self._engine.data_to_send())
            if not self._unsent:
                self._sending = False
                self._turn.notify()
            return bool(self._unsent)

    def _stop_sending(self) -> None:
        with self._turn:
            self._sending = False
            self._turn.notify()

    def _writable(self) -> bool:
        # `send` waits by itself on a socket with a timeout, whatever its flags say: so ask first.
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        return bool(poll.poll(0))

    def update_keys(self, request_peer: bool = False) -> None:
        """Change our sending key, and ask the peer to change its own; TLS 1.3.  Raises ConfigurationError."""
        with self._lock:
            self._engine.update_keys(request_peer)
        self._send_in_turn()

    def export(self, label: bytes, context: bytes | None, length: int) -> bytes:
        """Keying material, `length` bytes (RFC 8446 section 7.5, RFC 5705).  Raises ConfigurationError before the handshake."""
        with self._lock:
            return self._engine.export(label, context, length)

    def channel_binding(self, kind: str = "tls-exporter") -> bytes:
        """`tls-exporter` (RFC 9266), `tls-server-end-point` or `tls-unique` (RFC 5929).  Raises ConfigurationError."""
        with self._lock:
            return self._engine.channel_binding(kind)

    # --- the end ---------------------------------------------------------------------------------------------------------

    def shutdown_write(self) -> None:
        """Half-close: send close_notify; what the peer still sends can be read (RFC 8446 section 6.1)."""
        with self._lock:
            if self._engine.error is not None or not self._started:
                return
            self._engine.close()
        self._send_in_turn()
        if self._engine.info.version == Version.ssl2:  # which has no close_notify
            self._sock.shutdown(socket.SHUT_WR)

    def unwrap(self, timeout: float | None = 10.0) -> socket.socket:
        """Send close_notify, wait for the peer's, and give the plain socket back.

        Data that arrives meanwhile is lost.  Raises Truncated, TimeoutError, OSError.
        """
        self.shutdown_write()
        before = self._sock.gettimeout()
        self._sock.settimeout(timeout)
        self._read_while(self._open, 1)  # never beyond the close_notify: what follows it is the plain socket's
        plain = socket.socket(fileno=self._sock.detach())
        plain.settimeout(before)
        return plain

    def _open(self) -> bool:
        self._received.clear()
        return not self._end

    def close(self) -> None:
        """Send close_notify if the connection is sound, without waiting for it to leave, and close the socket."""
        if self._handshake_done and self._sock.fileno() >= 0:
            with self._lock:
                self._engine.close()
            self._send_what_fits()
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
