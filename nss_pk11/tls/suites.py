"""THE suite table: every cipher suite of every version, once.

A suite is usable when policy permits it, preference enables it, an identity fits it, and some present slot (the internal one
included) offers every mechanism in its row.  Nothing else in the package lists suites; add a row here and it exists.
Sources: IANA TLS cipher suite registry; RFC 8446 B.4, 5288, 5289, 5246 A.5, 6655, 7251, 7905.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .codepoints import Version

KeyExchange = Literal["any", "rsa", "dhe_rsa", "ecdhe_rsa", "ecdhe_ecdsa"]


@dataclass(frozen=True, slots=True, eq=False)
class Cipher:
    """A bulk cipher.  Lengths in bytes: `key`, `fixed_iv` (from the key block), `explicit_nonce` (sent per record), `tag`
    (AEAD) or `block` (CBC)."""

    name: str
    kind: Literal["aead", "cbc"]
    key: int
    fixed_iv: int
    explicit_nonce: int
    tag: int
    block: int
    mechanism: str


AES_128_GCM = Cipher("AES-128-GCM", "aead", 16, 4, 8, 16, 0, "CKM_AES_GCM")
AES_256_GCM = Cipher("AES-256-GCM", "aead", 32, 4, 8, 16, 0, "CKM_AES_GCM")
AES_128_CCM = Cipher("AES-128-CCM", "aead", 16, 4, 8, 16, 0, "CKM_AES_CCM")
AES_256_CCM = Cipher("AES-256-CCM", "aead", 32, 4, 8, 16, 0, "CKM_AES_CCM")
AES_128_CCM_8 = Cipher("AES-128-CCM-8", "aead", 16, 4, 8, 8, 0, "CKM_AES_CCM")
AES_256_CCM_8 = Cipher("AES-256-CCM-8", "aead", 32, 4, 8, 8, 0, "CKM_AES_CCM")
CHACHA20 = Cipher("ChaCha20-Poly1305", "aead", 32, 12, 0, 16, 0, "CKM_CHACHA20_POLY1305")
AES_128_CBC = Cipher("AES-128-CBC", "cbc", 16, 0, 16, 0, 16, "CKM_AES_CBC")
AES_256_CBC = Cipher("AES-256-CBC", "cbc", 32, 0, 16, 0, 16, "CKM_AES_CBC")

# What each key exchange and MAC asks of a slot.
_KEY_EXCHANGE_MECHANISMS: dict[str, tuple[str, ...]] = {
    "any": (),
    "rsa": ("CKM_RSA_PKCS",),
    "dhe_rsa": ("CKM_DH_PKCS_DERIVE",),
    "ecdhe_rsa": ("CKM_ECDH1_DERIVE",),
    "ecdhe_ecdsa": ("CKM_ECDH1_DERIVE",),
}
_MAC_MECHANISMS = {"sha1": ("CKM_SHA_1_HMAC",), "sha256": ("CKM_SHA256_HMAC",), "sha384": ("CKM_SHA384_HMAC",), "": ()}
MAC_BYTES = {"": 0, "sha1": 20, "sha256": 32, "sha384": 48}


@dataclass(frozen=True, slots=True, eq=False)
class Suite:
    """One row, compared by identity.  `mac` is the record MAC of CBC suites ("" for AEAD); `hash` the PRF or HKDF hash ("sha256", "sha384")."""

    code: int
    name: str
    openssl: str
    key_exchange: KeyExchange
    cipher: Cipher
    mac: str
    hash: str
    min_version: Version
    max_version: Version
    modern: bool

    @property
    def nss_name(self) -> str:
        """NSS spells suites as IANA does."""
        return self.name

    @property
    def key_bits(self) -> int:
        return self.cipher.key * 8

    @property
    def secret_key_bits(self) -> int:
        """Effective bits; equal to `key_bits` but in export suites."""
        return self.cipher.key * 8

    @property
    def hash_bytes(self) -> int:
        return 48 if self.hash == "sha384" else 32

    @property
    def mac_bytes(self) -> int:
        return MAC_BYTES[self.mac]

    @property
    def forward_secret(self) -> bool:
        return self.key_exchange != "rsa"

    @property
    def mechanisms(self) -> frozenset[str]:
        """The PKCS #11 mechanisms that present slots must offer for this suite."""
        names = (self.cipher.mechanism, *_KEY_EXCHANGE_MECHANISMS[self.key_exchange], *_MAC_MECHANISMS[self.mac])
        return frozenset(names)


