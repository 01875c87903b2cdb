"""Certificates and keys that a server serves: one per SSLKEAType, one per use, step-down keys, OCSP responses."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nss_pk11.errors import NSPRError
from nss_pk11.net import stepdown
from nss_pk11.nss import cert as certs
from nss_pk11.nss import keyhi, nss, pk11pub, prio, ssl
from nss_pk11.nss._layers import PRFileDesc
from nss_pk11.nss.ssl import SSLAuthType, SSLExtraServerCertData, SSLKEAType
from nss_pk11.tls.codepoints import Version
from tests.certs.issuing import CA, key_usage, make
from tests.db.tools import Tools
from tests.nss.kinds import exchanges, fails, names, new, pair, refused, serve, server_config, settings_of


@pytest.fixture
def fd(kinds: Tools) -> Iterator[PRFileDesc]:
    made = new()
    yield made
    if made.layer.bottom.sock.fileno() >= 0:
        prio.PR_Close(made)


# --- NSS_FindCertKEAType ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nickname", "kea"), [("rsa", ssl.kt_rsa), ("dsa", ssl.kt_dh), ("p256", ssl.kt_ecdh), ("pss", ssl.kt_null)]
)
def test_the_kea_type_of_a_certificate(nickname: str, kea: SSLKEAType, kinds: Tools) -> None:
    assert ssl.NSS_FindCertKEAType(pk11pub.PK11_FindCertFromNickname(nickname)) is kea


def test_no_certificate_has_no_kea_type() -> None:
    assert ssl.NSS_FindCertKEAType(None) is ssl.kt_null


def test_kea_types_have_numbers() -> None:
    assert [ssl.kt_null, ssl.kt_rsa, ssl.kt_dh, ssl.kt_fortezza, ssl.kt_ecdh, ssl.kt_kea_size] == [0, 1, 2, 3, 4, 5]
    assert SSLKEAType.ssl_kea_rsa is ssl.kt_rsa


@pytest.mark.parametrize(
    ("oid", "kea"),
    [
        ("608648016502010101", 0),
        ("608648016502010102", 3),
        ("60864801650201010c", 3),
        ("608648016502010113", 3),
        ("608648016502010114", 3),
        ("2a8648ce3e0201", 2),
        ("55080101", 1),
    ],
)
def test_the_kea_type_of_rare_keys(oid: str, kea: int, kinds: Tools) -> None:
    """MISSI's, X9.42's and X.500's, by the algorithm of a SubjectPublicKeyInfo alone."""
    number = bytes.fromhex(oid)
    algorithm = b"\x30" + bytes([len(number) + 2]) + b"\x06" + bytes([len(number)]) + number
    found = pk11pub.PK11_FindCertFromNickname("rsa")
    content = algorithm + b"\x03\x02\x00\x00"
    found.spki = b"\x30" + bytes([len(content)]) + content
    assert ssl.NSS_FindCertKEAType(found) == kea


# --- SSL_ConfigSecureServer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nickname", "expected"),
    [
        ("rsa", {"any", "rsa", "rsa_export", "ecdhe_rsa", "dhe_rsa"}),
        ("p256", {"any", "ecdhe_ecdsa"}),
        ("pss", {"any", "ecdhe_rsa", "dhe_rsa"}),
    ],
)
def test_what_a_server_with_one_certificate_offers(nickname: str, expected: set[str], fd: PRFileDesc) -> None:
    serve(fd, nickname)
    assert exchanges(fd) == expected


def test_a_dsa_certificate_serves_dhe_dss(fd: PRFileDesc) -> None:
    """Differs: NSS 3.10 has these suites for clients alone."""
    for suite in ssl.SSL_ImplementedCiphers:
        ssl.SSL_CipherPrefSet(fd, suite, True)
    serve(fd, "dsa")
    assert exchanges(fd) == {"dhe_dss"}
    assert server_config(fd).max_version == Version.tls1_2


def test_an_ed25519_certificate_is_of_no_kea_type(kinds: Tools, fd: PRFileDesc) -> None:
    slot = pk11pub.PK11_GetInternalSlot()
    made = make("ed25519", None, key_usage("digital_signature"), kind="ed25519")
    private = made.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    key = pk11pub.PK11_ImportDERPrivateKeyInfoAndReturnKey(slot, private, "ed25519", isPerm=False)
    found = certs.CERT_NewTempCertificate(None, made.der)
    ssl.SSL_ConfigSecureServer(fd, found, key, ssl.NSS_FindCertKEAType(found))
    assert exchanges(fd) == {"any", "ecdhe_ecdsa"}


