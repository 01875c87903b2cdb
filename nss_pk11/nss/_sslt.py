"""Numbers of sslt.h and ssl.h that settings are made of: options, policies, key exchange types, groups, signature schemes."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

# --- options (ssl.h) -------------------------------------------------------------------------------------------------

SSL_SECURITY = 1
SSL_SOCKS = 2
SSL_REQUEST_CERTIFICATE = 3
SSL_HANDSHAKE_AS_CLIENT = 5
SSL_HANDSHAKE_AS_SERVER = 6
SSL_ENABLE_SSL2 = 7
SSL_ENABLE_SSL3 = 8
SSL_NO_CACHE = 9
SSL_REQUIRE_CERTIFICATE = 10
SSL_ENABLE_FDX = 11
SSL_V2_COMPATIBLE_HELLO = 12
SSL_ENABLE_TLS = 13
SSL_ROLLBACK_DETECTION = 14
SSL_NO_STEP_DOWN = 15
SSL_BYPASS_PKCS11 = 16
SSL_NO_LOCKS = 17
SSL_ENABLE_SESSION_TICKETS = 18
SSL_ENABLE_DEFLATE = 19
SSL_ENABLE_RENEGOTIATION = 20
SSL_REQUIRE_SAFE_NEGOTIATION = 21
SSL_ENABLE_FALSE_START = 22
SSL_CBC_RANDOM_IV = 23
SSL_ENABLE_OCSP_STAPLING = 24
SSL_ENABLE_NPN = 25
SSL_ENABLE_ALPN = 26
SSL_REUSE_SERVER_ECDHE_KEY = 27
SSL_ENABLE_FALLBACK_SCSV = 28
SSL_ENABLE_SERVER_DHE = 29
SSL_ENABLE_EXTENDED_MASTER_SECRET = 30
SSL_ENABLE_SIGNED_CERT_TIMESTAMPS = 31
SSL_REQUIRE_DH_NAMED_GROUPS = 32
SSL_ENABLE_0RTT_DATA = 33
SSL_RECORD_SIZE_LIMIT = 34
SSL_ENABLE_TLS13_COMPAT_MODE = 35
SSL_ENABLE_DTLS_SHORT_HEADER = 36
SSL_ENABLE_HELLO_DOWNGRADE_CHECK = 37
SSL_ENABLE_V2_COMPATIBLE_HELLO = 38
SSL_ENABLE_POST_HANDSHAKE_AUTH = 39
SSL_ENABLE_DELEGATED_CREDENTIALS = 40
SSL_SUPPRESS_END_OF_EARLY_DATA = 41
SSL_ENABLE_GREASE = 42
SSL_ENABLE_CH_EXTENSION_PERMUTATION = 43
SSL_DB_LOAD_CERTIFICATE_CHAIN = 44

# Values of SSL_REQUIRE_CERTIFICATE.
SSL_REQUIRE_NEVER, SSL_REQUIRE_ALWAYS, SSL_REQUIRE_FIRST_HANDSHAKE, SSL_REQUIRE_NO_ERROR = 0, 1, 2, 3

# Values of SSL_ENABLE_RENEGOTIATION.
SSL_RENEGOTIATE_NEVER, SSL_RENEGOTIATE_UNRESTRICTED, SSL_RENEGOTIATE_REQUIRES_XTN, SSL_RENEGOTIATE_TRANSITIONAL = 0, 1, 2, 3

# As the factory sets them.  SSL_ENABLE_SSL3 and SSL_ENABLE_TLS are no entries: they say what the range of versions covers.
FACTORY_OPTIONS: dict[int, int] = {
    SSL_SECURITY: 1,
    SSL_SOCKS: 0,
    SSL_REQUEST_CERTIFICATE: 0,
    SSL_HANDSHAKE_AS_CLIENT: 0,
    SSL_HANDSHAKE_AS_SERVER: 0,
    SSL_ENABLE_SSL2: 0,
    SSL_NO_CACHE: 0,
    SSL_REQUIRE_CERTIFICATE: SSL_REQUIRE_FIRST_HANDSHAKE,
    SSL_ENABLE_FDX: 0,
    SSL_V2_COMPATIBLE_HELLO: 0,
    SSL_ROLLBACK_DETECTION: 1,
    SSL_NO_STEP_DOWN: 0,
    SSL_BYPASS_PKCS11: 0,
    SSL_NO_LOCKS: 0,
    SSL_ENABLE_SESSION_TICKETS: 0,
    SSL_ENABLE_DEFLATE: 0,
    SSL_ENABLE_RENEGOTIATION: SSL_RENEGOTIATE_REQUIRES_XTN,
    SSL_REQUIRE_SAFE_NEGOTIATION: 0,
    SSL_ENABLE_FALSE_START: 0,
    SSL_CBC_RANDOM_IV: 1,
    SSL_ENABLE_OCSP_STAPLING: 0,
    SSL_ENABLE_NPN: 0,
    SSL_ENABLE_ALPN: 1,
    SSL_REUSE_SERVER_ECDHE_KEY: 0,
    SSL_ENABLE_FALLBACK_SCSV: 0,
    SSL_ENABLE_SERVER_DHE: 1,
    SSL_ENABLE_EXTENDED_MASTER_SECRET: 1,
    SSL_ENABLE_SIGNED_CERT_TIMESTAMPS: 0,
    SSL_REQUIRE_DH_NAMED_GROUPS: 0,
    SSL_ENABLE_0RTT_DATA: 0,
    SSL_RECORD_SIZE_LIMIT: 16385,
    SSL_ENABLE_TLS13_COMPAT_MODE: 0,
    SSL_ENABLE_DTLS_SHORT_HEADER: 0,
    SSL_ENABLE_HELLO_DOWNGRADE_CHECK: 1,
    SSL_ENABLE_V2_COMPATIBLE_HELLO: 0,
    SSL_ENABLE_POST_HANDSHAKE_AUTH: 0,
    SSL_ENABLE_DELEGATED_CREDENTIALS: 0,
    SSL_SUPPRESS_END_OF_EARLY_DATA: 0,
    SSL_ENABLE_GREASE: 0,
    SSL_ENABLE_CH_EXTENSION_PERMUTATION: 0,
    SSL_DB_LOAD_CERTIFICATE_CHAIN: 1,
}

# --- policies (ssl.h) ------------------------------------------------------------------------------------------------

SSL_NOT_ALLOWED, SSL_ALLOWED, SSL_RESTRICTED = 0, 1, 2


# --- types (sslt.h) --------------------------------------------------------------------------------------------------


class SSLKEAType(IntEnum):
    """Of the key exchange that a server's certificate is for (sslt.h)."""

    ssl_kea_null = 0
    ssl_kea_rsa = 1
    ssl_kea_dh = 2
    ssl_kea_fortezza = 3
    ssl_kea_ecdh = 4
    ssl_kea_size = 5


