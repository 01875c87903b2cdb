"""The load generator, a process of its own, the same for every server: `client.py MODE PORT …`.

    client.py handshakes PORT VERSION COUNT SECONDS [--resume]   one after the other
    client.py download PORT PATH                                 one GET over TLS 1.3
    client.py idle PORT COUNT                                    connections held until stdin ends
    client.py crowd PORT VERSION CLIENTS SECONDS                 so many handshakes in flight all the time

It gets ready, says so with an empty line, waits for a line on stdin, does its work and answers with one line of JSON
(`done` operations or bytes; for handshakes also `resumed` and `suite`; for a crowd what `crowd` says).  With `--resume` the
full handshake that earns the session is part of getting ready.

A handshake counts once the server is done with it: the client half-closes and reads to the end of the stream, for in
TLS 1.3 the client is ready before the server has seen its Finished.  Group and suite are pinned in OPENSSL_CONF
(`servers.client_environment`), so that every server does the same work.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
Work = Callable[[], dict[str, object]]
VERSIONS = {"1.3": ssl.TLSVersion.TLSv1_3, "1.2": ssl.TLSVersion.TLSv1_2}
TIMEOUT = 20.0
BETWEEN_PROBES = 0.02
GARBAGE = b"GET / HTTP/1.0\r\n\r\n"  # no TLS: a server answers with an alert, and needs no key for it


def context(version: str) -> ssl.SSLContext:
    """One TLS version, AES-128-GCM, nothing verified: the servers are ours."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    tls.minimum_version = tls.maximum_version = VERSIONS[version]
    tls.set_ciphers("ECDHE+AESGCM+AES128")
    return tls


class Connection:
    """A handshake done over memory buffers, which leaves half-closing to us."""

    def __init__(self, port: int, tls: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost", session=session)
        self._run(self.tls.do_handshake)

    def _run(self, step: Callable[[], T]) -> T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._send()
                self.receive()
            else:
                self._send()
                return result

    def _send(self) -> None:
        if self.outgoing.pending:
            self.socket.sendall(self.outgoing.read())

    def receive(self) -> None:
        """Takes what has come, at least one byte.  Raises EOFError at the end of the stream."""
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("the server ended the connection")
        self.incoming.write(data)

    def session(self) -> ssl.SSLSession:
        """A session to resume; in TLS 1.3, once a ticket has come."""
        while True:
            with suppress(ssl.SSLWantReadError):
                self.tls.read(1)
            session = self.tls.session
            if session is not None and (session.has_ticket or self.tls.version() != "TLSv1.3"):
                return session
            self.receive()

    def close(self) -> None:
        """close_notify and half-close, then waits for the server's end."""
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        with suppress(ConnectionError):  # a server that is done with us already may reset
            self._send()
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(65536):
                pass
        self.socket.close()


def handshakes(port: int, version: str, count: str, seconds: str, *options: str) -> Work:
    """Up to `count` handshakes within `seconds`."""
    tls = context(version)
    session = None
    if "--resume" in options:
        first = Connection(port, tls)
        session = first.session()
        first.close()

    def work() -> dict[str, object]:
        done = resumed = 0
        deadline = time.monotonic() + float(seconds)
        while done < int(count) and time.monotonic() < deadline:
            connection = Connection(port, tls, session)
            connection.close()
            done += 1
            resumed += bool(connection.tls.session_reused)
        return {"done": done, "resumed": resumed, "suite": (connection.tls.cipher() or ("none",))[0]}

    return work


def download(port: int, path: str) -> Work:
    """GETs `path` over HTTP/1.0 and throws it away."""

    def work() -> dict[str, object]:
        total, buffer = 0, bytearray(1 << 18)
        with (
            socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain,
            context("1.3").wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            while count := secure.recv_into(buffer):
                total += count
        return {"done": total}

    return work


def idle(port: int, count: str) -> Work:
    """Opens connections that then do nothing."""
    tls = context("1.3")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held: list[Connection] = []

    def work() -> dict[str, object]:
        held.extend(Connection(port, tls) for _ in range(int(count)))
        return {"done": len(held)}

    return work


async def _step(plain: socket.socket, tls: ssl.SSLObject, bios: tuple[ssl.MemoryBIO, ssl.MemoryBIO], step: Callable[[], T]) -> T:
    """`step` of a TLS connection, once what it waits for has come."""
    loop, (incoming, outgoing) = asyncio.get_running_loop(), bios
    while True:
        try:
            result = step()
        except ssl.SSLWantReadError:
            await loop.sock_sendall(plain, outgoing.read())
            data = await loop.sock_recv(plain, 65536)
            if not data:
                raise EOFError("the server ended the connection") from None
            incoming.write(data)
        else:
            await loop.sock_sendall(plain, outgoing.read())
            return result


async def _connected(port: int) -> socket.socket:
    plain = socket.socket()
    plain.setblocking(False)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
    return plain


async def _handshake(port: int, context: ssl.SSLContext) -> None:
    """One, to the end of the stream, as `Connection` does it."""
    with await _connected(port) as plain:
        incoming, outgoing = bios = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        await _step(plain, tls, bios, tls.do_handshake)
        with suppress(ssl.SSLError):
            tls.unwrap()
        with suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(plain, outgoing.read())
            plain.shutdown(socket.SHUT_WR)
            while await asyncio.get_running_loop().sock_recv(plain, 65536):
                pass


async def _probe(port: int) -> None:
    """Waits for the answer to garbage."""
    with await _connected(port) as plain, suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(plain, GARBAGE)
        await asyncio.get_running_loop().sock_recv(plain, 1)


async def _crowd(port: int, tls: ssl.SSLContext, clients: int, seconds: float) -> dict[str, object]:
    begin = last = time.monotonic()
    done, waits = 0, []

    async def client() -> None:
        nonlocal done, last
        while time.monotonic() < begin + seconds:
            await asyncio.wait_for(_handshake(port, tls), TIMEOUT)
            done, last = done + 1, time.monotonic()

    async def prober() -> None:
        while (start := time.monotonic()) < begin + seconds:
            await asyncio.wait_for(_probe(port), TIMEOUT)
            waits.append(time.monotonic() - start)
            await asyncio.sleep(BETWEEN_PROBES)

    await asyncio.gather(prober(), *(client() for _ in range(clients)))
    return {"done": done, "seconds": last - begin, "worst_wait": max(waits)}


def crowd(port: int, version: str, clients: str, seconds: str) -> Work:
    """So many clients at once, each beginning a handshake when its last is over, and one connection after the other that needs
    no key.

    Answers `done` handshakes, in how many `seconds` (those begun in time are ended), and the `worst_wait` of a connection that
    needs no key, in seconds too: how long the server stands still.
    """
    tls = context(version)
    return lambda: asyncio.run(_crowd(port, tls, int(clients), float(seconds)))


MODES: dict[str, Callable[..., Work]] = {"handshakes": handshakes, "download": download, "idle": idle, "crowd": crowd}


def main() -> None:
    mode, port, *rest = sys.argv[1:]
    work = MODES[mode](int(port), *rest)
    print(flush=True)
    sys.stdin.readline()
    print(json.dumps(work()), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
