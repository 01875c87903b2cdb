"""Is fixtures/rfc8448.json what RFC 8448 says?  Everything in it that follows from something else is recomputed.

Nothing of nss_pk11 is used: the key schedule here is a second one, by hmac and hashlib, so that a mistake in the vectors and
one in the engine cannot hide each other.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..support import rfc8448
from ..support.rfc8448 import Trace

EMPTY = sha256(b"").digest()
CONTENT_TYPES = {"change_cipher_spec": 20, "alert": 21, "handshake": 22, "application_data": 23}


@pytest.fixture(params=rfc8448.NAMES)
def trace(request: pytest.FixtureRequest) -> Trace:
    return rfc8448.load(request.param)


def expand_label(secret: bytes, label: str, context: bytes, length: int) -> bytes:
    full = b"tls13 " + label.encode()
    info = length.to_bytes(2) + bytes([len(full)]) + full + bytes([len(context)]) + context
    return hmac.digest(secret, info + b"\1", "sha256")[:length]


def public(private: bytes, size: int) -> bytes:
    if size == 32:
        return x25519.X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    key = ec.derive_private_key(int.from_bytes(private), ec.SECP256R1())
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def shared(private: bytes, peer: bytes) -> bytes:
    if len(peer) == 32:
        return x25519.X25519PrivateKey.from_private_bytes(private).exchange(x25519.X25519PublicKey.from_public_bytes(peer))
    key = ec.derive_private_key(int.from_bytes(private), ec.SECP256R1())
    return key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), peer))


def transcript(trace: Trace, last: int, by: str) -> bytes:
    """Hash of the messages up to the one of type `last` sent by `by`; a first hello by its hash (RFC 8446 section 4.4.1)."""
    messages = [octets for _, octets in trace.messages]
    senders = [sender for sender, _ in trace.messages]
    end = max(i for i, octets in enumerate(messages) if octets[0] == last and senders[i] == by)
    taken = messages[: end + 1]
    if [octets[0] for octets in taken[:3]] == [1, 2, 1]:
        taken[0] = b"\xfe\0\0\x20" + sha256(taken[0]).digest()
    return sha256(b"".join(taken)).digest()


def test_every_step_of_key_derivation_follows_from_its_inputs(trace: Trace) -> None:
    checked = 0
    for step in trace.steps:
        values = step.values
        if "IKM" in values:
            assert hmac.digest(values["salt"], values["IKM"], "sha256") == values["secret"], step.what
            checked += 1
        for info, expanded in (("info", "expanded"), ("key info", "key expanded"), ("iv info", "iv expanded")):
            if info in values:
                wanted = hmac.digest(values["PRK"], values[info] + b"\1", "sha256")
                assert wanted[: len(values[expanded])] == values[expanded], step.what
                assert values[info][:2] == len(values[expanded]).to_bytes(2)
                checked += 1
        if "public key" in values:
            assert public(values["private key"], len(values["public key"])) == values["public key"]
            checked += 1
    assert checked >= 24


def test_the_secrets_follow_from_the_key_exchange_and_the_transcript(trace: Trace) -> None:
    psk = rfc8448.load("simple-1rtt").secrets["resumption"] if trace.name == "resumed-0rtt" else bytes(32)
    secrets = trace.secrets
    private = trace.private_keys("client")[-1]
    peer = trace.find("create an ephemeral", "server")["public key"]

    early = hmac.digest(bytes(32), psk, "sha256")
    assert early == secrets["early"]
    handshake = hmac.digest(expand_label(early, "derived", EMPTY, 32), shared(private, peer), "sha256")
    assert handshake == secrets["handshake"]
    master = hmac.digest(expand_label(handshake, "derived", EMPTY, 32), bytes(32), "sha256")
    assert master == secrets["master"]

    hello, server_finished = transcript(trace, 2, "server"), transcript(trace, 20, "server")
    for label, secret, context in (
        ("c hs traffic", handshake, hello),
        ("s hs traffic", handshake, hello),
        ("c ap traffic", master, server_finished),
        ("s ap traffic", master, server_finished),
        ("exp master", master, server_finished),
        ("res master", master, transcript(trace, 20, "client")),
    ):
        assert expand_label(secret, label, context, 32) == secrets[label], label


def test_finished_messages_are_the_macs_of_the_transcript(trace: Trace) -> None:
    before = b"".join(octets for _, octets in trace.messages)
    for by, secret in (("server", "s hs traffic"), ("client", "c hs traffic")):
        finished = next(octets for sender, octets in trace.messages if sender == by and octets[0] == 20)
        types = [octets[0] for _, octets in trace.messages]
        end = next(i for i, (sender, octets) in enumerate(trace.messages) if sender == by and octets[0] == 20)
        previous = trace.messages[end - 1]
        digest = transcript(trace, previous[1][0], previous[0])
        key = expand_label(trace.secrets[secret], "finished", b"", 32)
        assert finished[4:] == hmac.digest(key, digest, "sha256"), types
        assert finished in before


def test_protected_records_open_to_their_payloads(trace: Trace) -> None:
    """Each side's records under its secrets in their order: early, handshake, application."""
    secrets = trace.secrets
    opened = 0
    for by, letter in (("client", "c"), ("server", "s")):
        order = [secrets[name] for name in ("c e traffic",) if by == "client" and name in secrets]
        order += [secrets[f"{letter} hs traffic"], secrets[f"{letter} ap traffic"]]
        sequence = 0
        for record in trace.records:
            if record.by != by or record.octets[0] != 23:
                if record.by == by:
                    assert record.octets[5:] == record.payload
                    assert record.octets[0] == CONTENT_TYPES[record.kind]
                continue
            key, iv = expand_label(order[0], "key", b"", 16), expand_label(order[0], "iv", b"", 12)
            nonce = (int.from_bytes(iv) ^ sequence).to_bytes(12)
            plain = AESGCM(key).decrypt(nonce, record.octets[5:], record.octets[:5])
            assert plain == record.payload + bytes([CONTENT_TYPES[record.kind]])
            opened, sequence = opened + 1, sequence + 1
            last = record.payload[-36:] if record.kind == "handshake" else b""
            if record.payload[:1] == b"\5" or last[:1] == b"\x14":  # EndOfEarlyData, Finished: the next key begins
                order, sequence = order[1:], 0
    assert opened >= 4


