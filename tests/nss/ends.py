"""Both ends of a connection for tests of SSL sockets: ours, by NSS's functions, and Python's `ssl` (OpenSSL) as the other."""

from __future__ import annotations

import re
import select
import socket
import ssl as python_ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nss_pk11.errors import NSPRError
from nss_pk11.nss import pk11pub, prinrval, prio, prnetdb, ssl
from nss_pk11.nss.prio import PRFileDesc
from tests.db.tools import Tools
from tests.support.peers.base import Process
from tests.support.require import require

HOST = "host.example"  # in the server's certificate
TIMEOUT = 20.0  # seconds: bounds what hangs
TICKS = prinrval.PR_SecondsToInterval(20)

TLS1_2, TLS1_3 = python_ssl.TLSVersion.TLSv1_2, python_ssl.TLSVersion.TLSv1_3
Version = python_ssl.TLSVersion


def write_pem(tools: Tools, nickname: str, directory: Path) -> None:
    """A certificate and key of the database, as files for others: NICKNAME.pem."""
    bundle = directory / f"{nickname}.p12"
    bundle.write_bytes(tools.export(nickname, "out"))
    everything = run(require("openssl"), "pkcs12", "-in", bundle, "-passin", "pass:out", "-nodes", "-clcerts")
    pem = re.findall(r"-----BEGIN .*?-----END [A-Z ]+-----\n", everything, re.DOTALL)
    (directory / f"{nickname}.pem").write_text("".join(pem))


# --- ours ------------------------------------------------------------------------------------------------------------


def loopback(port: int) -> prio.PRNetAddr:
    return prnetdb.PR_InitializeNetAddr(prnetdb.PR_IpAddrLoopback, port)


def nonblocking(fd: PRFileDesc) -> PRFileDesc:
    prio.PR_SetSocketOption(fd, prio.PRSocketOptionData(prio.PR_SockOpt_Nonblocking, True))
    return fd


def serve(fd: PRFileDesc, nickname: str = "server") -> None:
    """Give a socket a certificate and its key."""
    cert = pk11pub.PK11_FindCertFromNickname(nickname)
    ssl.SSL_ConfigSecureServer(fd, cert, pk11pub.PK11_FindKeyByAnyCert(cert), ssl.NSS_FindCertKEAType(cert))


def listening(nickname: str = "server") -> PRFileDesc:
    """An SSL socket that listens on the loopback interface."""
    fd = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    if nickname:
        serve(fd, nickname)
    prio.PR_SetSocketOption(fd, prio.PRSocketOptionData(prio.PR_SockOpt_Reuseaddr, True))
    prio.PR_Bind(fd, loopback(0))
    prio.PR_Listen(fd, 10)
    return fd


def port_of(fd: PRFileDesc) -> int:
    return prio.PR_GetSockName(fd).port


def connected(port: int, url: str = HOST, model: PRFileDesc | None = None, **options: Any) -> PRFileDesc:
    """An SSL socket, connected; hands are not shaken."""
    fd = ssl.SSL_ImportFD(model, prio.PR_NewTCPSocket())
    if url:
        ssl.SSL_SetURL(fd, url)
    prio.PR_Connect(fd, loopback(port), TICKS)
    return fd


def read_all(fd: PRFileDesc) -> bytes:
    return b"".join(iter(lambda: prio.PR_Recv(fd, 65536, 0, TICKS), b""))


def read_exactly(fd: PRFileDesc, amount: int) -> bytes:
    data = b""
    while len(data) < amount:
        more = prio.PR_Recv(fd, amount - len(data), 0, TICKS)
        assert more, data
        data += more
    return data


class Background:
    """A function in a thread, whose result or error is taken when the `with` ends."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive(), "the other end hangs"
        if error is None and self.error is not None:
            raise self.error


class OurServer(Background):
    """Accepts `count` connections of a listening socket, one after the other; `results`: what `handle(fd)` returned for each.

    A connection's NSPRError is a result like any other, by its name: why a handshake failed is for the test to judge."""

    def __init__(self, listener: PRFileDesc, handle: Callable[[PRFileDesc], Any], count: int = 1) -> None:
        super().__init__(self._serve)
        self.port, self.results = port_of(listener), []  # type: tuple[int, list[Any]]
        self._listener, self._handle, self._count = listener, handle, count

    def _serve(self) -> None:
        for _ in range(self._count):
            fd, _ = prio.PR_Accept(self._listener, TICKS)
            try:
                self.results.append(self._handle(fd))
            except NSPRError as error:
                self.results.append(error.name)
            finally:
                if prio.PR_FileDesc2NativeHandle(fd) >= 0:
                    prio.PR_Close(fd)
                del fd
        del self._handle


def echo(fd: PRFileDesc) -> bytes:
    """Answer the first message with itself."""
    data = prio.PR_Recv(fd, 65536, 0, TICKS)
    prio.PR_Send(fd, data, 0, TICKS)
    return data


