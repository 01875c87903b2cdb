"""Verdicts on chains: what private and public CAs make is accepted; each fault gets NSS's name for it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from nss_pk11 import certs
from nss_pk11.certs import rules
from nss_pk11.errors import Alert, CertificateError, ConfigurationError, alert_for

from ..support.require import missing
from .issuing import CA, CLIENT, DAY, NOW, SELF_HASHING, SERVER, Made, alternative, key_usage, make, write

HERE = alternative("localhost", "127.0.0.1", "::1")
NOW_SECONDS = NOW.timestamp()


@pytest.fixture
def verify(tmp_path: Path):  # type: ignore[no-untyped-def]
    """verify(trusted, chain, name="localhost", after=no time) -> path; name None: as a client's chain."""

    def run(
        trusted: Made | list[Made], chain: Made | list[Made], name: str | None = "localhost", after: timedelta = timedelta()
    ) -> list[bytes]:
        trust = certs.Trust.from_file(write(tmp_path / "ca.pem", *([trusted] if isinstance(trusted, Made) else trusted)))
        ders = [made.der for made in ([chain] if isinstance(chain, Made) else chain)]
        now = (NOW + after).timestamp()
        return trust.verify_client(ders, now=now) if name is None else trust.verify_server(ders, name, now=now)

    return run


def refused(verify, wanted: str, *arguments, **keywords) -> CertificateError:  # type: ignore[no-untyped-def]
    with pytest.raises(CertificateError) as caught:
        verify(*arguments, **keywords)
    assert caught.value.name == wanted, str(caught.value)
    return caught.value


@pytest.fixture(scope="module")
def root() -> Made:
    return make("root", None, CA)


@pytest.fixture(scope="module")
def middle(root: Made) -> Made:
    return make("middle", root, CA, key_usage("key_cert_sign"))


@pytest.fixture(scope="module")
def leaf(middle: Made) -> Made:
    return make("leaf", middle, HERE)


# --- accepted -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "::1", "0:0:0:0:0:0:0:1"])
def test_a_chain_through_an_intermediate(verify, root: Made, middle: Made, leaf: Made, name: str) -> None:  # type: ignore[no-untyped-def]
    assert verify(root, [leaf, middle], name) == [leaf.der, middle.der, root.der]
    assert verify(root, [leaf, root, middle], name) == [leaf.der, middle.der, root.der]


def test_an_intermediate_can_be_the_anchor(verify, middle: Made, leaf: Made) -> None:  # type: ignore[no-untyped-def]
    assert verify(middle, leaf) == [leaf.der, middle.der]


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (x509.ExtendedKeyUsage([SERVER]),),
        (x509.ExtendedKeyUsage([CLIENT, SERVER]),),
        (x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),),
        (x509.BasicConstraints(ca=False, path_length=None), key_usage("digital_signature", "key_encipherment")),
        (x509.TLSFeature([x509.TLSFeatureType.status_request_v2]),),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("2.16.840.1.113730.1.13"), b"\x16\x02hi"),),
    ],
    ids=["bare", "server", "both", "any", "usual", "feature", "unknown"],
)
def test_leaves_as_private_cas_make_them(verify, root: Made, extensions: tuple[x509.ExtensionType, ...]) -> None:  # type: ignore[no-untyped-def]
    leaf = make("leaf", root, HERE, *extensions)
    assert verify(root, leaf) == [leaf.der, root.der]


@pytest.mark.parametrize("critical", [(), (x509.BasicConstraints, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)])
def test_criticality_of_what_is_understood_is_no_matter(verify, critical) -> None:  # type: ignore[no-untyped-def]
    root = make("root", None, CA, critical=critical)
    assert verify(root, make("leaf", root, HERE, x509.ExtendedKeyUsage([SERVER]), critical=critical))


def test_a_client_needs_no_name(verify, root: Made) -> None:  # type: ignore[no-untyped-def]
    for leaf in (make("alice", root), make("alice", root, x509.ExtendedKeyUsage([CLIENT]))):
        assert verify(root, leaf, None) == [leaf.der, root.der]


@pytest.mark.parametrize("kind", [*SELF_HASHING, "rsa"])
def test_leaves_of_every_kind_of_key(verify, root: Made, kind: str) -> None:  # type: ignore[no-untyped-def]
    leaf = make("leaf", root, HERE, kind=kind)
    assert verify(root, leaf) == [leaf.der, root.der]
    assert verify(root, leaf, None) == [leaf.der, root.der]


