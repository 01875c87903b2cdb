"""Records before AEAD, both ways with tlslite-ng's, from the same master secret on; where it lacks a cipher, by the formulas."""

from __future__ import annotations

import hashlib
import hmac
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_pk11.errors import BadRecordMac, RecordOverflow
from nss_pk11.tls.ciphers import bulk
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.record import mac as macs
from nss_pk11.tls.record.cbc import Cbc
from nss_pk11.tls.record.layer import RecordLayer
from nss_pk11.tls.record.stream import Stream
from nss_pk11.tls.ssl3.secrets import Protection, Secrets
from nss_pk11.tls.suites import BY_NAME, EVERY_SUITE, Suite

from . import oracle

MASTER = bytes(range(100, 148))
RANDOMS = bytes(range(150, 182)), bytes(range(200, 232))
SUITES = [suite for suite in EVERY_SUITE if suite.cipher.kind != "aead"]
CBC_SUITES = [suite for suite in SUITES if suite.cipher.kind == "cbc"]
PADDED = [BY_NAME[n] for n in ("AES128-SHA", "DES-CBC3-SHA", "EXP-RC2-CBC-MD5")]
THEIRS = [
    BY_NAME[name]
    for name in ("RC4-MD5", "RC4-SHA", "DES-CBC3-SHA", "AES128-SHA", "AES256-SHA", "AES128-SHA256", "NULL-MD5", "NULL-SHA")
]
VERSIONS = [Version.ssl3, Version.tls1_0, Version.tls1_1, Version.tls1_2]
LENGTHS = [0, 1, 7, 8, 15, 16, 17, 100, 255, 256, 257, 1000]


def cells(suites: list[Suite]) -> list[tuple[Suite, Version]]:
    return [(suite, version) for suite in suites for version in VERSIONS if suite.min_version <= version <= suite.max_version]


def name(value: object) -> str:
    return value.openssl if isinstance(value, Suite) else value.name if isinstance(value, Version) else str(value)


def pair(suite: Suite, version: Version, etm: bool = False, split: bool = True) -> tuple[Protection, Protection]:
    """What the client writes with, twice: one to write, one to read."""
    secrets = Secrets(suite, version, MASTER, *RANDOMS)
    return secrets.protections(etm, os.urandom, split)[0], secrets.protections(etm, os.urandom, split)[0]


def frames(records: bytes) -> list[bytes]:
    found = []
    while records:
        end = 5 + int.from_bytes(records[3:5], "big")
        found.append(records[:end])
        records = records[end:]
    return found


def read(protection: Protection, records: bytes) -> list[tuple[int, bytes]]:
    return [protection.unprotect(frame[0], frame[:5], memoryview(frame)[5:]) for frame in frames(records)]


# --- the same bytes as others ------------------------------------------------------------------------------------------------


# Encrypt-then-MAC is for block ciphers of TLS.
WITH_ETM = [(suite, version) for suite, version in cells(THEIRS) if suite.cipher.kind == "cbc" and version > Version.ssl3]
ORDERS = [(*cell, False) for cell in cells(THEIRS)] + [(*cell, True) for cell in WITH_ETM]


@pytest.mark.parametrize(("suite", "version", "etm"), ORDERS, ids=name)
def test_both_ways_with_tlslite(suite: Suite, version: Version, etm: bool) -> None:
    client, server = Secrets(suite, version, MASTER, *RANDOMS).protections(etm, os.urandom)
    theirs = oracle.Records(suite, version, MASTER, RANDOMS, client=False, etm=etm)
    contents = [(22, os.urandom(length)) for length in LENGTHS] + [(23, b"data"), (21, b"\x01\x00")]
    for content_type, content in contents:
        ours = client.protect(content_type, content)
        assert {frame[1:3] for frame in frames(ours)} == {version.to_bytes(2, "big")}
        opened = theirs.open(ours)
        assert {kind for kind, _ in opened} == {content_type}
        assert b"".join(fragment for _, fragment in opened) == content
    for content_type, content in contents:
        assert read(server, theirs.seal(content_type, content)) == [(content_type, content)]
    run = os.urandom(2500)
    opened = theirs.open(b"".join(client.protect_run(memoryview(run), 1000)))
    assert b"".join(fragment for _, fragment in opened) == run


