"""The C interface of PKCS #11 2.40 in numbers: functions in the order of CK_FUNCTION_LIST, constants, layouts of structures.

Numbers and nothing else: this file imports only the standard library.  What is not listed was not needed; values are those
of the OASIS headers (mechanisms and attributes of ML-KEM and ML-DSA: PKCS #11 3.2).  Layouts are those of this machine
(`struct`'s "@"): host and server run on the same one.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

CRYPTOKI_VERSION = (2, 40)

# In the order of CK_FUNCTION_LIST (section 3.6): the place is the number by which the shim asks for a function.
FUNCTIONS = (
    "C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo",
    "C_GetMechanismList", "C_GetMechanismInfo", "C_InitToken", "C_InitPIN", "C_SetPIN", "C_OpenSession", "C_CloseSession",
    "C_CloseAllSessions", "C_GetSessionInfo", "C_GetOperationState", "C_SetOperationState", "C_Login", "C_Logout",
    "C_CreateObject", "C_CopyObject", "C_DestroyObject", "C_GetObjectSize", "C_GetAttributeValue", "C_SetAttributeValue",
    "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_EncryptUpdate",
    "C_EncryptFinal", "C_DecryptInit", "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest",
    "C_DigestUpdate", "C_DigestKey", "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal",
    "C_SignRecoverInit", "C_SignRecover", "C_VerifyInit", "C_Verify", "C_VerifyUpdate", "C_VerifyFinal", "C_VerifyRecoverInit",
    "C_VerifyRecover", "C_DigestEncryptUpdate", "C_DecryptDigestUpdate", "C_SignEncryptUpdate", "C_DecryptVerifyUpdate",
    "C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey", "C_DeriveKey", "C_SeedRandom", "C_GenerateRandom",
    "C_GetFunctionStatus", "C_CancelFunction", "C_WaitForSlotEvent",
)  # fmt: skip
# What a call is about is its first argument: a slot, nothing, or, for all the others, a session.
SLOT_FUNCTIONS = frozenset(
    {
        "C_GetSlotInfo",
        "C_GetTokenInfo",
        "C_GetMechanismList",
        "C_GetMechanismInfo",
        "C_InitToken",
        "C_OpenSession",
        "C_CloseAllSessions",
    }
)
GENERAL_FUNCTIONS = frozenset(
    {"C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_WaitForSlotEvent"}
)

# CK_ULONG values with a meaning of their own (section 3.1).
UNAVAILABLE_INFORMATION = 2 ** (8 * Struct("@L").size) - 1
EFFECTIVELY_INFINITE = 0

# Structures (sections 3.1 to 3.6).  "0L": the padding that C puts behind the last member.
ULONG = Struct("@L")
VERSION = Struct("@BB")
INFO = Struct("@BB32sL32sBB0L")  # cryptokiVersion, manufacturerID, flags, libraryDescription, libraryVersion
SLOT_INFO = Struct("@64s32sLBBBB0L")  # slotDescription, manufacturerID, flags, hardwareVersion, firmwareVersion
TOKEN_INFO = Struct("@32s32s16s16s11LBBBB16s0L")  # label, manufacturerID, model, serialNumber, flags, ten numbers, versions, time
SESSION_INFO = Struct("@4L")  # slotID, state, flags, ulDeviceError
MECHANISM_INFO = Struct("@3L")  # ulMinKeySize, ulMaxKeySize, flags
ATTRIBUTE = Struct("@LPL")  # type, pValue, ulValueLen
MECHANISM = Struct("@LPL")  # mechanism, pParameter, ulParameterLen
INITIALIZE_ARGS = Struct("@4PLP")  # CreateMutex, DestroyMutex, LockMutex, UnlockMutex, flags, pReserved


class CKR(IntEnum):
    """Return values (PKCS #11 2.40 section 5.1)."""

    OK = 0
    CANCEL = 1
    HOST_MEMORY = 2
    SLOT_ID_INVALID = 3
    GENERAL_ERROR = 5
    FUNCTION_FAILED = 6
    ARGUMENTS_BAD = 7
    NO_EVENT = 8
    NEED_TO_CREATE_THREADS = 9
    CANT_LOCK = 0xA
    ATTRIBUTE_READ_ONLY = 0x10
    ATTRIBUTE_SENSITIVE = 0x11
    ATTRIBUTE_TYPE_INVALID = 0x12
    ATTRIBUTE_VALUE_INVALID = 0x13
    ACTION_PROHIBITED = 0x1B
    DATA_INVALID = 0x20
    DATA_LEN_RANGE = 0x21
    DEVICE_ERROR = 0x30
    DEVICE_MEMORY = 0x31
    DEVICE_REMOVED = 0x32
    ENCRYPTED_DATA_INVALID = 0x40
    ENCRYPTED_DATA_LEN_RANGE = 0x41
    FUNCTION_CANCELED = 0x50
    FUNCTION_NOT_PARALLEL = 0x51
    FUNCTION_NOT_SUPPORTED = 0x54
    KEY_HANDLE_INVALID = 0x60
    KEY_SIZE_RANGE = 0x62
    KEY_TYPE_INCONSISTENT = 0x63
    KEY_NOT_NEEDED = 0x64
    KEY_CHANGED = 0x65
    KEY_NEEDED = 0x66
    KEY_INDIGESTIBLE = 0x67
    KEY_FUNCTION_NOT_PERMITTED = 0x68
    KEY_NOT_WRAPPABLE = 0x69
    KEY_UNEXTRACTABLE = 0x6A
    MECHANISM_INVALID = 0x70
    MECHANISM_PARAM_INVALID = 0x71
    OBJECT_HANDLE_INVALID = 0x82
    OPERATION_ACTIVE = 0x90
    OPERATION_NOT_INITIALIZED = 0x91
    PIN_INCORRECT = 0xA0
    PIN_INVALID = 0xA1
    PIN_LEN_RANGE = 0xA2
    PIN_EXPIRED = 0xA3
    PIN_LOCKED = 0xA4
    SESSION_CLOSED = 0xB0
    SESSION_COUNT = 0xB1
    SESSION_HANDLE_INVALID = 0xB3
    SESSION_PARALLEL_NOT_SUPPORTED = 0xB4
    SESSION_READ_ONLY = 0xB5
    SESSION_EXISTS = 0xB6
    SESSION_READ_ONLY_EXISTS = 0xB7
    SESSION_READ_WRITE_SO_EXISTS = 0xB8
    SIGNATURE_INVALID = 0xC0
    SIGNATURE_LEN_RANGE = 0xC1
    TEMPLATE_INCOMPLETE = 0xD0
    TEMPLATE_INCONSISTENT = 0xD1
    TOKEN_NOT_PRESENT = 0xE0
    TOKEN_NOT_RECOGNIZED = 0xE1
    TOKEN_WRITE_PROTECTED = 0xE2
    UNWRAPPING_KEY_HANDLE_INVALID = 0xF0
    UNWRAPPING_KEY_SIZE_RANGE = 0xF1
    UNWRAPPING_KEY_TYPE_INCONSISTENT = 0xF2
    USER_ALREADY_LOGGED_IN = 0x100
    USER_NOT_LOGGED_IN = 0x101
    USER_PIN_NOT_INITIALIZED = 0x102
    USER_TYPE_INVALID = 0x103
    USER_ANOTHER_ALREADY_LOGGED_IN = 0x104
    USER_TOO_MANY_TYPES = 0x105
    WRAPPED_KEY_INVALID = 0x110
    WRAPPED_KEY_LEN_RANGE = 0x112
    WRAPPING_KEY_HANDLE_INVALID = 0x113
    WRAPPING_KEY_SIZE_RANGE = 0x114
    WRAPPING_KEY_TYPE_INCONSISTENT = 0x115
    RANDOM_SEED_NOT_SUPPORTED = 0x120
    RANDOM_NO_RNG = 0x121
    DOMAIN_PARAMS_INVALID = 0x130
    CURVE_NOT_SUPPORTED = 0x140
    BUFFER_TOO_SMALL = 0x150
    SAVED_STATE_INVALID = 0x160
    INFORMATION_SENSITIVE = 0x170
    STATE_UNSAVEABLE = 0x180
    CRYPTOKI_NOT_INITIALIZED = 0x190
    CRYPTOKI_ALREADY_INITIALIZED = 0x191
    MUTEX_BAD = 0x1A0
    MUTEX_NOT_LOCKED = 0x1A1
    NEW_PIN_MODE = 0x1B0
    NEXT_OTP = 0x1B1
    EXCEEDED_MAX_ITERATIONS = 0x1C0
    FIPS_SELF_TEST_FAILED = 0x1C1
    LIBRARY_LOAD_FAILED = 0x1C2
    PIN_TOO_WEAK = 0x1C3
    PUBLIC_KEY_INVALID = 0x1C4
    FUNCTION_REJECTED = 0x200


class CKF(IntEnum):
    """Flags.  Each structure has its own; the same bit may bear several names here."""

    TOKEN_PRESENT = 1
    REMOVABLE_DEVICE = 2
    HW_SLOT = 4
    ARRAY_ATTRIBUTE = 0x40000000
    RNG = 1
    WRITE_PROTECTED = 2
    LOGIN_REQUIRED = 4
    USER_PIN_INITIALIZED = 8
    RESTORE_KEY_NOT_NEEDED = 0x20
    CLOCK_ON_TOKEN = 0x40
    PROTECTED_AUTHENTICATION_PATH = 0x100
    DUAL_CRYPTO_OPERATIONS = 0x200
    TOKEN_INITIALIZED = 0x400
    USER_PIN_COUNT_LOW = 0x10000
    USER_PIN_FINAL_TRY = 0x20000
    USER_PIN_LOCKED = 0x40000
    USER_PIN_TO_BE_CHANGED = 0x80000
    SO_PIN_COUNT_LOW = 0x100000
    SO_PIN_FINAL_TRY = 0x200000
    SO_PIN_LOCKED = 0x400000
    SO_PIN_TO_BE_CHANGED = 0x800000
    RW_SESSION = 2
    SERIAL_SESSION = 4
    HW = 1
    ENCRYPT = 0x100
    DECRYPT = 0x200
    DIGEST = 0x400
    SIGN = 0x800
    SIGN_RECOVER = 0x1000
    VERIFY = 0x2000
    VERIFY_RECOVER = 0x4000
    GENERATE = 0x8000
    GENERATE_KEY_PAIR = 0x10000
    WRAP = 0x20000
    UNWRAP = 0x40000
    DERIVE = 0x80000
    EXTENSION = 0x80000000
    EC_F_P = 0x100000
    EC_NAMEDCURVE = 0x800000
    EC_UNCOMPRESS = 0x1000000
    EC_COMPRESS = 0x2000000
    DONT_BLOCK = 1
    LIBRARY_CANT_CREATE_OS_THREADS = 1
    OS_LOCKING_OK = 2


class CKU(IntEnum):
    """Kinds of user (section 3.4)."""

    SO = 0
    USER = 1
    CONTEXT_SPECIFIC = 2


class CKS(IntEnum):
    """States of a session (section 3.4)."""

    RO_PUBLIC_SESSION = 0
    RO_USER_FUNCTIONS = 1
    RW_PUBLIC_SESSION = 2
    RW_USER_FUNCTIONS = 3
    RW_SO_FUNCTIONS = 4


class CKO(IntEnum):
    """Classes of objects."""

    DATA = 0
    CERTIFICATE = 1
    PUBLIC_KEY = 2
    PRIVATE_KEY = 3
    SECRET_KEY = 4
    HW_FEATURE = 5
    DOMAIN_PARAMETERS = 6
    MECHANISM = 7
    OTP_KEY = 8


class CKK(IntEnum):
    """Types of keys."""

    RSA = 0
    DSA = 1
    DH = 2
    EC = 3
    X9_42_DH = 4
    KEA = 5
    GENERIC_SECRET = 0x10
    DES3 = 0x15
    SKIPJACK = 0x1B
    BATON = 0x1C
    JUNIPER = 0x1D
    AES = 0x1F
    SHA_1_HMAC = 0x28
    SHA256_HMAC = 0x2B
    SHA384_HMAC = 0x2C
    SHA512_HMAC = 0x2D
    SHA224_HMAC = 0x2E
    EC_EDWARDS = 0x40
    EC_MONTGOMERY = 0x41
    ML_KEM = 0x49
    ML_DSA = 0x4A


class CKC(IntEnum):
    """Types of certificates."""

    X_509 = 0
    X_509_ATTR_CERT = 1
    WTLS = 2
    OPENPGP = 0x80504750


class CKA(IntEnum):
    """Attributes of objects."""

    CLASS = 0
    TOKEN = 1
    PRIVATE = 2
    LABEL = 3
    APPLICATION = 0x10
    VALUE = 0x11
    OBJECT_ID = 0x12
    CERTIFICATE_TYPE = 0x80
    ISSUER = 0x81
    SERIAL_NUMBER = 0x82
    OWNER = 0x84
    TRUSTED = 0x86
    CERTIFICATE_CATEGORY = 0x87
    JAVA_MIDP_SECURITY_DOMAIN = 0x88
    URL = 0x89
    HASH_OF_SUBJECT_PUBLIC_KEY = 0x8A
    HASH_OF_ISSUER_PUBLIC_KEY = 0x8B
    CHECK_VALUE = 0x90
    KEY_TYPE = 0x100
    SUBJECT = 0x101
    ID = 0x102
    SENSITIVE = 0x103
    ENCRYPT = 0x104
    DECRYPT = 0x105
    WRAP = 0x106
    UNWRAP = 0x107
    SIGN = 0x108
    SIGN_RECOVER = 0x109
    VERIFY = 0x10A
    VERIFY_RECOVER = 0x10B
    DERIVE = 0x10C
    START_DATE = 0x110
    END_DATE = 0x111
    MODULUS = 0x120
    MODULUS_BITS = 0x121
    PUBLIC_EXPONENT = 0x122
    PRIVATE_EXPONENT = 0x123
    PRIME_1 = 0x124
    PRIME_2 = 0x125
    EXPONENT_1 = 0x126
    EXPONENT_2 = 0x127
    COEFFICIENT = 0x128
    PUBLIC_KEY_INFO = 0x129
    PRIME = 0x130
    SUBPRIME = 0x131
    BASE = 0x132
    PRIME_BITS = 0x133
    SUB_PRIME_BITS = 0x134
    VALUE_BITS = 0x160
    VALUE_LEN = 0x161
    EXTRACTABLE = 0x162
    LOCAL = 0x163
    NEVER_EXTRACTABLE = 0x164
    ALWAYS_SENSITIVE = 0x165
    KEY_GEN_MECHANISM = 0x166
    MODIFIABLE = 0x170
    COPYABLE = 0x171
    DESTROYABLE = 0x172
    EC_PARAMS = 0x180
    EC_POINT = 0x181
    ALWAYS_AUTHENTICATE = 0x202
    WRAP_WITH_TRUSTED = 0x210
    WRAP_TEMPLATE = 0x40000211
    UNWRAP_TEMPLATE = 0x40000212
    ALLOWED_MECHANISMS = 0x40000600
    PARAMETER_SET = 0x61D
    ENCAPSULATE = 0x633
    DECAPSULATE = 0x634
    SEED = 0x637


class CKM(IntEnum):
    """Mechanisms; tokens do not compute all of them (`mechanisms.MECHANISMS`)."""

    RSA_PKCS_KEY_PAIR_GEN = 0
    RSA_PKCS = 1
    RSA_X_509 = 3
    SHA1_RSA_PKCS = 6
    RSA_PKCS_OAEP = 9
    RSA_PKCS_PSS = 0xD
    SHA1_RSA_PKCS_PSS = 0xE
    ML_KEM_KEY_PAIR_GEN = 0xF
    DSA_KEY_PAIR_GEN = 0x10
    DSA = 0x11
    DSA_SHA1 = 0x12
    DSA_SHA224 = 0x13
    DSA_SHA256 = 0x14
    DSA_SHA384 = 0x15
    DSA_SHA512 = 0x16
    ML_KEM = 0x17
    ML_DSA_KEY_PAIR_GEN = 0x1C
    ML_DSA = 0x1D
    DH_PKCS_KEY_PAIR_GEN = 0x20
    DH_PKCS_DERIVE = 0x21
    SHA256_RSA_PKCS = 0x40
    SHA384_RSA_PKCS = 0x41
    SHA512_RSA_PKCS = 0x42
    SHA256_RSA_PKCS_PSS = 0x43
    SHA384_RSA_PKCS_PSS = 0x44
    SHA512_RSA_PKCS_PSS = 0x45
    SHA224_RSA_PKCS = 0x46
    SHA224_RSA_PKCS_PSS = 0x47
    RC2_CBC = 0x102
    RC4 = 0x111
    DES_CBC = 0x122
    DES3_KEY_GEN = 0x131
    DES3_CBC = 0x133
    MD5 = 0x210
    MD5_HMAC = 0x211
    SHA_1 = 0x220
    SHA_1_HMAC = 0x221
    SHA256 = 0x250
    SHA256_HMAC = 0x251
    SHA224 = 0x255
    SHA224_HMAC = 0x256
    SHA384 = 0x260
    SHA384_HMAC = 0x261
    SHA512 = 0x270
    SHA512_HMAC = 0x271
    IDEA_CBC = 0x342
    GENERIC_SECRET_KEY_GEN = 0x350
    CAMELLIA_CBC = 0x552
    ARIA_CBC = 0x562
    SEED_CBC = 0x652
    SKIPJACK_KEY_GEN = 0x1000
    SKIPJACK_ECB64 = 0x1001
    SKIPJACK_CBC64 = 0x1002
    SKIPJACK_OFB64 = 0x1003
    SKIPJACK_CFB64 = 0x1004
    SKIPJACK_CFB32 = 0x1005
    SKIPJACK_CFB16 = 0x1006
    SKIPJACK_CFB8 = 0x1007
    SKIPJACK_WRAP = 0x1008
    SKIPJACK_PRIVATE_WRAP = 0x1009
    SKIPJACK_RELAYX = 0x100A
    KEA_KEY_PAIR_GEN = 0x1010
    KEA_KEY_DERIVE = 0x1011
    KEA_DERIVE = 0x1012
    FORTEZZA_TIMESTAMP = 0x1020
    EC_KEY_PAIR_GEN = 0x1040
    ECDSA = 0x1041
    ECDSA_SHA1 = 0x1042
    ECDSA_SHA224 = 0x1043
    ECDSA_SHA256 = 0x1044
    ECDSA_SHA384 = 0x1045
    ECDSA_SHA512 = 0x1046
    ECDH1_DERIVE = 0x1050
    ECDH1_COFACTOR_DERIVE = 0x1051
    EC_EDWARDS_KEY_PAIR_GEN = 0x1055
    EC_MONTGOMERY_KEY_PAIR_GEN = 0x1056
    EDDSA = 0x1057
    AES_KEY_GEN = 0x1080
    AES_ECB = 0x1081
    AES_CBC = 0x1082
    AES_CBC_PAD = 0x1085
    AES_CTR = 0x1086
    AES_GCM = 0x1087
    AES_CCM = 0x1088
    AES_CMAC = 0x108A
    DH_PKCS_PARAMETER_GEN = 0x2001
    AES_KEY_WRAP = 0x2109
    AES_KEY_WRAP_PAD = 0x210A
    CHACHA20_POLY1305 = 0x4021
    HKDF_DERIVE = 0x402A


class Refused(Exception):
    """What a C_ function raises instead of returning CKR_OK: `rv` is the number the host gets."""

    def __init__(self, rv: int) -> None:
        super().__init__(name_of(CKR, rv))
        self.rv = int(rv)


def name_of(kind: type[IntEnum], value: int) -> str:
    """The name of `value` as PKCS #11 writes it, such as "CKM_ECDSA"; "CKM_0x..." when it has none here."""
    try:
        return f"{kind.__name__}_{kind(value).name}"
    except ValueError:
        return f"{kind.__name__}_{value:#x}"


def padded(text: str, length: int) -> bytes:
    """`text` as PKCS #11 keeps it in a structure: UTF-8, cut at a character, padded with blanks, not ended by NUL."""
    return text.encode()[:length].decode(errors="ignore").encode().ljust(length)
