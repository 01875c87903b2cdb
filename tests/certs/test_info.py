"""What is said of a certificate."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from nss_pk11 import certs
from nss_pk11.errors import CertificateError

from .issuing import CA, DAY, KINDS, NOW, alternative, make


def test_describe() -> None:
    root = make("root", None, CA)
    leaf = make("Leaf", root, alternative("WWW.Example.com", "*.example.org", "192.0.2.1", "2001:db8::1"))
    info = certs.describe(leaf.der)
    assert (info.subject, info.issuer) == ("CN=Leaf", "CN=root")
    assert info.names == ("www.example.com", "*.example.org", "192.0.2.1", "2001:db8::1")
    assert (info.not_before, info.not_after) == (NOW - DAY, NOW + 30 * DAY)
    assert info.fingerprint.replace(":", "").lower() == leaf.certificate.fingerprint(hashes.SHA256()).hex()
    assert int(info.serial, 16) == leaf.certificate.serial_number
    assert (info.ca, info.self_signed) == (False, False)
    assert (certs.describe(root.der).ca, certs.describe(root.der).self_signed) == (True, True)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("rsa", "RSA 2048"),
        ("p256", "EC P-256"),
        ("p384", "EC P-384"),
        ("k1", "EC secp256k1"),
        ("ed25519", "Ed25519"),
        ("ed448", "Ed448"),
        ("mldsa44", "ML-DSA-44"),
        ("mldsa65", "ML-DSA-65"),
        ("mldsa87", "ML-DSA-87"),
    ],
)
def test_the_key_is_named_and_matched(kind: str, said: str) -> None:
    made = make("any", None, kind=kind)
    assert certs.describe(made.der).key == said
    assert certs.matches_key(made.der, made.key.public_key())
    assert not certs.matches_key(made.der, KINDS[kind]().public_key())
    assert not certs.matches_key(made.der, KINDS["p384" if kind == "p256" else "p256"]().public_key())


def test_names_are_dns_names_only() -> None:
    made = make("not.a.name", None, alternative("A.Example.com", "192.0.2.1", "*.B.example.com"))
    assert certs.names(made.der) == ("a.example.com", "*.b.example.com")
    assert certs.names(make("none", None).der) == ()


def test_issuer_names_are_the_certificates_own_octets() -> None:
    root = make("root", None, CA)
    leaf = make("leaf", root)
    wanted = root.certificate.subject.public_bytes()
    assert certs.issuer_names((leaf.der, root.der)) == (wanted, wanted)


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"nonsense", b"\x30\x82\xff\xff"], ids=["empty", "hollow", "text", "cut"])
def test_what_does_not_parse_is_a_certificate_error(der: bytes) -> None:
    for call in (certs.describe, certs.names, lambda der: certs.matches_key(der, KINDS["p256"]().public_key())):
        with pytest.raises(CertificateError) as caught:
            call(der)
        assert caught.value.name == "SEC_ERROR_BAD_DER"


def test_extensions_that_do_not_parse_are_a_certificate_error() -> None:
    broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x82\x05a")
    made = make("broken", None, broken)
    with pytest.raises(CertificateError) as caught:
        certs.names(made.der)
    assert caught.value.name == "SEC_ERROR_EXTENSION_VALUE_INVALID"