@pytest.mark.parametrize("faulty", [False, True], ids=["", "faulty"])
@pytest.mark.parametrize(("suite", "version"), cells(THEIRS), ids=name)
def test_a_changed_record_is_refused_by_either(suite: Suite, version: Version, faulty: bool) -> None:
    """A last byte of the MAC or of the first block, as tlslite sees it and as we see it."""
    client, server = Secrets(suite, version, MASTER, *RANDOMS).protections(False, os.urandom)
    theirs = oracle.Records(suite, version, MASTER, RANDOMS, client=False)
    ours, others = (bytearray(record) for record in (client.protect(22, b"content"), theirs.seal(22, b"content")))
    if not faulty:
        assert theirs.open(bytes(ours)) == read(server, bytes(others)) == [(22, b"content")]
        return
    ours[5 + suite.cipher.block] ^= 1
    others[5 + suite.cipher.block] ^= 1
    with pytest.raises(oracle.module("errors").TLSBadRecordMAC):
        theirs.open(bytes(ours))
    with pytest.raises(BadRecordMac):
        read(server, bytes(others))


# --- every suite and version -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "version"), cells(SUITES), ids=name)
def test_round_trip(suite: Suite, version: Version) -> None:
    writer, reader = pair(suite, version)
    for length in [*LENGTHS, 16384]:
        content = os.urandom(length)
        records = writer.protect(23, content)
        assert len(records) <= 5 + length + writer.overhead
        opened = read(reader, records)
        assert b"".join(fragment for _, fragment in opened) == content
    run = os.urandom(50_000)
    parts = writer.protect_run(memoryview(run), 16384)
    assert b"".join(fragment for _, fragment in read(reader, b"".join(parts))) == run
    assert not writer.exhausted


@pytest.mark.parametrize(("suite", "version"), cells(SUITES), ids=name)
def test_whatever_is_wrong_is_one_error(suite: Suite, version: Version) -> None:
    """Wrong bits, wrong lengths, wrong order, wrong type: bad_record_mac, in the same words."""
    block, content = suite.cipher.block or 1, b"c" * 40
    good = frames(pair(suite, version, split=False)[0].protect(23, content))[0]
    body = good[5:]
    wrong = [
        b"", body[:-1], body[:block], body[: 2 * block], body[:-block], body + bytes(block), bytes(len(body)),
        *(bytes((*body[:at], body[at] ^ 0x80, *body[at + 1 :])) for at in range(0, len(body), 5)),
    ]  # fmt: skip
    if suite.cipher.kind == "cbc" and version == Version.ssl3:
        # The last block is all padding but for the MAC's tail and the length byte: flips there are tested by themselves.
        wrong = [change for change in wrong if change[:-block] != body[:-block]]
    messages = set()
    for change in wrong:
        with pytest.raises(BadRecordMac) as caught:
            pair(suite, version)[1].unprotect(23, good[:3] + len(change).to_bytes(2, "big"), memoryview(change))
        messages.add(str(caught.value))
    for content_type, records in ((22, good), (23, good + good)):
        with pytest.raises(BadRecordMac) as caught:
            read(pair(suite, version)[1], bytes((content_type,)) + records[1:])
        messages.add(str(caught.value))
    assert len(messages) == 1


@given(position=st.integers(0), bit=st.integers(0, 7), cell=st.sampled_from(cells(SUITES)))
def test_every_flipped_bit_is_found(position: int, bit: int, cell: tuple[Suite, Version]) -> None:
    """But in SSL 3.0's padding, where nobody can find it."""
    suite, version = cell
    writer, reader = pair(suite, version)
    content = bytes(36)  # with MD5 and SHA-1 and the length byte no whole number of blocks
    record = bytearray(writer.protect(22, content))
    last = len(record) - (suite.cipher.block if version == Version.ssl3 and suite.cipher.kind == "cbc" else 0)
    record[5 + position % (last - 5)] ^= 1 << bit
    with pytest.raises(BadRecordMac):
        read(reader, bytes(record))


@pytest.mark.parametrize(("suite", "version"), cells(SUITES), ids=name)
def test_too_much_plaintext(suite: Suite, version: Version) -> None:
    writer, reader = pair(suite, version, split=False)
    with pytest.raises(RecordOverflow):
        read(reader, writer.protect(23, bytes(16385)))


# --- IVs -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suite", "version"), cells(PADDED), ids=name)
def test_first_byte_goes_ahead_where_ivs_chain(suite: Suite, version: Version) -> None:
    """1/n-1: application data alone, once for all that is sent together, and only if asked for."""
    chained = version <= Version.tls1_0
    writer, reader = pair(suite, version)
    lengths = [len(fragment) for _, fragment in read(reader, writer.protect(23, bytes(100)))]
    assert lengths == ([1, 99] if chained else [100])
    assert [len(fragment) for _, fragment in read(reader, writer.protect(23, b"1"))] == [1]
    assert [len(fragment) for _, fragment in read(reader, writer.protect(23, b""))] == [0]
    assert len(frames(writer.protect(22, bytes(100)))) == 1
    writer, reader = pair(suite, version)
    run = read(reader, b"".join(writer.protect_run(memoryview(bytes(2500)), 1000)))
    assert [len(fragment) for _, fragment in run] == ([1, 1000, 1000, 499] if chained else [1000, 1000, 500])
    whole, _ = pair(suite, version, split=False)
    assert len(frames(whole.protect(23, bytes(100)))) == 1
    assert len(whole.protect_run(memoryview(bytes(2500)), 1000)) == 3