def test_certificate_verify_holds_for_the_certificate(trace: Trace) -> None:
    if trace.name == "resumed-0rtt":
        assert not any(octets[0] in (11, 15) for _, octets in trace.messages)
        return
    for by in ("server", "client") if trace.name == "client-authentication" else ("server",):
        message = next(octets for sender, octets in trace.messages if sender == by and octets[0] == 11)
        start = 4 + 1 + message[4] + 3
        length = int.from_bytes(message[start : start + 3])
        certificate = x509.load_der_x509_certificate(message[start + 3 : start + 3 + length])
        verify = next(octets for sender, octets in trace.messages if sender == by and octets[0] == 15)
        context = b" " * 64 + f"TLS 1.3, {by} CertificateVerify".encode() + b"\0" + transcript(trace, 11, by)
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            assert verify[4:6] == b"\x08\x04"
            key.verify(verify[8:], context, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        else:
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert verify[4:6] == b"\x04\x03"
            key.verify(verify[8:], context, ec.ECDSA(hashes.SHA256()))
        if by == "server" and trace.name != "client-authentication":
            assert key == rfc8448.server_key().public_key()


def test_the_binder_is_the_mac_of_the_truncated_hello() -> None:
    trace = rfc8448.load("resumed-0rtt")
    binder = trace.find("calculate PSK binder")
    hello = trace.messages[0][1]
    assert hello.startswith(binder["ClientHello prefix"])
    assert sha256(binder["ClientHello prefix"]).digest() == binder["binder hash"]
    key = expand_label(expand_label(trace.secrets["early"], "res binder", EMPTY, 32), "finished", b"", 32)
    assert hmac.digest(key, binder["binder hash"], "sha256") == binder["finished"] == hello[-32:]


def test_the_ticket_leads_to_the_resumed_handshake() -> None:
    simple = rfc8448.load("simple-1rtt")
    ticket = next(octets for _, octets in simple.messages if octets[0] == 4)
    nonce = ticket[13 : 13 + ticket[12]]
    assert expand_label(simple.secrets["res master"], "resumption", nonce, 32) == simple.secrets["resumption"]
    start = 13 + ticket[12]
    identity = ticket[start + 2 : start + 2 + int.from_bytes(ticket[start : start + 2])]
    assert identity in rfc8448.load("resumed-0rtt").messages[0][1]
