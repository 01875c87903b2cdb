"""The small RSA keys of export suites, made in software."""

from __future__ import annotations

import os
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from nss_pk11.errors import ConfigurationError
from nss_pk11.slots.internal.stepdown import LONGEST, MOST_USES, StepDownKeys, _is_prime

from .signatures import verify


@pytest.mark.parametrize("bits", [512, 1024])
def test_a_key_decrypts_and_signs(bits: int) -> None:
    key = StepDownKeys().get(bits)
    public = key.public_key
    assert isinstance(public, rsa.RSAPublicKey)
    assert (key.bits, public.key_size, public.public_numbers().e) == (bits, bits, 65537)
    premaster = os.urandom(48)
    assert key.decrypt(public.encrypt(premaster, padding.PKCS1v15())) == premaster
    for algorithm in key.algorithms:
        verify(public, algorithm, key.sign(algorithm, b"message"), b"message")


@pytest.mark.parametrize("bits", [512, 1024])
def test_bad_padding_shows_nothing(bits: int) -> None:
    """A plaintext comes back all the same, derived from key and ciphertext."""
    key = StepDownKeys().get(bits)
    bad = b"\1" * (bits // 8)
    assert isinstance(key.decrypt(bad), bytes)
    assert key.decrypt(bad) == key.decrypt(bad)


def test_a_key_stays_until_it_is_renewed() -> None:
    keys = StepDownKeys()
    first = keys.get(512)
    assert keys.get(512) is first
    keys.renew()
    second = keys.get(512)
    assert second.public_key != first.public_key
    ciphertext = first.public_key.encrypt(b"secret", padding.PKCS1v15())  # type: ignore[union-attr]
    assert first.decrypt(ciphertext) == b"secret"  # a handshake under way ends with the key it began with


def test_threads_that_ask_at_once_get_one_key() -> None:
    keys, got = StepDownKeys(), []
    together = threading.Barrier(4)

    def ask() -> None:
        together.wait()
        got.append(keys.get(512))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    assert len(set(map(id, got))) == 1


def test_a_child_makes_its_own() -> None:
    keys = StepDownKeys()
    before = keys.get(512)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, keys.get(512).id)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        theirs = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    assert len(theirs) == 20
    assert theirs != before.id
    assert keys.get(512) is before


@pytest.mark.parametrize("bits", [0, 511, 2048])
def test_other_sizes_are_not_made(bits: int) -> None:
    with pytest.raises(ConfigurationError, match="512 or 1024"):
        StepDownKeys().get(bits)


def test_primes_are_told_from_others() -> None:
    found = [number for number in range(101, 3000, 2) if _is_prime(number)]
    assert found == [number for number in range(101, 3000, 2) if all(number % divisor for divisor in range(3, 55, 2))]
    for carmichael in (561, 41041, 825265, 321197185, 9746347772161):
        assert not _is_prime(carmichael)


def test_a_key_is_good_for_500_handshakes_and_for_a_day() -> None:
    """RFC 2246 appendix F.1.1.2."""
    now = 0.0
    keys = StepDownKeys(clock=lambda: now)
    first = keys.get(512)
    assert all(keys.get(512) is first for _ in range(MOST_USES - 1))
    second = keys.get(512)
    assert second is not first
    now = LONGEST - 1
    assert keys.get(512) is second
    now = LONGEST
    assert keys.get(512) is not second