def test_without_dhe_on_servers(fd: PRFileDesc) -> None:
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_SERVER_DHE, 0)
    serve(fd, "rsa")
    assert exchanges(fd) == {"any", "rsa", "rsa_export", "ecdhe_rsa"}


def test_several_certificates_one_per_type(fd: PRFileDesc) -> None:
    for nickname in ("rsa", "p256", "other", "p384"):
        serve(fd, nickname)
    assert sorted(names(fd)) == ["other", "p384"]
    assert exchanges(fd) >= {"rsa", "ecdhe_rsa", "ecdhe_ecdsa"}


def test_neither_certificate_nor_key_takes_it_away(fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    serve(fd, "p256")
    ssl.SSL_ConfigSecureServer(fd, None, None, ssl.kt_rsa)
    assert names(fd) == ["p256"]
    ssl.SSL_ConfigSecureServer(fd, None, None, ssl.kt_ecdh)
    assert fails(server_config, fd=fd) == "SSL_ERROR_NO_CIPHERS_SUPPORTED"


def test_certificate_or_key_alone(fd: PRFileDesc, error: Callable[[], str]) -> None:
    found, key = pair("rsa")
    assert refused(error, ssl.SSL_ConfigSecureServer, fd, found, None, ssl.kt_rsa) == "SEC_ERROR_INVALID_ARGS"
    assert refused(error, ssl.SSL_ConfigSecureServer, fd, None, key, ssl.kt_rsa) == "SEC_ERROR_INVALID_ARGS"
    assert refused(error, ssl.SSL_ConfigSecureServer, fd, found, None, ssl.kt_kea_size) == "SEC_ERROR_INVALID_ARGS"


@pytest.mark.parametrize("kea", [-1, 5, 99])
def test_no_such_kea_type(kea: int, fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.SSL_ConfigSecureServer, fd, *pair("rsa"), kea) == "SEC_ERROR_UNSUPPORTED_KEYALG"


@pytest.mark.parametrize("kea", [0, 2, 3, 4])
def test_the_certificate_is_of_another_kea_type(kea: int, fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.SSL_ConfigSecureServer, fd, *pair("rsa"), kea) == "SSL_ERROR_CERT_KEA_MISMATCH"
    assert settings_of(fd).servers == {}


def test_another_certificates_key(fd: PRFileDesc, error: Callable[[], str]) -> None:
    found, other = pair("rsa")[0], pair("other")[1]
    serve(fd, "rsa")
    assert refused(error, ssl.SSL_ConfigSecureServer, fd, found, other, ssl.kt_rsa) == "SEC_ERROR_NO_KEY"
    assert names(fd) == ["rsa"]  # the old one stays


def test_a_plain_descriptor_serves_nothing(kinds: Tools, error: Callable[[], str]) -> None:
    plain = prio.PR_NewTCPSocket()
    found, key = pair("rsa")
    calls: list[Callable[[], object]] = [
        lambda: ssl.SSL_ConfigSecureServer(plain, found, key, ssl.kt_rsa),
        lambda: ssl.SSL_ConfigSecureServerWithCertChain(plain, found, [found], key, ssl.kt_rsa),
        lambda: ssl.SSL_ConfigServerCert(plain, found, key),
        lambda: ssl.SSL_SetStapledOCSPResponses(plain, None, ssl.kt_rsa),
    ]
    for call in calls:
        assert refused(error, call) == "PR_BAD_DESCRIPTOR_ERROR"
    prio.PR_Close(plain)


def test_the_chain_comes_from_the_database(fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    (served,) = (settings_of(fd).servers["rsa_sign"].identity.chain,)
    assert served[0] == pk11pub.PK11_FindCertFromNickname("rsa").derCert
    ca = pk11pub.PK11_FindCertFromNickname("ca")
    assert settings_of(fd).chain_of(pk11pub.PK11_FindCertFromNickname("rsa"))[1:] == (ca.derCert,)


def test_of_an_issuers_certificates_the_one_that_is_valid_is_sent(factory_settings: None, tmp_path: Path) -> None:
    """Whichever came first; and two CAs that certify each other are sent once each."""
    now, day = datetime.now(UTC), timedelta(days=1)
    root = make("root", None, CA, start=now - 9 * day, end=now + day)
    old = make("between", root, CA, start=now - 9 * day, end=now - day)
    new = make("between", root, CA, start=now - day, end=now + day, key=old.key)
    newer = make("between", root, CA, start=now + day, end=now + 9 * day, key=old.key)
    leaf = make("leaf", new, kind="p256", start=now - day, end=now + day)
    crossed = make("root", new, CA, start=now, end=now + day, key=root.key)
    for order in ((old, new, newer), (newer, new, old)):
        home = tmp_path / order[0].certificate.serial_number.to_bytes(20).hex()
        home.mkdir()
        nss.NSS_InitReadWrite(f"sql:{home}")
        slot = pk11pub.PK11_GetInternalKeySlot()
        for number, one in enumerate((*order, leaf, crossed)):
            pk11pub.PK11_ImportDERCert(slot, one.der, None, f"{one.certificate.subject.rfc4514_string()} {number}")
        fd = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
        found = certs.CERT_FindCertByDERCert(None, leaf.der)
        assert settings_of(fd).chain_of(found) == (leaf.der, new.der, crossed.der)
        prio.PR_Close(fd)
        del slot, found
        nss.NSS_Shutdown()


def test_the_chain_may_be_given(fd: PRFileDesc) -> None:
    found, key = pair("rsa")
    between = pk11pub.PK11_FindCertFromNickname("p256")
    ssl.SSL_ConfigSecureServerWithCertChain(fd, found, [found, between], key, ssl.kt_rsa)
    assert server_config(fd).identities[0].chain == (found.derCert, between.derCert)


def test_the_application_may_give_its_own_back(fd: PRFileDesc) -> None:
    """The arguments are copied, and what a socket serves is held until it is closed."""
    found, key = pair("rsa")
    ssl.SSL_ConfigSecureServer(fd, found, key, ssl.kt_rsa)
    certs.CERT_DestroyCertificate(found)
    keyhi.SECKEY_DestroyPrivateKey(key)
    assert names(fd) == ["rsa"]
    with pytest.raises(NSPRError, match="SEC_ERROR_BUSY"):
        nss.NSS_Shutdown()
    copy = new(fd)
    prio.PR_Close(fd)
    with pytest.raises(NSPRError, match="SEC_ERROR_BUSY"):
        nss.NSS_Shutdown()
    prio.PR_Close(copy)
    gc.collect()
    nss.NSS_Shutdown()


def test_models_and_listening_sockets_give_their_certificates(fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    copy = new(fd)
    assert names(copy) == ["rsa"]
    ssl.SSL_ConfigSecureServer(fd, None, None, ssl.kt_rsa)
    assert names(copy) == ["rsa"]
    prio.PR_Close(copy)


def test_which_certificate_was_served(fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    settings = settings_of(fd)
    (identity,) = server_config(fd).identities
    assert settings.certificate_of(identity) == pk11pub.PK11_FindCertFromNickname("rsa")
    assert settings.certificate_of(None) is None


# --- step-down keys --------------------------------------------------------------------------------------------------


def test_a_server_with_a_long_key_has_a_short_one_for_export_suites(fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    step_down = server_config(fd).step_down
    assert step_down is not None
    first = step_down(512)
    assert first.modulus.bit_length() == first.bits == 512
    serve(fd, "rsa")  # once a day, says the manual
    assert step_down(512).modulus != first.modulus


def test_no_step_down(fd: PRFileDesc) -> None:
    before = stepdown.step_down(512).modulus
    ssl.SSL_OptionSet(fd, ssl.SSL_NO_STEP_DOWN, 1)
    serve(fd, "rsa")
    assert server_config(fd).step_down is None
    assert "rsa_export" not in exchanges(fd)
    assert stepdown.step_down(512).modulus == before


def test_other_keys_need_no_step_down(fd: PRFileDesc) -> None:
    before = stepdown.step_down(512).modulus
    serve(fd, "p256")
    assert stepdown.step_down(512).modulus == before


def test_step_down_keys_cannot_be_made(fd: PRFileDesc, error: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(bits: int) -> None:
        raise NSPRError("no randomness", name="SSL_ERROR_GENERATE_RANDOM_FAILURE")

    monkeypatch.setattr(stepdown, "step_down", fail)
    assert refused(error, ssl.SSL_ConfigSecureServer, fd, *pair("rsa"), ssl.kt_rsa) == "SEC_ERROR_KEYGEN_FAIL"


# --- SSL_ConfigServerCert --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nickname", "expected"),
    [
        ("rsa", {"any", "rsa", "rsa_export", "ecdhe_rsa", "dhe_rsa"}),
        ("signs", {"any", "ecdhe_rsa", "dhe_rsa"}),
        ("decrypts", {"rsa", "rsa_export"}),
        ("p384", {"any", "ecdhe_ecdsa"}),
    ],
)
def test_a_certificate_is_served_for_what_its_key_usage_allows(nickname: str, expected: set[str], fd: PRFileDesc) -> None:
    ssl.SSL_ConfigServerCert(fd, *pair(nickname))
    assert exchanges(fd) == expected


def test_a_certificate_that_is_for_nothing(fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.SSL_ConfigServerCert, fd, *pair("agrees")) == "SEC_ERROR_INVALID_ARGS"


def test_a_certificate_for_each_use_and_curve(fd: PRFileDesc) -> None:
    for nickname in ("rsa", "p256", "p384", "signs"):
        ssl.SSL_ConfigServerCert(fd, *pair(nickname))
    by_name = dict(zip(names(fd), server_config(fd).identities, strict=True))
    assert set(by_name) == {"rsa", "p256", "p384", "signs"}
    assert by_name["rsa"].can_decrypt
    assert not by_name["rsa"].schemes
    assert by_name["signs"].schemes
    assert not by_name["signs"].can_decrypt


def test_a_certificate_for_one_use_alone(fd: PRFileDesc, error: Callable[[], str]) -> None:
    ssl.SSL_ConfigServerCert(fd, *pair("rsa"), SSLExtraServerCertData(SSLAuthType.ssl_auth_rsa_decrypt))
    assert exchanges(fd) == {"rsa", "rsa_export"}
    for other in set(SSLAuthType) - {SSLAuthType.ssl_auth_null, SSLAuthType.ssl_auth_rsa_decrypt, SSLAuthType.ssl_auth_rsa_sign}:
        wrong = SSLExtraServerCertData(other)
        assert refused(error, ssl.SSL_ConfigServerCert, fd, *pair("rsa"), wrong) == "SEC_ERROR_INVALID_ARGS"
    assert exchanges(fd) == {"rsa", "rsa_export"}


def test_extra_data_of_a_certificate(fd: PRFileDesc) -> None:
    found, key = pair("rsa")
    between = pk11pub.PK11_FindCertFromNickname("p256")
    data = SSLExtraServerCertData(certChain=[found, between], stapledOCSPResponses=[b"a response", b"another"])
    ssl.SSL_ConfigServerCert(fd, found, key, data)
    (identity,) = server_config(fd).identities
    assert identity.chain == (found.derCert, between.derCert)
    assert identity.ocsp == b"a response"


def test_certificate_or_key_is_missing(fd: PRFileDesc, error: Callable[[], str]) -> None:
    found, key = pair("rsa")
    assert refused(error, ssl.SSL_ConfigServerCert, fd, found, None) == "SEC_ERROR_INVALID_ARGS"
    assert refused(error, ssl.SSL_ConfigServerCert, fd, None, key) == "SEC_ERROR_INVALID_ARGS"


def test_both_ways_of_configuring_replace_each_other(fd: PRFileDesc) -> None:
    ssl.SSL_ConfigServerCert(fd, *pair("p384"))
    serve(fd, "p256")
    assert names(fd) == ["p256"]
    ssl.SSL_ConfigServerCert(fd, *pair("p256"))
    assert names(fd) == ["p256"]


# --- SSL_SetStapledOCSPResponses -------------------------------------------------------------------------------------


def test_a_stapled_response_goes_with_its_types_certificate(fd: PRFileDesc) -> None:
    ssl.SSL_SetStapledOCSPResponses(fd, [b"a response"], ssl.kt_rsa)
    serve(fd, "rsa")
    serve(fd, "p256")
    assert [identity.ocsp for identity in server_config(fd).identities] == [b"a response", b""]
    ssl.SSL_SetStapledOCSPResponses(fd, None, ssl.kt_rsa)
    assert [identity.ocsp for identity in server_config(fd).identities] == [b"", b""]


def test_a_certificate_comes_with_its_own_response(fd: PRFileDesc) -> None:
    """What was stapled to the one before is about that one."""
    serve(fd, "rsa")
    ssl.SSL_SetStapledOCSPResponses(fd, [b"of the first"], ssl.kt_rsa)
    ssl.SSL_ConfigServerCert(fd, *pair("other"), SSLExtraServerCertData(stapledOCSPResponses=[b"of the other"]))
    assert [identity.ocsp for identity in server_config(fd).identities] == [b"of the other"]
    ssl.SSL_SetStapledOCSPResponses(fd, [b"newer"], ssl.kt_rsa)
    assert [identity.ocsp for identity in server_config(fd).identities] == [b"newer"]
    ssl.SSL_ConfigServerCert(fd, *pair("rsa"))
    assert [identity.ocsp for identity in server_config(fd).identities] == [b""]


@pytest.mark.parametrize("kea", [ssl.kt_null, ssl.kt_fortezza, ssl.kt_kea_size])
def test_types_without_stapled_responses(kea: int, fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.SSL_SetStapledOCSPResponses, fd, [b"a response"], kea) == "SEC_ERROR_INVALID_ARGS"
