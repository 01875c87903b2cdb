"""CBC records: what is written can be read, and whatever is wrong with one is the same error."""

from __future__ import annotations

import hashlib
import hmac
import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given
from hypothesis import strategies as st

from nss_pk11.errors import BadRecordMac, RecordOverflow
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.record import mac as macs
from nss_pk11.tls.record.cbc import Cbc
from nss_pk11.tls.suites import BY_NAME

SUITES = [BY_NAME[name] for name in ("AES128-SHA", "AES256-SHA256", "ECDHE-RSA-AES256-SHA384")]
KEY, MAC_KEY = bytes(range(32)), bytes(range(100, 148))
HEADER = b"\x17\x03\x03\0\0"  # its length is not looked at


def pair(suite: object, etm: bool) -> tuple[Cbc, Cbc]:
    key = KEY[: suite.cipher.key]  # type: ignore[attr-defined]
    mac_key = MAC_KEY[: suite.mac_bytes]  # type: ignore[attr-defined]
    return tuple(Cbc(suite, Version.tls1_2, key, mac_key, encrypt_then_mac=etm) for _ in range(2))  # type: ignore


def read(reader: Cbc, record: bytes) -> tuple[int, bytes]:
    return reader.unprotect(record[0], record[:5], memoryview(record)[5:])


@pytest.mark.parametrize("etm", [True, False], ids=["etm", "mte"])
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.openssl)
def test_round_trip(suite: object, etm: bool) -> None:
    writer, reader = pair(suite, etm)
    for length in (0, 1, 15, 16, 17, 255, 256, 257, 16384):
        record = writer.protect(22, bytes(length))
        assert len(record) <= 5 + length + writer.overhead
        assert int.from_bytes(record[3:5], "big") == len(record) - 5
        assert read(reader, record) == (22, bytes(length))
    run = b"".join(writer.protect_run(memoryview(bytes(2500)), 1000))
    found = b""
    while run:
        length = 5 + int.from_bytes(run[3:5], "big")
        found += read(reader, run[:length])[1]
        run = run[length:]
    assert found == bytes(2500)


def seal(suite: object, content: bytes, padding: bytes, mac: bytes | None = None) -> bytes:
    """The first record of a MAC-then-encrypt connection, with padding (length byte included) as given."""
    pseudo = bytes(8) + b"\x17\x03\x03" + len(content).to_bytes(2, "big")
    name = suite.mac  # type: ignore[attr-defined]
    mac = hmac.digest(MAC_KEY[: suite.mac_bytes], pseudo + content, name) if mac is None else mac  # type: ignore[attr-defined]
    iv = os.urandom(16)
    encryptor = Cipher(AES(KEY[: suite.cipher.key]), CBC(iv)).encryptor()  # type: ignore[attr-defined]
    return HEADER + iv + encryptor.update(content + mac + padding)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.openssl)
def test_every_length_of_padding(suite: object) -> None:
    size = suite.mac_bytes  # type: ignore[attr-defined]
    for padding in range(256):
        content = bytes(-(size + padding + 1) % 16 + 32)
        record = seal(suite, content, bytes((padding,)) * (padding + 1))
        assert read(pair(suite, False)[1], record) == (23, content)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.openssl)
def test_one_error_for_padding_and_mac(suite: object) -> None:
    size = suite.mac_bytes  # type: ignore[attr-defined]
    whole = bytes(-(size + 16) % 16 + 300)
    content = whole[: len(whole) - (len(whole) + size) % 16]
    faults = {
        "padding byte wrong": seal(suite, content, b"\x0e" + b"\x0f" * 15),
        "all padding wrong": seal(suite, content, bytes(15) + b"\x0f"),
        "padding longer than the record": seal(suite, content[:16] + bytes(-(size + 16) % 16), b"\xff" * 16),
        "mac wrong": seal(suite, content, b"\x0f" * 16, mac=bytes(size)),
        "both wrong": seal(suite, content, b"\x0e" + b"\x0f" * 15, mac=bytes(size)),
        "no block": HEADER + bytes(16),
        "half a block": HEADER + bytes(40),
        "shorter than a MAC": HEADER + bytes(32),
        "nothing": HEADER,
    }
    messages = set()
    for name, record in faults.items():
        with pytest.raises(BadRecordMac) as caught:
            read(pair(suite, False)[1], record)
        messages.add((str(caught.value), caught.value.__cause__, name and None))
    assert len(messages) == 1


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.openssl)
def test_the_same_hash_blocks_for_every_padding(suite: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lucky Thirteen: MAC and evening-out together hash as many blocks whatever the padding says."""
    hashed: list[int] = []
    name, size = suite.mac, suite.mac_bytes  # type: ignore[attr-defined]
    block, tail = (128, 17) if name == "sha384" else (64, 9)

    def blocks(length: int) -> int:
        return -(-(length + tail) // block)

    real_digest, real_new = hmac.digest, hashlib.new

    def counting_digest(key: bytes, data: bytes, digest: str) -> bytes:
        hashed.append(blocks(block + len(data)))
        return real_digest(key, data, digest)

    def counting_new(digest: str, data: bytes) -> object:
        hashed.append(len(data) // block)
        return real_new(digest, data)

    monkeypatch.setattr(macs, "hmac_digest", counting_digest)
    monkeypatch.setattr(hashlib, "new", counting_new)
    totals = set()
    length = 512  # of MAC, content and padding together
    for padding in range(256):
        hashed.clear()
        record = seal(suite, bytes(length - size - padding - 1), bytes((padding,)) * (padding + 1))
        read(pair(suite, False)[1], record)
        assert len(hashed) == 2
        totals.add(sum(hashed))
    hashed.clear()
    with pytest.raises(BadRecordMac):
        read(pair(suite, False)[1], seal(suite, bytes(length - size - 16), bytes(15) + b"\x0f"))
    totals.add(sum(hashed))
    assert len(totals) == 1


@pytest.mark.parametrize("etm", [True, False], ids=["etm", "mte"])
@given(position=st.integers(5, 5 + 16 + 64 - 1), bit=st.integers(0, 7))
def test_every_flipped_bit_is_found(etm: bool, position: int, bit: int) -> None:
    writer, reader = pair(SUITES[0], etm)
    record = bytearray(writer.protect(23, bytes(30)))
    record[position % (len(record) - 5) + 5] ^= 1 << bit
    with pytest.raises(BadRecordMac):
        read(reader, bytes(record))


@pytest.mark.parametrize("etm", [True, False], ids=["etm", "mte"])
def test_order_and_type_are_authenticated(etm: bool) -> None:
    writer, reader = pair(SUITES[1], etm)
    first, second = writer.protect(23, b"one"), writer.protect(23, b"two")
    with pytest.raises(BadRecordMac):
        read(reader, second)
    with pytest.raises(BadRecordMac):
        read(reader, b"\x16" + first[1:])
    assert read(reader, first) == (23, b"one")


def test_too_much_plaintext() -> None:
    writer, reader = pair(SUITES[0], True)
    with pytest.raises(RecordOverflow):
        read(reader, writer.protect(23, bytes(16385)))


def test_every_record_has_an_iv_of_its_own() -> None:
    writer, _ = pair(SUITES[0], True)
    ivs = {writer.protect(23, b"")[5:21] for _ in range(100)}
    assert len(ivs) == 100
