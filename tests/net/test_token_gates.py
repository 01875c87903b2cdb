"""`serve` takes a suite only while a card brings its mechanisms: seen by one who says a ClientHello and reads what is chosen."""

from __future__ import annotations

import os
import socket
from struct import pack, unpack
from typing import TYPE_CHECKING

from nss_pk11.tls.suites import BY_NAME

from ..support.command import Serve
from ..support.peers.base import HOST, TIMEOUT
from .fortezza import PIN, card
from .hsms import hsm, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from pk11_tokens import RunningSimulator

    from ..support.pki import PKI
    from ..support.softhsm import SoftHSM

FORTEZZA, RSA = BY_NAME["SSL_FORTEZZA_DMS_WITH_RC4_128_SHA"], BY_NAME["AES128-SHA"]


def chosen(port: int, *suites: int) -> int:
    """The suite that a server of SSL 3.0 chooses among these (RFC 6101 sections 5.2.1 and 5.6.1); the alert, negative, where
    it sends one."""
    offered = b"".join(pack(">H", suite) for suite in suites)
    body = b"\x03\x00" + os.urandom(32) + b"\x00" + pack(">H", len(offered)) + offered + b"\x01\x00"
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    with socket.create_connection((HOST, port), TIMEOUT) as connection, connection.makefile("rb") as answer:
        connection.sendall(b"\x16\x03\x00" + pack(">H", len(message)) + message)
        kind, _, length = unpack(">BHH", answer.read(5))
        record = answer.read(length)
    if kind == 21:
        return -int(record[1])
    session_id = record[38]
    suite: int = unpack(">H", record[39 + session_id : 41 + session_id])[0]
    return suite


def test_serve_takes_fortezza_while_the_card_is_in(
    simulated_tokens: Callable[..., RunningSimulator], softhsm: SoftHSM, pki: PKI
) -> None:
    beside = simulated_tokens([hsm(pki, "beside", kind="rsa")])["beside"]
    token = simulated_tokens([card(pki, "localhost")])["card of localhost"]
    keys = f"{beside.uri('www')}&pin-value=1234-beside", f"{token.uri('kea')}&pin-value={PIN}"
    identities = [option for key in keys for option in ("--identity", key)]
    old = ("--min", "ssl3", "--max", "ssl3", "--suites", f"{FORTEZZA.name},{RSA.name}")
    with Serve(softhsm, *identities, *old) as server:
        assert chosen(server.port, RSA.code, FORTEZZA.code) == FORTEZZA.code
        for _ in range(2):
            token.remove()
            wait_until(lambda: chosen(server.port, FORTEZZA.code, RSA.code) == RSA.code)
            assert chosen(server.port, FORTEZZA.code) == -40  # handshake_failure
            token.insert()
            wait_until(lambda: chosen(server.port, RSA.code, FORTEZZA.code) == FORTEZZA.code)
        assert chosen(server.port, RSA.code) == RSA.code
