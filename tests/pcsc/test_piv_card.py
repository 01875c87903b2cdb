"""nss-pk11 with a PIV card through OpenSC, pcscd and a virtual reader: what it sees, TLS, removal, PINs as the card counts."""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from pk11_tokens.pcsc.card import AUTHENTICATION, SIGNATURE

from ..support.peers.base import HOST, TIMEOUT
from ..support.require import require
from .conftest import FORK_KEY, HOLDER, PIN, URIS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pk11_tokens.pcsc import PivCard

    from .conftest import Desk, Server

WRONG = "654321"
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def handshake(desk: Desk, card: PivCard, reference: int, server: Server, version: str) -> str:
    """A full handshake by the stdlib, certificate verified: the cipher suite."""
    context = ssl.create_default_context(cafile=str(desk.certificate_file(card, reference)))
    context.minimum_version = context.maximum_version = VERSIONS[version]
    with (
        socket.create_connection((HOST, server.port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        assert tls.version() == version
        tls.sendall(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: tls.recv(65536), b""))
        assert json.loads(answer.partition(b"\r\n\r\n")[2])
        cipher = tls.cipher()
        assert cipher
        return cipher[0]


# --- what is seen --------------------------------------------------------------------------------------------------------


def test_slots_token_keys_and_certificates_are_seen(desk: Desk, insert: Callable[..., PivCard]) -> None:
    card = insert(authentication="p256", signature="rsa")
    report: dict[str, Any] = json.loads(desk.nss_pk11("slots", "--json", "--pin", "env:PIN"))
    module = next(module for module in report["modules"] if module["path"] == desk.module)
    slots = [slot for slot in module["slots"] if desk.reader.name in slot["description"]]
    assert [slot["token"] is not None for slot in slots] == [True, False]  # vpcd has two slots
    token = slots[0]["token"]
    assert token["label"] == HOLDER
    assert {(key["id"], key["type"], key["pin_for_each_use"]) for key in token["keys"]} == {
        ("01", "ec", False),
        ("02", "rsa", True),
    }
    seen = {certificate["sha256"].replace(":", "").lower() for certificate in token["certificates"]}
    assert seen == {x509.load_der_x509_certificate(key.certificate).fingerprint(SHA256()).hex() for key in card.keys.values()}
    assert card.attempts == 1
    assert card.tries_left == 3


# --- TLS -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_a_server_with_its_key_on_the_card(desk: Desk, insert: Callable[..., PivCard], kind: str) -> None:
    card = insert(authentication=kind)
    with desk.serve(AUTHENTICATION) as server:
        for count, version in enumerate(VERSIONS, 1):
            handshake(desk, card, AUTHENTICATION, server, version)
            assert card.signatures == count
    assert card.attempts == 1


def test_curl_is_served(desk: Desk, insert: Callable[..., PivCard]) -> None:
    card = insert()
    with desk.serve(AUTHENTICATION) as server:
        ca = str(desk.certificate_file(card, AUTHENTICATION))
        for flags in (["--tls-max", "1.2"], ["--tlsv1.3"]):
            url = f"https://localhost:{server.port}/status.json"
            assert json.loads(
                desk.run(require("curl"), "-sS", *flags, "--cacert", ca, "--resolve", f"localhost:{server.port}:{HOST}", url)
            )
    assert card.signatures == 2


def test_a_key_that_wants_the_pin_each_time_serves_too(desk: Desk, insert: Callable[..., PivCard]) -> None:
    card = insert()
    with desk.serve(SIGNATURE) as server:
        for version in VERSIONS:
            handshake(desk, card, SIGNATURE, server, version)
    assert card.signatures == 2
    assert card.tries_left == 3


def test_the_card_is_pulled_and_comes_back_while_serving(desk: Desk, insert: Callable[..., PivCard]) -> None:
    card = insert()
    with desk.serve(AUTHENTICATION, "--handshake-timeout", "3") as server:
        for number, version in enumerate(VERSIONS, 1):
            handshake(desk, card, AUTHENTICATION, server, version)
            desk.reader.remove()
            said = len(server.output)
            with pytest.raises(ssl.SSLError, match=r"(?i)alert.internal.error"):
                handshake(desk, card, AUTHENTICATION, server, version)
            assert HOLDER in server.output[said:]
            assert card.signatures == 2 * number - 1
            desk.reader.insert(card)
            handshake(desk, card, AUTHENTICATION, server, version)
        assert server.running
        assert "Traceback" not in server.output
    assert card.signatures == 4
    assert card.tries_left == 3


def test_a_card_that_comes_back_in_time_loses_no_handshake(desk: Desk, insert: Callable[..., PivCard]) -> None:
    card = insert()
    with desk.serve(AUTHENTICATION) as server:
        handshake(desk, card, AUTHENTICATION, server, "TLSv1.3")
        desk.reader.remove()
        context = ssl.create_default_context(cafile=str(desk.certificate_file(card, AUTHENTICATION)))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection((HOST, server.port), TIMEOUT) as plain:
            _send(client, outgoing, plain)
            server.wait_for(f'"{re.escape(HOLDER)}" is away')
            desk.reader.insert(card)
            deadline = time.monotonic() + TIMEOUT
            while _send(client, outgoing, plain):
                assert time.monotonic() < deadline
                incoming.write(plain.recv(65536))
        assert client.version() == "TLSv1.3"


def _send(client: ssl.SSLObject, outgoing: ssl.MemoryBIO, plain: socket.socket) -> bool:
    """The handshake's next flight; whether it wants an answer."""
    try:
        client.do_handshake()
        return False
    except ssl.SSLWantReadError:
        return True
    finally:
        plain.sendall(outgoing.read())


def test_children_forked_while_the_card_signs_sign_too(desk: Desk, insert: Callable[..., PivCard]) -> None:
    """The lock that another thread held inside OpenSC at the fork is free in the child."""
    card = insert()
    assert set(json.loads(desk.run(sys.executable, str(FORK_KEY), URIS[AUTHENTICATION], PIN))) == {0}
    assert card.tries_left == 3


# --- PINs, counted by the card -------------------------------------------------------------------------------------------


def test_a_wrong_static_pin_costs_one_try(desk: Desk, insert: Callable[..., PivCard]) -> None:
    card = insert()
    outcome = desk.use(card, AUTHENTICATION, WRONG, provider="static", signatures=3)
    assert "ok" not in outcome.results
    assert card.attempts == 1
    assert card.tries_left == 2


def test_the_final_try_is_a_persons(desk: Desk, insert: Callable[..., PivCard]) -> None:
    card = insert()
    card.tries_left = 1
    for provider in ("static", "program"):
        outcome = desk.use(card, AUTHENTICATION, PIN, provider=provider)
        assert outcome.results != ["ok"]
        assert outcome.asked == []
        assert card.attempts == 0
    outcome = desk.use(card, AUTHENTICATION, PIN, provider="person")
    assert outcome.results == ["ok"]
    assert [request["final_try"] for request in outcome.asked] == [True]
    assert card.tries_left == 3


def test_a_locked_card_says_so(desk: Desk, insert: Callable[..., PivCard]) -> None:
    card = insert()
    card.tries_left = 0
    outcome = desk.use(card, AUTHENTICATION, PIN)
    assert outcome.asked == []
    assert card.attempts == 0
    assert "locked" in outcome.messages[0].lower()
    assert HOLDER in outcome.messages[0]


def test_a_key_that_wants_the_pin_each_time_asks_each_time(desk: Desk, insert: Callable[..., PivCard]) -> None:
    card = insert()
    outcome = desk.use(card, SIGNATURE, PIN, PIN, PIN, PIN, signatures=3)
    assert outcome.results == ["ok"] * 3
    assert [request["context_specific"] for request in outcome.asked] == [False, True, True, True]
    assert {request["key"] for request in outcome.asked if request["context_specific"]} == {"SIGN key"}
    assert card.signatures == 3


def test_cancelling_costs_nothing(desk: Desk, insert: Callable[..., PivCard]) -> None:
    card = insert()
    outcome = desk.use(card, AUTHENTICATION, None)
    assert outcome.results != ["ok"]
    assert len(outcome.asked) == 1
    assert card.attempts == 0


# --- others' eyes --------------------------------------------------------------------------------------------------------


def test_pkcs11_tool_signs_with_both_kinds_of_key(desk: Desk, insert: Callable[..., PivCard], pkcs11_tool: str) -> None:
    """The card itself is judged by OpenSC's own tool."""
    card = insert(signature="rsa")
    message = desk.directory / "message"
    message.write_bytes(b"m" * 32)
    for reference, number, mechanism in ((AUTHENTICATION, "01", "ECDSA"), (SIGNATURE, "02", "SHA256-RSA-PKCS")):
        before = card.signatures
        where = ("--module", desk.module, "--login", "--pin", PIN, "--id", number)
        files = ("--input-file", str(message), "--output-file", str(desk.directory / f"{reference:x}.signature"))
        desk.run(pkcs11_tool, *where, "--sign", "--mechanism", mechanism, *files)
        assert card.signatures == before + 1
    assert card.attempts >= 2
