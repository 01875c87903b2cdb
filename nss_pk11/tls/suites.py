"""THE suite table: every cipher suite of every version, once.

A suite is usable when policy permits it, preference enables it, an identity fits it, and some present slot (the internal one
included) offers every mechanism in its row.  Nothing else in the package lists suites; add a row here and it exists.
Sources: IANA TLS cipher suite registry; RFC 8446 B.4, 5288, 5289, 5246 A.5, 6655, 7251, 7905; for what only old peers have also
RFC 6101 A.6, RFC 2246 A.5, draft-ietf-tls-56-bit-ciphersuites-01 and NSS's sslproto.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .codepoints import Version

KeyExchange = Literal["any", "rsa", "rsa_export", "dhe_rsa", "dhe_dss", "ecdhe_rsa", "ecdhe_ecdsa", "fortezza"]


@dataclass(frozen=True, slots=True, eq=False)
class Cipher:
    """A bulk cipher.  Lengths in bytes: `key`, `secret` (what an eavesdropper must find of it: less in export ciphers), `fixed_iv`
    (from the key block), `explicit_nonce` (sent per record; by CBC from TLS 1.1 on), `tag` (AEAD) or `block` (CBC).  "token" is CBC
    with keys that a token makes, and keeps."""

    name: str
    kind: Literal["aead", "cbc", "stream", "null", "token"]
    key: int
    secret: int
    fixed_iv: int
    explicit_nonce: int
    tag: int
    block: int
    mechanism: str


AES_128_GCM = Cipher("AES-128-GCM", "aead", 16, 16, 4, 8, 16, 0, "CKM_AES_GCM")
AES_256_GCM = Cipher("AES-256-GCM", "aead", 32, 32, 4, 8, 16, 0, "CKM_AES_GCM")
AES_128_CCM = Cipher("AES-128-CCM", "aead", 16, 16, 4, 8, 16, 0, "CKM_AES_CCM")
AES_256_CCM = Cipher("AES-256-CCM", "aead", 32, 32, 4, 8, 16, 0, "CKM_AES_CCM")
AES_128_CCM_8 = Cipher("AES-128-CCM-8", "aead", 16, 16, 4, 8, 8, 0, "CKM_AES_CCM")
AES_256_CCM_8 = Cipher("AES-256-CCM-8", "aead", 32, 32, 4, 8, 8, 0, "CKM_AES_CCM")
CHACHA20 = Cipher("ChaCha20-Poly1305", "aead", 32, 32, 12, 0, 16, 0, "CKM_CHACHA20_POLY1305")
AES_128_CBC = Cipher("AES-128-CBC", "cbc", 16, 16, 0, 16, 0, 16, "CKM_AES_CBC")
AES_256_CBC = Cipher("AES-256-CBC", "cbc", 32, 32, 0, 16, 0, 16, "CKM_AES_CBC")
# For old peers, under the names SSL_SecurityStatus gives them.
DES_EDE3_CBC = Cipher("3DES-EDE-CBC", "cbc", 24, 24, 0, 8, 0, 8, "CKM_DES3_CBC")
DES_CBC = Cipher("DES-CBC", "cbc", 8, 8, 0, 8, 0, 8, "CKM_DES_CBC")
RC2_CBC = Cipher("RC2-CBC", "cbc", 16, 16, 0, 8, 0, 8, "CKM_RC2_CBC")
RC2_CBC_40 = Cipher("RC2-CBC-40", "cbc", 16, 5, 0, 8, 0, 8, "CKM_RC2_CBC")
RC4_128 = Cipher("RC4", "stream", 16, 16, 0, 0, 0, 0, "CKM_RC4")
RC4_56 = Cipher("RC4-56", "stream", 16, 7, 0, 0, 0, 0, "CKM_RC4")
RC4_40 = Cipher("RC4-40", "stream", 16, 5, 0, 0, 0, 0, "CKM_RC4")
# SSL 2.0 has names of its own.
RC4_EXPORT = Cipher("RC4-Export", "stream", 16, 5, 0, 0, 0, 0, "CKM_RC4")
RC2_CBC_EXPORT = Cipher("RC2-CBC-Export", "cbc", 16, 5, 0, 8, 0, 8, "CKM_RC2_CBC")
DES_EDE3_CBC_SSL2 = Cipher("DES-EDE3-CBC", "cbc", 24, 24, 0, 8, 0, 8, "CKM_DES3_CBC")
NULL = Cipher("NULL", "null", 0, 0, 0, 0, 0, 0, "")
SKIPJACK_CBC = Cipher("FORTEZZA", "token", 10, 10, 0, 0, 0, 8, "CKM_SKIPJACK_CBC64")

# What each key exchange and MAC asks of a slot.
_KEY_EXCHANGE_MECHANISMS: dict[str, tuple[str, ...]] = {
    "any": (),
    "rsa": ("CKM_RSA_PKCS",),
    "rsa_export": ("CKM_RSA_PKCS",),
    "dhe_rsa": ("CKM_DH_PKCS_DERIVE",),
    "dhe_dss": ("CKM_DH_PKCS_DERIVE",),
    "ecdhe_rsa": ("CKM_ECDH1_DERIVE",),
    "ecdhe_ecdsa": ("CKM_ECDH1_DERIVE",),
    "fortezza": ("CKM_KEA_KEY_DERIVE",),
}
_MAC_MECHANISMS = {
    "": "",
    "md5": "CKM_MD5_HMAC",
    "sha1": "CKM_SHA_1_HMAC",
    "sha256": "CKM_SHA256_HMAC",
    "sha384": "CKM_SHA384_HMAC",
}
MAC_BYTES = {"": 0, "md5": 16, "sha1": 20, "sha256": 32, "sha384": 48}


@dataclass(frozen=True, slots=True, eq=False)
class Suite:
    """One row, compared by identity.

    `name` is IANA's, where IANA has none the name of the draft or of NSS.  `mac`: the record MAC ("" for AEAD).  `hash`: of the PRF
    from TLS 1.2 on or of HKDF ("sha256", "sha384").  `rsa_limit`: the largest RSA key, in bits, that may encrypt for an export
    suite; 0 for no limit.  `fips`: the PRF of TLS even in SSL 3.0.  `kind`: SSL 2.0's number of 24 bits, where `code` is NSS's.
    """

    code: int
    name: str
    openssl: str
    nss_name: str
    key_exchange: KeyExchange
    cipher: Cipher
    mac: str
    hash: str
    min_version: Version
    max_version: Version
    modern: bool
    rsa_limit: int = 0
    fips: bool = False
    kind: int = 0

    @property
    def key_bits(self) -> int:
        """As SSL_SecurityStatus counts before it takes a DES key's parity bits off."""
        return self.cipher.key * 8

    @property
    def secret_key_bits(self) -> int:
        """Of those the secret ones; as many as `key_bits` but in export suites."""
        return self.cipher.secret * 8

    @property
    def export(self) -> bool:
        """Whether keys are weakened as the United States' export rules of the 1990s wanted it."""
        return self.rsa_limit > 0

    def hash_in(self, version: int) -> str:
        """The hash of the handshake's messages and of the PRF: before TLS 1.2 MD5 and SHA-1 together, whatever the suite."""
        return self.hash if version >= Version.tls1_2 else "md5sha1"

    @property
    def hash_bytes(self) -> int:
        return 48 if self.hash == "sha384" else 32

    @property
    def mac_bytes(self) -> int:
        return MAC_BYTES[self.mac]

    @property
    def forward_secret(self) -> bool:
        return not self.key_exchange.startswith(("rsa", "fortezza"))

    @property
    def mechanisms(self) -> frozenset[str]:
        """The PKCS #11 mechanisms that present slots must offer for this suite."""
        names = (self.cipher.mechanism, *_KEY_EXCHANGE_MECHANISMS[self.key_exchange], _MAC_MECHANISMS[self.mac])
        return frozenset(names) - {""}