@pytest.mark.parametrize("kind", SELF_HASHING)
def test_issuers_that_the_library_does_not_know(verify, kind: str) -> None:  # type: ignore[no-untyped-def]
    root = make("root", None, CA, kind=kind)
    middle = make("middle", root, CA, kind="p256")
    for chain in ([make("leaf", root, HERE)], [make("leaf", middle, HERE), middle]):
        assert verify(root, chain) == [*(made.der for made in chain), root.der]
    refused(verify, "SEC_ERROR_EXPIRED_CERTIFICATE", root, make("leaf", root, HERE), after=31 * DAY)
    refused(verify, "SSL_ERROR_BAD_CERT_DOMAIN", root, make("leaf", root, HERE), "example.com")
    refused(verify, "SEC_ERROR_INADEQUATE_CERT_TYPE", root, make("leaf", root, HERE, x509.ExtendedKeyUsage([CLIENT])))
    stranger = make("root", None, CA, kind=kind)
    refused(verify, "SEC_ERROR_BAD_SIGNATURE", root, make("leaf", stranger, HERE))


def test_what_the_second_opinion_cannot_judge_it_refuses(verify) -> None:  # type: ignore[no-untyped-def]
    constrained = make("root", None, CA, x509.NameConstraints([x509.DNSName("localhost")], None), kind="ed25519")
    refused(verify, "SEC_ERROR_CERT_NOT_IN_NAME_SPACE", constrained, make("leaf", constrained, HERE))
    policies = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), None)])
    root = make("root", None, CA, kind="ed25519")
    leaf = make("leaf", root, HERE, policies, critical=(x509.CertificatePolicies,))
    refused(verify, "SEC_ERROR_UNKNOWN_CRITICAL_EXTENSION", root, leaf)
    no_ca = make("middle", root, kind="p256")
    refused(verify, "SEC_ERROR_CA_CERT_INVALID", root, [make("leaf", no_ca, HERE), no_ca])
    weak = make("middle", root, CA, kind="rsa1024")
    refused(verify, "SEC_ERROR_INVALID_KEY", root, [make("leaf", weak, HERE), weak])
    short = make("short", None, x509.BasicConstraints(ca=True, path_length=0), kind="ed25519")
    middle = make("middle", short, CA, kind="p256")
    refused(verify, "SEC_ERROR_PATH_LEN_CONSTRAINT_INVALID", short, [make("leaf", middle, HERE), middle])
    sha1 = make("sha1", root, CA, kind="p256")
    leaf = make("leaf", sha1, HERE, algorithm=hashes.SHA224())
    refused(verify, "SEC_ERROR_CERT_SIGNATURE_ALGORITHM_DISABLED", root, [leaf, sha1])


# --- a certificate that is its own anchor ---------------------------------------------------------------------------


@pytest.mark.parametrize("extensions", [(), (CA,), (CA, key_usage("key_cert_sign"))], ids=["plain", "ca", "ca with usage"])
@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_a_self_signed_certificate_that_the_user_names(verify, kind: str, extensions) -> None:  # type: ignore[no-untyped-def]
    own = make("localhost", None, HERE, *extensions, kind=kind)
    assert verify(own, own) == [own.der]
    refused(verify, "SEC_ERROR_EXPIRED_CERTIFICATE", own, own, after=31 * DAY)
    refused(verify, "SSL_ERROR_BAD_CERT_DOMAIN", own, own, "example.com")
    other = make("localhost", None, HERE, *extensions, kind=kind)
    with pytest.raises(CertificateError):
        verify(own, other)


def test_a_named_leaf_still_has_to_be_for_this_use(verify) -> None:  # type: ignore[no-untyped-def]
    own = make("localhost", None, HERE, x509.ExtendedKeyUsage([CLIENT]))
    refused(verify, "SEC_ERROR_INADEQUATE_CERT_TYPE", own, own)
    assert verify(own, own, None) == [own.der]


def test_a_leaf_that_a_ca_issued_can_be_named_too(verify, leaf: Made) -> None:  # type: ignore[no-untyped-def]
    assert verify(leaf, leaf) == [leaf.der]


# --- refused --------------------------------------------------------------------------------------------------------


def test_dates(verify, root: Made, middle: Made, leaf: Made) -> None:  # type: ignore[no-untyped-def]
    late = refused(verify, "SEC_ERROR_EXPIRED_CERTIFICATE", root, [leaf, middle], after=31 * DAY)
    assert "expired on 2030-07-01" in str(late)
    assert late.subject == "CN=leaf"
    assert alert_for(late) is Alert.certificate_expired
    early = refused(verify, "SEC_ERROR_EXPIRED_CERTIFICATE", root, [leaf, middle], after=-2 * DAY)
    assert "not valid before 2030-05-31" in str(early)
    stale = make("stale", root, CA, end=NOW - timedelta(hours=1))
    error = refused(verify, "SEC_ERROR_EXPIRED_ISSUER_CERTIFICATE", root, [make("leaf", stale, HERE), stale])
    assert error.subject == "CN=stale"
    old_root = make("old root", None, CA, end=NOW - timedelta(hours=1))
    refused(verify, "SEC_ERROR_EXPIRED_ISSUER_CERTIFICATE", old_root, make("leaf", old_root, HERE))


