"""What SSL_GetCipherSuiteInfo and SSL_GetChannelInfo tell: the records of sslt.h, of the engine's suites and connections."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigurationError, NSPRError
from ..tls.codepoints import V
from ..tls.suites import BY_CODE, Suite
from ._channel import SSLAuthType
from ._sslt import SSLKEAType
from ._suites import EXPORTABLE, MANUAL
from .sslproto import SSL_IS_SSL2_CIPHER
from .types import CERTCertificate

if TYPE_CHECKING:
    from ._connection import Connection


class SSLCipherAlgorithm(IntEnum):
    """A bulk cipher (sslt.h)."""

    ssl_calg_null = 0
    ssl_calg_rc4 = 1
    ssl_calg_rc2 = 2
    ssl_calg_des = 3
    ssl_calg_3des = 4
    ssl_calg_idea = 5
    ssl_calg_fortezza = 6
    ssl_calg_aes = 7
    ssl_calg_aes_gcm = 10
    ssl_calg_chacha20 = 11


class SSLMACAlgorithm(IntEnum):
    """What protects records from change (sslt.h)."""

    ssl_mac_null = 0
    ssl_mac_md5 = 1
    ssl_mac_sha = 2
    ssl_hmac_md5 = 3
    ssl_hmac_sha = 4
    ssl_hmac_sha256 = 5
    ssl_mac_aead = 6
    ssl_hmac_sha384 = 7


class SSLCipherSuiteInfo(NamedTuple):
    """A suite (sslt.h).  `symKeyBits`, `symKeySpace`, `effectiveKeyBits`, `macBits`: bits.

    `authAlgorithm` is as of old, ssl_auth_rsa for whatever has RSA; `authType` tells signing from decrypting, and is
    ssl_auth_null for export suites, where it may be either."""

    cipherSuite: int
    cipherSuiteName: str
    authAlgorithmName: str
    authAlgorithm: SSLAuthType
    keaTypeName: str
    keaType: int
    symCipherName: str
    symCipher: SSLCipherAlgorithm
    symKeyBits: int
    symKeySpace: int
    effectiveKeyBits: int
    macAlgorithmName: str
    macAlgorithm: SSLMACAlgorithm
    macBits: int
    isFIPS: bool
    isExportable: bool
    nonStandard: bool
    authType: SSLAuthType


_ANY_KEA, _HYBRID_KEA = 7, 8  # ssl_kea_tls13_any, ssl_kea_ecdh_hybrid

_DECRYPTS, _SIGNS = SSLAuthType.ssl_auth_rsa_decrypt, SSLAuthType.ssl_auth_rsa_sign

# By key exchange of the engine's: its name and number, and those of the certificate's key, as of old and as it is.
_KEY_EXCHANGES: dict[str, tuple[str, int, str, SSLAuthType, SSLAuthType]] = {
    "any": ("TLS 1.3", _ANY_KEA, "TLS 1.3", SSLAuthType.ssl_auth_tls13_any, SSLAuthType.ssl_auth_tls13_any),
    "rsa": ("RSA", SSLKEAType.ssl_kea_rsa, "RSA", SSLAuthType.ssl_auth_rsa, _DECRYPTS),
    "rsa_export": ("RSA", SSLKEAType.ssl_kea_rsa, "RSA", SSLAuthType.ssl_auth_rsa, SSLAuthType.ssl_auth_null),
    "dhe_rsa": ("DHE", SSLKEAType.ssl_kea_dh, "RSA", SSLAuthType.ssl_auth_rsa, _SIGNS),
    "dhe_dss": ("DHE", SSLKEAType.ssl_kea_dh, "DSA", SSLAuthType.ssl_auth_dsa, SSLAuthType.ssl_auth_dsa),
    "ecdhe_rsa": ("ECDHE", SSLKEAType.ssl_kea_ecdh, "RSA", SSLAuthType.ssl_auth_rsa, _SIGNS),
    "ecdhe_ecdsa": ("ECDHE", SSLKEAType.ssl_kea_ecdh, "ECDSA", SSLAuthType.ssl_auth_ecdsa, SSLAuthType.ssl_auth_ecdsa),
    "fortezza": ("KEA", SSLKEAType.ssl_kea_fortezza, "KEA", SSLAuthType.ssl_auth_kea, SSLAuthType.ssl_auth_kea),
}

# By the beginning of a signature scheme's name: what TLS 1.3 proves the server by.
_SIGNERS: dict[str, SSLAuthType] = {
    "rsa_pss_pss": SSLAuthType.ssl_auth_rsa_pss,
    "rsa": _SIGNS,
    "ecdsa": SSLAuthType.ssl_auth_ecdsa,
}

# By the beginning of a cipher's name.
_CIPHERS: dict[str, tuple[str, SSLCipherAlgorithm]] = {
    "NULL": ("NULL", SSLCipherAlgorithm.ssl_calg_null),
    "RC4": ("RC4", SSLCipherAlgorithm.ssl_calg_rc4),
    "RC2": ("RC2", SSLCipherAlgorithm.ssl_calg_rc2),
    "DES-EDE3": ("3DES", SSLCipherAlgorithm.ssl_calg_3des),
    "DES": ("DES", SSLCipherAlgorithm.ssl_calg_des),
    "3DES": ("3DES", SSLCipherAlgorithm.ssl_calg_3des),
    "FORTEZZA": ("SKIPJACK", SSLCipherAlgorithm.ssl_calg_fortezza),
    "AES-128-GCM": ("AES-GCM", SSLCipherAlgorithm.ssl_calg_aes_gcm),
    "AES-256-GCM": ("AES-GCM", SSLCipherAlgorithm.ssl_calg_aes_gcm),
    "AES": ("AES", SSLCipherAlgorithm.ssl_calg_aes),
    "ChaCha20": ("CHACHA20POLY1305", SSLCipherAlgorithm.ssl_calg_chacha20),
}
# Key bits, key space and effective bits where they differ (sslinfo.c).
_BITS = {"3DES": (192, 156, 112), "DES": (64, 56, 56), "SKIPJACK": (96, 80, 80)}

_MACS: dict[str, tuple[str, SSLMACAlgorithm, int]] = {
    "": ("AEAD", SSLMACAlgorithm.ssl_mac_aead, 128),
    "md5": ("MD5", SSLMACAlgorithm.ssl_mac_md5, 128),
    "sha1": ("SHA1", SSLMACAlgorithm.ssl_mac_sha, 160),
    "sha256": ("SHA256", SSLMACAlgorithm.ssl_hmac_sha256, 256),
    "sha384": ("SHA384", SSLMACAlgorithm.ssl_hmac_sha384, 384),
}

_FIPS = frozenset({0xFEFF, 0xFEFE, 0x000A, 0x0009, 0x0062, 0x001D})  # of the manual's suites; of later ones all of AES
_NON_STANDARD = frozenset({0xFEFF, 0xFEFE})
_OF_THE_MANUAL = frozenset(row.code for row in MANUAL)


def suite_info(code: int) -> SSLCipherSuiteInfo:
    """Raises ConfigurationError (SEC_ERROR_INVALID_ARGS) for a suite that is not known."""
    suite = BY_CODE.get(code)
    if suite is None:
        raise ConfigurationError(f"there is no suite {code:#06x}")
    kea, kea_number, auth, auth_number, auth_type = _KEY_EXCHANGES[suite.key_exchange]
    cipher, cipher_number = next(row for start, row in _CIPHERS.items() if suite.cipher.name.startswith(start))
    bits = _BITS.get(cipher, (suite.key_bits, suite.secret_key_bits, suite.secret_key_bits))
    mac, mac_number, mac_bits = _MACS[suite.mac]
    return SSLCipherSuiteInfo(
        code,
        suite.name if SSL_IS_SSL2_CIPHER(code) else suite.nss_name,
        auth,
        auth_number,
        kea,
        kea_number,
        cipher,
        cipher_number,
        *bits,
        mac,
        mac_number,
        mac_bits,
        code in _FIPS or (code not in _OF_THE_MANUAL and cipher.startswith("AES")),
        code in EXPORTABLE,
        code in _NON_STANDARD,
        auth_type,
    )


# --- connections -----------------------------------------------------------------------------------------------------


class SSLChannelInfo(NamedTuple):
    """A connection (sslt.h).  Versions and suites as on the wire; times in seconds since 1970, 0 where there is none."""

    protocolVersion: int = 0
    cipherSuite: int = 0
    authKeyBits: int = 0
    keaKeyBits: int = 0
    creationTime: int = 0
    lastAccessTime: int = 0
    expirationTime: int = 0
    sessionID: bytes = b""
    compressionMethodName: str = "NULL"
    compressionMethod: int = 0
    extendedMasterSecretUsed: bool = False
    earlyDataAccepted: bool = False
    keaType: int = 0
    keaGroup: int = 0
    symCipher: int = 0
    macAlgorithm: int = 0
    authType: int = 0
    signatureScheme: int = 0
    resumed: bool = False


def channel_info(layer: Connection) -> SSLChannelInfo:
    """All 0 before the first handshake is complete, and while SSL_SECURITY is off."""
    info = layer.info
    if info is None or info.suite is None or info.version is None or not layer.secure:
        return SSLChannelInfo()
    suite = suite_info(info.suite.code)
    created, accessed, expires = layer.session.times
    auth_bits = _key_bits(layer.local_certificate if layer.is_server else next(iter(layer.peer_chain), None))
    kea_type, auth_type = suite.keaType, suite.authType
    if info.group is not None:  # whose kind suites of TLS 1.3 do not tell
        kea_type = _kea_type(info.group.name)
    if auth_type == SSLAuthType.ssl_auth_tls13_any and info.signature_scheme is not None:
        name = info.signature_scheme.name
        auth_type = next((signer for start, signer in _SIGNERS.items() if name.startswith(start)), auth_type)
    return SSLChannelInfo(
        protocolVersion=info.version,
        cipherSuite=info.suite.code,
        authKeyBits=auth_bits,
        keaKeyBits=_group_bits(info.group.name) if info.group is not None else auth_bits,
        creationTime=created,
        lastAccessTime=accessed,
        expirationTime=expires,
        sessionID=layer.session.session_id,
        extendedMasterSecretUsed=info.extended_master_secret or info.version == V.tls1_3,  # which always does
        keaType=kea_type,
        keaGroup=info.group or 0,
        symCipher=suite.symCipher,
        macAlgorithm=suite.macAlgorithm,
        authType=auth_type,
        signatureScheme=info.signature_scheme or 0,
        resumed=info.resumed,
    )


def _key_bits(cert: CERTCertificate | None) -> int:
    try:
        return int(getattr(cert.public_key, "key_size", 256)) if cert is not None else 0
    except NSPRError:
        return 0


def _group_bits(name: str) -> int:
    """From names such as ffdhe2048, secp256r1, x25519."""
    digits = "".join(letter if letter.isdigit() else " " for letter in name).split()
    return {"25519": 255}.get(digits[0], int(digits[0])) if digits else 0


def _kea_type(group: str) -> int:
    if group.startswith("ffdhe"):
        return SSLKEAType.ssl_kea_dh
    return _HYBRID_KEA if "MLKEM" in group else SSLKEAType.ssl_kea_ecdh


ssl_preinfo_version, ssl_preinfo_cipher_suite = 1, 2


class SSLPreliminaryChannelInfo(NamedTuple):
    """What is known while the handshake goes on (sslt.h); `valuesSet`: of ssl_preinfo_version, ssl_preinfo_cipher_suite."""

    valuesSet: int = 0
    protocolVersion: int = 0
    cipherSuite: int = 0


def preliminary_info(layer: Connection) -> SSLPreliminaryChannelInfo:
    """Nothing before the hellos."""
    engine = layer.engine
    info = engine.info if engine is not None else None
    version = info.version if info is not None and info.suite is not None else None
    suite: Suite | None = info.suite if info is not None else None
    known = (ssl_preinfo_version if version else 0) | (ssl_preinfo_cipher_suite if suite else 0)
    return SSLPreliminaryChannelInfo(known, version or 0, suite.code if suite else 0)
