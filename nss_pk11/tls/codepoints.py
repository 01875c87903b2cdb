"""The numbers of the protocol: versions, content types, messages, extensions, groups, signature schemes.

Values come from the IANA TLS registries; names are the RFCs'.  Unknown numbers from a peer stay plain ints (decoders never
raise on them), so every table here is used for *known* values only.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar, cast


class Version(IntEnum):
    """ProtocolVersion (RFC 8446 section 4.1.2); SSL 2.0 is what its own hellos say."""

    ssl2 = 0x0002
    ssl3 = 0x0300
    tls1_0 = 0x0301
    tls1_1 = 0x0302
    tls1_2 = 0x0303
    tls1_3 = 0x0304

    @property
    def label(self) -> str:
        """The name people read: "TLSv1.3"."""
        return f"TLSv1.{self - 0x0301}" if self > Version.ssl3 else f"SSLv{self & 2 or 3}"


class ContentType(IntEnum):
    change_cipher_spec = 20
    alert = 21
    handshake = 22
    application_data = 23


class HandshakeType(IntEnum):
    hello_request = 0
    client_hello = 1
    server_hello = 2
    new_session_ticket = 4
    end_of_early_data = 5
    encrypted_extensions = 8
    certificate = 11
    server_key_exchange = 12
    certificate_request = 13
    server_hello_done = 14
    certificate_verify = 15
    client_key_exchange = 16
    finished = 20
    certificate_status = 22
    key_update = 24
    compressed_certificate = 25
    message_hash = 254


class ExtensionType(IntEnum):
    server_name = 0
    max_fragment_length = 1
    status_request = 5
    supported_groups = 10
    ec_point_formats = 11
    signature_algorithms = 13
    application_layer_protocol_negotiation = 16
    padding = 21
    encrypt_then_mac = 22
    extended_master_secret = 23
    compress_certificate = 27
    record_size_limit = 28
    session_ticket = 35
    pre_shared_key = 41
    early_data = 42
    supported_versions = 43
    cookie = 44
    psk_key_exchange_modes = 45
    certificate_authorities = 47
    post_handshake_auth = 49
    signature_algorithms_cert = 50
    key_share = 51
    renegotiation_info = 0xFF01


class Group(IntEnum):
    """NamedGroup (RFC 8446 section 4.2.7, RFC 7919, and the ECDHE-MLKEM hybrid)."""

    secp256r1 = 23
    secp384r1 = 24
    secp521r1 = 25
    x25519 = 29
    x448 = 30
    ffdhe2048 = 256
    ffdhe3072 = 257
    ffdhe4096 = 258
    ffdhe6144 = 259
    ffdhe8192 = 260
    X25519MLKEM768 = 0x11EC


class SignatureScheme(IntEnum):
    """SignatureScheme (RFC 8446 section 4.2.3; ML-DSA: draft-ietf-tls-mldsa; DSA: RFC 5246 section 7.4.1.4.1).

    Before TLS 1.2 signatures have no number: `rsa_pkcs1_md5_sha1` stands for RSA's, which is never on the wire and has a private
    code point, `dsa_sha1` and `ecdsa_sha1` for the others' (RFC 4346 section 7.4.3, RFC 4492 section 5.4).
    """

    rsa_pkcs1_sha1 = 0x0201
    dsa_sha1 = 0x0202
    ecdsa_sha1 = 0x0203
    rsa_pkcs1_sha256 = 0x0401
    dsa_sha256 = 0x0402
    ecdsa_secp256r1_sha256 = 0x0403
    rsa_pkcs1_sha384 = 0x0501
    dsa_sha384 = 0x0502
    ecdsa_secp384r1_sha384 = 0x0503
    rsa_pkcs1_sha512 = 0x0601
    dsa_sha512 = 0x0602
    ecdsa_secp521r1_sha512 = 0x0603
    rsa_pss_rsae_sha256 = 0x0804
    rsa_pss_rsae_sha384 = 0x0805
    rsa_pss_rsae_sha512 = 0x0806
    ed25519 = 0x0807
    ed448 = 0x0808
    rsa_pss_pss_sha256 = 0x0809
    rsa_pss_pss_sha384 = 0x080A
    rsa_pss_pss_sha512 = 0x080B
    mldsa44 = 0x0904
    mldsa65 = 0x0905
    mldsa87 = 0x0906
    rsa_pkcs1_md5_sha1 = 0xFF01


class CertificateCompression(IntEnum):
    """CertificateCompressionAlgorithm (RFC 8879 section 3)."""

    zlib = 1
    brotli = 2
    zstd = 3


E = TypeVar("E", bound=IntEnum)


def _plain(enum: type[E]) -> type[E]:
    """The members as attributes of an ordinary class.  On Python 3.11 an Enum's own take 110 ns to look up, these 20, and a
    handshake does so hundreds of times."""
    return cast("type[E]", type(enum.__name__, (), dict(enum.__members__)))


# How the rest of the engine writes them.
C, H, V, X = _plain(ContentType), _plain(HandshakeType), _plain(Version), _plain(ExtensionType)


def is_grease(value: int) -> bool:
    """Whether a 16-bit code point is reserved for GREASE (RFC 8701 section 2): 0x0A0A, 0x1A1A, … 0xFAFA."""
    return (value & 0x0F0F) == 0x0A0A and (value >> 8) == (value & 0xFF)