def _tls13(code: int, name: str, cipher: Cipher, hash_: str, modern: bool) -> Suite:
    return Suite(code, name, name, name, "any", cipher, "", hash_, Version.tls1_3, Version.tls1_3, modern)


def _tls12(code: int, name: str, openssl: str, kx: KeyExchange, cipher: Cipher, mac: str, hash_: str = "sha256") -> Suite:
    # SHA-1 CBC suites predate TLS 1.2, elliptic curves came with TLS 1.0 (RFC 4492); everything else needs TLS 1.2 (RFC 5246
    # appendix A.5 note, RFC 5289 section 4).
    oldest = Version.tls1_2 if mac != "sha1" else Version.tls1_0 if kx.startswith("ecdhe") else Version.ssl3
    modern = kx.startswith("ecdhe") and cipher.kind == "aead" and "CCM" not in cipher.name
    return Suite(code, name, openssl, name, kx, cipher, mac, hash_, oldest, Version.tls1_2, modern)


def _old(
    code: int, name: str, openssl: str, kx: KeyExchange, cipher: Cipher, mac: str, *, nss: str = "", fips: bool = False
) -> Suite:
    return Suite(code, name, openssl, nss or name, kx, cipher, mac, "sha256", Version.ssl3, Version.tls1_2, False, fips=fips)