@pytest.mark.parametrize("name", ["example.com", "sub.localhost", "127.0.0.2", "::2", "localhos", "xlocalhost"])
def test_names(verify, root: Made, middle: Made, leaf: Made, name: str) -> None:  # type: ignore[no-untyped-def]
    error = refused(verify, "SSL_ERROR_BAD_CERT_DOMAIN", root, [leaf, middle], name)
    assert "is for localhost, 127.0.0.1, ::1" in str(error)


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_wildcards_stand_for_one_whole_label(verify, kind: str) -> None:  # type: ignore[no-untyped-def]
    root = make("root", None, CA, kind=kind)
    leaf = make("leaf", root, alternative("*.example.com"))
    for name in ("a.example.com", "A.Example.COM", "xn--a.example.com"):
        assert verify(root, leaf, name)
    for name in ("example.com", "a.b.example.com", "aexample.com", "a.example.org", "a.example.com.evil.org"):
        refused(verify, "SSL_ERROR_BAD_CERT_DOMAIN", root, leaf, name)


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_the_common_name_is_no_name_and_an_address_is_no_dns_name(verify, kind: str) -> None:  # type: ignore[no-untyped-def]
    root = make("root", None, CA, kind=kind)
    assert "no name at all" in str(refused(verify, "SSL_ERROR_BAD_CERT_DOMAIN", root, make("localhost", root)))
    posing = x509.SubjectAlternativeName([x509.DNSName("127.0.0.1")])
    refused(verify, "SSL_ERROR_BAD_CERT_DOMAIN", root, make("leaf", root, posing), "127.0.0.1")


def test_no_name_to_match(verify, root: Made, leaf: Made) -> None:  # type: ignore[no-untyped-def]
    refused(verify, "SSL_ERROR_BAD_CERT_DOMAIN", root, leaf, "")
    with pytest.raises(ConfigurationError, match="neither an address nor a DNS name"):
        verify(root, leaf, "bücher.example")


def test_usage(verify, root: Made) -> None:  # type: ignore[no-untyped-def]
    error = refused(verify, "SEC_ERROR_INADEQUATE_CERT_TYPE", root, make("leaf", root, HERE, x509.ExtendedKeyUsage([CLIENT])))
    assert "TLS servers" in str(error)
    assert alert_for(error) is Alert.unsupported_certificate
    refused(verify, "SEC_ERROR_INADEQUATE_CERT_TYPE", root, make("leaf", root, HERE, x509.ExtendedKeyUsage([SERVER])), None)
    refused(verify, "SEC_ERROR_INADEQUATE_CERT_TYPE", root, make("leaf", root, HERE, CA))
    middle = make("middle", root, CA, x509.ExtendedKeyUsage([CLIENT]))
    refused(verify, "SEC_ERROR_INADEQUATE_CERT_TYPE", root, [make("leaf", middle, HERE), middle])


def test_issuers(verify, root: Made, leaf: Made) -> None:  # type: ignore[no-untyped-def]
    missing = refused(verify, "SEC_ERROR_UNKNOWN_ISSUER", root, leaf)
    assert "CN=middle is not trusted" in str(missing)
    assert alert_for(missing) is Alert.unknown_ca
    own = make("localhost", None, HERE)
    assert "self-signed" in str(refused(verify, "SEC_ERROR_UNKNOWN_ISSUER", root, own))
    impostor = make("root", None, CA)
    refused(verify, "SEC_ERROR_BAD_SIGNATURE", root, make("leaf", impostor, HERE))
    refused(verify, "SEC_ERROR_BAD_SIGNATURE", root, [make("leaf", impostor, HERE), impostor])
    other = make("other", None, CA)
    middle = make("m", other, CA)
    error = refused(verify, "SEC_ERROR_UNKNOWN_ISSUER", root, [make("leaf", middle, HERE), middle])
    assert error.subject == "CN=m"


