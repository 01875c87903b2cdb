"""The session cache that processes share: NSS's sizes and times, what goes, what is zeroed, and inheritance."""

from __future__ import annotations

import base64
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nss_pk11.errors import ConfigurationError, NSPRError
from nss_pk11.sessions import SharedServerCache, shared
from nss_pk11.sessions.shared_layout import CERTIFICATE_ROOM, ENTRY_ROOM, Layout
from tests.support.clock import Clock

SEAL = 12 + 16  # bytes of nonce and tag
SESSION = bytes(range(32))


@pytest.fixture
def make() -> Iterator[Callable[..., SharedServerCache]]:
    """Makes caches, and closes them."""
    made: list[SharedServerCache] = []

    def make(*arguments: object, **settings: object) -> SharedServerCache:
        made.append(SharedServerCache(*arguments, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for cache in made:
        cache.close()


Make = Callable[..., SharedServerCache]


def number(value: int) -> bytes:
    return value.to_bytes(32, "big")


# --- sizes and times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "entries"), [(0, 10112), (-5, 10112), (1, 128), (128, 128), (129, 256), (10000, 10112)])
def test_entries_are_rounded_up_to_whole_sets(make: Make, asked: int, entries: int) -> None:
    assert make(asked).max_entries == entries


@pytest.mark.parametrize(("asked", "certificates"), [(1, 125), (10000, 1264)])
def test_client_certificate_entries(make: Make, asked: int, certificates: int) -> None:
    assert make(asked).max_certificates == certificates


def test_more_than_four_gibibytes() -> None:
    with pytest.raises(ConfigurationError, match="too large"):
        SharedServerCache(1 << 24)


@pytest.mark.parametrize(
    ("asked", "ssl2", "ssl3"), [(0, 100, 86400), (1, 5, 5), (50, 50, 50), (200, 100, 200), (10**6, 100, 86400)]
)
def test_timeouts(make: Make, asked: int, ssl2: int, ssl3: int) -> None:
    cache = make(1, asked, asked)
    assert (cache.ssl2_timeout, cache.ssl3_timeout) == (ssl2, ssl3)


def test_locks_as_nss_has_them() -> None:
    assert [Layout.of(entries).locks for entries in (1, 128 * 3, 128 * 8, 10000)] == [1, 3, 8, 8]


@pytest.mark.parametrize(("ssl2", "seconds"), [(True, 100), (False, 86400)])
def test_expiry(make: Make, clock: Clock, ssl2: bool, seconds: int) -> None:
    cache = make(1, clock=clock)
    cache.put(SESSION, b"state", ssl2=ssl2)
    clock.now += seconds
    assert cache.get(SESSION) == b"state"
    clock.now += 1
    assert cache.get(SESSION) is None
    assert cache.count() == 0


def test_clock_that_ran_backwards(make: Make, clock: Clock) -> None:
    cache = make(1, clock=clock)
    cache.put(SESSION, b"state")
    clock.now -= 10
    assert cache.get(SESSION) is None


# --- what is kept -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["file", "memory", "private"])
def test_put_get_delete(make: Make, storage: str) -> None:
    cache = make(1, storage=storage)
    assert cache.get(SESSION) is None
    cache.put(SESSION, b"state")
    cache.put(SESSION, b"newer")
    assert cache.get(SESSION) == b"newer"
    assert cache.count() == 1
    cache.delete(SESSION)
    cache.delete(SESSION)
    assert cache.get(SESSION) is None
    assert cache.statistics() == (1, 2)


@pytest.mark.parametrize("session_id", [b"", bytes(33)])
def test_id_that_is_none(make: Make, session_id: bytes) -> None:
    cache = make(1)
    cache.put(session_id, b"state")
    assert cache.get(session_id) is None
    assert cache.count() == 0


def test_ids_that_padding_makes_alike(make: Make) -> None:
    cache = make(1)
    cache.put(b"a", b"one")
    cache.put(b"a\0", b"other")
    assert (cache.get(b"a"), cache.get(b"a\0")) == (b"one", b"other")


def test_address_is_part_of_the_key(make: Make) -> None:
    cache = make(1)
    cache.put(SESSION, b"state", "192.0.2.1")
    assert cache.get(SESSION, "::ffff:192.0.2.1") == b"state"
    assert cache.get(SESSION, "192.0.2.2") is None
    assert cache.get(SESSION, "2001:db8::1") is None
    assert cache.get(SESSION) is None
    with pytest.raises(ConfigurationError, match="no IP address"):
        cache.get(SESSION, "localhost")


LARGEST = ENTRY_ROOM + CERTIFICATE_ROOM - SEAL


@pytest.mark.parametrize("size", [0, 1, ENTRY_ROOM - SEAL, ENTRY_ROOM - SEAL + 1, 4060 + 300, LARGEST])
def test_state_of_any_size_that_fits(make: Make, size: int) -> None:
    cache, state = make(1), os.urandom(size)
    cache.put(SESSION, b"older")
    cache.put(SESSION, state)
    assert cache.get(SESSION) == state


def test_state_that_does_not_fit(make: Make) -> None:
    """Neither it nor what it was to replace."""
    cache = make(1)
    cache.put(SESSION, b"older")
    cache.put(SESSION, bytes(LARGEST + 1))
    assert cache.get(SESSION) is None


def test_ring_drops_its_oldest(make: Make) -> None:
    cache = make(128)
    for value in range(130):
        cache.put(number(value), number(value))
    assert [cache.get(number(value)) is None for value in range(130)] == [True, True] + [False] * 128


def test_put_again_is_newest_again(make: Make) -> None:
    cache = make(128)
    for value in [*range(128), 0, 128]:
        cache.put(number(value), number(value))
    assert [value for value in range(129) if cache.get(number(value)) is None] == [1]


def test_client_certificate_that_went_to_another_session(make: Make) -> None:
    """125 of them beside 1 set: the 126th takes the first one's place, and the first session is one no more."""
    cache = make(1)
    for value in range(126):
        cache.put(number(value), number(value) * 100)
    assert cache.get(number(0)) is None
    assert all(cache.get(number(value)) == number(value) * 100 for value in range(1, 126))
    assert cache.count() == 125


def test_caches_in_one_process_are_apart(make: Make) -> None:
    one, other = make(1), make(1)
    one.put(SESSION, b"state")
    assert other.get(SESSION) is None


def test_closed_cache_holds_nothing() -> None:
    cache = SharedServerCache(1)
    descriptors = cache.descriptors
    cache.put(SESSION, b"state")
    cache.close()
    cache.close()
    cache.put(SESSION, b"state")
    cache.delete(SESSION)
    assert cache.get(SESSION) is None
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


IDS = st.integers(0, 5).map(lambda value: bytes([value]) * (value + 1))
STATES = st.builds(
    lambda letter, size: letter * size, st.sampled_from([b"x", b"y"]), st.sampled_from([0, 5, 416, 417, 4000, 5000])
)
STEPS = st.lists(
    st.one_of(st.tuples(st.just("put"), IDS, STATES), st.tuples(st.sampled_from(["get", "delete"]), IDS)), max_size=30
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_like_a_dictionary_while_there_is_room(steps: list[tuple[str, bytes] | tuple[str, bytes, bytes]]) -> None:
    cache, model = SharedServerCache(1, storage="private"), dict[bytes, bytes]()
    for name, session_id, *state in steps:
        result = getattr(cache, name)(session_id, *state)
        if name == "get":
            assert result == model.get(session_id)
        else:
            model.pop(session_id, None)
        if state and len(state[0]) <= LARGEST:
            model[session_id] = state[0]
    assert cache.count() == len(model)
    cache.close()


# --- secrets ------------------------------------------------------------------------------------------------------------------


def lying(cache: SharedServerCache) -> bytes:
    """Everything from the first session entry on."""
    return cache._memory.data[cache._layout.entry_at(0, 0) :]


def test_memory_shows_no_state(make: Make, tmp_path: Path) -> None:
    cache = make(1, directory=str(tmp_path))
    cache.put(SESSION, b"master secret" * 100)
    assert b"master secret" not in cache._memory.data[:]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [48, 3000])
def test_deleted_is_zeroed(make: Make, size: int) -> None:
    cache = make(1)
    cache.put(SESSION, bytes(size))
    assert any(lying(cache))
    cache.delete(SESSION)
    assert not any(lying(cache))


@pytest.mark.parametrize("size", [48, 3000])
def test_expired_is_zeroed_when_its_set_is_used(make: Make, clock: Clock, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make(1, clock=clock)
    cache.put(SESSION, bytes(size))
    clock.now += 86401
    monkeypatch.setattr(shared, "SWEEP", 0.0)
    assert cache.get(b"another") is None
    assert not any(lying(cache))


# --- inheritance --------------------------------------------------------------------------------------------------------------

CHILD = """
import os, sys
from nss_pk11.sessions import SharedServerCache
cache = SharedServerCache.inherit(os.environ["SSL_INHERITANCE"])
assert cache.get(b"parent's") == b"state", "nothing there"
assert (cache.ssl2_timeout, cache.ssl3_timeout, cache.max_entries) == (30, 40, 256)
cache.put(b"child's", b"other")
cache.put(b"large", b"large" * 500)
"""


def run_child(cache: SharedServerCache, inheritance: str, pass_fds: tuple[int, ...]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SSL_INHERITANCE": inheritance}
    command = (sys.executable, "-c", CHILD)
    return subprocess.run(command, env=environment, pass_fds=pass_fds, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def parents(make: Make, tmp_path: Path) -> SharedServerCache:
    cache = make(200, 30, 40, str(tmp_path))
    cache.put(b"parent's", b"state")
    return cache


def test_inheritance_reads_as_nspr_writes_it(parents: SharedServerCache) -> None:
    sizes, place = parents.inheritance().split(",")
    descriptor, prot = place.split(":")
    assert struct.unpack("=II", base64.b64decode(sizes)) == (os.fstat(int(descriptor)).st_size, len(place))
    assert prot == "1"
    assert int(descriptor) in parents.descriptors
    assert all(os.get_inheritable(descriptor) for descriptor in parents.descriptors)


def test_executed_child_inherits(parents: SharedServerCache) -> None:
    done = run_child(parents, parents.inheritance(), parents.descriptors)
    assert done.returncode == 0, done.stderr
    assert parents.get(b"child's") == b"other"
    assert parents.get(b"large") == b"large" * 500


def test_forked_child_goes_on(make: Make) -> None:
    cache = make(1, storage="memory")
    cache.put(b"parent's", b"state")
    pid = os.fork()
    if pid == 0:
        cache.put(b"child's", cache.get(b"parent's") or b"nothing")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert cache.get(b"child's") == b"state"


@pytest.mark.parametrize("missing", [0, 1], ids=["memory", "key"])
def test_descriptor_was_not_passed(parents: SharedServerCache, missing: int) -> None:
    done = run_child(parents, parents.inheritance(), (parents.descriptors[1 - missing],))
    assert "PR_BAD_DESCRIPTOR_ERROR" in done.stderr


def changed(sizes: tuple[int, int], place: str) -> str:
    return f"{base64.b64encode(struct.pack('=II', *sizes)).decode()},{place}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no comma",
        ",4:1",
        "AAAA,4:1",
        "*&^%,4:1",
        changed((4096, 4), "4:1"),
        changed((4096, 3), "4:0"),
        changed((4096, 3), "4:2"),
        changed((4096, 3), "a:1"),
        changed((4096, 4), "-4:1"),
        changed((4096, 1), "4"),
        changed((0, 3), "4:1"),
        changed((4096, 13), "99999999999:1"),
        changed((4096, 9), "4:1:extra"),
        "\N{SNOWMAN},4:1",
    ],
)
def test_string_that_is_no_inheritance(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        SharedServerCache.inherit(text)
    assert raised.value.name == "SEC_ERROR_INVALID_ARGS"


def test_descriptor_that_is_not_open() -> None:
    with pytest.raises(NSPRError) as raised:
        SharedServerCache.inherit(changed((4096, 6), "9999:1"))
    assert raised.value.name == "PR_BAD_DESCRIPTOR_ERROR"


def test_size_that_the_map_contradicts(parents: SharedServerCache) -> None:
    size, place = os.fstat(parents.descriptors[0]).st_size, parents.inheritance().split(",")[1]
    for other in (size - 4096, size + 4096):
        with pytest.raises(NSPRError) as raised:
            SharedServerCache.inherit(changed((other, len(place)), place))
        assert raised.value.name == "SEC_ERROR_BAD_DATA"


def test_file_that_is_no_cache(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb+") as file:
        file.truncate(8192)
        place = f"{file.fileno()}:1"
        with pytest.raises(NSPRError) as raised:
            SharedServerCache.inherit(changed((8192, len(place)), place))
    assert raised.value.name == "SEC_ERROR_BAD_DATA"


@pytest.mark.parametrize("storage", ["memory", "private"])
def test_what_cannot_be_inherited_by_exec(make: Make, storage: str) -> None:
    cache = make(1, storage=storage)
    assert cache.descriptors == ()
    with pytest.raises(ConfigurationError, match="cannot be inherited"):
        cache.inheritance()


@pytest.mark.parametrize(
    ("directory", "name"), [("missing", "PR_FILE_NOT_FOUND_ERROR"), ("file/below", "PR_NOT_DIRECTORY_ERROR")]
)
def test_directory_that_is_none(tmp_path: Path, directory: str, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NSPRError) as raised:
        SharedServerCache(directory=str(tmp_path / directory))
    assert raised.value.name == name


# --- locks ---------------------------------------------------------------------------------------------------------------------


def test_holder_that_does_not_let_go_costs_a_session_and_no_more(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another open file description holds every lock, as a process would that was stopped."""
    cache = make(1, directory=str(tmp_path))
    cache.put(SESSION, b"state")
    monkeypatch.setattr("nss_pk11.sessions.shared_memory.PATIENCE", 0.05)
    with open(f"/proc/self/fd/{cache.descriptors[0]}", "rb+") as other:
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 100, 0))
        cache.put(b"another", b"state")
        cache.delete(SESSION)
        assert cache.get(SESSION) is None
    assert cache.get(SESSION) == b"state"
    assert cache.get(b"another") is None
