"""What is set on a socket: server certificates, callbacks, names, protocols; and what the engine is told of it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nss_pk11.errors import NSPRError
from nss_pk11.net import stepdown
from nss_pk11.nss import cert as certs
from nss_pk11.nss import keyhi, nss, pk11pub, prio, secerr, ssl, sslerr, sslproto
from nss_pk11.nss._layers import PRFileDesc
from nss_pk11.nss._settings import Settings
from nss_pk11.nss.ssl import SSLAuthType, SSLExtraServerCertData, SSLKEAType
from nss_pk11.nss.types import CERTCertificate, PK11SlotInfo, SECKEYPrivateKey
from nss_pk11.sessions.tickets import TicketKeys
from nss_pk11.tls.codepoints import Group, SignatureScheme, Version
from nss_pk11.tls.config import ServerConfig
from tests.certs.issuing import key_usage, make
from tests.db.tools import FEW_ITERATIONS, Tools
from tests.nss.conftest import PASSWORD


@pytest.fixture(autouse=True)
def _factory() -> Iterator[None]:
    before, Settings.defaults = Settings.defaults, Settings()
    yield
    Settings.defaults = before


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """A CA and servers' certificates for keys of every kind."""
    tools = Tools(tmp_path_factory.mktemp("kinds") / "db", PASSWORD, environment=FEW_ITERATIONS)
    tools.directory.mkdir()
    tools.initialise()
    tools.issue("ca", "-k", "ec", "-q", "nistp256", "--keyUsage", "certSigning,crlSigning", trust="CT,C,C")
    served = {"issuer": "ca", "trust": ",,"}
    tools.issue("rsa", "-k", "rsa", "-g", "2048", "-8", "host.example", **served)
    tools.issue("other", "-k", "rsa", "-g", "2048", "-8", "other.example", **served)
    tools.issue("signs", "-k", "rsa", "-g", "2048", "--keyUsage", "digitalSignature", **served)
    tools.issue("decrypts", "-k", "rsa", "-g", "2048", "--keyUsage", "keyEncipherment", **served)
    tools.issue("agrees", "-k", "rsa", "-g", "2048", "--keyUsage", "keyAgreement", **served)
    tools.issue("pss", "-k", "rsa", "-g", "2048", "--pss", **served)
    tools.issue("dsa", "-k", "dsa", "-g", "1024", **served)
    tools.issue("p256", "-k", "ec", "-q", "nistp256", **served)
    tools.issue("p384", "-k", "ec", "-q", "nistp384", **served)
    return tools


@pytest.fixture
def opened(shop: Tools) -> Tools:
    pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: None if retry else PASSWORD)
    nss.NSS_Init(f"sql:{shop.directory}")
    ssl.NSS_SetDomesticPolicy()
    return shop


@pytest.fixture
def fd(opened: Tools) -> Iterator[PRFileDesc]:
    made = new()
    yield made
    if made.layer.bottom.sock.fileno() >= 0:
        prio.PR_Close(made)


def new(model: PRFileDesc | None = None) -> PRFileDesc:
    return ssl.SSL_ImportFD(model, prio.PR_NewTCPSocket())


def pair(nickname: str) -> tuple[CERTCertificate, SECKEYPrivateKey]:
    found = pk11pub.PK11_FindCertFromNickname(nickname)
    return found, pk11pub.PK11_FindKeyByAnyCert(found)


def serve(fd: PRFileDesc, nickname: str) -> None:
    found, key = pair(nickname)
    ssl.SSL_ConfigSecureServer(fd, found, key, ssl.NSS_FindCertKEAType(found))


def settings_of(fd: PRFileDesc) -> Settings:
    assert fd.settings is not None
    return fd.settings


def server_config(fd: PRFileDesc, **arguments: Any) -> ServerConfig:
    return settings_of(fd).server_config(**arguments)


def exchanges(fd: PRFileDesc) -> set[str]:
    """The key exchanges that a server offers."""
    return {suite.key_exchange for suite in server_config(fd).usable_suites()}


