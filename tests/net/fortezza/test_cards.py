"""Cards that go and come: before a handshake, in it, and while records flow."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.certs import Trust
from nss_pk11.errors import AlertReceived, HandshakeFailure, TokenError, Truncated
from nss_pk11.net.blocking import TLSSocket
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.identity import load_identity
from nss_pk11.slots import SlotManager
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.suites import BY_NAME, FORTEZZA_SUITES
from nss_pk11.tls.waits import KeaInitiate, KeaRespond, Operation

from ...support.softhsm import PIN as SOFTHSM_PIN
from ..hsms import wait_until
from ..peers import running
from . import CBC, RC4, Holder, Pair, card, config, operations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pk11_tokens import RunningSimulator

    from nss_pk11.tls.suites import Suite

    from ...support.pki import PKI
    from ...support.softhsm import SoftHSM

RSA = BY_NAME["SSL_RSA_WITH_3DES_EDE_CBC_SHA"]
BOTH_SUITES = (*FORTEZZA_SUITES, RSA)


@pytest.mark.parametrize("kind", [KeaInitiate, KeaRespond])
def test_a_card_pulled_in_mid_handshake(kind: type[Operation], server: Holder, client: Holder) -> None:
    pair = Pair(server, client)
    engine, operation = pair.until(kind)
    (client if engine is pair.client else server).token.remove()
    with pytest.raises(HandshakeFailure) as raised:
        pair.executor.run(operation)
    assert raised.value.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
    with pytest.raises(HandshakeFailure):
        engine.fail(operation, raised.value)
    with pytest.raises(AlertReceived) as heard:
        (pair.server if engine is pair.client else pair.client).receive_data(engine.data_to_send())
    assert heard.value.name == "SSL_ERROR_HANDSHAKE_FAILURE_ALERT"


@pytest.mark.parametrize("version", [Version.ssl3, Version.tls1_0], ids=lambda version: version.label)
def test_a_card_pulled_when_its_part_is_done(version: Version, server: Holder, client: Holder) -> None:
    """It cannot read the client's Finished any more."""
    pair = Pair(server, client, version=version)
    engine, operation = pair.until(KeaRespond)
    result = pair.executor.run(operation)
    server.token.remove()
    engine.events()
    with pytest.raises(TokenError) as raised:
        engine.complete(operation, result)
    assert raised.value.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
    with pytest.raises(AlertReceived):
        pair.pass_on(pair.client)


def test_a_card_pulled_after_the_handshake(server: Holder, client: Holder) -> None:
    """Records can be neither written nor read any more; and the next handshake works with the card back in."""
    pair = Pair(server, client)
    pair.finish()
    assert pair.server.handshake_complete
    pair.server.send(b"goes through")
    pair.client.receive_data(pair.server.data_to_send())
    pair.client.send(b"arrives too late")
    server.token.remove()
    with pytest.raises(TokenError) as raised:
        pair.server.receive_data(pair.client.data_to_send())
    assert raised.value.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
    assert pair.server.data_to_send() == b""
    server.token.insert()
    again = Pair(server, client)
    again.finish()
    assert again.server.handshake_complete


def test_another_card_in_its_place(simulated_tokens: Callable[..., RunningSimulator], pki: PKI, client: Holder) -> None:
    """In mid-handshake: the key that the handshake began with is not on it, and it is asked for nothing."""
    ours, other = card(pki, "localhost"), card(pki, "other")
    simulator = simulated_tokens({"reader": [{"name": "reader", "token": ours}], "drawer": [other]})
    server = Holder(simulator, "localhost")
    try:
        pair = Pair(server, client)
        _, operation = pair.until(KeaRespond)
        simulator.forget_calls()
        simulator.swap("reader", "card of other")
        with pytest.raises(HandshakeFailure) as raised:
            pair.executor.run(operation)
        assert raised.value.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
        assert not operations(server)
        assert simulator["card of other"].status().pin_attempts == 0
    finally:
        server.close()


def test_a_card_pulled_from_a_server_while_records_flow(server: Holder, client: Holder, trust: Trust) -> None:
    """The connection ends, unsaid, as nothing can be encrypted any more; the server and its other connections go on."""
    serving = config(ServerConfig, server.kea, suites=(CBC, RC4))
    with KeyExecutor(trust=trust) as executor, running(serving, executor) as running_server, ExitStack() as stack:

        def connect(suite: Suite) -> TLSSocket:
            settings = config(ClientConfig, client.kea, server_name="localhost", suite=suite)
            own = stack.enter_context(KeyExecutor(trust=trust))
            return stack.enter_context(TLSSocket(running_server.dial(), Engine.client(settings), own))

        def echo(connection: TLSSocket) -> bytes:
            connection.sendall(b"!")
            return connection.recv()

        on_card, in_process = connect(CBC), connect(RC4)
        assert [echo(each) for each in (on_card, in_process)] == [b"!", b"!"]
        server.token.remove()
        with pytest.raises(Truncated):
            echo(on_card)
        (ended,) = running_server.wait_for_end()
        assert ended.error is not None
        assert ended.error.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
        assert echo(in_process) == b"!"  # its keys are not on the card
        server.token.insert()
        assert echo(connect(CBC)) == b"!"


def test_a_server_with_an_rsa_key_in_softhsm_and_a_card_that_goes_and_comes(
    softhsm: SoftHSM, pki: PKI, server: Holder, client: Holder, trust: Trust, tmp_path: Path
) -> None:
    """Serves both kinds of clients at once; while the card is out, both take RSA."""
    credential = pki.for_token(softhsm.create_token("beside a card").generate_key("rsa", "www"))
    assert credential.token_key
    library = shutil.copy(softhsm.module_path, tmp_path)  # SoftHSM looks for tokens once in a process: another one looks now
    with SlotManager() as manager:
        manager.load(library)
        manager.load(server.simulator.module)
        rsa = load_identity(manager, f"{credential.token_key.uri}?pin-value={SOFTHSM_PIN}", chain=credential.chain_file)
        kea = load_identity(manager, f"{server.token.uri('kea')}&pin-value=123456")
        old: dict[str, Any] = {"min_version": Version.ssl3, "max_version": Version.tls1_0, "suites": BOTH_SUITES}
        serving = ServerConfig(identities=(rsa, kea), mechanisms=manager.mechanisms, **old)
        fortezza = ClientConfig(identities=(client.kea,), server_name="localhost", **old)
        plain = ClientConfig(server_name="localhost", **old | {"suites": (RSA,)})

        def present() -> bool:
            return "CKM_KEA_KEY_DERIVE" in manager.mechanisms()

        with (
            manager.watch(lambda event: None, 0.05),
            KeyExecutor(trust=trust) as executor,
            running(serving, executor) as running_server,
        ):

            def suites() -> list[object]:
                return [_ask(running_server.dial(), trust, settings) for settings in (fortezza, plain)]

            assert suites() == [RC4, RSA]
            server.token.remove()
            wait_until(lambda: not present())
            assert suites() == [RSA, RSA]
            server.token.insert()
            wait_until(present)
            assert suites() == [RC4, RSA]


def _ask(sock: Any, trust: Trust, settings: ClientConfig) -> object:
    with KeyExecutor(trust=trust) as executor, TLSSocket(sock, Engine.client(settings), executor) as tls:
        tls.sendall(b"!")
        assert tls.recv() == b"!"
        return tls.info.suite
