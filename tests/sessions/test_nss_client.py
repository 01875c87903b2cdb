"""The client's cache by NSS's rules: who the peer is, how long a session is good, and which of several it is."""

from __future__ import annotations

import pytest

from nss_pk11.sessions import NssClientCache
from nss_pk11.tls.session import Session
from tests.support.clock import Clock

PEER = ("::ffff:127.0.0.1", 443, None, "www.example.com")
SSL2, SSL3, TLS1_2, TLS1_3 = 0x0002, 0x0300, 0x0303, 0x0304


@pytest.fixture
def cache(clock: Clock) -> NssClientCache[Session]:
    return NssClientCache(clock=clock)


def session(version: int = TLS1_2, lifetime: int = 10**6) -> Session:
    return Session(version=version, suite=0x002F, secret=bytes(48), created=1_000_000.0, lifetime=lifetime, session_id=b"id")


def test_newest_comes_first_and_stays(cache: NssClientCache[Session]) -> None:
    older, newer = session(), session()
    cache.put(*PEER, older)
    cache.put(*PEER, newer)
    assert cache.lookup(*PEER) is newer
    assert cache.lookup(*PEER) is newer
    cache.invalidate(newer)
    cache.invalidate(newer)
    assert cache.lookup(*PEER) is older
    cache.clear()
    assert cache.lookup(*PEER) is None


@pytest.mark.parametrize(
    "other",
    [
        ("::ffff:127.0.0.2", *PEER[1:]),
        (PEER[0], 444, *PEER[2:]),
        (*PEER[:2], "peer", PEER[3]),
        (*PEER[:2], "", PEER[3]),
        (*PEER[:3], "www.example.org"),
    ],
    ids=["address", "port", "peer ID", "empty peer ID", "URL"],
)
def test_another_peer_has_no_session(cache: NssClientCache[Session], other: tuple[str, int, str | None, str]) -> None:
    cache.put(*PEER, session())
    assert cache.lookup(*other) is None
    cache.put(*other, theirs := session())
    assert cache.lookup(*other) is theirs


@pytest.mark.parametrize(("version", "seconds"), [(SSL2, 100), (SSL3, 86400), (TLS1_2, 86400), (TLS1_3, 86400)])
def test_lifetime(cache: NssClientCache[Session], clock: Clock, version: int, seconds: int) -> None:
    cache.put(*PEER, kept := session(version))
    clock.now += seconds + 1
    assert cache.lookup(*PEER) is None
    assert len(cache) == 0
    clock.now -= seconds + 1
    cache.put(*PEER, kept)
    clock.now += seconds
    assert cache.lookup(*PEER) is kept


def test_session_that_says_less_is_believed(cache: NssClientCache[Session], clock: Clock) -> None:
    cache.put(*PEER, session(lifetime=60))
    clock.now += 61
    assert cache.lookup(*PEER) is None


def test_tls13_sessions_are_handed_out_once(cache: NssClientCache[Session]) -> None:
    first, second = session(TLS1_3), session(TLS1_3)
    cache.put(*PEER, first)
    cache.put(*PEER, second)
    assert cache.lookup(*PEER) is second
    assert cache.lookup(*PEER) is first
    assert cache.lookup(*PEER) is None


def test_session_put_twice_is_kept_once(cache: NssClientCache[Session]) -> None:
    one = session()
    cache.put(*PEER, one)
    cache.put(*PEER, one)
    assert len(cache) == 1
