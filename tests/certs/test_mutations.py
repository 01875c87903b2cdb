"""Whatever a peer sends for a certificate or an OCSP response: a verdict or a CertificateError, and never the wrong verdict."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nss_pk11 import certs
from nss_pk11.errors import CertificateError

from .issuing import CA, NOW, SERVER, Made, alternative, key_usage, make, write
from .test_ocsp import respond

# Odd values that are only deprecated, such as a serial number of 0, come as warnings.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

EDIT = st.tuples(st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=3))


@cache
def world(kind: str) -> tuple[certs.Trust, Made, Made, bytes]:
    """A trusted root with a key of `kind`, an intermediate, a leaf, and a response about the leaf."""
    root = make("root", None, CA, kind=kind)
    middle = make("middle", root, CA, key_usage("key_cert_sign"))
    usage = (x509.ExtendedKeyUsage([SERVER]), key_usage("digital_signature"))
    leaf = make("leaf", middle, alternative("localhost", "127.0.0.1"), *usage)
    with TemporaryDirectory() as directory:
        trust = certs.Trust.from_file(write(Path(directory) / "ca.pem", root))
    return trust, leaf, middle, respond(leaf, middle)


def mutate(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Each edit: at a position, so many bytes replaced by others."""
    for position, removed, inserted in edits:
        position %= len(data) or 1
        data = data[:position] + inserted + data[position + removed :]
    return data


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["p256", "ed25519"]), st.booleans(), st.lists(EDIT, min_size=1, max_size=3))
def test_no_mutated_certificate_is_trusted(kind: str, leaf_bent: bool, edits: list[tuple[int, int, bytes]]) -> None:
    trust, leaf, middle, _ = world(kind)
    good = leaf.der if leaf_bent else middle.der
    bent = mutate(good, edits)
    assume(bent != good)
    chain = [bent, middle.der] if leaf_bent else [leaf.der, bent]
    with pytest.raises(CertificateError):
        trust.verify_server(chain, "localhost", now=NOW.timestamp())
    with pytest.raises(CertificateError):
        trust.verify_client(chain, now=NOW.timestamp())


@settings(max_examples=150, deadline=None)
@given(st.lists(EDIT, min_size=1, max_size=3))
def test_reading_a_mutated_certificate_ends_well_or_in_a_certificate_error(edits: list[tuple[int, int, bytes]]) -> None:
    _, leaf, middle, _ = world("p256")
    bent = mutate(leaf.der, edits)
    calls: tuple[Callable[[], object], ...] = (
        lambda: certs.describe(bent),
        lambda: certs.names(bent),
        lambda: certs.matches_key(bent, leaf.key.public_key()),
        lambda: certs.issuer_names((bent,)),
        lambda: certs.subject_name(bent),
        lambda: certs.order((middle.der, bent)),
        lambda: certs.without_root((middle.der, bent)),
    )
    for call in calls:
        with suppress(CertificateError):
            call()


@settings(max_examples=150, deadline=None)
@given(st.lists(EDIT, min_size=1, max_size=3))
def test_a_mutated_response_changes_no_verdict_for_the_better(edits: list[tuple[int, int, bytes]]) -> None:
    trust, leaf, middle, _ = world("p256")
    revoked = respond(leaf, middle, status=ocsp.OCSPCertStatus.REVOKED)
    bent = mutate(revoked, edits)
    assume(bent)
    with pytest.raises(CertificateError):
        trust.verify_server([leaf.der, middle.der], "localhost", now=NOW.timestamp(), ocsp=bent)
