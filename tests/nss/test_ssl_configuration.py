"""What is set on a socket beside options and certificates: callbacks, names, protocols; and what the engine is told of it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nss_pk11.nss import cert as certs
from nss_pk11.nss import nss, pk11pub, prio, secerr, ssl, sslerr, sslproto
from nss_pk11.nss._layers import PRFileDesc
from nss_pk11.nss._settings import Settings
from nss_pk11.nss._state import state
from nss_pk11.nss.types import PK11SlotInfo
from nss_pk11.sessions.tickets import TicketKeys
from nss_pk11.tls.codepoints import Group, SignatureScheme, Version
from tests.db.tools import Tools
from tests.nss.kinds import fails, new, pair, refused, serve, server_config, settings_of


@pytest.fixture
def fd(kinds: Tools) -> Iterator[PRFileDesc]:
    made = new()
    yield made
    if made.layer.bottom.sock.fileno() >= 0:
        prio.PR_Close(made)


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


def test_a_closed_socket_takes_nothing(kinds: Tools, error: Callable[[], str]) -> None:
    """It would hold what it is given for ever: NSS_Shutdown would be SEC_ERROR_BUSY."""
    closed, whole = new(), new()
    found, key = pair("rsa")
    prio.PR_Close(closed)
    calls: list[tuple[Callable[..., object], tuple[object, ...]]] = [
        (ssl.SSL_OptionSet, (ssl.SSL_NO_CACHE, 1)),
        (ssl.SSL_OptionGet, (ssl.SSL_NO_CACHE,)),
        (ssl.SSL_CipherPrefSet, (sslproto.SSL_RSA_WITH_RC4_128_SHA, True)),
        (ssl.SSL_CipherPrefGet, (sslproto.SSL_RSA_WITH_RC4_128_SHA,)),
        (ssl.SSL_VersionRangeSet, ((0x0303, 0x0304),)),
        (ssl.SSL_VersionRangeGet, ()),
        (ssl.SSL_ConfigSecureServer, (found, key, ssl.kt_rsa)),
        (ssl.SSL_ConfigServerCert, (found, key)),
        (ssl.SSL_SetTrustAnchors, ([found],)),
        (ssl.SSL_SetURL, ("host.example",)),
        (ssl.SSL_SetPKCS11PinArg, (found,)),
        (ssl.SSL_AuthCertificateHook, (None, found)),
        (ssl.SSL_ReconfigFD, (whole,)),
    ]
    for call, arguments in calls:
        assert refused(error, call, closed, *arguments) == "PR_BAD_DESCRIPTOR_ERROR"
    assert refused(error, ssl.SSL_ReconfigFD, whole, closed) == "PR_BAD_DESCRIPTOR_ERROR"
    prio.PR_Close(whole)
    del found, key, calls, arguments
    nss.NSS_Shutdown()


@pytest.mark.parametrize("call", [ssl.SSL_VersionRangeSet, ssl.SSL_NamedGroupConfig, ssl.SSL_SetTrustAnchors])
def test_null_is_no_argument(call: Callable[..., None], fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, call, fd, None) == "SEC_ERROR_INVALID_ARGS"


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
    subject = named.derSubject
    ssl.SSL_SetTrustAnchors(fd, [named, named])
    certs.CERT_DestroyCertificate(named)
    assert server_config(fd).authorities == (subject,)


def test_sockets_hold_no_trust_anchors_and_closed_ones_nothing_for_callbacks(kinds: Tools) -> None:
    """An open socket keeps the names alone, as in C."""
    fd = new()
    ssl.SSL_SetTrustAnchors(fd, [pk11pub.PK11_FindCertFromNickname("p256")])
    assert not state.held()
    ssl.SSL_GetClientAuthDataHook(fd, ssl.NSS_GetClientAuthData, pk11pub.PK11_FindCertFromNickname("rsa"))
    ssl.SSL_SetPKCS11PinArg(fd, pk11pub.PK11_GetInternalKeySlot())
    assert len(state.held()) == 2
    prio.PR_Close(fd)
    nss.NSS_Shutdown()


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


def test_a_configuration_outlives_no_shutdown(kinds: Tools) -> None:
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