def names(fd: PRFileDesc) -> list[str]:
    """The common names of the certificates that a server serves."""
    return [
        CERTCertificate(identity.chain[0]).subjectName.removeprefix("Common Name: ") for identity in server_config(fd).identities
    ]


def refused(error: Callable[[], str], call: Callable[..., object], *arguments: object, **named: object) -> str:
    """The name of the error, which is the thread's last one too."""
    with pytest.raises(NSPRError) as caught:
        call(*arguments, **named)
    assert error() == caught.value.name
    return caught.value.name


def fails(call: Callable[..., object], **arguments: object) -> str:
    with pytest.raises(NSPRError) as caught:
        call(**arguments)
    return caught.value.name


# --- NSS_FindCertKEAType ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nickname", "kea"), [("rsa", ssl.kt_rsa), ("dsa", ssl.kt_dh), ("p256", ssl.kt_ecdh), ("pss", ssl.kt_null)]
)
def test_the_kea_type_of_a_certificate(nickname: str, kea: SSLKEAType, opened: Tools) -> None:
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
def test_the_kea_type_of_rare_keys(oid: str, kea: int, opened: Tools) -> None:
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


def test_an_ed25519_certificate_is_of_no_kea_type(opened: Tools, fd: PRFileDesc) -> None:
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


def test_a_plain_descriptor_serves_nothing(opened: Tools, error: Callable[[], str]) -> None:
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
    wrong = SSLExtraServerCertData(SSLAuthType.ssl_auth_ecdsa)
    assert refused(error, ssl.SSL_ConfigServerCert, fd, *pair("rsa"), wrong) == "SEC_ERROR_INVALID_ARGS"


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


@pytest.mark.parametrize("kea", [ssl.kt_null, ssl.kt_fortezza, ssl.kt_kea_size])
def test_types_without_stapled_responses(kea: int, fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.SSL_SetStapledOCSPResponses, fd, [b"a response"], kea) == "SEC_ERROR_INVALID_ARGS"


# --- callbacks and names ---------------------------------------------------------------------------------------------

HOOKS: list[tuple[Callable[..., None], str]] = [
    (ssl.SSL_AuthCertificateHook, "auth_certificate"),
    (ssl.SSL_BadCertHook, "bad_cert"),
    (ssl.SSL_GetClientAuthDataHook, "client_auth_data"),
    (ssl.SSL_HandshakeCallback, "handshake"),
]


@pytest.mark.parametrize(("call", "field"), HOOKS)
def test_a_hook_is_kept_with_its_argument(call: Callable[..., None], field: str, fd: PRFileDesc) -> None:
    def function(*arguments: object) -> None:
        """Nothing."""

    assert getattr(settings_of(fd), field) is None
    call(fd, function, "argument")
    copy = new(fd)
    assert getattr(settings_of(fd), field) == getattr(settings_of(copy), field) == (function, "argument")
    call(fd, None, None)
    assert getattr(settings_of(fd), field) == (None, None)
    assert getattr(settings_of(copy), field) == (function, "argument")
    prio.PR_Close(copy)


def test_ssl_auth_certificate_judges_by_default(fd: PRFileDesc) -> None:
    expected = (ssl.SSL_AuthCertificate, certs.CERT_GetDefaultCertDB())
    assert settings_of(fd).authentication() == expected
    ssl.SSL_AuthCertificateHook(fd, lambda arg, fd, checksig, isServer: None, 7)
    assert settings_of(fd).authentication()[1] == 7
    ssl.SSL_AuthCertificateHook(fd, None, 7)
    assert settings_of(fd).authentication() == expected


def test_no_handshake_callback_without_security(fd: PRFileDesc, error: Callable[[], str]) -> None:
    ssl.SSL_OptionSet(fd, ssl.SSL_SECURITY, 0)
    assert refused(error, ssl.SSL_HandshakeCallback, fd, lambda fd, data: None) == "SEC_ERROR_INVALID_ARGS"