def test_issuers_that_may_not_issue(verify, root: Made) -> None:  # type: ignore[no-untyped-def]
    for extensions in ((), (x509.BasicConstraints(ca=False, path_length=None),), (CA, key_usage("digital_signature"))):
        middle = make("middle", root, *extensions)
        refused(verify, "SEC_ERROR_CA_CERT_INVALID", root, [make("leaf", middle, HERE), middle])
    short = make("short", None, x509.BasicConstraints(ca=True, path_length=0))
    middle = make("middle", short, CA)
    assert verify(short, make("leaf", short, HERE))
    refused(verify, "SEC_ERROR_PATH_LEN_CONSTRAINT_INVALID", short, [make("leaf", middle, HERE), middle])


def test_name_constraints(verify) -> None:  # type: ignore[no-untyped-def]
    root = make("root", None, CA, x509.NameConstraints([x509.DNSName("example.com")], None))
    assert verify(root, make("leaf", root, alternative("www.example.com")), "www.example.com")
    refused(verify, "SEC_ERROR_CERT_NOT_IN_NAME_SPACE", root, make("leaf", root, alternative("localhost")))


def test_weak_signatures(verify, root: Made) -> None:  # type: ignore[no-untyped-def]
    leaf = make("leaf", root, HERE, algorithm=hashes.SHA224())
    refused(verify, "SEC_ERROR_CERT_SIGNATURE_ALGORITHM_DISABLED", root, leaf)
    for kind in ("rsa1024", "k1"):
        weak = make("weak", None, CA, kind=kind)
        refused(verify, "SEC_ERROR_INVALID_KEY", weak, make("leaf", weak, HERE))


def test_damaged_certificates(verify, root: Made, leaf: Made, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    trust = certs.Trust.from_file(write(tmp_path / "ca.pem", root))
    for chain in ([leaf.der[:-5]], [b""], [leaf.der, b"junk"]):
        with pytest.raises(CertificateError) as caught:
            trust.verify_server(chain, "localhost", now=NOW_SECONDS)
        assert caught.value.name == "SEC_ERROR_BAD_DER"
    with pytest.raises(CertificateError) as caught:
        trust.verify_server([], "localhost", now=NOW_SECONDS)
    assert caught.value.name == "SSL_ERROR_NO_CERTIFICATE"
    own = make("leaf", root, HERE)
    for position in range(len(own.der) - 8, len(own.der)):
        bent = bytearray(own.der)
        bent[position] ^= 1
        with pytest.raises(CertificateError):
            trust.verify_server([bytes(bent)], "localhost", now=NOW_SECONDS)
    broken = make("leaf", root, x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x82\x05a"))
    refused(verify, "SEC_ERROR_EXTENSION_VALUE_INVALID", root, broken)


def test_many_issuers_of_one_name_cost_bounded_work(root: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = 0

    def counted(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        nonlocal checks
        checks += 1
        return issued(certificate, issuer)

    issued = rules.issued
    monkeypatch.setattr(rules, "issued", counted)
    key = make("twin", None, CA).key
    twins = [make("twin", None, CA, key=key) for _ in range(60)]
    chain = [make("leaf", twins[0], HERE).der, *(twin.der for twin in twins)]
    trust = certs.Trust.from_file(write(tmp_path / "ca.pem", root))
    with pytest.raises(CertificateError) as caught:
        trust.verify_server(chain, "localhost", now=NOW_SECONDS)
    assert caught.value.name == "SEC_ERROR_UNKNOWN_ISSUER"
    assert 0 < checks <= 64


# --- trust itself ---------------------------------------------------------------------------------------------------


def test_authorities_are_subject_names_once_each(tmp_path: Path, root: Made, middle: Made) -> None:
    again = make("root", None, CA)
    trust = certs.Trust.from_file(write(tmp_path / "ca.pem", root, middle, again))
    assert trust.authorities == (root.certificate.subject.public_bytes(), middle.certificate.subject.public_bytes())


def test_the_systems_roots_are_read_when_first_needed(root: Made) -> None:
    trust = certs.Trust.system()
    assert "certificates" not in vars(trust)
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists():
        missing("the system's bundle of root certificates (ca-certificates)")
    with pytest.raises(CertificateError) as caught:
        trust.verify_server([make("leaf", root, HERE).der], "localhost", now=NOW_SECONDS)
    assert caught.value.name == "SEC_ERROR_UNKNOWN_ISSUER"
    assert len(trust.certificates) > 20


def test_several_trusted_roots_and_the_right_one_is_found(verify, root: Made, middle: Made, leaf: Made) -> None:  # type: ignore[no-untyped-def]
    others = [make("other", None, CA, kind=kind) for kind in ("ed25519", "p384")]
    assert verify([*others, root], [leaf, middle])[-1] == root.der