def test_records_chain_before_tls11() -> None:
    """RFC 2246 section 6.2.3.2: the IV is the last block of the record before, the first one the key block's."""
    suite = BY_NAME["DES-CBC3-SHA"]
    writer, _ = pair(suite, Version.tls1_0)
    _, keys, ivs = Secrets(suite, Version.tls1_0, MASTER, *RANDOMS)._key_block()
    iv = ivs[0]
    for _ in range(3):
        body = writer.protect(22, b"message")[5:]
        _, decryptor = bulk.cbc(suite.cipher, keys[0], iv)
        assert decryptor.update(body).startswith(b"message")
        iv = body[-8:]


def test_equal_records_look_different_since_tls11() -> None:
    suite = BY_NAME["AES128-SHA"]
    for version in (Version.tls1_1, Version.tls1_2):
        writer, _ = pair(suite, version)
        assert len({writer.protect(22, b"")[5:21] for _ in range(100)}) == 100


# --- padding -------------------------------------------------------------------------------------------------------------------


def seal(suite: Suite, version: Version, content: bytes, padding: bytes, mac: bytes | None = None) -> bytes:
    """The client's first record, padding (length byte included) as given; MACs by the formulas."""
    [mac_key, _], [key, _], ivs = Secrets(suite, version, MASTER, *RANDOMS)._key_block()
    header = bytes(8) + b"\x17" + version.to_bytes(2, "big") + len(content).to_bytes(2, "big")
    if version == Version.ssl3:
        pad = {"md5": 48, "sha1": 40}[suite.mac]
        header = header[:9] + header[11:]
        inner = hashlib.new(suite.mac, mac_key + b"\x36" * pad + header + content).digest()
        good = hashlib.new(suite.mac, mac_key + b"\x5c" * pad + inner).digest()
    else:
        good = hmac.digest(mac_key, header + content, suite.mac)
    plaintext = content + (good if mac is None else mac) + padding
    explicit = version >= Version.tls1_1
    encryptor, _ = bulk.cbc(suite.cipher, key, bytes(suite.cipher.block) if explicit else ivs[0])
    body = encryptor.update(os.urandom(suite.cipher.block) + plaintext if explicit else plaintext)
    return b"\x17" + version.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def filler(suite: Suite, padding: int, blocks: int = 5) -> bytes:
    """Content that fills whole blocks together with MAC, `padding` and the length byte."""
    return b"f" * (-(suite.mac_bytes + padding + 1) % suite.cipher.block + blocks * suite.cipher.block)


@pytest.mark.parametrize(("suite", "version"), [cell for cell in cells(PADDED) if cell[1] > Version.ssl3], ids=name)
def test_every_length_of_tls_padding(suite: Suite, version: Version) -> None:
    for padding in range(256):
        content = filler(suite, padding)
        record = seal(suite, version, content, bytes((padding,)) * (padding + 1))
        assert read(pair(suite, version)[1], record) == [(23, content)]
        if padding:
            record = seal(suite, version, content, bytes((padding ^ 1,)) + bytes((padding,)) * padding)
            with pytest.raises(BadRecordMac):
                read(pair(suite, version)[1], record)


@pytest.mark.parametrize("suite", PADDED, ids=name)
def test_ssl3_padding_is_any_bytes_but_less_than_a_block(suite: Suite) -> None:
    """RFC 6101 section 5.2.3.2."""
    for padding in range(256):
        content = filler(suite, padding)
        record = seal(suite, Version.ssl3, content, os.urandom(padding) + bytes((padding,)))
        reader = pair(suite, Version.ssl3)[1]
        if padding < suite.cipher.block:
            assert read(reader, record) == [(23, content)]
        else:
            with pytest.raises(BadRecordMac):
                read(reader, record)


@pytest.mark.parametrize(("suite", "version"), cells(PADDED), ids=name)
def test_padding_longer_than_the_record(suite: Suite, version: Version) -> None:
    for size in (b"", b"\xff" * 3):
        content = filler(suite, suite.cipher.block - 1, 0)[len(size) :] + size
        faults = [
            seal(suite, version, content, b"\xff" * suite.cipher.block),
            seal(suite, version, content, bytes(suite.cipher.block), mac=bytes(suite.mac_bytes)),
        ]
        for record in faults:
            with pytest.raises(BadRecordMac):
                read(pair(suite, version)[1], record)


