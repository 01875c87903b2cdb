"""FORTEZZA's messages and records, byte for byte.

There is no other implementation left to compare with: the messages here are written by hand from the structures of RFC 6101
sections 5.6.3, 5.6.4 and 5.6.7.2 and from what is known of NSS's, field by field, with a pattern in each.
"""

from __future__ import annotations

import hashlib
import os

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.modes import CBC

from nss_pk11.errors import BadRecordMac, DecodeError, TokenError
from nss_pk11.tls.codec import Reader
from nss_pk11.tls.codepoints import C, Version
from nss_pk11.tls.messages.fortezza import ClientKeys, encode_server_key_exchange
from nss_pk11.tls.messages.tls12 import encode_request
from nss_pk11.tls.record.token import TokenCbc
from nss_pk11.tls.ssl3.fortezza import E_MAIL_RANDOM, FortezzaClient
from nss_pk11.tls.ssl3.secrets import Secrets
from nss_pk11.tls.suites import BY_NAME, FORTEZZA_SUITES

# struct { opaque r_s [128]; } ServerFortezzaParams;  in NSS always KEA's e-mail constant
SERVER_KEY_EXCHANGE = bytes.fromhex("0c 000080" + "00" * 127 + "01")

# struct { opaque y_c<0..128>; opaque r_c[128]; opaque y_signature[40]; opaque wrapped_client_write_key[12];
#          opaque wrapped_server_write_key[12]; opaque client_write_iv[24]; opaque server_write_iv[24];
#          opaque master_secret_iv[24]; block-ciphered opaque encrypted_preMasterSecret[48]; } FortezzaKeys;
CLIENT_KEY_EXCHANGE = bytes.fromhex(
    "10 0001b9"  # 1 + 128 + 128 + 40 + 12 + 12 + 24 + 24 + 24 + 48 = 441
    "80" + "a1" * 128  # y_c, with its length
    + "a2" * 128  # r_c
    + "a3" * 40  # y_signature
    + "a4" * 12  # wrapped_client_write_key
    + "a5" * 12  # wrapped_server_write_key
    + "a6" * 24  # client_write_iv
    + "a7" * 24  # server_write_iv
    + "a8" * 24  # master_secret_iv
    + "a9" * 48  # encrypted_preMasterSecret
)  # fmt: skip
KEYS = ClientKeys(
    b"\xa1" * 128, b"\xa2" * 128, b"\xa3" * 40, b"\xa4" * 12, b"\xa5" * 12, b"\xa6" * 24, b"\xa7" * 24, b"\xa8" * 24, b"\xa9" * 48
)  # fmt: skip
WITHOUT_PUBLIC = bytes.fromhex("10 000139 00") + CLIENT_KEY_EXCHANGE[5 + 128 :]


def test_the_servers_key_exchange() -> None:
    assert encode_server_key_exchange(E_MAIL_RANDOM) == SERVER_KEY_EXCHANGE


def test_a_client_takes_the_servers_random_unsigned() -> None:
    reader = Reader(SERVER_KEY_EXCHANGE, 4)
    FortezzaClient(b"\3\0", False, os.urandom).read_parameters(reader)
    reader.end()


def test_a_random_that_is_too_short() -> None:
    with pytest.raises(DecodeError):
        FortezzaClient(b"\3\0", False, os.urandom).read_parameters(Reader(SERVER_KEY_EXCHANGE[:-1], 4))


def test_the_clients_key_exchange() -> None:
    assert KEYS.encode() == CLIENT_KEY_EXCHANGE
    assert ClientKeys.decode(CLIENT_KEY_EXCHANGE) == KEYS


def test_y_c_may_be_left_to_the_clients_certificate() -> None:
    keys = ClientKeys.decode(WITHOUT_PUBLIC)
    assert keys == KEYS._replace(public=b"")
    assert keys.encode() == WITHOUT_PUBLIC


