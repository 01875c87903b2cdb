"""Clients whose key is in a token that goes away: neither their connections nor their sessions outlive it, as in NSS
(ssl3_ClientAuthTokenPresent).  The token is simulated hardware, the server Python's `ssl`."""

from __future__ import annotations

import ssl as python_ssl
import time
from collections.abc import Callable, Iterator

import pytest
from pk11_tokens import RunningSimulator, TokenControl

from nss_pk11.errors import NSPRError
from nss_pk11.nss import nss, pk11pub, prio, secmod, ssl
from nss_pk11.nss.prio import PRFileDesc
from tests.net.hsms import hsm
from tests.support.pki import PKI

from .ends import HOST, TICKS, TIMEOUT, TLS1_2, TLS1_3, PythonServer, connected, read_exactly

VERSIONS = pytest.mark.parametrize("version", [TLS1_2, TLS1_3])


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def token(simulated_tokens: Callable[..., RunningSimulator], pki: PKI, factory_settings: None) -> Iterator[TokenControl]:
    """NSS without a database, one token in use, whose password is known."""
    mine = pki.client("rsa")
    key = {"label": "me", "id": "01", "file": str(mine.key_file), "certificate": str(mine.chain_file)}
    simulator = simulated_tokens([hsm(pki, "mine", key=[key])])
    pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: None if retry else "1234-mine")
    nss.NSS_NoDB_Init()
    secmod.SECMOD_LoadUserModule(f"library={simulator.module} name=simulated")
    ssl.NSS_SetDomesticPolicy()
    ssl.SSL_OptionSetDefault(ssl.SSL_ENABLE_SESSION_TICKETS, True)
    yield simulator["mine"]
    ssl.SSL_ClearSessionCache()


@pytest.fixture
def context(pki: PKI) -> python_ssl.SSLContext:
    """Of a server that wants to know who is there."""
    own = pki.server("p256", (HOST,))
    context = python_ssl.SSLContext(python_ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.chain_file, own.key_file)
    context.verify_mode = python_ssl.CERT_REQUIRED
    context.load_verify_locations(pki.ca_file)
    context.load_verify_locations(pki.client("rsa").chain_file)  # the token has no certificate of the one between
    return context


def talk(sock: python_ssl.SSLSocket) -> bool:
    """Echoes until the end; whether the session was resumed."""
    found = bool(sock.session_reused)
    while data := sock.recv(100):
        sock.sendall(data)
    return found


def reach(port: int) -> PRFileDesc:
    """A connection by the token's key, or by a session of it, on which something was said."""
    fd = connected(port)
    ssl.SSL_AuthCertificateHook(fd, lambda *_: None, None)  # there is no database that trusts anybody
    ssl.SSL_GetClientAuthDataHook(fd, ssl.NSS_GetClientAuthData, "mine:me")
    prio.PR_Write(fd, b"x")
    assert read_exactly(fd, 1) == b"x"
    return fd


def until_it_fails(call: Callable[[], object]) -> str:
    deadline = time.monotonic() + TIMEOUT
    try:
        while time.monotonic() < deadline:
            call()
            time.sleep(0.02)
    except NSPRError as error:
        return error.name
    return "nothing"


@VERSIONS
@pytest.mark.parametrize("again", [False, True])
def test_a_connection_ends_with_its_token(
    token: TokenControl, context: python_ssl.SSLContext, version: python_ssl.TLSVersion, again: bool
) -> None:
    """A resumed one too: nobody proved anything in it but by the session."""
    context.minimum_version = context.maximum_version = version
    with PythonServer(context, talk, 2 if again else 1) as server:
        fd = reach(server.port)
        if again:
            prio.PR_Close(fd)
            fd = reach(server.port)
        token.remove()

        def ask() -> None:
            prio.PR_Write(fd, b"x")
            assert read_exactly(fd, 1) == b"x"

        assert until_it_fails(ask) == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
        token.insert()  # which is not the same as never having been away
        for call in (lambda: prio.PR_Write(fd, b"x"), lambda: prio.PR_Recv(fd, 1, 0, TICKS)):
            with pytest.raises(NSPRError, match="SSL_ERROR_TOKEN_INSERTION_REMOVAL"):
                call()
        prio.PR_Close(fd)
    assert server.results == ([False, True] if again else [False])


@VERSIONS
@pytest.mark.parametrize("loss", ["nothing", "removed", "removed and back", "logged out"])
def test_a_session_of_a_token_that_is_gone(
    token: TokenControl, context: python_ssl.SSLContext, version: python_ssl.TLSVersion, loss: str
) -> None:
    context.minimum_version = context.maximum_version = version
    context.verify_mode = python_ssl.CERT_OPTIONAL
    counted = ssl.SSL_GetStatistics()
    with PythonServer(context, talk, 2) as server:
        prio.PR_Close(reach(server.port))
        if loss.startswith("removed"):
            token.remove()
        if loss == "removed and back":
            token.insert()
        if loss == "logged out":
            pk11pub.PK11_LogoutAll()
        refused = counted.sch_sid_cache_not_ok
        prio.PR_Close(reach(server.port))
    assert server.results == [False, loss == "nothing"]
    assert counted.sch_sid_cache_not_ok - refused == (loss != "nothing")
