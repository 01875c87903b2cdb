"""Numbers of PKCS #11 objects as NSS stores them: attributes, classes, and the columns of its tables.

Pure constants (PKCS #11 v3.1 section 2; NSS pkcs11n.h and lib/softoken/sdb.c, `known_attributes`).
"""

from __future__ import annotations

from enum import IntEnum


class Attribute(IntEnum):
    """CKA_ numbers; the column of each is `a` and its lower-case hexadecimal."""

    object_class = 0x0
    token = 0x1
    private = 0x2
    label = 0x3
    value = 0x11
    certificate_type = 0x80
    issuer = 0x81
    serial_number = 0x82
    key_type = 0x100
    subject = 0x101
    id = 0x102
    sensitive = 0x103
    encrypt = 0x104
    decrypt = 0x105
    wrap = 0x106
    unwrap = 0x107
    sign = 0x108
    sign_recover = 0x109
    verify = 0x10A
    verify_recover = 0x10B
    derive = 0x10C
    start_date = 0x110
    end_date = 0x111
    modulus = 0x120
    public_exponent = 0x122
    private_exponent = 0x123
    prime_1 = 0x124
    prime_2 = 0x125
    exponent_1 = 0x126
    exponent_2 = 0x127
    coefficient = 0x128
    prime = 0x130
    subprime = 0x131
    base = 0x132
    extractable = 0x162
    local = 0x163
    never_extractable = 0x164
    always_sensitive = 0x165
    modifiable = 0x170
    ec_params = 0x180
    ec_point = 0x181
    seed = 0x637
    nss_url = 0xCE534351
    nss_email = 0xCE534352
    nss_krl = 0xCE534358
    trust_server_auth = 0xCE536358
    trust_client_auth = 0xCE536359
    trust_code_signing = 0xCE53635A
    trust_email_protection = 0xCE53635B
    trust_step_up_approved = 0xCE536360
    cert_sha1_hash = 0xCE5363B4
    cert_md5_hash = 0xCE5363B5
    nss_db = 0xD5A0DB00


class ObjectClass(IntEnum):
    """CKO_ numbers."""

    certificate = 1
    public_key = 2
    private_key = 3
    secret_key = 4
    nss_crl = 0xCE534351
    nss_trust = 0xCE534353


class KeyType(IntEnum):
    """CKK_ numbers."""

    rsa = 0
    dsa = 1
    ec = 3
    ec_edwards = 0x40


# Encrypted in key4.db, each with a MAC of its own (lib/softoken/sftkdb.c, `sftkdb_isPrivateAttribute`).
ENCRYPTED = (
    Attribute.value,
    Attribute.seed,
    Attribute.private_exponent,
    Attribute.prime_1,
    Attribute.prime_2,
    Attribute.exponent_1,
    Attribute.exponent_2,
    Attribute.coefficient,
)

# Plain, with a MAC bound to the object (`sftkdb_isAuthenticatedAttribute`).  The numbers without a name are those of newer
# NSS (CKO_TRUST of PKCS #11 3.2, and CKA_NSS_OVERRIDE_EXTENSIONS): not written here, but kept valid when the password changes.
AUTHENTICATED = (
    Attribute.modulus,
    Attribute.public_exponent,
    Attribute.cert_sha1_hash,
    Attribute.cert_md5_hash,
    Attribute.trust_server_auth,
    Attribute.trust_client_auth,
    Attribute.trust_email_protection,
    Attribute.trust_code_signing,
    Attribute.trust_step_up_approved,
    0x8C,
    0x62C,
    0x62D,
    0x62E,
    0x62F,
    0x635,
    0xCE534369,
)

_COLUMN_RANGES = (
    (0x0, 0x3), (0x10, 0x12), (0x80, 0x8B), (0x90, 0x90), (0x100, 0x10C), (0x110, 0x111), (0x120, 0x129), (0x130, 0x134),
    (0x160, 0x166), (0x170, 0x170), (0x180, 0x181), (0x200, 0x202), (0x210, 0x210), (0x300, 0x302), (0x400, 0x406),
    (0x480, 0x482), (0x500, 0x503), (0x40000211, 0x40000212), (0x80000001, 0x80000001), (0xCE534351, 0xCE534358),
    (0xCE534364, 0xCE534369), (0xCE534373, 0xCE534374), (0xCE536351, 0xCE536360), (0xCE5363B4, 0xCE5363B5),
    (0xD5A0DB00, 0xD5A0DB00),
)  # fmt: skip

# The columns of NSS 3.87's tables.  Newer NSS adds its own when it first opens a file for writing.
COLUMNS = tuple(number for first, last in _COLUMN_RANGES for number in range(first, last + 1))


def column(attribute: int) -> str:
    """The name of an attribute's column: `a102` for CKA_ID."""
    return f"a{attribute:x}"


def ulong(value: int) -> bytes:
    """A CK_ULONG as it is stored: 4 bytes, big-endian."""
    return value.to_bytes(4, "big")
