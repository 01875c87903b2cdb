"""Secrets before TLS 1.2 against published vectors, tlslite-ng, and the RFCs' formulas written down once more."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest

from nss_pk11.errors import ConfigurationError
from nss_pk11.tls.ciphers import export
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.events import ConnectionInfo
from nss_pk11.tls.exporter import export as export_keys
from nss_pk11.tls.link import Agreed
from nss_pk11.tls.ssl3.prf import derivation, prf, ssl3_expand
from nss_pk11.tls.ssl3.secrets import Secrets
from nss_pk11.tls.suites import BY_NAME, LEGACY_SUITES
from nss_pk11.tls.transcript import Transcript

from . import oracle

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "fixtures" / "tls10-prf.json").read_text("utf-8"))["vectors"]
PREMASTER, MASTER = bytes(range(48)), bytes(range(100, 148))
CLIENT, SERVER = bytes(range(150, 182)), bytes(range(200, 232))
MESSAGES = bytes(range(256)) * 3
SUITE = BY_NAME["AES128-SHA"]
OLD = [Version.ssl3, Version.tls1_0, Version.tls1_1]


def one_half(name: str, secret: bytes, seed: bytes, length: int) -> bytes:
    a, output = seed, b""
    while len(output) < length:
        a = hmac.digest(secret, a, name)
        output += hmac.digest(secret, a + seed, name)
    return output[:length]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["label"])
def test_prf(vector: dict[str, str]) -> None:
    secret, seed, output = (bytes.fromhex(vector[name]) for name in ("secret", "seed", "output"))
    label = vector["label"].encode()
    assert prf("md5sha1", secret, label, seed, len(output)) == output
    # Is the fixture right?  RFC 2246 section 5 without the package.
    halves = one_half("md5", secret[:24], label + seed, len(output)), one_half("sha1", secret[24:], label + seed, len(output))
    assert bytes(a ^ b for a, b in zip(*halves, strict=True)) == output


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 48, 104, 136])
@pytest.mark.parametrize("secret", [b"", b"s", PREMASTER[:47], PREMASTER, bytes(256)], ids=len)
def test_against_tlslite(secret: bytes, length: int) -> None:
    """Odd secrets share their middle byte; DHE secrets are as long as the group."""
    theirs = oracle.module("mathtls")
    assert prf("md5sha1", secret, b"label", CLIENT, length) == theirs.PRF(secret, b"label", CLIENT, length)
    assert ssl3_expand(secret, b"label", CLIENT, length) == theirs.PRF_SSL(bytearray(secret), bytearray(CLIENT), length)


@pytest.mark.parametrize("version", [*OLD, Version.tls1_2], ids=lambda version: version.name)
def test_master_secret_and_finished(version: Version) -> None:
    theirs, hashes = oracle.module("mathtls"), oracle.module("handshakehashes").HandshakeHashes()
    hashes.update(bytearray(MESSAGES))
    secrets = Secrets.agree(SUITE, version, PREMASTER, CLIENT, SERVER, None)
    randoms = {"client_random": bytearray(CLIENT), "server_random": bytearray(SERVER)}
    number = oracle.number(version)
    master = theirs.calc_key(number, bytearray(PREMASTER), SUITE.code, b"master secret", output_length=48, **randoms)
    assert secrets.master == master
    transcript = Transcript()
    transcript.use(SUITE.hash_in(version), keep=True)
    transcript.add(MESSAGES)
    for by_server, label in enumerate((b"client finished", b"server finished")):
        length = None if version == Version.ssl3 else 12
        finished = theirs.calc_key(number, master, SUITE.code, label, handshake_hashes=hashes, output_length=length)
        assert secrets.finished(bool(by_server), transcript) == finished
        assert len(finished) == (36 if version == Version.ssl3 else 12)
    signed, prehashed = secrets.certificate_verify(transcript)
    assert prehashed == (version < Version.tls1_2)
    wanted = {Version.ssl3: hashes.digestSSL(bytearray(master), b""), Version.tls1_2: MESSAGES}
    assert signed == wanted.get(version, hashes.digest())


@pytest.mark.parametrize("version", [Version.tls1_0, Version.tls1_1], ids=lambda version: version.name)
def test_extended_master_secret(version: Version) -> None:
    """RFC 7627 section 4: MD5 and SHA-1 of the messages before TLS 1.2."""
    transcript = Transcript()
    transcript.add(MESSAGES)
    transcript.use("md5sha1")
    session_hash = transcript.digest()
    assert session_hash == hashlib.md5(MESSAGES).digest() + hashlib.sha1(MESSAGES).digest()
    secrets = Secrets.agree(SUITE, version, PREMASTER, CLIENT, SERVER, session_hash)
    hashes = oracle.module("handshakehashes").HandshakeHashes()
    hashes.update(bytearray(MESSAGES))
    assert secrets.master == oracle.module("mathtls").calc_key(
        oracle.number(version), bytearray(PREMASTER), SUITE.code, b"extended master secret", hashes, output_length=48
    )


def test_fips_suites_derive_as_tls_in_ssl3() -> None:
    """Keys alone: Finished and MAC are SSL 3.0's."""
    fips, plain = BY_NAME["SSL_RSA_FIPS_WITH_3DES_EDE_CBC_SHA"], BY_NAME["DES-CBC3-SHA"]
    as_tls = Secrets.agree(plain, Version.tls1_0, PREMASTER, CLIENT, SERVER, None)
    fips_ssl3 = Secrets.agree(fips, Version.ssl3, PREMASTER, CLIENT, SERVER, None)
    ssl3 = Secrets.agree(plain, Version.ssl3, PREMASTER, CLIENT, SERVER, None)
    assert fips_ssl3.master == as_tls.master != ssl3.master
    assert fips_ssl3._key_block() == as_tls._key_block()
    transcript = Transcript()
    transcript.use("md5sha1")
    one, other = (Secrets(suite, Version.ssl3, MASTER, CLIENT, SERVER) for suite in (fips, plain))
    assert one.finished(True, transcript) == other.finished(True, transcript)
    assert [suite.fips for suite in LEGACY_SUITES if derivation(suite, Version.ssl3) is not ssl3_expand] == [True] * 4


