"""Stapled OCSP responses: the right answer, from the right signer, in time; and certificates that insist on one."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from nss_pk11 import certs
from nss_pk11.errors import CertificateError

from .issuing import CA, DAY, NOW, SELF_HASHING, Made, alternative, make, write

HERE = alternative("localhost")
SIGNING = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.OCSP_SIGNING])
GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN


@pytest.fixture(scope="module")
def root() -> Made:
    return make("root", None, CA)


@pytest.fixture(scope="module")
def leaf(root: Made) -> Made:
    return make("leaf", root, HERE)


def respond(
    leaf: Made,
    issuer: Made,
    signer: Made | None = None,
    *,
    status: ocsp.OCSPCertStatus = GOOD,
    at: datetime = NOW - timedelta(hours=1),
    until: datetime | None = NOW + DAY,
    by_name: bool = False,
    certificates: tuple[Made, ...] = (),
    algorithm: hashes.HashAlgorithm | None = None,
    names: hashes.HashAlgorithm | None = None,
) -> bytes:
    signer = signer or issuer
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf.certificate,
        issuer=issuer.certificate,
        algorithm=names or hashes.SHA1(),
        cert_status=status,
        this_update=at,
        next_update=until,
        revocation_time=NOW - DAY if status is REVOKED else None,
        revocation_reason=None,
    )
    encoding = ocsp.OCSPResponderEncoding.NAME if by_name else ocsp.OCSPResponderEncoding.HASH
    builder = builder.responder_id(encoding, signer.certificate)
    if certificates:
        builder = builder.certificates([made.certificate for made in certificates])
    digest = None if signer.kind in SELF_HASHING else algorithm or hashes.SHA256()
    return builder.sign(signer.key, digest).public_bytes(Encoding.DER)


@pytest.fixture
def verify(tmp_path: Path, root: Made) -> Any:
    trust = certs.Trust.from_file(write(tmp_path / "ca.pem", root))

    def run(leaf: Made, staple: bytes, *others: Made) -> list[bytes]:
        chain = [leaf.der, *(made.der for made in others)]
        return trust.verify_server(chain, "localhost", now=NOW.timestamp(), ocsp=staple)

    return run


def refused(verify: Any, wanted: str, *arguments: Any) -> None:
    with pytest.raises(CertificateError) as caught:
        verify(*arguments)
    assert caught.value.name == wanted, str(caught.value)


@pytest.mark.parametrize("by_name", [False, True], ids=["by key", "by name"])
@pytest.mark.parametrize("names", [hashes.SHA1(), hashes.SHA256()], ids=lambda algorithm: algorithm.name)
def test_good(verify: Any, root: Made, leaf: Made, by_name: bool, names: hashes.HashAlgorithm) -> None:
    assert verify(leaf, respond(leaf, root, by_name=by_name, names=names)) == [leaf.der, root.der]


def test_a_response_by_the_intermediate_that_issued(verify: Any, root: Made) -> None:
    middle = make("middle", root, CA)
    leaf = make("leaf", middle, HERE)
    assert verify(leaf, respond(leaf, middle), middle)
    refused(verify, "SEC_ERROR_OCSP_UNAUTHORIZED_RESPONSE", leaf, respond(leaf, middle, root), middle)


@pytest.mark.parametrize("kind", [*SELF_HASHING, "rsa"])
def test_every_kind_of_responder_key(verify: Any, root: Made, leaf: Made, kind: str) -> None:
    delegate = make("responder", root, SIGNING, kind=kind)
    assert verify(leaf, respond(leaf, root, delegate, certificates=(delegate,)))


def test_revoked_and_unknown(verify: Any, root: Made, leaf: Made) -> None:
    refused(verify, "SEC_ERROR_REVOKED_CERTIFICATE_OCSP", leaf, respond(leaf, root, status=REVOKED))
    refused(verify, "SEC_ERROR_OCSP_UNKNOWN_CERT", leaf, respond(leaf, root, status=UNKNOWN))


def test_times(verify: Any, root: Made, leaf: Made) -> None:
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    assert verify(leaf, respond(leaf, root, at=NOW + minute))
    assert verify(leaf, respond(leaf, root, at=NOW - DAY, until=NOW - minute))
    assert verify(leaf, respond(leaf, root, until=None))
    refused(verify, "SEC_ERROR_OCSP_FUTURE_RESPONSE", leaf, respond(leaf, root, at=NOW + hour))
    refused(verify, "SEC_ERROR_OCSP_OLD_RESPONSE", leaf, respond(leaf, root, at=NOW - DAY, until=NOW - hour))
    refused(verify, "SEC_ERROR_OCSP_OLD_RESPONSE", leaf, respond(leaf, root, at=NOW - 11 * DAY, until=None))


def test_about_another_certificate(verify: Any, root: Made, leaf: Made) -> None:
    other = make("leaf", root, HERE)
    refused(verify, "SEC_ERROR_OCSP_MALFORMED_RESPONSE", leaf, respond(other, root))


def test_delegated_responders(verify: Any, root: Made, leaf: Made) -> None:
    unfit = {
        "not allowed": make("r", root),
        "of another CA": make("r", make("root", None, CA), SIGNING),
        "self-signed": make("r", None, SIGNING),
    }
    for delegate in unfit.values():
        staple = respond(leaf, root, delegate, certificates=(delegate,))
        refused(verify, "SEC_ERROR_OCSP_UNAUTHORIZED_RESPONSE", leaf, staple)
    expired = make("r", root, SIGNING, end=NOW - timedelta(hours=1))
    refused(verify, "SEC_ERROR_OCSP_INVALID_SIGNING_CERT", leaf, respond(leaf, root, expired, certificates=(expired,)))
    absent = make("r", root, SIGNING)
    refused(verify, "SEC_ERROR_OCSP_UNAUTHORIZED_RESPONSE", leaf, respond(leaf, root, absent))
    assert verify(leaf, respond(leaf, root, absent, certificates=(absent,)))


def test_signatures(verify: Any, root: Made, leaf: Made) -> None:
    impostor = make("root", None, CA)
    refused(verify, "SEC_ERROR_OCSP_BAD_SIGNATURE", leaf, respond(leaf, root, impostor, by_name=True))
    refused(verify, "SEC_ERROR_OCSP_BAD_SIGNATURE", leaf, respond(leaf, root, algorithm=hashes.SHA224()))
    staple = bytearray(respond(leaf, root))
    staple[-1] ^= 1
    refused(verify, "SEC_ERROR_OCSP_BAD_SIGNATURE", leaf, bytes(staple))


def test_every_cut_of_a_response_is_refused_and_nothing_else_happens(verify: Any, root: Made, leaf: Made) -> None:
    staple = respond(leaf, root)
    for length in range(1, len(staple), 7):
        refused(verify, "SEC_ERROR_OCSP_MALFORMED_RESPONSE", leaf, staple[:length])


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (ocsp.OCSPResponseStatus.TRY_LATER, "SEC_ERROR_OCSP_TRY_SERVER_LATER"),
        (ocsp.OCSPResponseStatus.UNAUTHORIZED, "SEC_ERROR_OCSP_UNAUTHORIZED_REQUEST"),
        (ocsp.OCSPResponseStatus.INTERNAL_ERROR, "SEC_ERROR_OCSP_SERVER_ERROR"),
        (ocsp.OCSPResponseStatus.MALFORMED_REQUEST, "SEC_ERROR_OCSP_MALFORMED_REQUEST"),
        (ocsp.OCSPResponseStatus.SIG_REQUIRED, "SEC_ERROR_OCSP_REQUEST_NEEDS_SIG"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_responses_without_an_answer(verify: Any, leaf: Made, status: ocsp.OCSPResponseStatus, wanted: str) -> None:
    refused(verify, wanted, leaf, ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER))


def test_must_staple(verify: Any, root: Made) -> None:
    leaf = make("leaf", root, HERE, x509.TLSFeature([x509.TLSFeatureType.status_request]))
    refused(verify, "SEC_ERROR_OCSP_UNKNOWN_RESPONSE_STATUS", leaf, b"")
    assert verify(leaf, respond(leaf, root))
