"""What real tokens do to a server: sessions, logins and devices that go while it serves, on simulated hardware.

The clients are Python's own `ssl`; the tokens are reached through the C ABI and count what is asked of them.
"""

from __future__ import annotations

import re
import ssl
import time
from typing import TYPE_CHECKING

import pytest

from ..support import load
from ..support.command import Serve
from .hsms import TRIES, hsm, identity, loaded, wait_until
from .peers import client_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from pk11_tokens import RunningSimulator, TokenControl

    from ..support.pki import PKI
    from ..support.softhsm import SoftHSM


def alert_of(port: int, context: ssl.SSLContext) -> str:
    """OpenSSL's name of the alert that ends a handshake."""
    with pytest.raises(ssl.SSLError) as caught:
        load.handshake(port, context)
    return str(caught.value.reason)


LOSSES: dict[str, Callable[[TokenControl], None]] = {
    "disconnected": lambda token: token.disconnect(),
    "device error": lambda token: token.fail("C_Sign", "CKR_DEVICE_ERROR"),
    "answer lost": lambda token: token.fail("C_Sign", "CKR_DEVICE_ERROR", when="after"),
    "link lost": lambda token: token.fail("C_SignInit", "CKR_DEVICE_REMOVED", disconnect=True),
    "session gone": lambda token: token.fail("C_Sign", "CKR_SESSION_HANDLE_INVALID"),
    "session closed": lambda token: token.fail("C_SignInit", "CKR_SESSION_CLOSED"),
    "login gone": lambda token: token.fail("C_Sign", "CKR_USER_NOT_LOGGED_IN"),
    "key handle stale": lambda token: token.fail("C_SignInit", "CKR_KEY_HANDLE_INVALID"),
    "general error": lambda token: token.fail("C_Sign", "CKR_GENERAL_ERROR"),
    "function failed": lambda token: token.fail("C_Sign", "CKR_FUNCTION_FAILED"),
    "no session to open": lambda token: [token.disconnect(), token.fail("C_OpenSession", "CKR_SESSION_COUNT", times=2)],  # type: ignore[dict-item, func-returns-value]
    "removed and back": lambda token: [token.remove(), token.insert()],  # type: ignore[dict-item, func-returns-value]
}


def test_whatever_is_lost_is_found_again(simulated_tokens: Callable[..., RunningSimulator], softhsm: SoftHSM, pki: PKI) -> None:
    """No handshake notices: one operation is done again, with a new session or login where that is needed, and no PIN is
    burnt.
    """
    token = simulated_tokens([hsm(pki, "hsm")])["hsm"]
    context = client_context(pki)
    with Serve(softhsm, *identity(token, pki), "--echo") as server:
        for name, lose in LOSSES.items():
            load.handshake(server.port, context)
            lose(token)
            try:
                load.handshake(server.port, context)
            except OSError as error:
                pytest.fail(f"{name}: {error}\n{server.output}")
        wait_until(lambda: server.output.count(" ecdsa_secp256r1_sha256 ") == 2 * len(LOSSES))
        assert "alert=" not in server.output
        status = token.status()
        assert (status.tries_left, status.sessions <= 16) == (TRIES, True)


def test_rsa_decryption_survives_too(simulated_tokens: Callable[..., RunningSimulator], softhsm: SoftHSM, pki: PKI) -> None:
    token = simulated_tokens([hsm(pki, "hsm", kind="rsa")])["hsm"]
    context = client_context(pki)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256")  # RSA key exchange: the token decrypts
    suite = ("--suites", "TLS_RSA_WITH_AES_128_GCM_SHA256")
    with Serve(softhsm, *identity(token, pki, "rsa"), "--echo", *suite) as server:
        load.handshake(server.port, context)
        for result in ("CKR_USER_NOT_LOGGED_IN", "CKR_SESSION_HANDLE_INVALID", "CKR_DEVICE_REMOVED"):
            for function in ("C_DecryptInit", "C_Decrypt"):
                token.fail(function, result)
                load.handshake(server.port, context)
        token.disconnect()
        load.handshake(server.port, context)