def md5(*parts: bytes) -> bytes:
    return hashlib.md5(b"".join(parts)).digest()


@pytest.mark.parametrize("name", ["EXP-RC4-MD5", "EXP-RC2-CBC-MD5", "EXP1024-RC4-SHA", "EXP1024-DES-CBC-SHA"])
def test_export_keys(name: str) -> None:
    """RFC 6101 section 6.2.2.1 and RFC 2246 section 6.3.1, by hand."""
    suite = BY_NAME[name]
    cipher, mac = suite.cipher, suite.mac_bytes

    def split(block: bytes) -> list[bytes]:
        ends = [mac, 2 * mac, 2 * mac + cipher.secret, 2 * mac + 2 * cipher.secret]
        return [block[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    macs, keys, ivs = Secrets(suite, Version.ssl3, MASTER, CLIENT, SERVER)._key_block()
    *their_macs, client, server = split(ssl3_expand(MASTER, b"", SERVER + CLIENT, 200))
    assert macs == their_macs
    assert keys == [md5(client, CLIENT, SERVER)[: cipher.key], md5(server, SERVER, CLIENT)[: cipher.key]]
    assert ivs == [md5(CLIENT, SERVER)[: cipher.block], md5(SERVER, CLIENT)[: cipher.block]]

    macs, keys, ivs = Secrets(suite, Version.tls1_0, MASTER, CLIENT, SERVER)._key_block()
    *their_macs, client, server = split(prf("md5sha1", MASTER, b"key expansion", SERVER + CLIENT, 200))
    assert macs == their_macs
    assert keys == [
        prf("md5sha1", client, b"client write key", CLIENT + SERVER, cipher.key),
        prf("md5sha1", server, b"server write key", CLIENT + SERVER, cipher.key),
    ]
    block = prf("md5sha1", b"", b"IV block", CLIENT + SERVER, 2 * cipher.block)
    assert ivs == [block[: cipher.block], block[cipher.block :]]


def test_other_keys_are_not_stretched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "final_keys", None)
    for suite in LEGACY_SUITES:
        if not suite.export:
            _, keys, _ = Secrets(suite, Version.tls1_0, MASTER, CLIENT, SERVER)._key_block()
            assert [len(key) for key in keys] == [suite.cipher.key] * 2


def test_exported_keying_material() -> None:
    """RFC 5705 by the PRF of the version; SSL 3.0 has none."""
    info = ConnectionInfo()
    info.suite, info.version = SUITE, Version.tls1_1
    agreed = Agreed(info, MASTER, CLIENT + SERVER, b"", b"")
    assert export_keys(agreed, b"label", None, 20) == prf("md5sha1", MASTER, b"label", CLIENT + SERVER, 20)
    info.version = Version.ssl3
    with pytest.raises(ConfigurationError) as caught:
        export_keys(agreed, b"label", None, 20)
    assert caught.value.name == "SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION"