def test_names_and_argument_of_a_socket(fd: PRFileDesc) -> None:
    ssl.SSL_SetURL(fd, "host.example")
    ssl.SSL_SetPKCS11PinArg(fd, ["anything"])
    ssl.SSL_SetSockPeerID(fd, "www.example.com:443")
    settings = settings_of(fd)
    assert ssl.SSL_RevealURL(fd) == "host.example"
    assert ssl.SSL_RevealPinArg(fd) == ["anything"]
    assert settings.peer_id == "www.example.com:443"
    assert settings.client_config().server_name == "host.example"
    ssl.SSL_SetURL(fd, None)
    assert settings.client_config().server_name == ""


def test_the_database_of_a_socket(fd: PRFileDesc, error: Callable[[], str]) -> None:
    ssl.SSL_CertDBHandleSet(fd, certs.CERT_GetDefaultCertDB())
    assert refused(error, ssl.SSL_CertDBHandleSet, fd, None) == "SEC_ERROR_INVALID_ARGS"


def test_a_plain_descriptor_has_nothing_of_this(error: Callable[[], str]) -> None:
    plain = prio.PR_NewTCPSocket()
    for call, _ in HOOKS:
        assert refused(error, call, plain, None) == "PR_BAD_DESCRIPTOR_ERROR"
    others: list[tuple[Callable[..., object], object]] = [
        (ssl.SSL_SetURL, "host.example"),
        (ssl.SSL_SetPKCS11PinArg, None),
        (ssl.SSL_SetSockPeerID, "x"),
        (ssl.SSL_CertDBHandleSet, None),
        (ssl.SSL_SetTrustAnchors, []),
        (ssl.SSL_SetNextProtoNego, b""),
        (ssl.SSL_NamedGroupConfig, [23]),
        (ssl.SSL_SendAdditionalKeyShares, 1),
        (ssl.SSL_SignatureSchemePrefSet, [0x0804]),
    ]
    for call, argument in others:
        assert refused(error, call, plain, argument) == "PR_BAD_DESCRIPTOR_ERROR"
    assert refused(error, ssl.SSL_SignatureSchemePrefGet, plain) == "PR_BAD_DESCRIPTOR_ERROR"
    prio.PR_Close(plain)


# --- protocols, groups, signatures -----------------------------------------------------------------------------------


def test_application_protocols(fd: PRFileDesc) -> None:
    """The first is the last resort."""
    ssl.SSL_SetNextProtoNego(fd, b"\x08http/1.1\x02h2\x06spdy/3")
    assert settings_of(fd).client_config().alpn == ("h2", "spdy/3", "http/1.1")
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_ALPN, 0)
    assert settings_of(fd).client_config().alpn == ()
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_ALPN, 1)
    ssl.SSL_SetNextProtoNego(fd, b"")
    assert settings_of(fd).client_config().alpn == ()


@pytest.mark.parametrize("data", [b"\x00", b"\x02h", b"\x02h2\x00", b"\x02h2\x09http/1.1"])
def test_protocols_that_are_none(data: bytes, fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.SSL_SetNextProtoNego, fd, data) == "SSL_ERROR_NEXT_PROTOCOL_DATA_INVALID"


def test_named_groups(fd: PRFileDesc, error: Callable[[], str]) -> None:
    ssl.SSL_NamedGroupConfig(fd, [ssl.SSLNamedGroup.ssl_grp_ec_secp384r1, 9999, ssl.SSLNamedGroup.ssl_grp_ffdhe_2048, 24])
    assert settings_of(fd).client_config().groups == (Group.secp384r1, Group.ffdhe2048)
    assert refused(error, ssl.SSL_NamedGroupConfig, fd, [9999]) == "SEC_ERROR_INVALID_ARGS"
    assert refused(error, ssl.SSL_NamedGroupConfig, fd, []) == "SEC_ERROR_INVALID_ARGS"


def test_additional_key_shares(fd: PRFileDesc, error: Callable[[], str]) -> None:
    for count in (0, 2):
        ssl.SSL_SendAdditionalKeyShares(fd, count)
        assert settings_of(fd).client_config().key_shares == count + 1
    assert refused(error, ssl.SSL_SendAdditionalKeyShares, fd, -1) == "SEC_ERROR_INVALID_ARGS"


