"""RFC 7919 groups: the computed primes are the published ones, and agreement has the lengths and refusals TLS needs."""

from __future__ import annotations

import subprocess

import asn1crypto.pem
import pytest
from asn1crypto.core import Integer, SequenceOf

from nss_pk11.errors import IllegalParameter
from nss_pk11.tls import ffdhe
from nss_pk11.tls.codepoints import Group

GROUPS = list(ffdhe.PRIMES)
# The ends of the primes printed in RFC 7919 appendix A: where X shows.
ENDINGS = {
    Group.ffdhe2048: "886B423861285C97FFFFFFFFFFFFFFFF",
    Group.ffdhe3072: "25E41D2B66C62E37FFFFFFFFFFFFFFFF",
    Group.ffdhe4096: "C68A007E5E655F6AFFFFFFFFFFFFFFFF",
    Group.ffdhe6144: "A40E329CD0E40E65FFFFFFFFFFFFFFFF",
    Group.ffdhe8192: "D68C8BB7C5C6424CFFFFFFFFFFFFFFFF",
}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_prime_is_the_published_one(group: Group) -> None:
    digits = f"{ffdhe.PRIMES[group]:X}"
    assert len(digits) == 2 * ffdhe.SIZES[group] == int(group.name.removeprefix("ffdhe")) // 4
    assert digits.startswith("FFFFFFFFFFFFFFFFADF85458A2BB4A9AAFDC5620273D3CF1D8B9C583CE2D3695")
    assert digits.endswith(ENDINGS[group])


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_openssl_has_the_same_prime(group: Group) -> None:
    command = ["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", f"group:{group.name}"]
    pem = subprocess.run(command, check=True, capture_output=True).stdout
    # A named group is written as its prime and generator (PKCS #3): SEQUENCE { INTEGER p, INTEGER g }.
    prime, generator = (int(value) for value in SequenceOf.load(asn1crypto.pem.unarmor(pem)[2], spec=Integer).native)
    assert (prime, generator) == (ffdhe.PRIMES[group], ffdhe.GENERATOR)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_both_sides_agree_and_exponents_are_short(group: Group) -> None:
    ours, theirs = ffdhe.generate(group), ffdhe.generate(group)
    secret = ffdhe.agree(group, ours, ffdhe.public_bytes(theirs))
    assert secret == ffdhe.agree(group, theirs, ffdhe.public_bytes(ours))
    assert len(secret) == len(ffdhe.public_bytes(ours)) == ffdhe.SIZES[group]
    assert ours.private_numbers().x.bit_length() <= 400


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
@pytest.mark.parametrize("degenerate", ["0", "1", "p - 1", "p", "p + 1"])
def test_degenerate_public_values_are_refused(group: Group, degenerate: str) -> None:
    value: int = eval(degenerate, {"p": ffdhe.PRIMES[group]})
    with pytest.raises(IllegalParameter):
        ffdhe.agree(group, ffdhe.generate(group), value.to_bytes(ffdhe.SIZES[group], "big"))


def test_value_longer_than_the_prime_is_refused() -> None:
    key = ffdhe.generate(Group.ffdhe2048)
    with pytest.raises(IllegalParameter):
        ffdhe.agree(Group.ffdhe2048, key, b"\0" + ffdhe.public_bytes(key))