# --- Python's --------------------------------------------------------------------------------------------------------


def server_context(files: Path, name: str = "server", version: Version | None = None) -> python_ssl.SSLContext:
    context = python_ssl.SSLContext(python_ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / f"{name}.pem")
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def client_context(files: Path, version: Version | None = None, certificate: str = "") -> python_ssl.SSLContext:
    """It verifies, but for extensions that certutil's certificates lack: what Python 3.13 calls strict."""
    context = python_ssl.SSLContext(python_ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files / "ca.pem")
    if certificate:
        context.load_cert_chain(files / f"{certificate}.pem")
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def python_client(port: int, context: python_ssl.SSLContext, session: Any = None) -> python_ssl.SSLSocket:
    """Connected, hands shaken."""
    plain = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    try:
        return context.wrap_socket(plain, server_hostname=HOST, session=session)
    except BaseException:
        plain.close()
        raise


class PythonServer(Background):
    """`handle(sock)` has each of `count` connections after the handshake.  Errors of `ssl` are results."""

    def __init__(self, context: python_ssl.SSLContext, handle: Callable[[python_ssl.SSLSocket], Any], count: int = 1) -> None:
        super().__init__(self._serve)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT)
        self.port: int = self._listener.getsockname()[1]
        self.results: list[Any] = []
        self._context, self._handle, self._count = context, handle, count

    def _serve(self) -> None:
        with self._listener:
            for _ in range(self._count):
                plain, _ = self._listener.accept()
                plain.settimeout(TIMEOUT)
                try:
                    with self._context.wrap_socket(plain, server_side=True) as sock:
                        self.results.append(self._handle(sock))
                except OSError as error:
                    self.results.append(error)
                finally:
                    plain.close()


def python_echo(sock: python_ssl.SSLSocket) -> bytes:
    data = sock.recv(65536)
    sock.sendall(data)
    with suppress(OSError):
        sock.unwrap()
    return data


class ByHand:
    """OpenSSL on a connected socket of Python's, one step at a time: what it says goes when `flush` is called.

    `peer`: its TLS; `sock`: the socket, closed when the `with` ends."""

    def __init__(self, sock: socket.socket, context: python_ssl.SSLContext, *, server_side: bool) -> None:
        sock.settimeout(TIMEOUT)
        self.sock, self._in, self._out = sock, python_ssl.MemoryBIO(), python_ssl.MemoryBIO()
        name = None if server_side else HOST
        self.peer = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=name)

    @property
    def unsaid(self) -> int:
        """Bytes that `flush` would send."""
        return self._out.pending

    def step(self, call: Callable[[], Any]) -> bool:
        """Whether `call`, of `peer`, needs no more from the other end."""
        try:
            call()
        except python_ssl.SSLWantReadError:
            return False
        return True

    def receive(self) -> None:
        """Takes what comes next; waits for it."""
        self._in.write(self.sock.recv(1 << 16))

    def flush(self, more: bytes = b"") -> None:
        """Sends all that was said, and `more` behind it, at once."""
        self.sock.sendall(self._out.read() + more)

    def reset(self) -> None:
        """Ends the connection by a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


@contextmanager
def by_hand(context: python_ssl.SSLContext, url: str = HOST) -> Iterator[tuple[PRFileDesc, ByHand]]:
    """A client of ours, connected and not blocking, and its server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = nonblocking(connected(listener.getsockname()[1], url))
        try:
            with ByHand(listener.accept()[0], context, server_side=True) as far:
                yield fd, far
        finally:
            if prio.PR_FileDesc2NativeHandle(fd) >= 0:
                prio.PR_Close(fd)


def arrived(fd: PRFileDesc, events: int = select.POLLIN) -> None:
    """Waits until the system has something for the socket under `fd`."""
    poll = select.poll()
    poll.register(prio.PR_FileDesc2NativeHandle(fd), events)
    assert poll.poll(TIMEOUT * 1000)


# --- commands --------------------------------------------------------------------------------------------------------


def run(*command: str | Path, input: bytes = b"", status: int | None = 0, environment: dict[str, str] | None = None) -> str:
    """Run a command to its end; all it says."""
    done = subprocess.run(
        [str(part) for part in command], input=input, capture_output=True, timeout=TIMEOUT, check=False, env=environment
    )
    output = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert status is None or done.returncode == status, f"{command[0]}: {done.returncode}\n{output}"
    return output


@contextmanager
def openssl_server(files: Path, *arguments: str, name: str = "server") -> Iterator[int]:
    """openssl s_server on the port this yields."""
    own = ("-cert", files / f"{name}.pem", "-key", files / f"{name}.pem", "-CAfile", files / "ca.pem")
    with Process([require("openssl"), "s_server", "-accept", "127.0.0.1:0", *own, *arguments]) as process:
        yield int(process.wait_for(r"^ACCEPT \S+:(\d+)")[1])
