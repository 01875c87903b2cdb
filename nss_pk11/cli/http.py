"""HTTP/1.1 over a server connection: requests in, responses out, keep-alive, back-pressure.

h11 does the protocol (it is pure, as the TLS engine is); here is only the glue, and nothing of what is served: that is a
`Site`, such as `www` or `files`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11

if TYPE_CHECKING:
    from ..net.connection import Connection

MAX_BODY = 1 << 20  # bytes of a request body that are read and thrown away


@dataclass(frozen=True)
class Request:
    """`target`: path and query as sent; `headers`: by lower-case name, the last one wins."""

    method: str
    target: str
    headers: dict[str, str]
    connection: Connection


@dataclass(frozen=True)
class Response:
    """`body`: chunks, each good until the next is asked for; `length` bytes in all."""

    status: int
    content_type: str
    body: Iterable[bytes | memoryview]
    length: int
    headers: tuple[tuple[str, str], ...] = field(default=())

    @classmethod
    def of(cls, status: int, content_type: str, body: bytes, *headers: tuple[str, str]) -> Response:
        return cls(status, content_type, (body,), len(body), headers)

    @classmethod
    def error(cls, status: int, *headers: tuple[str, str]) -> Response:
        """A plain page that says no more than the status does."""
        text = f"{status} {HTTPStatus(status).phrase}\n"
        return cls.of(status, "text/plain; charset=utf-8", text.encode(), *headers)


Site = Callable[[Request], Response]

METHODS = ("GET", "HEAD")


class HTTP:
    """One connection's HTTP; an `Application` of the server loop."""

    __slots__ = ("_body", "_connection", "_discarded", "_h11", "_held", "_request", "_site")

    def __init__(self, connection: Connection, site: Site) -> None:
        self._connection, self._site = connection, site
        self._h11: h11.Connection | None = None  # made when the first byte comes: an idle connection needs none
        self._request: h11.Request | None = None
        self._body: Iterator[bytes | memoryview] | None = None
        self._discarded = 0
        self._held = b""  # headers that wait for the body

    @property
    def busy(self) -> bool:
        return self._request is not None or self._body is not None

    def data_received(self, data: bytes | bytearray) -> None:
        if self._h11 is None:
            self._h11 = h11.Connection(h11.SERVER)
        try:
            self._h11.receive_data(bytes(data))
            self._read_requests()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint)

    def eof_received(self) -> None:
        if self._body is None:
            self._connection.finish()

    def produce(self) -> bool:
        if self._body is None or self._h11 is None:
            return False
        chunk = next(self._body, None)
        if chunk is None:
            self._body = None
            self._end_response()
        else:
            self._write(h11.Data(chunk))  # type: ignore[arg-type]  # anything with a length will do
        return True

    def _read_requests(self) -> None:
        """Go through what has arrived, up to a request that is to be answered first."""
        assert self._h11 is not None
        while self._body is None:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
                return
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Request):
                self._request = event
            elif isinstance(event, h11.Data):
                self._discarded += len(event.data)
                if self._discarded > MAX_BODY:
                    self._refuse(413)
                    return
            elif isinstance(event, h11.EndOfMessage):
                self._respond()

    def _respond(self) -> None:
        event = self._request
        assert event is not None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        request = Request(event.method.decode("ascii"), event.target.decode("latin-1"), headers, self._connection)
        response = self._site(request) if request.method in METHODS else Response.error(405, ("Allow", ", ".join(METHODS)))
        self._start_response(response)
        self._body = iter(()) if request.method == "HEAD" else iter(response.body)

    def _start_response(self, response: Response) -> None:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", response.content_type),
            ("Content-Length", str(response.length)),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers,
        ]
        reason = HTTPStatus(response.status).phrase.encode("ascii")
        self._write(h11.Response(status_code=response.status, headers=headers, reason=reason))

    def _end_response(self) -> None:
        assert self._h11 is not None
        self._write(h11.EndOfMessage())
        self._request, self._discarded = None, 0
        if self._connection.engine.peer_closed or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._connection.finish()
            return
        self._h11.start_next_cycle()
        try:
            self._read_requests()  # what was pipelined
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint)

    def _refuse(self, status: int) -> None:
        """Something that is no HTTP, or too much of it: say so and close."""
        assert self._h11 is not None
        self._request, self._body = None, None
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = Response.error(status, ("Connection", "close"))
            self._start_response(response)
            for chunk in response.body:
                self._write(h11.Data(bytes(chunk)))
        self._connection.finish()

    def _write(self, event: h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage) -> None:
        """Headers wait for what follows them, so that a small response is one record."""
        assert self._h11 is not None
        pieces = self._h11.send_with_data_passthrough(event) or ()
        if isinstance(event, h11.Response):
            self._held = b"".join(pieces)
            return
        for piece in pieces or (b"",):  # an empty body has no piece, and its headers go out with the end of the message
            if self._held:
                piece, self._held = self._held + piece, b""
            if piece:
                self._connection.write(piece)