kt_null, kt_rsa, kt_dh, kt_fortezza, kt_ecdh, kt_kea_size = SSLKEAType


class SSLProtocolVariant(IntEnum):
    """TLS or DTLS (sslt.h)."""

    ssl_variant_stream = 0
    ssl_variant_datagram = 1


class SSLVersionRange(NamedTuple):
    """The oldest and the newest version, as on the wire (sslt.h); both 0: none."""

    min: int
    max: int


class SSLNamedGroup(IntEnum):
    """Groups that keys are agreed in; those that are known here (sslt.h)."""

    ssl_grp_ec_secp256r1 = 23
    ssl_grp_ec_secp384r1 = 24
    ssl_grp_ec_secp521r1 = 25
    ssl_grp_ec_curve25519 = 29
    ssl_grp_ffdhe_2048 = 256
    ssl_grp_ffdhe_3072 = 257
    ssl_grp_ffdhe_4096 = 258
    ssl_grp_ffdhe_6144 = 259
    ssl_grp_ffdhe_8192 = 260
    ssl_grp_kem_mlkem768x25519 = 4588


class SSLSignatureScheme(IntEnum):
    """How handshakes are signed (sslt.h)."""

    ssl_sig_none = 0
    ssl_sig_rsa_pkcs1_sha1 = 0x0201
    ssl_sig_dsa_sha1 = 0x0202
    ssl_sig_ecdsa_sha1 = 0x0203
    ssl_sig_rsa_pkcs1_sha256 = 0x0401
    ssl_sig_dsa_sha256 = 0x0402
    ssl_sig_ecdsa_secp256r1_sha256 = 0x0403
    ssl_sig_rsa_pkcs1_sha384 = 0x0501
    ssl_sig_dsa_sha384 = 0x0502
    ssl_sig_ecdsa_secp384r1_sha384 = 0x0503
    ssl_sig_rsa_pkcs1_sha512 = 0x0601
    ssl_sig_dsa_sha512 = 0x0602
    ssl_sig_ecdsa_secp521r1_sha512 = 0x0603
    ssl_sig_rsa_pss_rsae_sha256 = 0x0804
    ssl_sig_rsa_pss_rsae_sha384 = 0x0805
    ssl_sig_rsa_pss_rsae_sha512 = 0x0806
    ssl_sig_ed25519 = 0x0807
    ssl_sig_ed448 = 0x0808
    ssl_sig_rsa_pss_pss_sha256 = 0x0809
    ssl_sig_rsa_pss_pss_sha384 = 0x080A
    ssl_sig_rsa_pss_pss_sha512 = 0x080B
