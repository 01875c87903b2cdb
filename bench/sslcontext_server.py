"""Peer: the standard library's `ssl` on asyncio, its key in a token by the package sslcontext (an OpenSSL provider made with
ctypes).  `sslcontext_server.py MODULE TOKEN PIN`.

Listens on a free port of 127.0.0.1.  The certificate is the token's.  Answers nothing: it is for handshakes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from contextlib import suppress

import sslcontext
from sslcontext.backends import PKCS11Backend


async def serve(tls: ssl.SSLContext, listener: socket.socket) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read(65536)
            writer.close()

    server = await asyncio.start_server(handle, sock=listener, ssl=tls)
    await server.serve_forever()


def main() -> None:
    module, token, pin = sys.argv[1:]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    sslcontext.load_identity(tls, next(PKCS11Backend(module, token=token, pin=pin).identities()))
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        asyncio.run(serve(tls, listener))


if __name__ == "__main__":
    main()
