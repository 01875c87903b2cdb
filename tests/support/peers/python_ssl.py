"""Python's own `ssl` (the OpenSSL it was built with), in this process: the server in a thread."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any, Self

from nss_pk11.tls.codepoints import Group, Version
from nss_pk11.tls.suites import BY_NAME

from .base import HOST, REQUEST, TIMEOUT, Result, Want

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = {Version.tls1_2: ssl.TLSVersion.TLSv1_2, Version.tls1_3: ssl.TLSVersion.TLSv1_3}
CURVES = {Group.secp256r1: "prime256v1", Group.secp384r1: "secp384r1", Group.secp521r1: "secp521r1", Group.x25519: "X25519"}


def _context(want: Want, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    if want.version:
        context.minimum_version = context.maximum_version = VERSIONS[want.version]
    if want.suite and want.suite.max_version == Version.tls1_2:
        context.set_ciphers(want.suite.openssl)
    if want.group:
        context.set_ecdh_curve(CURVES[want.group])
    if want.alpn:
        context.set_alpn_protocols(list(want.alpn))
    if want.credential:
        context.load_cert_chain(want.credential.chain_file, want.credential.key_file)
    if want.ca:
        context.load_verify_locations(want.ca)
    return context


def client_context(want: Want, keylog: Path | None = None) -> ssl.SSLContext:
    context = _context(want, ssl.PROTOCOL_TLS_CLIENT)
    if not want.ca:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif not want.server_name:
        context.check_hostname = False
    if keylog:
        context.keylog_filename = str(keylog)
    return context


def fetch(port: int, context: ssl.SSLContext, request: bytes = REQUEST) -> bytes:
    """The whole answer to one request."""
    with (
        socket.create_connection((HOST, port), TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(request)
        return b"".join(iter(lambda: tls.recv(65536), b""))


def python_client(port: int, want: Want) -> Result:
    """One connection (two with `want.resume`: the result tells of the second)."""
    context = client_context(want)
    result = _connect(port, want, context, None)
    if want.resume and result[0].ok:
        result = _connect(port, want, context, result[1])
    return result[0]


def _connect(
    port: int, want: Want, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[Result, ssl.SSLSession | None]:
    try:
        with (
            socket.create_connection((HOST, port), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=want.server_name or None, session=session) as tls,
        ):
            tls.sendall(want.request)
            answer = b"".join(iter(lambda: tls.recv(65536), b""))
            return _result(tls, answer), tls.session
    except (ssl.SSLError, OSError) as error:
        return Result(ok=False, alert=str(error), output=repr(error)), None


def _result(tls: ssl.SSLSocket, answer: bytes) -> Result:
    suite = (tls.cipher() or ("", "", 0))[0]
    peer: Any = tls.getpeercert() or {}
    names = [value for group in peer.get("subject", ()) for name, value in group if name == "commonName"]
    return Result(
        ok=True,
        version=tls.version() or "",
        suite=BY_NAME[suite].name if suite in BY_NAME else suite,
        resumed=bool(tls.session_reused),
        alpn=tls.selected_alpn_protocol() or "",
        subject=names[0] if names else "",
        answer=answer,
    )


class PythonServer:
    """Answers each connection's first request with "HTTP/1.0 200 OK" and the names of version and suite, then closes.

    `results`: what it saw of each connection, newest last.
    """

    def __init__(self, want: Want) -> None:
        self.want = want
        self.results: list[Result] = []
        self._context = _context(want, ssl.PROTOCOL_TLS_SERVER)
        modes = {"none": ssl.CERT_NONE, "request": ssl.CERT_OPTIONAL, "require": ssl.CERT_REQUIRED}
        self._context.verify_mode = modes[want.client_auth]
        if want.alpn:
            self._context.set_alpn_protocols(list(want.alpn))
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="python-ssl-server")
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                plain.settimeout(TIMEOUT)
                with plain:
                    self._serve(plain)

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as tls:
                request = tls.recv(65536)
                result = _result(tls, request)
                self.results.append(result)
                tls.sendall(f"HTTP/1.0 200 OK\r\n\r\n{result.version} {result.suite}".encode())
                with contextlib.suppress(OSError):
                    tls.unwrap()
        except (ssl.SSLError, OSError) as error:
            self.results.append(Result(ok=False, alert=str(error), output=repr(error)))

    @property
    def output(self) -> str:
        return "\n".join(map(str, self.results))

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
