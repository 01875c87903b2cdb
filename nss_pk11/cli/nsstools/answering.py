"""What a client of `selfserv` gets for its request: an HTTP answer that repeats it, or a file; perhaps another handshake."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ...nss.prerror import NSPRError
from ...nss.prio import PR_Close, PR_Read, PR_Write, PR_Writev, PRFileDesc
from ...nss.ssl import (
    SSL_REQUEST_CERTIFICATE,
    SSL_REQUIRE_CERTIFICATE,
    SSL_ForceHandshake,
    SSL_LocalCertificate,
    SSL_OptionSet,
    SSL_PeerCertificate,
    SSL_ReHandshake,
    SSL_SendCertificateRequest,
)
from . import report
from .report import Fatal, complain, say, step

if TYPE_CHECKING:
    from .serving import Server

PROGRAM = "selfserv"
LONGEST_REQUEST = 10239
BLOCK = bytes(range(256)) * 64  # of -g
HEADER = (
    b"HTTP/1.0 200 OK\r\nServer: Generic Web Server\r\nDate: Tue, 26 Aug 1997 22:10:05 GMT\r\nContent-type: text/plain\r\n\r\n"
)
END = b"EOF\r\n\r\n\r\n"


def answer(server: Server, fd: PRFileDesc) -> None:
    """One connection, from the handshake to its end; what goes wrong is said, and ends it."""
    data = b""
    try:
        data, length = _read_request(server, fd)
        if data:
            with step("PR_Writev"):
                _answer(server, fd, data, length)
    except Fatal as failure:
        complain(PROGRAM, failure.what, failure.error)
    finally:
        with suppress(NSPRError):
            PR_Close(fd)
    if data.startswith(b"GET /stop "):
        server.stop()


def _read_request(server: Server, fd: PRFileDesc) -> tuple[bytes, int]:
    """What has come, and how much of it is the request; 0 where the client closed too early."""
    data = b""
    while True:
        more = _read(fd, LONGEST_REQUEST - len(data))
        if not more:
            if server.settings.verbose:
                complain(PROGRAM, "HDX PR_Read hit EOF", NSPRError("", name="PR_END_OF_FILE_ERROR"))
            return data, 0
        if not data:
            _tell_security(server, fd)
        data += more
        length = _request_length(data)
        if length:
            return data, length


def _read(fd: PRFileDesc, amount: int) -> bytes:
    """Empty at the end, also at one in the midst of a handshake, and where there is room for no more.  Raises Fatal."""
    with step("HDX PR_Read"):
        try:
            return PR_Read(fd, amount) if amount else b""
        except NSPRError as error:
            if error.name != "PR_END_OF_FILE_ERROR":
                raise
            return b""


def _request_length(data: bytes) -> int:
    """Up to the empty line, and with POST the line after it; 0 while that is not there."""
    end = _after_newlines(data, 0, 2)
    if end and b"POST " in data:
        return data.find(b"\n", end) + 1
    return end


def _after_newlines(data: bytes, start: int, count: int) -> int:
    """Behind so many line ends with nothing but carriage returns between them, 0 where there are none."""
    found = 0
    for place in range(start, len(data)):
        if data[place] == 0x0A:
            found += 1
            if found == count:
                return place + 1
        elif data[place] != 0x0D:
            found = 0
    return 0


def _answer(server: Server, fd: PRFileDesc, data: bytes, length: int) -> None:
    settings = server.settings
    if settings.requests > 2:
        _ask_for_certificate(server, fd)
    protocol, path = _file_named(data[:length])
    if path is not None and protocol in ("", "file"):
        _send_file(server, fd, path)
        return
    parts = [HEADER]
    if path is not None and protocol == "crl":
        parts.append(b"CRL ReCache Error: CRLs are read from the database alone. ")
    elif not length:
        parts.append(f"Get or Post incomplete after {len(data)} bytes.\r\n".encode())
    elif length < len(data):
        parts.append(f"Discarded {len(data) - length} characters.\r\n".encode())
    if length:
        if settings.verbose > 1:
            print(data[:length].decode("latin-1"), end="", flush=True)
        parts.append(data[:length])
    if settings.blocks is None:
        parts.append(END)
    PR_Writev(fd, parts)
    if settings.blocks is not None:
        _send_blocks(server, fd, settings.blocks)


def _file_named(request: bytes) -> tuple[str, Path | None]:
    """The protocol before "://", and the file, if it is one."""
    if not request.startswith(b"GET "):
        return "", None
    name = request[4:].split(b" ")[0].split(b"\r")[0].split(b"\n")[0].decode("utf-8", "surrogateescape")
    protocol, separator, rest = name.partition("://")
    if not separator:
        protocol, rest = "", name
    path = Path(rest)
    try:
        return protocol, path if rest and path.is_file() else None
    except (OSError, ValueError):
        return protocol, None


def _send_file(server: Server, fd: PRFileDesc, path: Path) -> None:
    try:
        content = path.read_bytes()
    except OSError:
        PR_Writev(fd, [HEADER, END])
        return
    PR_Write(fd, HEADER + content)
    server.tell(f"{PROGRAM}: PR_TransmitFile wrote {len(content)} bytes from {path}")


def _send_blocks(server: Server, fd: PRFileDesc, total: int) -> None:
    """-g: for ever where `total` is 0, else until all connections together have more than that."""
    try:
        enough = False
        while not enough:
            PR_Write(fd, BLOCK)
            with server.lock:
                server.blocks_sent += 1
                server.bytes_sent += len(BLOCK)
                enough = 0 < total < server.blocks_sent
    except NSPRError as error:  # for ever ends so
        if server.blocks_sent <= total:
            complain(PROGRAM, "PR_Write", error)
    with server.lock:
        server.connections -= 1


def _ask_for_certificate(server: Server, fd: PRFileDesc) -> None:
    """-r three and four times: in another handshake.  Raises Fatal."""
    if SSL_PeerCertificate(fd) is not None:
        return
    with step("second SSL_OptionSet SSL_REQUEST_CERTIFICATE"):
        SSL_OptionSet(fd, SSL_REQUEST_CERTIFICATE, True)
    with step("second SSL_OptionSet SSL_REQUIRE_CERTIFICATE"):
        SSL_OptionSet(fd, SSL_REQUIRE_CERTIFICATE, server.settings.requests == 4)
    if server.settings.post_handshake:
        with step("SSL_SendCertificateRequest"):
            SSL_SendCertificateRequest(fd)
    else:
        with step("SSL_ReHandshake"):
            SSL_ReHandshake(fd, True)
    with step("SSL_ForceHandshake"):
        SSL_ForceHandshake(fd)


def _tell_security(server: Server, fd: PRFileDesc) -> None:
    """With -v: statistics, and what was negotiated."""
    if not server.settings.verbose:
        return
    from .selfserv import print_statistics

    print_statistics()
    report.channel(PROGRAM, fd, master_secret=True)
    name = server.negotiated_name(fd)
    if name:
        say(f"{PROGRAM}: Negotiated server name: {name}")
    report.names(SSL_PeerCertificate(fd) if server.settings.requests else SSL_LocalCertificate(fd), PROGRAM)
