"""The token server: answers the calls of the shim, a thread for each connection.

This is the only file that knows the socket and in which order things happen around a call: who calls and about which token,
the token's behaviour, the function, the journal, the answer.  The tokens live in a process of their own, so that a host
cannot tell them from hardware, may fork or be killed, and shares no interpreter lock with them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from .abi import CKR, FUNCTIONS, GENERAL_FUNCTIONS, SLOT_FUNCTIONS, ULONG, Refused
from .functions import IMPLEMENTED, Call, Function
from .functions.operations import abandon
from .host import Host
from .journal import Journal
from .machine import Machine, Token
from .memory import Memory, receive

MOST_ARGUMENTS = 8
PATIENCE = 5.0  # seconds for a thread to end once its connection was cut
RETRY = 0.1  # seconds until a connection is accepted after all

_PROCESS = Struct("@Q")
_HEAD = Struct("@2Q")
_REQUESTS = tuple(Struct(f"@{2 + count}Q") for count in range(MOST_ARGUMENTS + 1))

# What these read for certain, and so is asked for at once: data and the length of the room for what comes of them, or data
# and a signature; by the places of arguments, (pointer, length).
_DATA, _ROOM = (1, 2), (4, None)
_INPUTS: dict[str, tuple[tuple[int, int | None], ...]] = {
    **dict.fromkeys(("C_Encrypt", "C_Decrypt", "C_Digest", "C_Sign", "C_EncryptUpdate", "C_DecryptUpdate"), (_DATA, _ROOM)),
    "C_Verify": (_DATA, (3, 4)),
}


class _Entry(NamedTuple):
    """A function as the server needs it."""

    name: str
    function: Function | None
    about: str  # "nothing", "slot", "session"
    inputs: tuple[tuple[int, int | None], ...]


def _about(name: str) -> str:
    return "nothing" if name in GENERAL_FUNCTIONS else "slot" if name in SLOT_FUNCTIONS else "session"


_TABLE = tuple(_Entry(name, IMPLEMENTED.get(name), _about(name), _INPUTS.get(name, ())) for name in FUNCTIONS)


class Server:
    """Serves a machine to the hosts that load the module; `start` and `close`, or as a context manager."""

    def __init__(self, machine: Machine, journal: Journal, path: Path) -> None:
        """Listens at `path` from now on, for this user alone.  Raises OSError."""
        self._machine = machine
        self._journal = journal
        self._path = path
        self._hosts: dict[socket.socket, Host] = {}  # whose a connection is; under Machine.lock
        self._threads: dict[socket.socket, threading.Thread] = {}
        self._closing = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="pk11-tokens: accept", daemon=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(os.fspath(self._path))
        self._path.chmod(0o600)
        self._listener.listen(socket.SOMAXCONN)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Answer calls from now on."""
        self._acceptor.start()

    def close(self) -> None:
        """Cut every connection: hosts get CKR_DEVICE_ERROR, their sessions are gone; remove the socket."""
        self._closing.set()
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._acceptor.ident is not None:
            self._acceptor.join()
        self._listener.close()
        threads = dict(self._threads)
        for connection in threads:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with self._machine.changed:
            self._machine.changed.notify_all()
        for token in list(self._machine.tokens.values()):
            token.behaviour.interrupt()
        deadline = time.monotonic() + PATIENCE
        for thread in threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed; or there are no descriptors left, for now
                if self._closing.wait(RETRY):
                    return
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="pk11-tokens: host", daemon=True)
            self._threads[connection] = thread
            thread.start()

    # --- one connection: one thread of a host -------------------------------------------------------------------------

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError), connection:
                (pid,) = _PROCESS.unpack(receive(connection, _PROCESS.size))
                with self._joined(connection, pid) as host:
                    memory = Memory(connection)
                    memory.reply(CKR.OK)  # the host need not fear any longer that nobody knows of this connection
                    for number, arguments in _requests(connection):
                        self._answer(host, memory, _TABLE[number], arguments)
        finally:
            del self._threads[connection]

    @contextlib.contextmanager
    def _joined(self, connection: socket.socket, pid: int) -> Iterator[Host]:
        """The host with this connection; with its last one it is gone."""
        with self._machine.lock:
            host = self._machine.host(pid)
            self._hosts[connection] = host
        try:
            yield host
        finally:
            with self._machine.lock:
                del self._hosts[connection]
                if host not in self._hosts.values():
                    self._machine.drop(host)

    def _answer(self, host: Host, memory: Memory, entry: _Entry, arguments: tuple[int, ...]) -> None:
        began = time.perf_counter()
        call = Call(host, memory, entry.name, arguments, self._machine, self._token(host, entry, arguments))
        if entry.inputs and call.token is not None:
            memory.expect([(arguments[at], ULONG.size if of is None else arguments[of]) for at, of in entry.inputs])
        rv = _result(call, entry)
        self._journal.add(call, rv, time.perf_counter() - began)
        memory.reply(rv)

    def _token(self, host: Host, entry: _Entry, arguments: tuple[int, ...]) -> Token | None:
        if entry.about == "session":
            session = host.sessions.get(arguments[0])
            return session.token if session else None
        if entry.about == "slot":
            reader = self._machine.reader(arguments[0])
            return reader.token if reader else None
        return None


def _requests(connection: socket.socket) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(number of the function, arguments) each, until the host hangs up.  Raises ConnectionError for anything else."""
    while request := connection.recv(_REQUESTS[-1].size):
        while len(request) < _HEAD.size:
            request += receive(connection, _HEAD.size - len(request))
        number, count = _HEAD.unpack_from(request)
        if number >= len(FUNCTIONS) or count > MOST_ARGUMENTS:
            raise ConnectionError("this is no shim")
        layout = _REQUESTS[count]
        if len(request) < layout.size:
            request += receive(connection, layout.size - len(request))
        yield number, layout.unpack(request)[2:]


def _result(call: Call, entry: _Entry) -> int:
    """Do what was asked; the return value.  ConnectionError: the host has gone meanwhile."""
    if not call.host.initialised and entry.name != "C_Initialize":
        return CKR.CRYPTOKI_NOT_INITIALIZED
    if entry.function is None:
        return CKR.FUNCTION_NOT_SUPPORTED
    try:
        if call.token is None:
            entry.function(call, *call.arguments)
        else:
            with call.token.behaviour.running(call):
                entry.function(call, *call.arguments)
    except Refused as refused:
        if refused.rv != CKR.BUFFER_TOO_SMALL:
            abandon(call)
        return refused.rv
    except OSError:
        raise
    except Exception:
        traceback.print_exc()
        abandon(call)
        return CKR.GENERAL_ERROR
    return CKR.OK
