"""FORTEZZA through NSS's functions: which certificates are for it, servers and clients with cards, one process only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import nss, pk11pub, prio, secmod, ssl, sslproto
from nss_pk11.nss._settings import Settings
from nss_pk11.nss.prio import PRFileDesc
from tests.net.hsms import wait_until

from .ends import TICKS, Background, loopback, port_of, read_exactly

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator

    from nss_pk11.nss.types import CERTCertificate

HOST = "localhost"
PIN = "123456"
CBC, RC4, NULL = (
    sslproto.SSL_FORTEZZA_DMS_WITH_FORTEZZA_CBC_SHA,
    sslproto.SSL_FORTEZZA_DMS_WITH_RC4_128_SHA,
    sslproto.SSL_FORTEZZA_DMS_WITH_NULL_SHA,
)
NAMES = {CBC: "FORTEZZA", RC4: "RC4", NULL: "NULL"}
BITS = {CBC: (80, 80), RC4: (128, 128), NULL: (0, 0)}
ON = {CBC: ssl.SSL_SECURITY_STATUS_ON_LOW, RC4: ssl.SSL_SECURITY_STATUS_ON_HIGH, NULL: 0}

CARDS = {
    "card": {"kea": "kea", "dsa": "dsa1024"},
    "stranger": {"kea": "kea_other"},
}


def card(name: str) -> dict[str, object]:
    keys = [{"label": label, "kind": kind, "issued": [HOST]} for label, kind in CARDS[name].items()]
    return {"personality": "FORTEZZA card", "label": name, "pin": PIN, "key": keys}


@pytest.fixture
def cards(simulated_tokens: Callable[..., RunningSimulator]) -> Iterator[RunningSimulator]:
    """NSS with a card of the domain "kea" and one of another, everything allowed, a server cache; undone afterwards."""
    before, Settings.defaults = Settings.defaults, Settings()
    simulator = simulated_tokens([card(name) for name in CARDS])
    pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: None if retry else PIN)
    nss.NSS_NoDB_Init()
    secmod.SECMOD_LoadUserModule(f"library={simulator.module} name=cards")
    ssl.NSS_SetDomesticPolicy()
    ssl.SSL_ConfigServerSessionIDCache(0, 0, 0, None)
    yield simulator
    ssl.SSL_ClearSessionCache()
    ssl.SSL_ShutdownServerSessionIDCache()
    Settings.defaults = before


def find(nickname: str) -> CERTCertificate:
    return pk11pub.PK11_FindCertFromNickname(nickname)


def ssl_socket(*suites: int) -> PRFileDesc:
    """With these suites alone, in versions that have them."""
    fd = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    for number in ssl.SSL_ImplementedCiphers:
        ssl.SSL_CipherPrefSet(fd, number, number in suites)
    ssl.SSL_VersionRangeSet(fd, (sslproto.SSL_LIBRARY_VERSION_3_0, sslproto.SSL_LIBRARY_VERSION_TLS_1_0))
    return fd


def server_socket(*suites: int, nickname: str = "card:kea") -> PRFileDesc:
    fd = ssl_socket(*suites)
    certificate = find(nickname)
    ssl.SSL_ConfigSecureServer(fd, certificate, pk11pub.PK11_FindKeyByAnyCert(certificate), ssl.kt_fortezza)
    prio.PR_Bind(fd, loopback(0))
    prio.PR_Listen(fd, 5)
    return fd


def client_socket(port: int, *suites: int) -> PRFileDesc:
    fd = ssl_socket(*suites)
    ssl.SSL_AuthCertificateHook(fd, lambda *_: None, None)
    ssl.SSL_SetURL(fd, HOST)
    prio.PR_Connect(fd, loopback(port), TICKS)
    return fd


# --- certificates ----------------------------------------------------------------------------------------------------


def test_which_certificates_are_for_fortezza(cards: RunningSimulator) -> None:
    assert ssl.NSS_FindCertKEAType(find("card:kea")) == ssl.kt_fortezza
    assert ssl.NSS_FindCertKEAType(find("card:dsa")) == ssl.kt_dh
    assert pk11pub.PK11_FortezzaHasKEA(find("card:kea"))
    assert not pk11pub.PK11_FortezzaHasKEA(find("card:dsa"))
    assert not pk11pub.PK11_FortezzaHasKEA(find("card:issuer"))


def test_the_best_match_is_ours_of_the_servers_domain(cards: RunningSimulator) -> None:
    for name in CARDS:
        match = pk11pub.PK11_FindBestKEAMatch(find(f"{name}:kea"), None)
        assert match.slot is not None
        assert pk11pub.PK11_GetTokenName(match.slot) == name
    with pytest.raises(NSPRError) as raised:
        pk11pub.PK11_FindBestKEAMatch(find("card:dsa"), None)
    assert raised.value.name == "SSL_ERROR_FORTEZZA_PQG"


def test_no_match_without_the_card(cards: RunningSimulator) -> None:
    theirs = find("stranger:kea")
    cards["stranger"].remove()
    with pytest.raises(NSPRError) as raised:
        pk11pub.PK11_FindBestKEAMatch(theirs, None)
    assert raised.value.name == "SSL_ERROR_FORTEZZA_PQG"


def test_names_of_signatures() -> None:
    tag = pk11pub.SECOidTag
    dsa = tag.SEC_OID_ANSIX9_DSA_SIGNATURE
    for number in (54, 55, 56, 57, 126):
        assert pk11pub.PK11_FortezzaMapSig(number) == dsa == 124
    for number in (58, 59, 16, 0):
        assert pk11pub.PK11_FortezzaMapSig(number) == number


def test_modules_and_tokens_say_that_they_do_fortezza(cards: RunningSimulator) -> None:
    assert pk11pub.PK11_TokenExists(0x1011)  # CKM_KEA_KEY_DERIVE
    assert secmod.SECMOD_IsModulePresent(1)
    assert not secmod.SECMOD_IsModulePresent(2)


# --- handshakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [CBC, RC4, NULL], ids=lambda suite: NAMES[suite])
def test_a_handshake(suite: int, cards: RunningSimulator) -> None:
    listener = server_socket(suite)

    def serve() -> None:
        fd, _ = prio.PR_Accept(listener, TICKS)
        prio.PR_Send(fd, read_exactly(fd, 5)[::-1], 0, TICKS)
        prio.PR_Close(fd)

    with Background(serve):
        fd = client_socket(port_of(listener), suite)
        prio.PR_Send(fd, b"hello", 0, TICKS)
        assert read_exactly(fd, 5) == b"olleh"
        status = ssl.SSL_SecurityStatus(fd)
        assert (status.on, status.cipher, status.keySize, status.secretKeySize) == (ON[suite], NAMES[suite], *BITS[suite])
        channel = ssl.SSL_GetChannelInfo(fd)
        assert channel.cipherSuite == suite
        info = ssl.SSL_GetCipherSuiteInfo(suite)
        assert (info.keaTypeName, info.authAlgorithmName) == ("KEA", "KEA")
        prio.PR_Close(fd)
    prio.PR_Close(listener)


@pytest.mark.parametrize("suite", [CBC, RC4, NULL], ids=lambda suite: NAMES[suite])
def test_sessions_are_resumed(suite: int, cards: RunningSimulator) -> None:
    """From both caches, by the keys that the card keeps."""
    listener = server_socket(suite)

    def serve() -> list[bool]:
        found = []
        for _ in range(3):
            fd, _ = prio.PR_Accept(listener, TICKS)
            prio.PR_Send(fd, read_exactly(fd, 5)[::-1], 0, TICKS)
            found.append(ssl.SSL_GetChannelInfo(fd).resumed)
            prio.PR_Close(fd)
        return found

    background = Background(serve)
    with background:
        for expected in (False, True, True):
            fd = client_socket(port_of(listener), suite)
            prio.PR_Send(fd, b"hello", 0, TICKS)
            assert read_exactly(fd, 5) == b"olleh"
            assert ssl.SSL_GetChannelInfo(fd).resumed == expected
            prio.PR_Close(fd)
    assert background.result == [False, True, True]
    prio.PR_Close(listener)


def test_a_session_that_the_clients_card_does_not_take_up_is_forgotten(cards: RunningSimulator, error: Callable[[], str]) -> None:
    listener = server_socket(CBC)

    def serve() -> None:
        for _ in range(3):
            fd, _ = prio.PR_Accept(listener, TICKS)
            with suppress(NSPRError):
                prio.PR_Send(fd, read_exactly(fd, 5)[::-1], 0, TICKS)
            prio.PR_Close(fd)

    with Background(serve):
        for works in (True, False, True):
            fd = client_socket(port_of(listener), CBC)
            if works:
                prio.PR_Send(fd, b"hello", 0, TICKS)
                assert read_exactly(fd, 5) == b"olleh"
                assert not ssl.SSL_GetChannelInfo(fd).resumed
            else:
                cards["card"].fail("C_SetOperationState", "CKR_SAVED_STATE_INVALID")
                with pytest.raises(NSPRError):
                    ssl.SSL_ForceHandshake(fd)
                assert error() == "SSL_ERROR_SYM_KEY_UNWRAP_FAILURE"
            prio.PR_Close(fd)
    prio.PR_Close(listener)


def test_preferences_ask_no_token_but_handshakes_do(cards: RunningSimulator, error: Callable[[], str]) -> None:
    """SSL_CipherPrefSet never fails for want of a card; without one no such suite is offered."""
    for name in CARDS:
        cards[name].remove()
    wait_until(lambda: not pk11pub.PK11_TokenExists(0x1011))
    listener = prio.PR_NewTCPSocket()
    prio.PR_Bind(listener, loopback(0))
    prio.PR_Listen(listener, 5)
    fd = client_socket(port_of(listener), CBC, RC4, NULL)
    with pytest.raises(NSPRError):
        ssl.SSL_ForceHandshake(fd)
    assert error() == "SSL_ERROR_NO_CIPHERS_SUPPORTED"
    cards["card"].insert()
    wait_until(lambda: pk11pub.PK11_TokenExists(0x1011))
    for open_one in (fd, listener):
        prio.PR_Close(open_one)


def test_a_server_of_another_domain(cards: RunningSimulator, error: Callable[[], str]) -> None:
    """The stranger's card serves, and is then out of reach of the client, which looks among the others."""
    listener = server_socket(CBC, nickname="stranger:kea")
    stranger = find("stranger:kea").slot
    assert stranger is not None

    def serve() -> str:
        fd, _ = prio.PR_Accept(listener, TICKS)
        try:
            with pytest.raises(NSPRError) as raised:
                ssl.SSL_ForceHandshake(fd)
            return raised.value.name
        finally:
            prio.PR_Close(fd)

    background = Background(serve)
    with background:
        fd = client_socket(port_of(listener), CBC)
        ssl.SSL_AuthCertificateHook(fd, lambda *_: cards["stranger"].remove(), None)
        with pytest.raises(NSPRError):
            ssl.SSL_ForceHandshake(fd)
        assert error() == "SSL_ERROR_FORTEZZA_PQG"
        prio.PR_Close(fd)
    assert background.result == "SSL_ERROR_HANDSHAKE_FAILURE_ALERT"
    prio.PR_Close(listener)


