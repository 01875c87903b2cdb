"""SSL 2.0 and hellos in its form, where peers do what they should not.  What they do right is in `tests/interop`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nss_pk11.errors import CertificateError, ConfigurationError, TLSError
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.events import PeerClosed
from nss_pk11.tls.messages import ssl2 as messages
from nss_pk11.tls.messages.hello import ClientHello
from nss_pk11.tls.session import Session
from nss_pk11.tls.ssl2.server import MARK, select, select_unmarked
from nss_pk11.tls.suites import BY_NAME, DEFAULT_SUITES, LEGACY_SUITES, SSL2_SUITES, SUITES, Suite
from nss_pk11.tls.waits import Decrypt, DecryptSsl2

from ..support import drive
from ..support.pki import PKI

ONLY: dict[str, Any] = {"suites": SSL2_SUITES, "min_version": Version.ssl2, "max_version": Version.ssl2}
OLD: dict[str, Any] = {"suites": SUITES + LEGACY_SUITES, "min_version": Version.ssl3, "max_version": Version.tls1_2}
RC4, EXPORT, DES3 = (BY_NAME[f"SSL_CK_{name}_WITH_MD5"] for name in ("RC4_128", "RC4_128_EXPORT40", "DES_192_EDE3_CBC"))
CHALLENGE = bytes(range(32))


def shake_hands(client: drive.Peer, server: drive.Peer) -> None:
    for _ in range(6):
        server.take(client.give())
        client.take(server.give())


def record(message: bytes) -> bytes:
    return (0x8000 | len(message)).to_bytes(2, "big") + message


def hello(*kinds: int, version: int = Version.ssl2, session_id: bytes = b"", challenge: bytes = CHALLENGE) -> bytes:
    return messages.ClientHello(version, kinds or (RC4.kind,), session_id, challenge).encode()


def messages_in(data: bytes) -> list[bytes]:
    found = []
    while data:
        length = int.from_bytes(data[:2], "big") & 0x7FFF
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    return found


# --- who speaks it ----------------------------------------------------------------------------------------------------


def test_it_takes_version_and_suites(engine_pki: PKI) -> None:
    """Either alone enables nothing."""
    assert not any(suite in SSL2_SUITES for suite in (*SUITES, *LEGACY_SUITES, *DEFAULT_SUITES))
    either: list[dict[str, Any]] = [{"min_version": Version.ssl2, "suites": SUITES}, {"suites": SUITES + SSL2_SUITES}]
    for settings in either:
        assert ServerConfig(**settings).min_version >= Version.ssl3
        server = drive.server(engine_pki.server("rsa"), **settings)
        server.take(record(hello()))
        assert server.error is not None
        assert server.error.name in ("SSL_ERROR_RX_UNKNOWN_RECORD_TYPE", "SSL_ERROR_UNSUPPORTED_VERSION")


def test_names_that_suites_of_ssl3_have_too_stay_theirs() -> None:
    assert BY_NAME["RC4-MD5"].code == 0x0004
    assert [BY_NAME[suite.nss_name] for suite in SSL2_SUITES] == list(SSL2_SUITES)


def test_no_hello_of_newer_form_offers_its_suites() -> None:
    client = drive.client(suites=SUITES + SSL2_SUITES, min_version=Version.tls1_2, max_version=Version.tls1_2)
    offered = ClientHello.decode(client.give()[5:]).suites
    assert not {suite.code for suite in SSL2_SUITES} & set(offered)


def test_tls13_cannot_be_offered_beside_it() -> None:
    with pytest.raises(ConfigurationError, match="SSL_ERROR_INVALID_VERSION_RANGE"):
        ClientConfig(min_version=Version.ssl2, suites=SUITES + SSL2_SUITES)


GAP: dict[str, Any] = {  # SSL 2.0 and TLS 1.2, nothing between
    "suites": SUITES + LEGACY_SUITES + SSL2_SUITES,
    "min_version": Version.ssl2,
    "oldest_beside_ssl2": Version.tls1_2,
    "max_version": Version.tls1_2,
}


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (Version.ssl3, "SSL_ERROR_UNSUPPORTED_VERSION"),
        (Version.tls1_1, "SSL_ERROR_UNSUPPORTED_VERSION"),
        (Version.tls1_2, None),
    ],
)
def test_what_lies_between_it_and_the_oldest_beside_it_is_not_enabled(
    version: Version, name: str | None, engine_pki: PKI
) -> None:
    shared = replace(drive.identity(engine_pki.server("rsa")), shared_with_ssl2=True)
    server = drive.server(**GAP, identities=(shared,))
    old = dict(OLD, min_version=version, max_version=version)
    server.take(drive.client(**old).give())
    assert (server.error and server.error.name) == name
    server = drive.server(**GAP, identities=(shared,))
    server.take(record(hello()))
    assert (server.error, server.engine.info.version) == (None, Version.ssl2)
    client, server = drive.client(**GAP), drive.server(engine_pki.server("rsa"), **old, v2_hello=True)
    server.take(client.give())
    client.take(server.give())
    assert (client.error and client.error.name) == name


def test_suites_of_versions_between_are_not_offered() -> None:
    export = next(suite for suite in LEGACY_SUITES if suite.export and suite.max_version == Version.tls1_0)
    usable = ClientConfig(**GAP).usable_suites()
    assert export not in usable
    assert set(SSL2_SUITES) < set(usable)
    only_export = ClientConfig(**dict(GAP, suites=(export, *SSL2_SUITES)))
    assert (only_export.min_version, only_export.max_version) == (Version.ssl2, Version.ssl2)


def test_a_server_hello_of_a_version_that_is_none(engine_pki: PKI) -> None:
    """Between the numbers of SSL 2.0 and 3.0 there are none."""
    for version in (0x0002, 0x0100, 0x02FF):
        client = drive.client(**dict(GAP, oldest_beside_ssl2=Version.ssl3))
        client.give()
        body = version.to_bytes(2, "big") + bytes(32) + b"\x00\x00\x2f\x00"
        client.take(b"\x16\x03\x00" + (len(body) + 4).to_bytes(2, "big") + b"\x02" + len(body).to_bytes(3, "big") + body)
        assert client.error is not None
        assert client.error.name == "SSL_ERROR_UNSUPPORTED_VERSION"


def test_one_key_for_it_and_for_more(engine_pki: PKI) -> None:
    """DROWN."""
    own = drive.identity(engine_pki.server("rsa"))
    both: dict[str, Any] = {"suites": SUITES + SSL2_SUITES, "min_version": Version.ssl2}
    with pytest.raises(ConfigurationError, match="SEC_ERROR_INADEQUATE_KEY_USAGE"):
        ServerConfig(identities=(own,), **both)
    assert ServerConfig(identities=(drive.identity(engine_pki.server("p256")),), **both).min_version == Version.ssl2
    assert ServerConfig(identities=(own,), **ONLY).max_version == Version.ssl2


# --- hellos in its form -----------------------------------------------------------------------------------------------


def test_who_offers_tls13_sends_none() -> None:
    first = drive.client(suites=SUITES, max_version=Version.tls1_3, v2_hello=True).give()
    assert first[0] == 22
    assert drive.client(**OLD, v2_hello=True).give()[0] == 0x80


def test_a_newer_session_is_asked_for_in_the_newer_form() -> None:
    suite = BY_NAME["AES128-SHA"]
    for version, form in ((Version.tls1_2, 22), (Version.ssl2, 0x80)):
        session = Session(version, suite.code, bytes(48), 0, 100, session_id=bytes(16), server_name="localhost")
        assert drive.client(**OLD, v2_hello=True, session=session, clock=lambda: 50.0).give()[0] == form


def test_a_short_challenge_is_filled_from_the_left() -> None:
    raw = hello(0x2F, RC4.kind, 0xFF, version=Version.tls1_0, challenge=CHALLENGE[:16])
    newer = messages.ClientHello.decode(raw).newer(raw)
    assert newer.random == bytes(16) + CHALLENGE[:16]
    assert (newer.suites, newer.session_id, newer.extensions, newer.raw) == ((0x2F, 0xFF), b"", {}, raw)


def test_it_is_taken_only_where_it_is_enabled_and_only_first(engine_pki: PKI) -> None:
    raw = record(hello(0x2F, version=Version.tls1_2))
    for enabled in (False, True):
        for chunk in (0, 1, 3):
            server = drive.server(engine_pki.server("rsa"), **OLD, v2_hello=enabled)
            server.chunk = chunk
            server.take(raw)
            assert (server.error is None) is enabled
            assert (server.engine.info.version == Version.tls1_2) is enabled
    server = drive.server(engine_pki.server("rsa"), **OLD, v2_hello=True)
    server.take(raw)
    server.take(raw)
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_RX_UNKNOWN_RECORD_TYPE"


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"x",
        lambda raw: raw[:4] + bytes((raw[4] + 1,)) + raw[5:],
        lambda raw: raw[:6] + b"\x08" + raw[7:-8],
        lambda raw: hello(version=Version.tls1_0, challenge=bytes(15)),
        lambda raw: hello(version=Version.tls1_0, session_id=bytes(15)),
        lambda raw: raw[:3] + bytes(2) + raw[5:9] + raw[12:],
    ],
    ids=["short", "long", "kinds", "session", "challenge", "session id", "no kinds"],
)
def test_a_malformed_hello(engine_pki: PKI, change: Callable[[bytes], bytes]) -> None:
    server = drive.server(engine_pki.server("rsa"), **OLD, v2_hello=True)
    server.take(record(change(hello(0x2F, version=Version.tls1_0))))
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_RX_MALFORMED_CLIENT_HELLO"


# --- the server -------------------------------------------------------------------------------------------------------


def serving(engine_pki: PKI, **more: Any) -> drive.Driver:
    return drive.server(engine_pki.server("rsa"), **ONLY, **more)


def master_key(
    engine_pki: PKI, suite: Suite, *, clear: bytes | None = None, secret: bytes | None = None, argument: int = -1
) -> bytes:
    """ClientMasterKey, right unless said otherwise."""
    cipher, key = suite.cipher, load_pem_private_key(engine_pki.server("rsa").key_file.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    numbers = key.public_key().public_numbers()
    secret = bytes(cipher.secret) if secret is None else secret
    block = b"\0\2" + b"\1" * (253 - len(secret)) + b"\0" + secret
    encrypted = pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(256, "big")
    clear = bytes(cipher.key - cipher.secret) if clear is None else clear
    return messages.ClientMasterKey(suite.kind, clear, encrypted, bytes(cipher.block if argument < 0 else argument)).encode()


@pytest.mark.parametrize("suite", [RC4, EXPORT, DES3], ids=lambda suite: suite.openssl)
def test_nothing_is_said_before_the_client_has_proven_itself(engine_pki: PKI, suite: Suite) -> None:
    """Whatever the master key decrypts to: no answer, no error, and the same one for a Finished that does not fit."""
    for secret in (None, b"", b"x" * (suite.cipher.secret + 1), b"x" * 40):
        server = serving(engine_pki)
        server.take(record(hello(suite.kind)))
        server.give()
        server.take(record(master_key(engine_pki, suite, secret=secret)))
        assert (server.error, server.give()) == (None, b"")
        assert isinstance(server.operations[0], DecryptSsl2)
        assert isinstance(server.operations[0], Decrypt)
        server.take(record(bytes(40)))
        assert server.error is not None
        assert (server.error.name, server.give()) == ("SSL_ERROR_BAD_MAC_READ", b"")


def test_the_part_in_clear_is_as_long_as_the_cipher_has_it(engine_pki: PKI) -> None:
    """Else some bytes at a time could be tried (CVE-2016-0703)."""
    short, long, none = {"clear": b"x"}, {"clear": b"x" * 12}, {"clear": b""}
    wrong: list[tuple[Suite, dict[str, Any]]] = [(RC4, short), (EXPORT, long), (EXPORT, none)]
    wrong += [(DES3, {"argument": 0}), (RC4, {"argument": 8})]
    for suite, change in wrong:
        server = serving(engine_pki)
        server.take(record(hello(suite.kind)))
        server.take(record(master_key(engine_pki, suite, **change)))
        assert server.error is not None
        assert server.error.name == "SSL_ERROR_BAD_CLIENT"
        assert server.operations == []


def test_a_kind_that_was_not_offered(engine_pki: PKI) -> None:
    server = serving(engine_pki)
    server.take(record(hello(RC4.kind)))
    server.take(record(master_key(engine_pki, EXPORT)))
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_BAD_CLIENT"


def test_nothing_in_common(engine_pki: PKI) -> None:
    server = serving(engine_pki)
    server.take(record(hello(0x050080)))
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_NO_CYPHER_OVERLAP"
    assert messages_in(server.give()) == [b"\0\0\1"]


@pytest.mark.parametrize("wrong", [b"\x03" + bytes(16), b"\x09", b""], ids=["early Finished", "unknown", "empty"])
def test_messages_out_of_place(engine_pki: PKI, wrong: bytes) -> None:
    server = serving(engine_pki)
    server.take(record(hello()))
    server.take(record(wrong))
    assert isinstance(server.error, TLSError)
    assert not server.engine.handshake_complete


def test_the_mask_chooses_as_a_branch_would() -> None:
    assert select(b"12345", b"abcde") == b"12345"
    for wrong in (None, b"", b"1234", b"123456"):
        assert select(wrong, b"abcde") == b"abcde"


def block(padding: bytes, separator: bytes = b"\0", begins: bytes = b"\0\2") -> bytes:
    return begins + padding + separator + b"12345"


def test_the_mask_looks_at_the_padding_too() -> None:
    for padding in (b"\1" * 56, b"\1" * 48 + MARK[1:] + b"\4", MARK + b"\1" * 48, b"\1" * 47 + MARK + b"\1"):
        assert select_unmarked(block(padding), b"abcde", 64) == b"12345"
    plain = b"\1" * 56
    wrong = {
        "marked": block(b"\1" * 48 + MARK),
        "a zero first": block(b"\0" + plain[1:]),
        "a zero last": block(plain[1:] + b"\0"),
        "no separator": block(plain, b"\1"),
        "type 1": block(plain, begins=b"\0\1"),
        "no zero in front": block(plain, begins=b"\1\2"),
        "zeros": bytes(64),
        "none": None,
        "empty": b"",
    }
    for what, found in wrong.items():
        assert select_unmarked(found, b"abcde", 64) == b"abcde", what
    assert select_unmarked(block(plain)[1:], b"abcde", 64) == b"12345"  # a token that leaves the zero out
    for size in range(20):  # of a ciphertext that is not as long as the key
        assert select_unmarked(None, b"abcde", size) == b"abcde"


def test_a_rollback_looks_like_bad_padding(engine_pki: PKI) -> None:
    """And is one only for a server that could have done better, and sees the padding."""
    knows_better = OLD | {"suites": SUITES + SSL2_SUITES, "min_version": Version.ssl2}
    own = replace(drive.identity(engine_pki.server("rsa")), shared_with_ssl2=True)
    for settings, sees, marks, good in (
        (knows_better, True, True, False),
        (knows_better, True, False, True),
        (knows_better, False, True, True),
        (ONLY, True, True, True),
    ):
        server = drive.server(identities=(replace(own, can_decrypt_raw=sees),), **settings)
        client = drive.client(**(knows_better if marks else ONLY))
        first = messages.ClientHello.decode(messages_in(client.give())[0])
        server.take(record(hello(*first.kinds, challenge=first.challenge)))  # of SSL 2.0, whatever the client has offered
        client.take(server.give())
        server.take(client.give())
        [operation] = server.operations
        assert isinstance(operation, DecryptSsl2)
        assert operation.raw is (sees and settings is knows_better)
        assert (server.error is None) is good
        if server.error is not None:
            assert (server.error.name, server.give()) == ("SSL_ERROR_BAD_MAC_READ", b"")


def test_sessions_grow_old_in_a_hundred_seconds(engine_pki: PKI) -> None:
    now, cache = [1000.0], dict[bytes, bytes]()
    session: Session | None = None
    for later, resumed in ((0, False), (99, True), (2, False)):
        now[0] += later
        server = serving(engine_pki, session_ids=True, clock=lambda: now[0])
        server.cache = cache
        client = drive.client(**ONLY, session=session, clock=lambda: 1000.0)
        shake_hands(client, server)
        assert client.error is server.error is None
        assert client.engine.info.resumed is server.engine.info.resumed is resumed
        session = session or client.sessions[0]


# --- the client -------------------------------------------------------------------------------------------------------


def test_the_mark_of_who_knows_better(engine_pki: PKI) -> None:
    """Eight bytes 3 end the padding where SSL 3.0 was on, too (RFC 6101 appendix E.2)."""
    key = load_pem_private_key(engine_pki.server("rsa").key_file.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    private = key.private_numbers()
    for settings, marked in ((ONLY, False), (OLD | {"suites": SUITES + SSL2_SUITES, "min_version": Version.ssl2}, True)):
        client, server = drive.client(**settings), serving(engine_pki)
        first = messages.ClientHello.decode(messages_in(client.give())[0])
        server.take(record(hello(*first.kinds, challenge=first.challenge)))
        client.take(server.give())
        sent = messages.ClientMasterKey.decode(messages_in(client.give())[0])
        block = pow(int.from_bytes(sent.encrypted, "big"), private.d, private.public_numbers.n).to_bytes(256, "big")
        padding, _, secret = block[2:].partition(b"\0")
        assert (block[:2], len(secret)) == (b"\0\2", 16)
        assert padding.endswith(b"\x03" * 8) is marked


def test_a_certificate_that_is_refused(engine_pki: PKI) -> None:
    client, server = drive.client(**ONLY), serving(engine_pki)
    client.refuse = CertificateError("not this one", name="SEC_ERROR_UNKNOWN_ISSUER")
    shake_hands(client, server)
    assert client.error is client.refuse
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_BAD_CERT_ALERT"


@pytest.mark.parametrize("code", [1, 2, 4, 6, 99])
def test_errors_have_names(code: int) -> None:
    client = drive.client(**ONLY)
    client.give()
    client.take(record(messages.encode_error(code)))
    names = {1: "SSL_ERROR_NO_CYPHER_OVERLAP", 2: "SSL_ERROR_NO_CERTIFICATE", 4: "SSL_ERROR_BAD_CERT_ALERT"}
    assert client.error is not None
    assert client.error.name == (names | {6: "SSL_ERROR_UNSUPPORTED_CERTIFICATE_TYPE"}).get(
        code, "SSL_ERROR_HANDSHAKE_FAILURE_ALERT"
    )
    assert client.give() == b""


def test_a_hit_out_of_the_blue() -> None:
    client = drive.client(**ONLY)
    client.give()
    client.take(record(messages.ServerHello(True, Version.ssl2, b"", (), bytes(16)).encode()))
    assert client.error is not None
    assert client.error.name == "SSL_ERROR_BAD_SERVER"


# --- records ----------------------------------------------------------------------------------------------------------


def connected(engine_pki: PKI, suite: Suite) -> tuple[drive.Driver, drive.Driver]:
    client, server = drive.client(**ONLY | {"suites": (suite,)}), serving(engine_pki)
    shake_hands(client, server)
    assert client.engine.handshake_complete
    assert server.engine.handshake_complete
    return client, server


@pytest.mark.parametrize("suite", [RC4, DES3], ids=lambda suite: suite.openssl)
def test_records_that_were_changed(engine_pki: PKI, suite: Suite) -> None:
    for position in range(24):
        client, server = connected(engine_pki, suite)
        client.engine.send(b"attack")
        sent = bytearray(client.give())
        padded = not sent[0] & 0x80
        assert padded is bool(suite.cipher.block)
        start = 3 if padded else 2
        if start + position < len(sent):
            sent[start + position] ^= 1
            server.take(bytes(sent))
            assert server.error is not None
            assert server.error.name == "SSL_ERROR_BAD_MAC_READ"
            assert server.received == b""


@pytest.mark.parametrize("padding", [3, 255])
def test_padding_that_cannot_be(engine_pki: PKI, padding: int) -> None:
    client, server = connected(engine_pki, DES3)
    client.engine.send(b"attack")
    sent = bytearray(client.give())
    assert sent[2] == 2
    sent[2] = padding
    server.take(bytes(sent))
    assert (server.error is None) is (padding == 3)  # which no MAC tells: the number is not authenticated
    assert bytes(server.received) == (b"attac" if padding == 3 else b"")


def test_records_out_of_turn(engine_pki: PKI) -> None:
    client, server = connected(engine_pki, DES3)
    client.engine.send(b"x" * 24)
    first = client.give()
    server.take(first)
    server.take(first)
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_BAD_MAC_READ"


def test_data_of_every_length(engine_pki: PKI) -> None:
    for suite in (RC4, DES3):
        client, server = connected(engine_pki, suite)
        data = bytes(range(256)) * 200
        for length in (*range(1, 18), 16351, 16352, 16353, 51200):
            server.received.clear()
            client.engine.send(data[:length])
            server.take(client.give())
            assert bytes(server.received) == data[:length]


def test_the_end_of_the_transport_is_the_end(engine_pki: PKI) -> None:
    client, server = connected(engine_pki, RC4)
    client.engine.close()
    assert client.give() == b""
    server.engine.receive_eof()
    assert [type(event) for event in server.engine.events()] == [PeerClosed]
    unfinished = Engine.server(ServerConfig(identities=(drive.identity(engine_pki.server("rsa")),), **ONLY))
    unfinished.receive_data(record(hello()))
    with pytest.raises(TLSError, match="PR_END_OF_FILE_ERROR"):
        unfinished.receive_eof()


def test_what_it_does_not_have(engine_pki: PKI) -> None:
    client, _ = connected(engine_pki, RC4)
    calls: list[Callable[[], object]] = [
        client.engine.renegotiate,
        client.engine.update_keys,
        lambda: client.engine.export(b"label", None, 32),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION"):
            call()
    with pytest.raises(ConfigurationError):
        client.engine.channel_binding("tls-unique")


@pytest.mark.parametrize("insists", ["client", "server"])
def test_who_insists_on_secure_renegotiation_does_not_speak_it(engine_pki: PKI, insists: str) -> None:
    ends = {
        "server": drive.server(engine_pki.server("rsa"), **ONLY, require_safe_negotiation=insists == "server"),
        "client": drive.client(**ONLY, require_safe_negotiation=insists == "client"),
    }
    shake_hands(ends["client"], ends["server"])
    error = ends[insists].error
    assert error is not None
    assert error.name == "SSL_ERROR_UNSAFE_NEGOTIATION"
    assert not ends[insists].engine.handshake_complete


def test_first_message_that_only_looks_like_a_hello(engine_pki: PKI) -> None:
    server = drive.server(engine_pki.server("rsa"), **ONLY)
    server.take(record(bytes((messages.MessageType.server_hello,)) + hello()[1:]))
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_BAD_CLIENT"