@pytest.mark.parametrize("length", [1, 63, 129])
def test_y_c_of_no_such_length(length: int) -> None:
    body = bytes((length,)) + bytes(length) + CLIENT_KEY_EXCHANGE[5 + 128 :]
    with pytest.raises(DecodeError, match=f"y_c of {length} bytes"):
        ClientKeys.decode(b"\x10" + len(body).to_bytes(3, "big") + body)


@pytest.mark.parametrize("length", range(4, len(CLIENT_KEY_EXCHANGE), 13))
def test_a_clients_key_exchange_cut_short(length: int) -> None:
    with pytest.raises(DecodeError):
        ClientKeys.decode(CLIENT_KEY_EXCHANGE[:length])


def test_a_clients_key_exchange_with_more_behind_it() -> None:
    with pytest.raises(DecodeError):
        ClientKeys.decode(CLIENT_KEY_EXCHANGE + b"\0")


def test_the_certificate_request() -> None:
    """fortezza_dms(20) alone, and no authorities."""
    assert encode_request((20,), None, ()) == bytes.fromhex("0d 000004 01 14 0000")


# --- what the suites are ---------------------------------------------------------------------------------------------


def test_the_suites() -> None:
    """RFC 6101 appendix A.6, NSS's names and strengths, and what NSS asks tokens for."""
    rows = [
        (suite.code, suite.nss_name.removeprefix("SSL_FORTEZZA_DMS_WITH_"), suite.key_bits, suite.secret_key_bits)
        for suite in FORTEZZA_SUITES
    ]
    assert rows == [(0x001E, "RC4_128_SHA", 128, 128), (0x001D, "FORTEZZA_CBC_SHA", 80, 80), (0x001C, "NULL_SHA", 0, 0)]
    assert [suite.mechanisms - {"CKM_SHA_1_HMAC"} for suite in FORTEZZA_SUITES] == [
        {"CKM_KEA_KEY_DERIVE", "CKM_RC4"},
        {"CKM_KEA_KEY_DERIVE", "CKM_SKIPJACK_CBC64"},
        {"CKM_KEA_KEY_DERIVE"},
    ]
    assert not any(suite.forward_secret or suite.modern or suite.export for suite in FORTEZZA_SUITES)


# --- records -----------------------------------------------------------------------------------------------------------

SUITE = BY_NAME["SSL_FORTEZZA_DMS_WITH_FORTEZZA_CBC_SHA"]
KEY = bytes(range(24))


class Running:
    """A block cipher in CBC mode that stands for the card's: what matters here is the order of bytes.  `iv` as a card has it."""

    def __init__(self, context: CipherContext) -> None:
        self._context = context

    def update(self, data: bytes | memoryview) -> bytes:
        return self._context.update(data)


class Gone:
    """One whose card has gone."""

    def update(self, data: bytes | memoryview) -> bytes:
        raise TokenError("the token was removed", name="SSL_ERROR_TOKEN_INSERTION_REMOVAL")


def cipher(iv: bytes) -> Cipher[CBC]:
    return Cipher(TripleDES(KEY), CBC(iv))


def ends(version: Version, *, marked: bool, sent: bytes = bytes(8), known: bytes = bytes(8)) -> tuple[TokenCbc, TokenCbc]:
    """Who writes, whose card made the IV `sent`, and who reads, who was told the IV `known`."""
    writer = TokenCbc(
        SUITE, version, Running(cipher(sent).encryptor()), b"m" * 20, marked=marked, random=lambda size: b"R" * size
    )
    return writer, TokenCbc(SUITE, version, Running(cipher(known).decryptor()), b"m" * 20, marked=marked)


VERSIONS = pytest.mark.parametrize("version", [Version.ssl3, Version.tls1_0], ids=lambda version: version.label)