# --- one process -------------------------------------------------------------------------------------------------------


@pytest.fixture
def several(cards: RunningSimulator) -> Callable[[], None]:
    """Makes the server cache one of several processes."""

    def change() -> None:
        ssl.SSL_ShutdownServerSessionIDCache()
        ssl.SSL_ConfigMPServerSIDCache(0, 0, 0, None)

    return change


def test_a_card_serves_one_process(several: Callable[[], None], error: Callable[[], str]) -> None:
    several()
    fd, certificate = ssl_socket(CBC), find("card:kea")
    key = pk11pub.PK11_FindKeyByAnyCert(certificate)
    with pytest.raises(NSPRError, match="a server with a FORTEZZA certificate is one process"):
        ssl.SSL_ConfigSecureServer(fd, certificate, key, ssl.kt_fortezza)
    assert error() == "SEC_ERROR_INVALID_ARGS"
    with pytest.raises(NSPRError, match="one process"):
        ssl.SSL_ConfigServerCert(fd, certificate, key)
    prio.PR_Close(fd)


def test_also_where_the_cache_comes_after_the_certificate(several: Callable[[], None], error: Callable[[], str]) -> None:
    listener = server_socket(CBC)
    several()

    def serve() -> None:
        fd, _ = prio.PR_Accept(listener, TICKS)
        try:
            with pytest.raises(NSPRError, match="one process"):
                ssl.SSL_ForceHandshake(fd)
        finally:
            prio.PR_Close(fd)

    with Background(serve):
        fd = client_socket(port_of(listener), CBC)
        with pytest.raises(NSPRError):
            ssl.SSL_ForceHandshake(fd)
        prio.PR_Close(fd)
    prio.PR_Close(listener)


def test_a_server_cert_by_its_key_usage(cards: RunningSimulator) -> None:
    fd, certificate = ssl_socket(CBC), find("card:kea")
    ssl.SSL_ConfigServerCert(fd, certificate, pk11pub.PK11_FindKeyByAnyCert(certificate))
    prio.PR_Close(fd)
