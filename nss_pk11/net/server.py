"""The server: one loop, one thread, any number of connections.

Theory of operation
-------------------

Sockets do not block.  A connection is *read* when the kernel says there is something, the engine is *advanced* until it asks
no more, what it queued is *flushed* with one send, and the application is asked for more as long as the kernel takes it.
Most connections cost one registration with epoll in their whole life: a socket is tried first and watched only when it
would block.

Back-pressure is one rule: a connection is watched for *either* reading or writing or neither, never both.  While output is
stuck it is not read; while its engine waits for a key it is not read either.  So what one peer can make us hold is one
read, one application chunk and one engine's queue.  While a connection renegotiates, its application is asked for nothing.

A key operation runs in place where the token is quicker than a thread switch, else in a worker thread; the thread puts the
answer in a queue and wakes the loop.  The engine of a connection is only ever touched by the loop.

A connection that fails is its own misfortune: the alert goes out, the writing side is shut, and what the peer still sends
is thrown away for a moment (`LINGER`), since closing with unread input would reset the connection and the alert with it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from ..errors import HandshakeTimeout, InternalError, NSPRError, TokenError, Truncated
from ..tls.engine import Engine
from ..tls.events import (
    Data,
    ForgetSession,
    HandshakeCompleted,
    NewSession,
    PeerCertificate,
    PeerClosed,
    RenegotiationDeclined,
    StoreSession,
)
from ..tls.waits import (
    ChooseClientIdentity,
    Decrypt,
    DecryptSsl2,
    KeaRespond,
    KeaResume,
    LookupSession,
    Operation,
    Sign,
    VerifyPeer,
)
from .connection import Application, Connection, Deadlines, Echo
from .executor import KeyExecutor, NotQuick
from .purposes import PURPOSES
from .sizes import READ_SIZE

if TYPE_CHECKING:
    from ..tls.config import ServerConfig

log = logging.getLogger(__name__)

ACCEPT_BATCH = 16  # connections accepted before others get their turn
BUFFERS_PER_CALL = 512  # of one sendmsg; Linux takes 1024 (IOV_MAX)
CHUNKS_PER_TURN = 8  # what an application may produce before others get their turn
LINGER = 5.0  # seconds that a connection we ended may take to hear it; a slow peer may be in the middle of a long message
DRAIN_IDLE = 5.0  # seconds: the idle timeout while draining
OUT_OF_FILES_PAUSE = 0.25  # seconds without accepting when the process has no file descriptor left

_IN, _OUT, _NOTHING = select.EPOLLIN, select.EPOLLOUT, 0
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Server:
    """Serves `listeners` (bound, listening sockets, which it owns) until `drain` or `stop`.

    `application`: makes one per connection when its handshake is complete.  `closed`: called with each connection that has
    ended, for the log.  Times in seconds: `handshake_timeout` for the whole handshake, `idle_timeout` without a byte either
    way, `drain_timeout` for open requests after `drain`.  `shared`: other processes accept from the same listeners;
    `drain_when_closed`: drain when the other end of this socket is closed.
    """

    def __init__(
        self,
        config: ServerConfig,
        executor: KeyExecutor,
        listeners: Sequence[socket.socket],
        application: Callable[[Connection], Application] = Echo,
        *,
        closed: Callable[[Connection], None] = lambda connection: None,
        turn_over: Callable[[], None] = lambda: None,
        handshake_timeout: float = 10.0,
        idle_timeout: float = 60.0,
        drain_timeout: float = 30.0,
        shared: bool = False,
        drain_when_closed: socket.socket | None = None,
    ) -> None:
        PURPOSES.claim_all(config)
        self.config, self.executor = config, executor
        self._application, self._closed, self._turn_over = application, closed, turn_over
        self._drain_timeout, self._shared = drain_timeout, shared
        self._handshaking, self._open, self._lingering = Deadlines(handshake_timeout), Deadlines(idle_timeout), Deadlines(LINGER)
        self._tick = max(0.02, min(handshake_timeout, idle_timeout, LINGER) / 4)
        self._buffer = memoryview(bytearray(READ_SIZE))  # one for all connections: the engine copies what it keeps
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._answers: deque[tuple[Connection, Operation, object, BaseException | None]] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._parent = drain_when_closed
        self._resume_accepting = self._look_again = self._next_look = 0.0
        self._batch = 1
        self._stop = self._drain_wanted = self.draining = False
        self._drained_by = 0.0
        self._handlers: dict[type, Callable[[Connection, object], None]] = {
            Sign: self._operate,
            Decrypt: self._operate,
            DecryptSsl2: self._operate,
            KeaRespond: self._operate,
            KeaResume: self._operate,
            LookupSession: self._operate,
            VerifyPeer: self._operate,
            ChooseClientIdentity: self._operate,
            HandshakeCompleted: self._handshake_completed,
            Data: self._data,
            PeerClosed: self._peer_closed,
            StoreSession: lambda _, event: executor.store(event.session_id, event.state),  # type: ignore[attr-defined]
            ForgetSession: lambda _, event: executor.forget(event.session_id),  # type: ignore[attr-defined]
            PeerCertificate: lambda _, event: None,
            NewSession: lambda _, event: None,
            RenegotiationDeclined: lambda _, event: None,
        }

    # --- the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop`, or until a `drain` is over.  Closes everything it owns but the executor."""
        try:
            self._start()
            while not self._stop:
                timed = self._connections or self.draining or self._resume_accepting or self._shared
                others = []
                for fd, _ in self._poll.poll(self._tick if timed else None):
                    connection = self._connections.get(fd)
                    if connection is not None:
                        self._event(connection)
                    else:
                        others.append(fd)
                for fd in others:  # last: a new connection must not get the event of an old one whose number it inherits
                    if fd in self._listeners:
                        self._accept(self._listeners[fd])
                    else:
                        self._woken(fd)
                now = monotonic()
                if now >= self._next_look or self.draining:
                    self._next_look = now + self._tick
                    self._housekeeping(now)
                self._turn_over()
        finally:
            self._close_all()

    def drain(self) -> None:
        """Accept no more, let open requests end, close what is idle; then `run` returns.  For signal handlers and threads."""
        self._drain_wanted = True
        self._wake()

    def stop(self) -> None:
        """`run` returns at once, closing everything.  For signal handlers and threads."""
        self._stop = True
        self._wake()

    @property
    def connections(self) -> int:
        return len(self._connections)

    def _start(self) -> None:
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._poll.register(self._wake_reader.fileno(), _IN)
        if self._parent is not None:
            self._poll.register(self._parent.fileno(), select.EPOLLRDHUP)
        self._watch_listeners()

    def _watch_listeners(self) -> None:
        # EPOLLEXCLUSIVE: of several processes that share a listener one is woken per connection, not all.
        mask = _IN | (select.EPOLLEXCLUSIVE if self._shared else 0)
        for fd, listener in self._listeners.items():
            listener.setblocking(False)
            with contextlib.suppress(OSError):  # no TCP
                # Handed down to what is accepted.  Flights are sent whole, so waiting for more (Nagle) only delays them.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._poll.register(fd, mask)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it is over
            self._wake_writer.send(b"\0")

    def _woken(self, fd: int) -> None:
        if self._parent is not None and fd == self._parent.fileno():
            self._poll.unregister(fd)
            self._drain_wanted = True
        with contextlib.suppress(BlockingIOError):
            self._wake_reader.recv(4096)
        while self._answers:
            connection, operation, result, error = self._answers.popleft()
            if connection.future is not None:  # or it ended meanwhile
                connection.future = None
                self._guarded(connection, self._answer, operation, result, error)
        if self._drain_wanted and not self.draining:
            self._begin_drain()

    def _begin_drain(self) -> None:
        """What the kernel has accepted is served, what has begun ends, and who is idle is told goodbye: at once if it has been
        served before, after a moment if its first request may be on its way."""
        listeners, self._listeners = list(self._listeners.values()), {}
        for listener in listeners:
            while self._accept(listener):
                pass
            listener.close()
        self.draining, self._drained_by = True, monotonic() + self._drain_timeout
        self._open.seconds = min(self._open.seconds, DRAIN_IDLE)
        for connection in self._open:
            if connection.unsent is None:
                self._guarded(connection, self._flush)

    def _housekeeping(self, now: float) -> None:
        for connection in self._handshaking.expired(now):
            self._guarded(connection, self._too_late)
        for connection in self._open.expired(now):
            self._expire(connection)
        for connection in self._lingering.expired(now):
            self._close(connection)
        if self._shared and not self._resume_accepting and now >= self._look_again:
            # A process that was woken for a connection and died before it took it leaves it to nobody.
            self._look_again = now + 1.0
            for listener in self._listeners.values():
                self._accept(listener)
        if self._resume_accepting and now >= self._resume_accepting:
            self._resume_accepting = 0.0
            self._watch_listeners()
        if self.draining and (not self._connections or now >= self._drained_by):
            self._stop = True

    def _too_late(self, connection: Connection) -> None:
        """The handshake's time is over: whose fault is it?"""
        seconds, operation = self._handshaking.seconds, connection.engine.pending
        if connection.future is None or operation is None:
            raise HandshakeTimeout(f"the peer did not finish the handshake within {seconds:g} s")
        self._abandon_key_operation(connection)
        late = f"the token did not answer within the {seconds:g} s of the handshake"
        connection.engine.fail(operation, TokenError(late, name="PR_IO_TIMEOUT_ERROR"))

    # --- accepting -----------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> bool:
        """Take as many connections as came last time, and twice that when there are more: most calls then ask for no more
        than there are.  Returns whether there may be more."""
        for accepted in range(self._batch):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                self._batch = accepted or 1
                return False
            except OSError as error:
                if error.errno in _SCARCE:
                    self._pause_accepting(error)
                    return False
                continue  # the peer is gone already (ECONNABORTED and the like)
            sock.setblocking(False)
            now = monotonic()
            connection = Connection(sock, address, Engine.server(self.config), now)
            self._connections[sock.fileno()] = connection
            self._handshaking.add(connection, now)
            self._guarded(connection, self._read)
        self._batch = min(2 * self._batch, ACCEPT_BATCH)
        return True

    def _pause_accepting(self, error: OSError) -> None:
        log.warning("cannot accept: %s; %d connections are open", error.strerror, len(self._connections))
        if not self._resume_accepting:
            for fd in self._listeners:
                self._poll.unregister(fd)
        self._resume_accepting = monotonic() + OUT_OF_FILES_PAUSE

    # --- one connection --------------------------------------------------------------------------------------------------

    def _event(self, connection: Connection) -> None:
        if connection.deadlines is self._lingering:
            self._discard(connection)
        elif connection.mask == _IN:
            self._guarded(connection, self._read)
        elif connection.mask == _OUT:
            self._guarded(connection, self._flush)
        else:  # EPOLLHUP or EPOLLERR while it waits for a key: nobody is left to sign for
            connection.error = Truncated("peer went away while the token worked")
            self._close(connection)

    def _guarded(self, connection: Connection, step: Callable[..., None], *arguments: object) -> None:
        """Run a step of one connection; whatever it raises ends that connection and no other."""
        try:
            step(connection, *arguments)
        except NSPRError as error:
            self._end(connection, error)
        except OSError as error:
            if not (connection.finishing and connection.engine.peer_closed):  # else both were done, and the peer was quicker
                connection.error = connection.error or _transport_error(error)
            self._close(connection)
        except Exception as error:
            log.exception("a bug: the connection from %s is closed", connection.address)
            self._end(connection, InternalError(f"{type(error).__name__}: {error}"))

    def _read(self, connection: Connection) -> None:
        try:
            count = connection.sock.recv_into(self._buffer)
        except BlockingIOError:
            self._watch(connection, _IN)
            return
        engine = connection.engine
        if count:
            connection.bytes_in += count
            engine.receive_data(self._buffer[:count])
        else:
            engine.receive_eof()
        self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Handle events until the engine has no more to say, then send what it queued."""
        engine, handlers = connection.engine, self._handlers
        while events := engine.events():
            for event in events:
                handlers[type(event)](connection, event)
        self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        """Send what is queued, then what the application has to add; watch for whatever it stops at."""
        application = connection.application
        for _ in range(CHUNKS_PER_TURN):
            if not self._send(connection):
                self._watch(connection, _OUT)
                return
            if connection.finishing or application is None or connection.engine.holding or not application.produce():
                break
        else:
            self._watch(connection, _OUT)  # there is more; it is writable at once, so its turn comes after the others'
            return
        engine = connection.engine
        idle = application is not None and connection.used and not application.busy
        done = connection.finishing or (self.draining and idle)
        if engine.peer_closed or (done and not engine.holding):
            self._say_goodbye(connection)
        else:
            self._watch(connection, _IN if engine.pending is None else _NOTHING)

    def _send(self, connection: Connection) -> bool:
        """Whether everything queued is gone."""
        while True:
            out = connection.unsent or connection.engine.buffers_to_send()
            if not out:
                return True
            try:
                sent = connection.sock.send(out[0]) if len(out) == 1 else connection.sock.sendmsg(out[:BUFFERS_PER_CALL])
            except BlockingIOError:
                connection.unsent = list(out)
                return False
            connection.bytes_out += sent
            connection.unsent = _after(out, sent)
            self._touch(connection)

    def _touch(self, connection: Connection) -> None:
        if connection.deadlines is self._open:
            self._open.add(connection, monotonic())

    def _watch(self, connection: Connection, mask: int) -> None:
        before = connection.mask
        if before != mask:
            connection.mask = mask
            if before == -1:
                self._poll.register(connection.sock.fileno(), mask)
            else:
                self._poll.modify(connection.sock.fileno(), mask)

    # --- events of the engine ----------------------------------------------------------------------------------------------

    def _operate(self, connection: Connection, event: object) -> None:
        operation: Operation = event  # type: ignore[assignment]
        try:
            result = self.executor.run_if_quick(operation, connection.address)
        except NotQuick:
            answer = partial(self._answered, connection, operation)
            timeout = self._time_left(connection)
            connection.future = self.executor.submit(operation, answer, timeout, connection.address)  # type: ignore[arg-type]
        except Exception as error:
            connection.engine.fail(operation, error)
        else:
            connection.engine.complete(operation, result)

    def _time_left(self, connection: Connection) -> float:
        """For a key operation, seconds: it must fail before its handshake's time is over, or nobody hears that it was the
        token's.
        """
        allowed = self._handshaking.seconds
        spent = monotonic() - connection.started if connection.deadlines is self._handshaking else 0.0
        return allowed - spent - min(0.5, 0.1 * allowed)

    def _answered(self, connection: Connection, operation: Operation, result: object, error: BaseException | None) -> None:
        """In a worker thread."""
        self._answers.append((connection, operation, result, error))
        self._wake()

    def _answer(self, connection: Connection, operation: Operation, result: object, error: BaseException | None) -> None:
        if error is not None:
            connection.engine.fail(operation, error)
        else:
            connection.engine.complete(operation, result)
        self._advance(connection)

    def _handshake_completed(self, connection: Connection, event: object) -> None:
        now = monotonic()
        if connection.application is not None:  # a renegotiation
            self._open.add(connection, now)
            return
        connection.handshake_seconds = now - connection.started
        self._open.add(connection, now)
        connection.application = self._application(connection)

    def _data(self, connection: Connection, event: object) -> None:
        connection.used = True
        self._touch(connection)
        if not connection.finishing and connection.application is not None:
            connection.application.data_received(event.data)  # type: ignore[attr-defined]

    def _peer_closed(self, connection: Connection, event: object) -> None:
        if connection.application is not None:
            connection.application.eof_received()

    # --- the end of a connection ---------------------------------------------------------------------------------------------

    def _end(self, connection: Connection, error: NSPRError) -> None:
        """The connection failed: let the peer hear why, if it can still hear."""
        connection.error = connection.error or error
        for event in connection.engine.events():
            if isinstance(event, ForgetSession):  # RFC 5246 section 7.2.2
                self._handlers[ForgetSession](connection, event)
        try:
            connection.engine.close()  # nothing where the engine failed itself: it has queued its alert
            if self._send(connection) and not isinstance(error, Truncated):
                self._linger(connection)
                return
        except OSError:
            pass
        self._close(connection)

    def _say_goodbye(self, connection: Connection) -> None:
        """Send close_notify and let the peer close first, so that nothing we sent is lost."""
        connection.finishing = True
        connection.engine.close()
        if not self._send(connection):
            self._watch(connection, _OUT)
        elif connection.engine.peer_closed:
            self._close(connection)  # the peer has said that it sends no more, so there is nothing to linger for
        else:
            self._linger(connection)

    def _expire(self, connection: Connection) -> None:
        """Idle for too long."""
        if connection.unsent is None:
            self._guarded(connection, self._say_goodbye)
        else:
            connection.error = HandshakeTimeout(f"the peer did not read for {self._open.seconds:g} s")
            self._close(connection)

    def _linger(self, connection: Connection) -> None:
        self._abandon_key_operation(connection)
        with contextlib.suppress(OSError):  # the peer has gone first: `_discard` finds out
            connection.sock.shutdown(socket.SHUT_WR)
        self._lingering.add(connection, monotonic())
        self._discard(connection)

    def _discard(self, connection: Connection) -> None:
        """Throw away what a peer still sends after our goodbye, until it closes."""
        try:
            if connection.sock.recv_into(self._buffer):
                self._watch(connection, _IN)
            else:
                self._close(connection)
        except BlockingIOError:
            self._watch(connection, _IN)
        except OSError:
            self._close(connection)

    def _abandon_key_operation(self, connection: Connection) -> None:
        if connection.future is not None:
            connection.future.cancel()
            connection.future = None

    def _close(self, connection: Connection) -> None:
        if self._connections.pop(connection.sock.fileno(), None) is None:
            return
        self._abandon_key_operation(connection)
        if connection.deadlines is not None:
            connection.deadlines.drop(connection)
        connection.sock.close()  # which also takes it out of epoll
        self._closed(connection)
        connection.application = None  # it knows the connection: without this cycle all of it is freed now, its files closed

    def _close_all(self) -> None:
        for connection in list(self._connections.values()):
            self._close(connection)
        for listener in self._listeners.values():
            listener.close()
        self._turn_over()
        self._poll.close()
        self._wake_reader.close()
        self._wake_writer.close()


def _after(out: Sequence[bytes | memoryview], sent: int) -> list[bytes | memoryview] | None:
    """What is left of the buffers when `sent` bytes are gone; None for nothing."""
    for index, buffer in enumerate(out):
        if sent < len(buffer):
            return [memoryview(buffer)[sent:], *out[index + 1 :]]
        sent -= len(buffer)
    return None


def _transport_error(error: OSError) -> NSPRError:
    """The connection broke under us."""
    return Truncated(f"connection broke: {error.strerror}", name=_TRANSPORT_NAMES.get(error.errno or 0, "PR_IO_ERROR"))


_TRANSPORT_NAMES = {
    errno.ECONNRESET: "PR_CONNECT_RESET_ERROR",
    errno.EPIPE: "PR_CONNECT_RESET_ERROR",
    errno.ETIMEDOUT: "PR_IO_TIMEOUT_ERROR",
}