def test_a_record_of_ssl3_by_hand() -> None:
    """RFC 6101 sections 5.2.3.1 and 5.2.3.2."""
    inner = hashlib.sha1(b"m" * 20 + b"\x36" * 40 + bytes(8) + b"\x16" + b"\0\5" + b"hello").digest()
    mac = hashlib.sha1(b"m" * 20 + b"\x5c" * 40 + inner).digest()
    plaintext = b"hello" + mac + b"\6" * 7
    writer, _ = ends(Version.ssl3, marked=False)
    assert writer.protect(C.handshake, b"hello") == b"\x16\3\0\0\x20" + cipher(bytes(8)).encryptor().update(plaintext)


def test_a_servers_first_record_begins_with_a_block_that_means_nothing() -> None:
    """Its card cannot be given the IV that the client chose."""
    iv = os.urandom(8)
    writer, reader = ends(Version.ssl3, marked=True, sent=iv, known=os.urandom(8))
    first = writer.protect(C.handshake, b"finished")
    assert len(first) == 5 + 8 + 32
    assert cipher(iv).decryptor().update(first[5:])[:16] == b"R" * 8 + b"finished"
    assert reader.unprotect(C.handshake, first[:5], memoryview(first)[5:]) == (C.handshake, b"finished")
    second = writer.protect(C.handshake, b"finished")
    assert len(second) == 5 + 32
    assert reader.unprotect(C.handshake, second[:5], memoryview(second)[5:]) == (C.handshake, b"finished")


def test_without_that_block_nothing_authenticates() -> None:
    writer, reader = ends(Version.ssl3, marked=False, sent=os.urandom(8), known=os.urandom(8))
    record = writer.protect(C.handshake, b"finished")
    with pytest.raises(BadRecordMac):
        reader.unprotect(C.handshake, record[:5], memoryview(record)[5:])


@VERSIONS
@pytest.mark.parametrize("marked", [False, True], ids=["client", "server"])
def test_records_both_ways(version: Version, marked: bool) -> None:
    writer, reader = ends(version, marked=marked)
    records = [writer.protect(C.handshake, b"x" * size) for size in (1, 7, 8, 20, 1000)]
    got = [reader.unprotect(C.handshake, record[:5], memoryview(record)[5:])[1] for record in records]
    assert got == [b"x" * size for size in (1, 7, 8, 20, 1000)]
    run = b"".join(writer.protect_run(memoryview(b"y" * 5000), 1000))
    assert len(run) > 5000


@VERSIONS
def test_a_changed_record(version: Version) -> None:
    writer, reader = ends(version, marked=True)
    record = bytearray(writer.protect(C.handshake, b"hello"))
    record[-9] ^= 1
    with pytest.raises(BadRecordMac):
        reader.unprotect(C.handshake, bytes(record[:5]), memoryview(record)[5:])


def test_a_card_that_has_gone() -> None:
    """The error goes up; an alert about it cannot be protected, and is left out."""
    gone = TokenCbc(SUITE, Version.ssl3, Gone(), b"m" * 20, marked=False)
    for content_type in (C.handshake, C.application_data):
        with pytest.raises(TokenError) as raised:
            gone.protect(content_type, b"hello")
        assert raised.value.name == "SSL_ERROR_TOKEN_INSERTION_REMOVAL"
    assert gone.protect(C.alert, b"\2\x28") == b""


@VERSIONS
def test_mac_keys_alone_come_from_the_master_secret(version: Version) -> None:
    """Of the key block nothing goes to keys and IVs, which come in the message: as in the NULL suite."""
    blocks = {}
    for suite in FORTEZZA_SUITES:
        secrets = Secrets(suite, version, b"s" * 48, b"c" * 32, b"r" * 32)
        blocks[suite.cipher.name] = secrets._key_block()
    macs, keys, ivs = blocks["FORTEZZA"]
    assert (macs, keys, ivs) == blocks["NULL"] == (blocks["RC4"][0], [b"", b""], [b"", b""])
    assert [len(key) for key in blocks["RC4"][1]] == [16, 16]