def test_signature_schemes(fd: PRFileDesc, error: Callable[[], str]) -> None:
    every = ssl.SSL_SignatureSchemePrefGet(fd)
    assert set(every) > {int(scheme) for scheme in ssl.SSLSignatureScheme} - {0}
    assert ssl.SSL_SignatureMaxCount() == len(every)
    ssl.SSL_SignatureSchemePrefSet(fd, [ssl.SSLSignatureScheme.ssl_sig_rsa_pss_rsae_sha256, 0x7777, 0x0403, 0x0403])
    assert ssl.SSL_SignatureSchemePrefGet(fd) == [0x0804, 0x0403]
    assert settings_of(fd).client_config().schemes == (
        SignatureScheme.rsa_pss_rsae_sha256,
        SignatureScheme.ecdsa_secp256r1_sha256,
    )
    assert refused(error, ssl.SSL_SignatureSchemePrefSet, fd, []) == "SEC_ERROR_INVALID_ARGS"
    unknown = "SSL_ERROR_NO_SUPPORTED_SIGNATURE_ALGORITHM"
    assert refused(error, ssl.SSL_SignatureSchemePrefSet, fd, [0x7777, 0xFF01]) == unknown


# --- what the engine is told -----------------------------------------------------------------------------------------


def test_versions(fd: PRFileDesc) -> None:
    ssl.SSL_VersionRangeSet(fd, (0x0302, 0x0303))
    config = settings_of(fd).client_config()
    assert (config.min_version, config.max_version) == (Version.tls1_1, Version.tls1_2)


@pytest.mark.parametrize("role", ["client_config", "server_config"])
def test_no_version_is_on(role: str, fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_SSL3, 0)
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_TLS, 0)
    assert fails(getattr(settings_of(fd), role)) == "SSL_ERROR_SSL_DISABLED"


def test_no_suite_is_on_for_the_versions(fd: PRFileDesc) -> None:
    ssl.SSL_VersionRangeSet(fd, (0x0304, 0x0304))
    for suite in (0x1301, 0x1302, 0x1303):
        ssl.SSL_CipherPrefSet(fd, suite, False)
    assert fails(settings_of(fd).client_config) == "SSL_ERROR_SSL_DISABLED"


def test_a_server_without_certificate(fd: PRFileDesc) -> None:
    assert fails(server_config, fd=fd) == "SSL_ERROR_NO_CIPHERS_SUPPORTED"


def test_a_server_without_cache(fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    assert fails(server_config, fd=fd, session_ids=False) == "SSL_ERROR_SERVER_CACHE_NOT_CONFIGURED"
    assert server_config(fd).session_ids
    ssl.SSL_OptionSet(fd, ssl.SSL_NO_CACHE, 1)
    assert not server_config(fd, session_ids=False).session_ids


def test_tickets_are_for_who_wants_them(fd: PRFileDesc) -> None:
    keys = TicketKeys()
    serve(fd, "rsa")
    assert server_config(fd, tickets=keys).tickets is None
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_SESSION_TICKETS, 1)
    assert server_config(fd, tickets=keys).tickets is keys
    assert settings_of(fd).client_config().tickets
    ssl.SSL_OptionSet(fd, ssl.SSL_NO_CACHE, 1)
    assert server_config(fd, tickets=keys).tickets is None
    assert not settings_of(fd).client_config().tickets


