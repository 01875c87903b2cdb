"""Reference: the standard library's `ssl` with the key in a file.  `stdlib_server.py CERTIFICATE KEY FILE [--hold | --asyncio]`.

Listens on a free port of 127.0.0.1.  Answers any request with the contents of FILE, 64 KB at a time (OpenSSL makes 16 KB
records of it).  One connection after the other; `--hold` keeps them all open and idle; `--asyncio` serves with streams.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path

CHUNK = 65536


def serve(connection: ssl.SSLSocket, file: Path) -> None:
    """One request, one answer, and the end."""
    if connection.recv(CHUNK):
        with file.open("rb") as content:
            while chunk := content.read(CHUNK):
                connection.sendall(chunk)


def blocking(tls: ssl.SSLContext, listener: socket.socket, file: Path, hold: bool) -> None:
    held = []
    while True:
        plain, _ = listener.accept()
        with suppress(OSError):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = tls.wrap_socket(plain, server_side=True)
            if hold:
                held.append(connection)
                continue
            with connection:
                serve(connection, file)


async def streams(tls: ssl.SSLContext, listener: socket.socket) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read(CHUNK)
            writer.close()

    server = await asyncio.start_server(handle, sock=listener, ssl=tls)
    await server.serve_forever()


def main() -> None:
    certificate, key, file, *options = sys.argv[1:]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        if "--asyncio" in options:
            asyncio.run(streams(tls, listener))
        else:
            blocking(tls, listener, Path(file), "--hold" in options)


if __name__ == "__main__":
    main()
