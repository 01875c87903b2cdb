"""Session caches: bounded, timely, and TLS 1.3 sessions used once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from nss_pk11.sessions import ClientCache, ServerCache
from nss_pk11.tls.session import Session
from tests.support.clock import Clock

HERE = ("localhost", 8443)


def session(version: int = 0x0304, number: int = 0, created: float = 0.0) -> Session:
    return Session(version=version, suite=0x1301, secret=bytes([number]) * 32, created=created, lifetime=100)


def test_server_cache_returns_what_was_put_until_deleted() -> None:
    cache = ServerCache()
    cache.put(b"id", b"state")
    assert cache.get(b"id") == b"state"
    cache.put(b"id", b"newer")
    assert cache.get(b"id") == b"newer"
    cache.delete(b"id")
    cache.delete(b"id")
    assert cache.get(b"id") is None


def test_server_cache_forgets_after_its_lifetime() -> None:
    clock = Clock(0.0)
    cache = ServerCache(lifetime=10, clock=clock)
    cache.put(b"id", b"state")
    clock.now = 9.9
    assert cache.get(b"id") == b"state"
    clock.now = 10.0
    assert cache.get(b"id") is None
    assert len(cache) == 0


def test_server_cache_drops_the_least_recently_used() -> None:
    cache = ServerCache(capacity=2)
    cache.put(b"a", b"1")
    cache.put(b"b", b"2")
    cache.get(b"a")
    cache.put(b"c", b"3")
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == [b"1", None, b"3"]


def test_server_cache_stays_bounded_under_threads() -> None:
    cache = ServerCache(capacity=50)

    def work(number: int) -> None:
        cache.put(number.to_bytes(4), b"state")
        cache.get((number - 1).to_bytes(4) if number else b"")
        cache.delete((number * 7 % 1000).to_bytes(4))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(1000)))
    assert len(cache) <= 50


def test_client_takes_a_tls13_session_once_newest_first() -> None:
    cache: ClientCache[Session] = ClientCache(clock=Clock(0.0))
    for number in range(3):
        cache.put(HERE, session(number=number))
    taken = [cache.take(HERE) for _ in range(4)]
    assert [found.secret[0] if found else None for found in taken] == [2, 1, 0, None]
    assert len(cache) == 0


def test_client_keeps_a_tls12_session_and_only_the_last() -> None:
    cache: ClientCache[Session] = ClientCache(clock=Clock(0.0))
    for number in range(3):
        cache.put(HERE, session(0x0303, number))
    taken = [cache.take(HERE) for _ in range(3)]
    assert [found.secret[0] if found else None for found in taken] == [2, 2, 2]


def test_client_passes_over_stale_sessions() -> None:
    clock = Clock(0.0)
    cache: ClientCache[Session] = ClientCache(clock=clock)
    cache.put(HERE, session(number=1, created=50.0))
    cache.put(HERE, session(number=2, created=0.0))
    clock.now = 120.0
    found = cache.take(HERE)
    assert found is not None
    assert found.secret[0] == 1
    cache.put(HERE, session(created=0.0))
    assert cache.take(HERE) is None
    assert len(cache) == 0


def test_client_mixes_no_keys_and_forgets_one_at_a_time() -> None:
    cache: ClientCache[Session] = ClientCache(clock=Clock(0.0))
    cache.put(HERE, session(number=1))
    cache.put(("other", 443), session(number=2))
    cache.forget(HERE)
    assert cache.take(HERE) is None
    found = cache.take(("other", 443))
    assert found is not None
    assert found.secret[0] == 2


def test_client_cache_is_bounded_in_keys_and_in_sessions_per_key() -> None:
    cache: ClientCache[Session] = ClientCache(capacity=2, per_key=2, clock=Clock(0.0))
    for key in "abc":
        for number in range(5):
            cache.put(key, session(number=number))
    assert len(cache) == 2
    assert cache.take("a") is None
    assert [cache.take("c") is not None for _ in range(3)] == [True, True, False]


def test_a_session_of_another_version_replaces_what_was_kept() -> None:
    cache: ClientCache[Session] = ClientCache(clock=Clock(0.0))
    cache.put(HERE, session(0x0303, 1))
    cache.put(HERE, session(0x0304, 2))
    assert [getattr(cache.take(HERE), "version", None) for _ in range(2)] == [0x0304, None]


def test_one_session_goes_to_one_thread_only() -> None:
    cache: ClientCache[Session] = ClientCache(per_key=500, clock=Clock(0.0))
    for _ in range(500):
        cache.put(HERE, session())
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: cache.take(HERE), range(600)))
    held = [found for found in taken if found is not None]
    assert len(held) == 500
    assert len({id(found) for found in held}) == 500