@pytest.mark.parametrize(
    ("request_certificate", "require", "first", "later"),
    [
        (0, 1, "none", "none"),
        (1, ssl.SSL_REQUIRE_NEVER, "request", "request"),
        (1, ssl.SSL_REQUIRE_ALWAYS, "require", "require"),
        (1, ssl.SSL_REQUIRE_FIRST_HANDSHAKE, "require", "request"),
        (1, ssl.SSL_REQUIRE_NO_ERROR, "request", "request"),
    ],
)
def test_client_certificates(request_certificate: int, require: int, first: str, later: str, fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    ssl.SSL_OptionSet(fd, ssl.SSL_REQUEST_CERTIFICATE, request_certificate)
    ssl.SSL_OptionSet(fd, ssl.SSL_REQUIRE_CERTIFICATE, require)
    assert server_config(fd).client_auth == first
    assert server_config(fd, first=False).client_auth == later
    assert server_config(fd).resume_without_certificate is (require != ssl.SSL_REQUIRE_NO_ERROR)
    ca = pk11pub.PK11_FindCertFromNickname("ca").derSubject
    assert server_config(fd).authorities == ((ca,) if request_certificate else ())


def test_nobody_is_trusted_for_clients(fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    ssl.SSL_OptionSet(fd, ssl.SSL_REQUEST_CERTIFICATE, 1)
    ssl.SSL_SetTrustAnchors(fd, [])
    assert fails(server_config, fd=fd) == "SSL_ERROR_NO_TRUSTED_SSL_CLIENT_CA"
    named = pk11pub.PK11_FindCertFromNickname("p256")
    ssl.SSL_SetTrustAnchors(fd, [named])
    assert server_config(fd).authorities == (named.derSubject,)


@pytest.mark.parametrize(
    ("value", "client", "server"),
    [(0, "never", "never"), (1, "legacy", "legacy"), (2, "secure", "secure"), (3, "legacy", "secure")],
)
def test_renegotiation(value: int, client: str, server: str, fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_RENEGOTIATION, value)
    assert settings_of(fd).client_config().renegotiation == client
    assert server_config(fd).renegotiation == server


@pytest.mark.parametrize(
    ("option", "field"),
    [
        (ssl.SSL_REQUIRE_SAFE_NEGOTIATION, "require_safe_negotiation"),
        (ssl.SSL_CBC_RANDOM_IV, "split_records"),
        (ssl.SSL_ENABLE_EXTENDED_MASTER_SECRET, "extended_master_secret"),
        (ssl.SSL_REQUIRE_DH_NAMED_GROUPS, "named_dh_groups_only"),
        (ssl.SSL_ENABLE_OCSP_STAPLING, "request_ocsp"),
        (ssl.SSL_ENABLE_FALLBACK_SCSV, "fallback"),
        (ssl.SSL_ENABLE_TLS13_COMPAT_MODE, "middlebox_compatibility"),
        (ssl.SSL_ENABLE_POST_HANDSHAKE_AUTH, "post_handshake_auth"),
    ],
)
def test_options_of_a_client(option: int, field: str, fd: PRFileDesc) -> None:
    for value in (1, 0, 1):
        ssl.SSL_OptionSet(fd, option, value)
        assert getattr(settings_of(fd).client_config(), field) is bool(value)


@pytest.mark.parametrize(
    ("option", "field"),
    [
        (ssl.SSL_REQUIRE_SAFE_NEGOTIATION, "require_safe_negotiation"),
        (ssl.SSL_CBC_RANDOM_IV, "split_records"),
        (ssl.SSL_ENABLE_EXTENDED_MASTER_SECRET, "extended_master_secret"),
        (ssl.SSL_REQUIRE_DH_NAMED_GROUPS, "named_dh_groups_only"),
        (ssl.SSL_ROLLBACK_DETECTION, "rollback_detection"),
    ],
)
def test_options_of_a_server(option: int, field: str, fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    for value in (1, 0, 1):
        ssl.SSL_OptionSet(fd, option, value)
        assert getattr(server_config(fd), field) is bool(value)


@pytest.mark.parametrize(("limit", "told"), [(64, 64), (16384, 16384), (16385, 16384)])
def test_the_record_size_limit(limit: int, told: int, fd: PRFileDesc) -> None:
    """NSS counts the content type of TLS 1.3, which RFC 8449 does, and the engine does not."""
    ssl.SSL_OptionSet(fd, ssl.SSL_RECORD_SIZE_LIMIT, limit)
    assert settings_of(fd).client_config().record_size_limit == told


def test_the_roles() -> None:
    settings = Settings()
    assert (settings.role(True), settings.role(False)) == (True, False)
    settings.options[ssl.SSL_HANDSHAKE_AS_CLIENT] = 1
    assert (settings.role(True), settings.role(False)) == (False, False)
    settings.options[ssl.SSL_HANDSHAKE_AS_CLIENT], settings.options[ssl.SSL_HANDSHAKE_AS_SERVER] = 0, 1
    assert (settings.role(True), settings.role(False)) == (True, True)


@pytest.fixture
def disabled() -> Iterator[Callable[[], None]]:
    """Disables every slot; afterwards they are as before."""
    slots: list[PK11SlotInfo] = []

    def disable() -> None:
        slots.extend(pk11pub.PK11_GetAllTokens())
        for slot in slots:
            pk11pub.PK11_UserDisableSlot(slot)

    yield disable
    while slots:
        pk11pub.PK11_UserEnableSlot(slots.pop())


def test_no_token_offers_what_a_suite_needs(fd: PRFileDesc, disabled: Callable[[], None]) -> None:
    """Setting preferences asks no token, a handshake does, each time."""
    serve(fd, "rsa")
    assert server_config(fd).mechanisms is not None
    disabled()
    ssl.SSL_CipherPrefSet(fd, sslproto.SSL_RSA_WITH_RC4_128_SHA, True)
    for _ in range(2):
        assert fails(settings_of(fd).client_config) == "SSL_ERROR_NO_CIPHERS_SUPPORTED"
        assert fails(server_config, fd=fd) == "SSL_ERROR_NO_CIPHERS_SUPPORTED"


def test_tokens_that_go_after_a_configuration_was_made(fd: PRFileDesc, disabled: Callable[[], None]) -> None:
    serve(fd, "rsa")
    settings_of(fd).client_config()
    server_config(fd)
    disabled()
    assert fails(settings_of(fd).client_config) == "SSL_ERROR_NO_CIPHERS_SUPPORTED"
    assert fails(server_config, fd=fd) == "SSL_ERROR_NO_CIPHERS_SUPPORTED"


def test_a_configuration_outlives_no_shutdown(opened: Tools) -> None:
    """Sockets with the defaults share what was made of them; tokens are those of now."""
    Settings.defaults.client_config()
    nss.NSS_Shutdown()
    nss.NSS_NoDB_Init()
    assert Settings.defaults.client_config().usable_suites()


def test_a_configuration_is_made_once_until_something_changes(fd: PRFileDesc) -> None:
    serve(fd, "rsa")
    made = server_config(fd)
    accepted = settings_of(fd).copy()
    assert server_config(fd) is made
    assert accepted.server_config() is made
    ssl.SSL_OptionSet(fd, ssl.SSL_ROLLBACK_DETECTION, 0)
    assert not server_config(fd).rollback_detection
    assert accepted.server_config() is made
    accepted.changed()
    assert accepted.server_config() is not made


def test_copies_share_what_is_made_later(fd: PRFileDesc) -> None:
    """A server's first connection makes it, the others find it."""
    serve(fd, "rsa")
    first, second = settings_of(fd).copy(), settings_of(fd).copy()
    assert first.server_config() is second.server_config()


# --- sslerr.h, secerr.h ----------------------------------------------------------------------------------------------


def test_errors_have_numbers() -> None:
    assert sslerr.SSL_ERROR_BAD_CERT_DOMAIN == -12276
    assert secerr.SEC_ERROR_BUSY == -8053
    assert secerr.XP_SEC_FORTEZZA_NO_CARD == -8141
    assert sslerr.IS_SSL_ERROR(-12276)
    assert not sslerr.IS_SSL_ERROR(-8053)
    assert secerr.IS_SEC_ERROR(-8053)
    assert not secerr.IS_SEC_ERROR(-12276)
    for module, name in ((sslerr, "SSL_ERROR_NO_SUCH"), (sslerr, "SEC_ERROR_BUSY"), (secerr, "SEC_ERROR_NO_SUCH")):
        with pytest.raises(AttributeError):
            getattr(module, name)