def test_token_that_is_back_in_time_loses_no_handshake(
    simulated_tokens: Callable[..., RunningSimulator], softhsm: SoftHSM, pki: PKI
) -> None:
    """Pulled and put back three times under load, the last time into the other reader."""
    token_in_reader = {"name": "left", "token": hsm(pki, "hsm", latency={"C_Sign": 0.002})}
    simulator = simulated_tokens({"reader": [token_in_reader, {"name": "right"}]})
    token = simulator["hsm"]
    with Serve(softhsm, *identity(token, pki), "--echo") as server, loaded(server, pki, 600) as handshakes:
        for reader in ("left", "left", "right"):
            signed = token.status().calls.get("C_Sign", 0)
            wait_until(lambda signed=signed: token.status().calls.get("C_Sign", 0) >= signed + 30)
            token.remove()
            time.sleep(0.7)  # handshakes gather
            token.insert(reader)
        assert handshakes.wait() == (600, {}), server.output[-3000:]
        assert token.status().reader == "right"
        assert re.search(r'token "hsm" is away: .*CKR_', server.output)
        assert 'token "hsm" is back' in server.output


def test_token_that_stays_away_fails_only_who_needs_it(
    simulated_tokens: Callable[..., RunningSimulator], softhsm: SoftHSM, pki: PKI
) -> None:
    token = simulated_tokens([hsm(pki, "hsm")])["hsm"]
    other = pki.server("p256", ("other.test",))
    in_a_file = ("--identity", other.key_file, "--chain", other.chain_file)
    with Serve(softhsm, *identity(token, pki), *in_a_file, "--echo", "--handshake-timeout", "2") as server:
        context = client_context(pki)
        load.handshake(server.port, context)
        token.remove()
        before = len(server.output.splitlines())
        assert alert_of(server.port, context) == "TLSV1_ALERT_INTERNAL_ERROR"
        began = time.monotonic()
        load.handshake(server.port, context, "other.test")
        assert time.monotonic() - began < 2.0, "one that needs no token had to wait"
        wait_until(lambda: server.output.count(" TLSv1.3 ") == 3)
        failed = [line for line in server.output.splitlines()[before:] if "alert=internal_error" in line]
        assert len(failed) == 1
        assert "SEC_ERROR_NO_TOKEN" in failed[0]
        token.insert()
        load.handshake(server.port, context)


def test_idle_time_out_of_the_hsm_is_no_event(
    simulated_tokens: Callable[..., RunningSimulator], softhsm: SoftHSM, pki: PKI
) -> None:
    """A network HSM that forgets who was silent for long: the next handshake logs in anew."""
    token = simulated_tokens([hsm(pki, "hsm", idle_timeout=0.8)])["hsm"]
    context = client_context(pki)
    with Serve(softhsm, *identity(token, pki), "--echo") as server:
        load.handshake(server.port, context)
        logins = token.status().calls["C_Login"]
        time.sleep(1.0)
        load.handshake(server.port, context)
        assert token.status().calls["C_Login"] == logins + 1
        assert token.status().tries_left == TRIES


def test_module_that_does_not_get_over_a_broken_link_is_initialised_anew(
    simulated_tokens: Callable[..., RunningSimulator], softhsm: SoftHSM, pki: PKI
) -> None:
    """As yubihsm-pkcs11: until C_Finalize every call fails.  The server goes on with the same process."""
    simulator = simulated_tokens([hsm(pki, "hsm")])
    token = simulator["hsm"]
    with Serve(softhsm, *identity(token, pki), "--echo", "--handshake-timeout", "20") as server:
        context = client_context(pki)
        load.handshake(server.port, context)
        simulator.forget_calls()
        for function in ("C_SignInit", "C_OpenSession", "C_Login", "C_GetSessionInfo"):
            token.fail(function, "CKR_GENERAL_ERROR", times=0)
        with loaded(server, pki, 4, 4) as handshakes:
            wait_until(lambda: any(call["function"] == "C_Finalize" for call in simulator.calls()))
            token.clear()
            assert handshakes.wait() == (4, {}), server.output
        assert "was initialised anew" in server.output
        assert token.status().tries_left == TRIES
