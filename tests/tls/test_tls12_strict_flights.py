"""TLS 1.2 flights that break the rules after the hellos: each broken rule, its error and its alert.

Two honest engines talk; a test rewrites one handshake message on its way, while it still travels in the clear.
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from nss_pk11.errors import Alert
from nss_pk11.tls import ffdhe
from nss_pk11.tls.codepoints import ExtensionType, Group, HandshakeType, Version
from nss_pk11.tls.messages.hello import message
from nss_pk11.tls.ssl3.secrets import Secrets
from nss_pk11.tls.suites import BY_NAME, SUITES

from ..support import drive
from ..support.pki import PKI
from ..support.rewrite import Edit, records, refusal, run

X, H = ExtensionType, HandshakeType
ONLY12: dict[str, Any] = {"suites": SUITES, "max_version": Version.tls1_2}
CHANGE_CIPHER_SPEC = bytes((20, 3, 3, 0, 1, 1))
ECDHE, DHE, RSA, CBC = (
    BY_NAME[name]
    for name in ("ECDHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256", "AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA")
)


# --- key exchange ----------------------------------------------------------------------------------------------------------

PRIME = ffdhe.PRIMES[Group.ffdhe2048]


def sized(width: int, value: bytes) -> bytes:
    return len(value).to_bytes(width, "big") + value


CLIENT_KEY_EXCHANGES: dict[str, tuple[Any, Edit, Alert]] = {
    "empty point": (ECDHE, lambda _: message(16, b"\0"), Alert.decode_error),
    "point cut": (ECDHE, lambda raw: message(16, raw[4:-1]), Alert.decode_error),
    "something behind the point": (ECDHE, lambda raw: message(16, raw[4:] + b"\0"), Alert.decode_error),
    "point of zeros": (ECDHE, lambda _: message(16, sized(1, bytes(32))), Alert.illegal_parameter),
    "point too short": (ECDHE, lambda _: message(16, sized(1, bytes(31))), Alert.illegal_parameter),
    "point too long": (ECDHE, lambda _: message(16, sized(1, bytes(33))), Alert.illegal_parameter),
    "no public value": (DHE, lambda _: message(16, b"\0\0"), Alert.decode_error),
    "public value 0": (DHE, lambda _: message(16, sized(2, b"\0")), Alert.illegal_parameter),
    "public value 1": (DHE, lambda _: message(16, sized(2, b"\x01")), Alert.illegal_parameter),
    "public value p-1": (DHE, lambda _: message(16, sized(2, (PRIME - 1).to_bytes(256, "big"))), Alert.illegal_parameter),
    "public value p": (DHE, lambda _: message(16, sized(2, PRIME.to_bytes(256, "big"))), Alert.illegal_parameter),
    "public value too long": (DHE, lambda _: message(16, sized(2, bytes(257))), Alert.illegal_parameter),
    "ciphertext without length": (RSA, lambda raw: message(16, raw[6:]), Alert.decode_error),
    "ciphertext cut": (RSA, lambda raw: message(16, raw[4:-1]), Alert.decode_error),
    "no ciphertext": (RSA, lambda _: message(16, b"\0\0"), Alert.decode_error),
    "another ciphertext": (RSA, lambda _: message(16, sized(2, b"\x01" * 256)), Alert.bad_record_mac),
    "a short ciphertext": (RSA, lambda _: message(16, sized(2, b"\x01" * 200)), Alert.bad_record_mac),
    "a ciphertext larger than the modulus": (RSA, lambda _: message(16, sized(2, b"\xff" * 256)), Alert.bad_record_mac),
}


@pytest.mark.parametrize("name", CLIENT_KEY_EXCHANGES)
def test_client_key_exchange(engine_pki: PKI, name: str) -> None:
    suite, edit, alert = CLIENT_KEY_EXCHANGES[name]
    server = drive.server(engine_pki.server("rsa"), **ONLY12)
    client = drive.client(**ONLY12 | {"suites": (suite,)}, groups=(Group.x25519, Group.ffdhe2048))
    run(server, client, H.client_key_exchange, edit, by="client")
    refusal(server, client, alert)


@pytest.mark.parametrize("point", [b"\x04" + bytes(64), b"\x02" + bytes(32), b"\x04" + b"\x01" * 64, b"\0"], ids=len)
def test_point_not_on_its_curve(engine_pki: PKI, point: bytes) -> None:
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12, groups=(Group.secp256r1,))
    run(server, client, H.client_key_exchange, lambda _: message(16, sized(1, point)), by="client")
    refusal(server, client, Alert.illegal_parameter)


SERVER_KEY_EXCHANGES: dict[str, tuple[Any, Edit, Alert]] = {
    "explicit curve": (ECDHE, lambda raw: message(12, b"\x01" + raw[5:]), Alert.illegal_parameter),
    "curve not offered": (ECDHE, lambda raw: message(12, b"\x03\0\x18" + raw[7:]), Alert.illegal_parameter),
    "another point": (ECDHE, lambda raw: message(12, raw[4:8] + bytes((raw[8] ^ 1,)) + raw[9:]), Alert.decrypt_error),
    "scheme not offered": (ECDHE, lambda raw: message(12, raw[4:40] + b"\x02\x01" + raw[42:]), Alert.illegal_parameter),
    "scheme of another key": (ECDHE, lambda raw: message(12, raw[4:40] + b"\x04\x03" + raw[42:]), Alert.illegal_parameter),
    "signature broken": (ECDHE, lambda raw: raw[:-1] + bytes((raw[-1] ^ 1,)), Alert.decrypt_error),
    "signature cut": (ECDHE, lambda raw: message(12, raw[4:-1]), Alert.decode_error),
    "something behind it": (ECDHE, lambda raw: message(12, raw[4:] + b"\0"), Alert.decode_error),
    "small prime": (DHE, lambda raw: message(12, sized(2, b"\xff" * 128) + raw[4 + 258 :]), Alert.insufficient_security),
    "even prime": (DHE, lambda raw: message(12, sized(2, b"\xff" * 255 + b"\xfe") + raw[4 + 258 :]), Alert.illegal_parameter),
    "huge prime": (DHE, lambda raw: message(12, sized(2, b"\xff" * 1025) + raw[4 + 258 :]), Alert.illegal_parameter),
    "generator 1": (DHE, lambda raw: message(12, raw[4:264] + b"\x01" + raw[265:]), Alert.illegal_parameter),
    "another generator": (DHE, lambda raw: message(12, raw[4:264] + b"\x05" + raw[265:]), Alert.decrypt_error),
    "left out": (ECDHE, lambda _: b"", Alert.unexpected_message),
}


@pytest.mark.parametrize("name", SERVER_KEY_EXCHANGES)
def test_server_key_exchange(engine_pki: PKI, name: str) -> None:
    suite, edit, alert = SERVER_KEY_EXCHANGES[name]
    server = drive.server(engine_pki.server("rsa"), **ONLY12)
    client = drive.client(**ONLY12 | {"suites": (suite,)}, groups=(Group.x25519, Group.ffdhe2048))
    run(server, client, H.server_key_exchange, edit, by="server")
    refusal(client, server, alert)


# --- certificates ----------------------------------------------------------------------------------------------------------

FROM_SERVER: dict[str, tuple[int, Edit, Alert]] = {
    "no certificate": (H.certificate, lambda _: message(11, bytes(3)), Alert.decode_error),
    "certificate cut": (H.certificate, lambda raw: message(11, raw[4:-1]), Alert.decode_error),
    "certificate of rubbish": (H.certificate, lambda _: message(11, sized(3, sized(3, b"rubbish"))), Alert.bad_certificate),
    "certificate left out": (H.certificate, lambda _: b"", Alert.unexpected_message),
    "hello done with a body": (H.server_hello_done, lambda _: message(14, b"\0"), Alert.decode_error),
    "hello done twice": (H.server_hello_done, lambda raw: raw + raw, Alert.unexpected_message),
    "request without types": (H.certificate_request, lambda raw: message(13, b"\0" + raw[7:]), Alert.decode_error),
    "request cut": (H.certificate_request, lambda raw: message(13, raw[4:-1]), Alert.decode_error),
    "status of an unknown type": (H.certificate_status, lambda raw: message(22, b"\x02" + raw[5:]), Alert.illegal_parameter),
    "status cut": (H.certificate_status, lambda raw: message(22, raw[4:-1]), Alert.decode_error),
}


@pytest.mark.parametrize("name", FROM_SERVER)
def test_server_flight(engine_pki: PKI, name: str) -> None:
    kind, edit, alert = FROM_SERVER[name]
    server = drive.server(engine_pki.server("rsa"), ocsp=b"response", **ONLY12, client_auth="request")
    client = drive.client(**ONLY12, identities=(drive.identity(engine_pki.client("rsa")),))
    run(server, client, kind, edit, by="server")
    refusal(client, server, alert)


FROM_CLIENT: dict[str, tuple[int, Edit, Alert]] = {
    "certificate cut": (H.certificate, lambda raw: message(11, raw[4:-1]), Alert.decode_error),
    "certificate of rubbish": (H.certificate, lambda _: message(11, sized(3, sized(3, b"rubbish"))), Alert.bad_certificate),
    "certificate left out": (H.certificate, lambda _: b"", Alert.unexpected_message),
    "certificate taken back": (H.certificate, lambda _: message(11, bytes(3)), Alert.handshake_failure),
    "verify broken": (H.certificate_verify, lambda raw: raw[:-1] + bytes((raw[-1] ^ 1,)), Alert.decrypt_error),
    "verify empty": (H.certificate_verify, lambda raw: raw[:0] + message(15, raw[4:6] + b"\0\0"), Alert.decrypt_error),
    "verify cut": (H.certificate_verify, lambda raw: message(15, raw[4:-1]), Alert.decode_error),
    "verify by another scheme": (H.certificate_verify, lambda raw: message(15, b"\x04\x03" + raw[6:]), Alert.illegal_parameter),
    "verify by SHA-1": (H.certificate_verify, lambda raw: message(15, b"\x02\x01" + raw[6:]), Alert.illegal_parameter),
    "verify left out": (H.certificate_verify, lambda _: b"", Alert.unexpected_message),
    "key exchange twice": (H.client_key_exchange, lambda raw: raw + raw, Alert.unexpected_message),
    "key exchange left out": (H.client_key_exchange, lambda _: b"", Alert.unexpected_message),
}


@pytest.mark.parametrize("name", FROM_CLIENT)
def test_client_flight(engine_pki: PKI, name: str) -> None:
    kind, edit, alert = FROM_CLIENT[name]
    server = drive.server(engine_pki.server("rsa"), **ONLY12, client_auth="require")
    client = drive.client(**ONLY12, identities=(drive.identity(engine_pki.client("rsa")),))
    run(server, client, kind, edit, by="client")
    refusal(server, client, alert)


def test_certificate_that_does_not_fit_the_suite(engine_pki: PKI) -> None:
    ec = message(11, sized(3, sized(3, drive.identity(engine_pki.server("p256")).chain[0])))
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12)
    run(server, client, H.certificate, lambda _: ec, by="server")
    refusal(client, server, Alert.illegal_parameter)


@pytest.mark.parametrize(("suite", "bit"), [(RSA, "key_encipherment"), (ECDHE, "digital_signature")], ids=["RSA", "ECDHE"])
@pytest.mark.parametrize("allowed", [True, False])
def test_key_usage(engine_pki: PKI, suite: Any, bit: str, allowed: bool) -> None:
    credential = engine_pki.server("rsa")
    bits = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), not allowed
    )
    ca_bits = dict.fromkeys(("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    usage = x509.KeyUsage(**bits | ca_bits | {bit: allowed, "key_agreement": True})
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(credential.certificate.subject).issuer_name(credential.certificate.issuer)
    builder = builder.public_key(credential.certificate.public_key()).serial_number(1).not_valid_before(now)
    builder = builder.not_valid_after(now + datetime.timedelta(1)).add_extension(usage, critical=True)
    leaf = builder.sign(credential.authority.key, hashes.SHA256()).public_bytes(Encoding.DER)
    server = drive.server(identities=(replace(drive.identity(credential), chain=(leaf,)),), **ONLY12)
    client = drive.client(**ONLY12 | {"suites": (suite,)})
    drive.exchange(server, client)
    if allowed:
        assert client.engine.handshake_complete
    else:
        refusal(client, server, Alert.unsupported_certificate)


@pytest.mark.parametrize("bits", [1024, 512])
def test_small_rsa_key(engine_pki: PKI, bits: int) -> None:
    """Whatever the verdict on such a key is, it is a verdict."""
    template = drive.identity(engine_pki.server("rsa")).chain[0]
    modulus = engine_pki.server("rsa").certificate.public_key().public_numbers().n  # type: ignore[union-attr]
    small = template.replace(modulus.to_bytes(256, "big"), (1 | 1 << bits - 1).to_bytes(256, "big"))
    assert small != template
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12 | {"suites": (RSA,)})
    run(server, client, H.certificate, lambda _: message(11, sized(3, sized(3, small))), by="server")
    assert client.error is not None or server.error is not None


# --- the end ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["server", "client"])
@pytest.mark.parametrize(
    ("lie", "alert"), [(lambda data: bytes(12), Alert.decrypt_error), (lambda data: data[:-1], Alert.decode_error)]
)
def test_finished(engine_pki: PKI, monkeypatch: pytest.MonkeyPatch, by: str, lie: Edit, alert: Alert) -> None:
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12)
    liar, judge = (server, client) if by == "server" else (client, server)
    honest, calls = Secrets.finished, []

    def finished(self: Secrets, by_server: bool, transcript_hash: bytes) -> bytes:
        calls.append(by_server)
        first = calls.count(by_server) == 1  # whoever sends it computes it first
        data = honest(self, by_server, transcript_hash)
        return lie(data) if first and by_server == (by == "server") else data

    monkeypatch.setattr(Secrets, "finished", finished)
    drive.exchange(server, client)
    refusal(judge, liar, alert)


def without(flight: bytes, kind: int) -> bytes:
    return b"".join(record for record in records(flight) if record[0] != kind)


def test_change_cipher_spec_left_out(engine_pki: PKI) -> None:
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12)
    server.take(client.give())
    client.take(server.give())
    server.take(without(client.give(), 20))
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_RX_UNKNOWN_HANDSHAKE" or "UNEXPECTED" in server.error.name


@pytest.mark.parametrize("before", ["the hello", "the key exchange"])
def test_early_change_cipher_spec(engine_pki: PKI, before: str) -> None:
    """CVE-2014-0224."""
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12)
    if before == "the hello":
        server.take(CHANGE_CIPHER_SPEC)
    else:
        server.take(client.give())
        client.take(server.give())
        server.take(CHANGE_CIPHER_SPEC + client.give())
    assert server.error is not None
    assert server.error.name == "SSL_ERROR_RX_UNEXPECTED_CHANGE_CIPHER"


@pytest.mark.parametrize("body", [b"\x02", b"\x01\x01", b"\0"])
def test_malformed_change_cipher_spec(engine_pki: PKI, body: bytes) -> None:
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12)
    server.take(client.give())
    client.take(server.give())
    server.take(client.give().replace(CHANGE_CIPHER_SPEC, b"\x14\x03\x03" + sized(2, body)))
    client.take(server.give())
    refusal(server, client, Alert.unexpected_message)


def test_message_across_the_key_change(engine_pki: PKI) -> None:
    """Part of a handshake message before change_cipher_spec, the rest behind it."""
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12)
    server.take(client.give())
    client.take(server.give())
    flight = client.give()
    server.take(flight.replace(CHANGE_CIPHER_SPEC, b"\x16\x03\x03\0\x02\x14\0" + CHANGE_CIPHER_SPEC))
    client.take(server.give())
    refusal(server, client, Alert.unexpected_message)


def test_data_before_finished(engine_pki: PKI) -> None:
    server, client = drive.server(engine_pki.server("rsa"), **ONLY12), drive.client(**ONLY12)
    server.take(client.give())
    client.take(server.give())
    server.take(b"\x17\x03\x03\0\x01x")
    client.take(server.give())
    refusal(server, client, Alert.unexpected_message)


def test_record_that_does_not_authenticate(engine_pki: PKI) -> None:
    for suite in (ECDHE, CBC):
        for etm in (True, False):
            server = drive.server(engine_pki.server("rsa"), **ONLY12, encrypt_then_mac=etm)
            client = drive.client(**ONLY12 | {"suites": (suite,)})
            drive.exchange(server, client)
            client.engine.send(b"data")
            flight = bytearray(client.give())
            flight[-1] ^= 1
            server.take(bytes(flight))
            client.take(server.give())
            assert client.alert == Alert.bad_record_mac