def counting_hashes(counts: list[int]) -> tuple[type, type]:
    """Stand-ins for `hashlib.new` that add the blocks they compress to `counts`: one for MACs, one for evening out."""
    new = hashlib.new

    class Counting:
        """A hash that counts the blocks it compresses, its own padding's included."""

        def __init__(self, name: str, data: bytes = b"", length: int = 0) -> None:
            self.hash, self.name, self.length = new(name, data), name, length + len(data)

        def update(self, data: bytes) -> None:
            self.hash.update(data)
            self.length += len(data)

        def copy(self) -> Counting:
            other = Counting(self.name, b"", self.length)
            other.hash = self.hash.copy()
            return other

        def digest(self) -> bytes:
            counts.append((self.length + 9 + 63) // 64)
            return self.hash.digest()

    class Evening(Counting):
        """The one that evens out: it is never finished."""

        def digest(self) -> bytes:
            counts.append(self.length // 64)
            return b""

    return Counting, Evening


@pytest.mark.parametrize(("suite", "version"), cells(PADDED), ids=name)
def test_the_same_hash_blocks_for_every_padding(suite: Suite, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lucky Thirteen: MAC and evening-out together hash as many blocks whatever the padding says, in SSL 3.0 too."""
    counts: list[int] = []
    counting, evening = counting_hashes(counts)

    def counting_hmac(key: bytes, data: bytes, digest: str) -> bytes:
        counts.append((64 + len(data) + 9 + 63) // 64)
        return hmac.digest(key, data, digest)

    def total(record: bytes) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(macs, "hmac_digest", counting_hmac)
            patch.setattr(hashlib, "new", counting)
            reader = pair(suite, version)[1]
            patch.setattr(hashlib, "new", evening)
            counts.clear()
            try:
                read(reader, record)
            except BadRecordMac:
                counts.append(0)
        return sum(counts)

    length = 512  # of content, MAC and padding together
    totals = {}
    for padding in range(suite.cipher.block if version == Version.ssl3 else 256):
        content = bytes(length - suite.mac_bytes - padding - 1)
        totals[padding] = total(seal(suite, version, content, bytes((padding,)) * (padding + 1)))
    bad = bytes(length - suite.mac_bytes - suite.cipher.block)
    totals[-1] = total(seal(suite, version, bad, b"\x01" * (suite.cipher.block - 1) + b"\xfe"))
    padding = suite.cipher.block - 1
    totals[-2] = total(seal(suite, version, bad, bytes((padding,)) * (padding + 1), mac=bytes(suite.mac_bytes)))
    assert len(set(totals.values())) == 1, totals


# --- limits and speed ----------------------------------------------------------------------------------------------------------


def test_when_a_key_is_worn_out() -> None:
    """Sweet32: 16 GB under a cipher of 64-bit blocks."""
    suite = BY_NAME["DES-CBC3-SHA"]
    writer, _ = pair(suite, Version.tls1_0)
    assert isinstance(writer, Cbc)
    writer._written = (1 << 34) - 1
    before = writer.exhausted
    writer.protect(23, b"")
    assert (before, writer.exhausted) == (False, True)
    stream, _ = pair(BY_NAME["RC4-SHA"], Version.tls1_0)
    assert isinstance(stream, Stream)
    stream._sequence = 1 << 48
    assert stream.exhausted


def test_keys_are_scheduled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No record makes a cipher of its own."""
    pairs = [pair(suite, version) for suite, version in cells(SUITES)]
    monkeypatch.setattr(bulk, "Symmetric", None)
    for writer, reader in pairs:
        for _ in range(3):
            assert b"".join(fragment for _, fragment in read(reader, writer.protect(23, b"data"))) == b"data"


def test_through_the_record_layer() -> None:
    """What a connection does: bytes in any pieces, data of any size."""
    for suite, version in cells([BY_NAME[n] for n in ("DES-CBC3-SHA", "RC4-MD5", "NULL-SHA")]):
        sender, receiver = RecordLayer(), RecordLayer()
        sender.write, receiver.read = pair(suite, version)
        data = os.urandom(100_000)
        sender.send(23, data)
        sender.send(21, b"\x01\x00")
        stream = sender.data_to_send()
        found = []
        for start in range(0, len(stream), 7000):
            receiver.feed(stream[start : start + 7000])
            assert receiver.next_run() is None
            found += list(iter(receiver.next, None))
            receiver.settle()
        assert b"".join(fragment for kind, fragment in found if kind == 23) == data
        assert found[-1] == (21, b"\x01\x00")