def _tls13(code: int, name: str, cipher: Cipher, hash_: str, modern: bool) -> Suite:
    return Suite(code, name, name, "any", cipher, "", hash_, Version.tls1_3, Version.tls1_3, modern)


def _tls12(code: int, name: str, openssl: str, kx: KeyExchange, cipher: Cipher, mac: str, hash_: str = "sha256") -> Suite:
    # SHA-1 CBC suites predate TLS 1.2; everything else needs it (RFC 5246 appendix A.5 note, RFC 5289 section 4).
    oldest = Version.tls1_0 if mac == "sha1" else Version.tls1_2
    modern = kx.startswith("ecdhe") and cipher.kind == "aead" and "CCM" not in cipher.name
    return Suite(code, name, openssl, kx, cipher, mac, hash_, oldest, Version.tls1_2, modern)


SUITES: tuple[Suite, ...] = (
    # TLS 1.3 (RFC 8446 appendix B.4)
    _tls13(0x1301, "TLS_AES_128_GCM_SHA256", AES_128_GCM, "sha256", True),
    _tls13(0x1302, "TLS_AES_256_GCM_SHA384", AES_256_GCM, "sha384", True),
    _tls13(0x1303, "TLS_CHACHA20_POLY1305_SHA256", CHACHA20, "sha256", True),
    _tls13(0x1304, "TLS_AES_128_CCM_SHA256", AES_128_CCM, "sha256", False),
    _tls13(0x1305, "TLS_AES_128_CCM_8_SHA256", AES_128_CCM_8, "sha256", False),
    # TLS 1.2 and before, in order of preference: forward secret AEAD, then CBC, then RSA key exchange
    _tls12(0xC02B, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256", "ecdhe_ecdsa", AES_128_GCM, ""),
    _tls12(0xC02F, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ecdhe_rsa", AES_128_GCM, ""),
    _tls12(0xC02C, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384", "ecdhe_ecdsa", AES_256_GCM, "", "sha384"),
    _tls12(0xC030, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "ecdhe_rsa", AES_256_GCM, "", "sha384"),
    _tls12(0xCCA9, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ecdhe_ecdsa", CHACHA20, ""),
    _tls12(0xCCA8, "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305", "ecdhe_rsa", CHACHA20, ""),
    _tls12(0xC0AC, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM", "ECDHE-ECDSA-AES128-CCM", "ecdhe_ecdsa", AES_128_CCM, ""),
    _tls12(0xC0AD, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM", "ECDHE-ECDSA-AES256-CCM", "ecdhe_ecdsa", AES_256_CCM, ""),
    _tls12(0xC0AE, "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8", "ECDHE-ECDSA-AES128-CCM8", "ecdhe_ecdsa", AES_128_CCM_8, ""),
    _tls12(0xC0AF, "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8", "ECDHE-ECDSA-AES256-CCM8", "ecdhe_ecdsa", AES_256_CCM_8, ""),
    _tls12(0x009E, "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", "DHE-RSA-AES128-GCM-SHA256", "dhe_rsa", AES_128_GCM, ""),
    _tls12(0x009F, "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", "DHE-RSA-AES256-GCM-SHA384", "dhe_rsa", AES_256_GCM, "", "sha384"),
    _tls12(0xCCAA, "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "DHE-RSA-CHACHA20-POLY1305", "dhe_rsa", CHACHA20, ""),
    _tls12(0xC09E, "TLS_DHE_RSA_WITH_AES_128_CCM", "DHE-RSA-AES128-CCM", "dhe_rsa", AES_128_CCM, ""),
    _tls12(0xC09F, "TLS_DHE_RSA_WITH_AES_256_CCM", "DHE-RSA-AES256-CCM", "dhe_rsa", AES_256_CCM, ""),
    _tls12(0xC0A2, "TLS_DHE_RSA_WITH_AES_128_CCM_8", "DHE-RSA-AES128-CCM8", "dhe_rsa", AES_128_CCM_8, ""),
    _tls12(0xC0A3, "TLS_DHE_RSA_WITH_AES_256_CCM_8", "DHE-RSA-AES256-CCM8", "dhe_rsa", AES_256_CCM_8, ""),
    _tls12(0xC023, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", "ECDHE-ECDSA-AES128-SHA256", "ecdhe_ecdsa", AES_128_CBC, "sha256"),
    _tls12(0xC027, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", "ECDHE-RSA-AES128-SHA256", "ecdhe_rsa", AES_128_CBC, "sha256"),
    _tls12(0xC024, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384", "ECDHE-ECDSA-AES256-SHA384", "ecdhe_ecdsa", AES_256_CBC, "sha384", "sha384"),
    _tls12(0xC028, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384", "ECDHE-RSA-AES256-SHA384", "ecdhe_rsa", AES_256_CBC, "sha384", "sha384"),
    _tls12(0xC009, "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "ECDHE-ECDSA-AES128-SHA", "ecdhe_ecdsa", AES_128_CBC, "sha1"),
    _tls12(0xC013, "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "ECDHE-RSA-AES128-SHA", "ecdhe_rsa", AES_128_CBC, "sha1"),
    _tls12(0xC00A, "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA", "ecdhe_ecdsa", AES_256_CBC, "sha1"),
    _tls12(0xC014, "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "ECDHE-RSA-AES256-SHA", "ecdhe_rsa", AES_256_CBC, "sha1"),
    _tls12(0x0067, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256", "DHE-RSA-AES128-SHA256", "dhe_rsa", AES_128_CBC, "sha256"),
    _tls12(0x006B, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256", "DHE-RSA-AES256-SHA256", "dhe_rsa", AES_256_CBC, "sha256"),
    _tls12(0x0033, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA", "DHE-RSA-AES128-SHA", "dhe_rsa", AES_128_CBC, "sha1"),
    _tls12(0x0039, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA", "DHE-RSA-AES256-SHA", "dhe_rsa", AES_256_CBC, "sha1"),
    _tls12(0x009C, "TLS_RSA_WITH_AES_128_GCM_SHA256", "AES128-GCM-SHA256", "rsa", AES_128_GCM, ""),
    _tls12(0x009D, "TLS_RSA_WITH_AES_256_GCM_SHA384", "AES256-GCM-SHA384", "rsa", AES_256_GCM, "", "sha384"),
    _tls12(0xC09C, "TLS_RSA_WITH_AES_128_CCM", "AES128-CCM", "rsa", AES_128_CCM, ""),
    _tls12(0xC09D, "TLS_RSA_WITH_AES_256_CCM", "AES256-CCM", "rsa", AES_256_CCM, ""),
    _tls12(0xC0A0, "TLS_RSA_WITH_AES_128_CCM_8", "AES128-CCM8", "rsa", AES_128_CCM_8, ""),
    _tls12(0xC0A1, "TLS_RSA_WITH_AES_256_CCM_8", "AES256-CCM8", "rsa", AES_256_CCM_8, ""),
    _tls12(0x003C, "TLS_RSA_WITH_AES_128_CBC_SHA256", "AES128-SHA256", "rsa", AES_128_CBC, "sha256"),
    _tls12(0x003D, "TLS_RSA_WITH_AES_256_CBC_SHA256", "AES256-SHA256", "rsa", AES_256_CBC, "sha256"),
    _tls12(0x002F, "TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA", "rsa", AES_128_CBC, "sha1"),
    _tls12(0x0035, "TLS_RSA_WITH_AES_256_CBC_SHA", "AES256-SHA", "rsa", AES_256_CBC, "sha1"),
)  # fmt: skip

BY_CODE: dict[int, Suite] = {suite.code: suite for suite in SUITES}
BY_NAME: dict[str, Suite] = {name: suite for suite in SUITES for name in (suite.name, suite.openssl)}
DEFAULT_SUITES: tuple[Suite, ...] = tuple(suite for suite in SUITES if suite.modern)

# Signalling values: never negotiated (RFC 5746 section 3.3, RFC 7507 section 2).
EMPTY_RENEGOTIATION_INFO_SCSV = 0x00FF
FALLBACK_SCSV = 0x5600
