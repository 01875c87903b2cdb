"""After a handshake below TLS 1.3: renegotiation is refused, politely and not for ever (RFC 5746, RFC 5246 section 7.2.2)."""

from __future__ import annotations

from ...errors import Alert, RenegotiationRefused
from ..codepoints import C, H, HandshakeType
from ..link import Flow, Link
from ..messages import tls12
from ..waits import Receive

MAX_REFUSALS = 4  # of one connection; a peer that keeps asking is not listening


def refuse(link: Link, request: HandshakeType) -> Flow:
    """Answer each `request` (client_hello to a server, hello_request to a client) with a no_renegotiation warning."""
    for _ in range(MAX_REFUSALS):
        raw = yield Receive(request)
        if request == H.hello_request:
            tls12.require_empty(raw)
        link.records.send(C.alert, bytes((1, Alert.no_renegotiation)))
    yield Receive(request)
    raise RenegotiationRefused(f"peer asked for renegotiation {MAX_REFUSALS + 1} times")