def _export(code: int, name: str, openssl: str, cipher: Cipher, mac: str, limit: int, *, nss: str = "") -> Suite:
    # RFC 4346 appendix A.5 forbids the 40-bit ones from TLS 1.1 on; stacks disagree about the others' keys in TLS 1.2.
    latest = Version.tls1_0 if limit == 512 else Version.tls1_1
    return Suite(
        code, name, openssl, nss or name, "rsa_export", cipher, mac, "sha256", Version.ssl3, latest, False, rsa_limit=limit
    )


def _fortezza(code: int, name: str, openssl: str, cipher: Cipher, *, nss: str) -> Suite:
    # NSS had them in TLS 1.0 too, which does not mention them.
    return Suite(code, name, openssl, nss, "fortezza", cipher, "sha1", "sha256", Version.ssl3, Version.tls1_0, False)


def _ssl2(code: int, kind: int, name: str, openssl: str, cipher: Cipher) -> Suite:
    return Suite(
        code,
        f"SSL_CK_{name}",
        openssl,
        f"SSL_EN_{name}",
        "rsa",
        cipher,
        "md5",
        "sha256",
        Version.ssl2,
        Version.ssl2,
        False,
        kind=kind,
    )


# What is served and asked for by peers of today.
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

# For old peers only, in the order of preference that NSS gives them.  OpenSSL's names are those of 1.0.2, its last version that
# had them all; the FIPS suites it never knew.
LEGACY_SUITES: tuple[Suite, ...] = (
    _old(0x0038, "TLS_DHE_DSS_WITH_AES_256_CBC_SHA", "DHE-DSS-AES256-SHA", "dhe_dss", AES_256_CBC, "sha1"),
    _old(0x0066, "TLS_DHE_DSS_WITH_RC4_128_SHA", "DHE-DSS-RC4-SHA", "dhe_dss", RC4_128, "sha1"),
    _old(0x0032, "TLS_DHE_DSS_WITH_AES_128_CBC_SHA", "DHE-DSS-AES128-SHA", "dhe_dss", AES_128_CBC, "sha1"),
    _old(0x0004, "TLS_RSA_WITH_RC4_128_MD5", "RC4-MD5", "rsa", RC4_128, "md5", nss="SSL_RSA_WITH_RC4_128_MD5"),
    _old(0x0005, "TLS_RSA_WITH_RC4_128_SHA", "RC4-SHA", "rsa", RC4_128, "sha1", nss="SSL_RSA_WITH_RC4_128_SHA"),
    _old(0x0016, "TLS_DHE_RSA_WITH_3DES_EDE_CBC_SHA", "EDH-RSA-DES-CBC3-SHA", "dhe_rsa", DES_EDE3_CBC, "sha1", nss="SSL_DHE_RSA_WITH_3DES_EDE_CBC_SHA"),
    _old(0x0013, "TLS_DHE_DSS_WITH_3DES_EDE_CBC_SHA", "EDH-DSS-DES-CBC3-SHA", "dhe_dss", DES_EDE3_CBC, "sha1", nss="SSL_DHE_DSS_WITH_3DES_EDE_CBC_SHA"),
    _old(0xFEFF, "SSL_RSA_FIPS_WITH_3DES_EDE_CBC_SHA", "SSL_RSA_FIPS_WITH_3DES_EDE_CBC_SHA", "rsa", DES_EDE3_CBC, "sha1", fips=True),
    _old(0xFFE0, "SSL_RSA_OLDFIPS_WITH_3DES_EDE_CBC_SHA", "SSL_RSA_OLDFIPS_WITH_3DES_EDE_CBC_SHA", "rsa", DES_EDE3_CBC, "sha1", fips=True),
    _old(0x000A, "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "DES-CBC3-SHA", "rsa", DES_EDE3_CBC, "sha1", nss="SSL_RSA_WITH_3DES_EDE_CBC_SHA"),
    _old(0x0015, "TLS_DHE_RSA_WITH_DES_CBC_SHA", "EDH-RSA-DES-CBC-SHA", "dhe_rsa", DES_CBC, "sha1", nss="SSL_DHE_RSA_WITH_DES_CBC_SHA"),
    _old(0x0012, "TLS_DHE_DSS_WITH_DES_CBC_SHA", "EDH-DSS-DES-CBC-SHA", "dhe_dss", DES_CBC, "sha1", nss="SSL_DHE_DSS_WITH_DES_CBC_SHA"),
    _old(0xFEFE, "SSL_RSA_FIPS_WITH_DES_CBC_SHA", "SSL_RSA_FIPS_WITH_DES_CBC_SHA", "rsa", DES_CBC, "sha1", fips=True),
    _old(0xFFE1, "SSL_RSA_OLDFIPS_WITH_DES_CBC_SHA", "SSL_RSA_OLDFIPS_WITH_DES_CBC_SHA", "rsa", DES_CBC, "sha1", fips=True),
    _old(0x0009, "TLS_RSA_WITH_DES_CBC_SHA", "DES-CBC-SHA", "rsa", DES_CBC, "sha1", nss="SSL_RSA_WITH_DES_CBC_SHA"),
    _export(0x0064, "TLS_RSA_EXPORT1024_WITH_RC4_56_SHA", "EXP1024-RC4-SHA", RC4_56, "sha1", 1024),
    _export(0x0062, "TLS_RSA_EXPORT1024_WITH_DES_CBC_SHA", "EXP1024-DES-CBC-SHA", DES_CBC, "sha1", 1024),
    _export(0x0003, "TLS_RSA_EXPORT_WITH_RC4_40_MD5", "EXP-RC4-MD5", RC4_40, "md5", 512, nss="SSL_RSA_EXPORT_WITH_RC4_40_MD5"),
    _export(0x0006, "TLS_RSA_EXPORT_WITH_RC2_CBC_40_MD5", "EXP-RC2-CBC-MD5", RC2_CBC_40, "md5", 512, nss="SSL_RSA_EXPORT_WITH_RC2_CBC_40_MD5"),
    _old(0x0002, "TLS_RSA_WITH_NULL_SHA", "NULL-SHA", "rsa", NULL, "sha1", nss="SSL_RSA_WITH_NULL_SHA"),
    _old(0x0001, "TLS_RSA_WITH_NULL_MD5", "NULL-MD5", "rsa", NULL, "md5", nss="SSL_RSA_WITH_NULL_MD5"),
)  # fmt: skip

# Only where a FORTEZZA card is, and never but by name; in NSS's order.  RFC 6101 appendix C has the names.  RFC 2712 gave the last
# number to a Kerberos suite, too, which is nobody's here.
FORTEZZA_SUITES: tuple[Suite, ...] = (
    _fortezza(0x001E, "SSL_FORTEZZA_KEA_WITH_RC4_128_SHA", "FZA-RC4-SHA", RC4_128, nss="SSL_FORTEZZA_DMS_WITH_RC4_128_SHA"),
    _fortezza(0x001D, "SSL_FORTEZZA_KEA_WITH_FORTEZZA_CBC_SHA", "FZA-FZA-CBC-SHA", SKIPJACK_CBC, nss="SSL_FORTEZZA_DMS_WITH_FORTEZZA_CBC_SHA"),
    _fortezza(0x001C, "SSL_FORTEZZA_KEA_WITH_NULL_SHA", "FZA-NULL-SHA", NULL, nss="SSL_FORTEZZA_DMS_WITH_NULL_SHA"),
)  # fmt: skip

# SSL 2.0's, in NSS's order; never but by name.  OpenSSL's names of some are those of suites of SSL 3.0, too, which they stand for.
SSL2_SUITES: tuple[Suite, ...] = (
    _ssl2(0xFF01, 0x010080, "RC4_128_WITH_MD5", "RC4-MD5", RC4_128),
    _ssl2(0xFF03, 0x030080, "RC2_128_CBC_WITH_MD5", "RC2-CBC-MD5", RC2_CBC),
    _ssl2(0xFF07, 0x0700C0, "DES_192_EDE3_CBC_WITH_MD5", "DES-CBC3-MD5", DES_EDE3_CBC_SSL2),
    _ssl2(0xFF06, 0x060040, "DES_64_CBC_WITH_MD5", "DES-CBC-MD5", DES_CBC),
    _ssl2(0xFF02, 0x020080, "RC4_128_EXPORT40_WITH_MD5", "EXP-RC4-MD5", RC4_EXPORT),
    _ssl2(0xFF04, 0x040080, "RC2_128_CBC_EXPORT40_WITH_MD5", "EXP-RC2-CBC-MD5", RC2_CBC_EXPORT),
)  # fmt: skip

EVERY_SUITE = SUITES + LEGACY_SUITES  # that needs nothing but a key
BY_CODE: dict[int, Suite] = {suite.code: suite for suite in EVERY_SUITE + FORTEZZA_SUITES + SSL2_SUITES}
BY_NAME: dict[str, Suite] = {
    name: suite for suite in SSL2_SUITES + EVERY_SUITE + FORTEZZA_SUITES for name in (suite.name, suite.openssl, suite.nss_name)
}
DEFAULT_SUITES: tuple[Suite, ...] = tuple(suite for suite in SUITES if suite.modern)

# Signalling values: never negotiated (RFC 5746 section 3.3, RFC 7507 section 2).
EMPTY_RENEGOTIATION_INFO_SCSV = 0x00FF
FALLBACK_SCSV = 0x5600
