"""The short keys of export suites, as an engine gets and a KeyExecutor uses them."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from nss_pk11.errors import ConfigurationError
from nss_pk11.net import stepdown
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.tls.waits import Decrypt


@pytest.mark.parametrize("bits", [512, 1024])
def test_what_was_sealed_for_it_is_opened(bits: int) -> None:
    key = stepdown.step_down(bits)
    assert key.bits == key.modulus.bit_length() == key.identity.modulus_bits == bits
    public = rsa.RSAPublicNumbers(key.exponent, key.modulus).public_key()
    premaster = os.urandom(48)
    with KeyExecutor() as executor:
        assert executor.run(Decrypt(key.identity, public.encrypt(premaster, padding.PKCS1v15()))) == premaster
        bad = executor.run(Decrypt(key.identity, b"\1" * (bits // 8)))
        assert isinstance(bad, bytes)  # made up, as if all were well
        assert bad == executor.run(Decrypt(key.identity, b"\1" * (bits // 8)))
        assert executor.run(Decrypt(key.identity, b"short")) is None


def test_the_key_is_the_same_until_it_is_renewed() -> None:
    first = stepdown.step_down(512)
    assert stepdown.step_down(512) is first
    stepdown.renew()
    assert stepdown.step_down(512).modulus != first.modulus


def test_another_size() -> None:
    with pytest.raises(ConfigurationError, match="512 or 1024"):
        stepdown.step_down(768)
