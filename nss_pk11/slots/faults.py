"""CK_RV to error: the one place where a module's answer becomes a `TokenError`.

The names of NSS follow its own mapping (PK11_MapError).  Numbers: PKCS #11 3.1 section 3.6 and pkcs11t.h.
"""

from __future__ import annotations

import re

from ..errors import PinCancelled, PinError, PinIncorrect, PinLocked, TokenError
from .model import TokenInfo

OK = 0x00
HOST_MEMORY = 0x02
SLOT_ID_INVALID = 0x03
GENERAL_ERROR = 0x05
FUNCTION_FAILED = 0x06
DEVICE_ERROR = 0x30
DEVICE_MEMORY = 0x31
DEVICE_REMOVED = 0x32
KEY_HANDLE_INVALID = 0x60
OBJECT_HANDLE_INVALID = 0x82
OPERATION_ACTIVE = 0x90
OPERATION_NOT_INITIALIZED = 0x91  # after C_...Init: a logout, or the loss of the link, has ended the operation
PIN_INCORRECT = 0xA0
PIN_INVALID = 0xA1
PIN_LEN_RANGE = 0xA2
PIN_LOCKED = 0xA4
SESSION_CLOSED = 0xB0
SESSION_COUNT = 0xB1
SESSION_HANDLE_INVALID = 0xB3
TOKEN_NOT_PRESENT = 0xE0
TOKEN_NOT_RECOGNIZED = 0xE1
USER_ALREADY_LOGGED_IN = 0x100
USER_NOT_LOGGED_IN = 0x101
BUFFER_TOO_SMALL = 0x150
CRYPTOKI_NOT_INITIALIZED = 0x190
CRYPTOKI_ALREADY_INITIALIZED = 0x191

# What is remembered of the token no longer holds: the key, the login, the session or the token itself has gone.
LOST = frozenset(
    {
        KEY_HANDLE_INVALID,
        OBJECT_HANDLE_INVALID,
        USER_NOT_LOGGED_IN,
        SESSION_HANDLE_INVALID,
        SESSION_CLOSED,
        DEVICE_REMOVED,
        TOKEN_NOT_PRESENT,
        TOKEN_NOT_RECOGNIZED,
        SLOT_ID_INVALID,
        CRYPTOKI_NOT_INITIALIZED,
    }
)
# Worth a second try from the start: the above, and what a device says when it stumbles or its link breaks.
RECOVERABLE = LOST | {DEVICE_ERROR, GENERAL_ERROR, FUNCTION_FAILED, OPERATION_ACTIVE, OPERATION_NOT_INITIALIZED}
# What modules say that do not get over a broken link until they are initialised anew.
STUCK = frozenset({DEVICE_ERROR, GENERAL_ERROR, FUNCTION_FAILED})
# Another time it may work: the token comes back, somebody closes a session.
_PASSING = RECOVERABLE | {SESSION_COUNT, HOST_MEMORY, DEVICE_MEMORY}

NAMES: dict[int, str] = {
    0x000: "CKR_OK",
    0x001: "CKR_CANCEL",
    0x002: "CKR_HOST_MEMORY",
    0x003: "CKR_SLOT_ID_INVALID",
    0x005: "CKR_GENERAL_ERROR",
    0x006: "CKR_FUNCTION_FAILED",
    0x007: "CKR_ARGUMENTS_BAD",
    0x008: "CKR_NO_EVENT",
    0x009: "CKR_NEED_TO_CREATE_THREADS",
    0x00A: "CKR_CANT_LOCK",
    0x010: "CKR_ATTRIBUTE_READ_ONLY",
    0x011: "CKR_ATTRIBUTE_SENSITIVE",
    0x012: "CKR_ATTRIBUTE_TYPE_INVALID",
    0x013: "CKR_ATTRIBUTE_VALUE_INVALID",
    0x01B: "CKR_ACTION_PROHIBITED",
    0x020: "CKR_DATA_INVALID",
    0x021: "CKR_DATA_LEN_RANGE",
    0x030: "CKR_DEVICE_ERROR",
    0x031: "CKR_DEVICE_MEMORY",
    0x032: "CKR_DEVICE_REMOVED",
    0x040: "CKR_ENCRYPTED_DATA_INVALID",
    0x041: "CKR_ENCRYPTED_DATA_LEN_RANGE",
    0x042: "CKR_AEAD_DECRYPT_FAILED",
    0x050: "CKR_FUNCTION_CANCELED",
    0x051: "CKR_FUNCTION_NOT_PARALLEL",
    0x054: "CKR_FUNCTION_NOT_SUPPORTED",
    0x060: "CKR_KEY_HANDLE_INVALID",
    0x062: "CKR_KEY_SIZE_RANGE",
    0x063: "CKR_KEY_TYPE_INCONSISTENT",
    0x064: "CKR_KEY_NOT_NEEDED",
    0x065: "CKR_KEY_CHANGED",
    0x066: "CKR_KEY_NEEDED",
    0x067: "CKR_KEY_INDIGESTIBLE",
    0x068: "CKR_KEY_FUNCTION_NOT_PERMITTED",
    0x069: "CKR_KEY_NOT_WRAPPABLE",
    0x06A: "CKR_KEY_UNEXTRACTABLE",
    0x070: "CKR_MECHANISM_INVALID",
    0x071: "CKR_MECHANISM_PARAM_INVALID",
    0x082: "CKR_OBJECT_HANDLE_INVALID",
    0x090: "CKR_OPERATION_ACTIVE",
    0x091: "CKR_OPERATION_NOT_INITIALIZED",
    0x0A0: "CKR_PIN_INCORRECT",
    0x0A1: "CKR_PIN_INVALID",
    0x0A2: "CKR_PIN_LEN_RANGE",
    0x0A3: "CKR_PIN_EXPIRED",
    0x0A4: "CKR_PIN_LOCKED",
    0x0B0: "CKR_SESSION_CLOSED",
    0x0B1: "CKR_SESSION_COUNT",
    0x0B3: "CKR_SESSION_HANDLE_INVALID",
    0x0B4: "CKR_SESSION_PARALLEL_NOT_SUPPORTED",
    0x0B5: "CKR_SESSION_READ_ONLY",
    0x0B6: "CKR_SESSION_EXISTS",
    0x0B7: "CKR_SESSION_READ_ONLY_EXISTS",
    0x0B8: "CKR_SESSION_READ_WRITE_SO_EXISTS",
    0x0C0: "CKR_SIGNATURE_INVALID",
    0x0C1: "CKR_SIGNATURE_LEN_RANGE",
    0x0D0: "CKR_TEMPLATE_INCOMPLETE",
    0x0D1: "CKR_TEMPLATE_INCONSISTENT",
    0x0E0: "CKR_TOKEN_NOT_PRESENT",
    0x0E1: "CKR_TOKEN_NOT_RECOGNIZED",
    0x0E2: "CKR_TOKEN_WRITE_PROTECTED",
    0x0F0: "CKR_UNWRAPPING_KEY_HANDLE_INVALID",
    0x0F1: "CKR_UNWRAPPING_KEY_SIZE_RANGE",
    0x0F2: "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT",
    0x100: "CKR_USER_ALREADY_LOGGED_IN",
    0x101: "CKR_USER_NOT_LOGGED_IN",
    0x102: "CKR_USER_PIN_NOT_INITIALIZED",
    0x103: "CKR_USER_TYPE_INVALID",
    0x104: "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    0x105: "CKR_USER_TOO_MANY_TYPES",
    0x110: "CKR_WRAPPED_KEY_INVALID",
    0x112: "CKR_WRAPPED_KEY_LEN_RANGE",
    0x113: "CKR_WRAPPING_KEY_HANDLE_INVALID",
    0x114: "CKR_WRAPPING_KEY_SIZE_RANGE",
    0x115: "CKR_WRAPPING_KEY_TYPE_INCONSISTENT",
    0x120: "CKR_RANDOM_SEED_NOT_SUPPORTED",
    0x121: "CKR_RANDOM_NO_RNG",
    0x130: "CKR_DOMAIN_PARAMS_INVALID",
    0x140: "CKR_CURVE_NOT_SUPPORTED",
    0x150: "CKR_BUFFER_TOO_SMALL",
    0x160: "CKR_SAVED_STATE_INVALID",
    0x170: "CKR_INFORMATION_SENSITIVE",
    0x180: "CKR_STATE_UNSAVEABLE",
    0x190: "CKR_CRYPTOKI_NOT_INITIALIZED",
    0x191: "CKR_CRYPTOKI_ALREADY_INITIALIZED",
    0x1A0: "CKR_MUTEX_BAD",
    0x1A1: "CKR_MUTEX_NOT_LOCKED",
    0x1B0: "CKR_NEW_PIN_MODE",
    0x1B1: "CKR_NEXT_OTP",
    0x1B5: "CKR_EXCEEDED_MAX_ITERATIONS",
    0x1B6: "CKR_FIPS_SELF_TEST_FAILED",
    0x1B7: "CKR_LIBRARY_LOAD_FAILED",
    0x1B8: "CKR_PIN_TOO_WEAK",
    0x1B9: "CKR_PUBLIC_KEY_INVALID",
    0x200: "CKR_FUNCTION_REJECTED",
    0x201: "CKR_TOKEN_RESOURCE_EXCEEDED",
    0x202: "CKR_OPERATION_CANCEL_FAILED",
    0x203: "CKR_KEY_EXHAUSTED",
}
NUMBERS = {name: number for number, name in NAMES.items()}

# The call's own class, NSS name and words; whatever is not here is a plain TokenError, "the module refused".
_MEANINGS: dict[str, tuple[type[TokenError], str, str]] = {
    "CKR_HOST_MEMORY": (TokenError, "SEC_ERROR_NO_MEMORY", "the module ran out of memory"),
    "CKR_GENERAL_ERROR": (TokenError, "SEC_ERROR_PKCS11_GENERAL_ERROR", "the module failed for a reason it does not name"),
    "CKR_FUNCTION_FAILED": (TokenError, "SEC_ERROR_PKCS11_FUNCTION_FAILED", "the module could not do it"),
    "CKR_ARGUMENTS_BAD": (TokenError, "SEC_ERROR_INVALID_ARGS", "the module did not accept the arguments"),
    "CKR_DEVICE_ERROR": (TokenError, "SEC_ERROR_PKCS11_DEVICE_ERROR", "the device failed"),
    "CKR_DEVICE_MEMORY": (TokenError, "SEC_ERROR_NO_MEMORY", "the device is out of memory"),
    "CKR_DEVICE_REMOVED": (TokenError, "SEC_ERROR_NO_TOKEN", "the token was removed"),
    "CKR_TOKEN_NOT_PRESENT": (TokenError, "SEC_ERROR_NO_TOKEN", "there is no token in the slot"),
    "CKR_TOKEN_NOT_RECOGNIZED": (TokenError, "SEC_ERROR_NO_TOKEN", "the module does not know this kind of token"),
    "CKR_SLOT_ID_INVALID": (TokenError, "SEC_ERROR_NO_TOKEN", "the slot is no more"),
    "CKR_SESSION_COUNT": (TokenError, "SEC_ERROR_BUSY", "the token allows no further session"),
    "CKR_SESSION_EXISTS": (TokenError, "SEC_ERROR_BUSY", "the token is in use"),
    "CKR_SESSION_READ_ONLY_EXISTS": (TokenError, "SEC_ERROR_BUSY", "the token is in use"),
    "CKR_SESSION_CLOSED": (TokenError, "SEC_ERROR_NO_TOKEN", "the session was closed by the module"),
    "CKR_SESSION_HANDLE_INVALID": (TokenError, "SEC_ERROR_NO_TOKEN", "the session is no more"),
    "CKR_KEY_HANDLE_INVALID": (TokenError, "SEC_ERROR_NO_KEY", "the key is no more"),
    "CKR_OBJECT_HANDLE_INVALID": (TokenError, "SEC_ERROR_NO_KEY", "the object is no more"),
    "CKR_KEY_FUNCTION_NOT_PERMITTED": (TokenError, "SEC_ERROR_INADEQUATE_KEY_USAGE", "the key may not be used for that"),
    "CKR_KEY_TYPE_INCONSISTENT": (TokenError, "SEC_ERROR_INVALID_KEY", "the key is of the wrong type for that"),
    "CKR_KEY_SIZE_RANGE": (TokenError, "SEC_ERROR_INVALID_KEY", "the key has a size that the token does not take"),
    "CKR_MECHANISM_INVALID": (TokenError, "SEC_ERROR_INVALID_ALGORITHM", "the token does not offer the mechanism"),
    "CKR_MECHANISM_PARAM_INVALID": (TokenError, "SEC_ERROR_INVALID_ALGORITHM", "the token does not take the parameters"),
    "CKR_TOKEN_WRITE_PROTECTED": (TokenError, "SEC_ERROR_READ_ONLY", "the token is write-protected"),
    "CKR_SESSION_READ_ONLY": (TokenError, "SEC_ERROR_READ_ONLY", "the token is read-only"),
    "CKR_ACTION_PROHIBITED": (TokenError, "SEC_ERROR_READ_ONLY", "the token forbids it"),
    "CKR_CRYPTOKI_NOT_INITIALIZED": (TokenError, "SEC_ERROR_NOT_INITIALIZED", "the module is not initialised"),
    "CKR_PIN_INCORRECT": (PinIncorrect, "SEC_ERROR_BAD_PASSWORD", "the token refused the PIN"),
    "CKR_PIN_INVALID": (PinIncorrect, "SEC_ERROR_INVALID_PASSWORD", "the PIN has characters that the token does not take"),
    "CKR_PIN_LEN_RANGE": (PinIncorrect, "SEC_ERROR_INVALID_PASSWORD", "the PIN is too short or too long for the token"),
    "CKR_PIN_TOO_WEAK": (PinError, "SEC_ERROR_INVALID_PASSWORD", "the token finds the new PIN too weak"),
    "CKR_PIN_EXPIRED": (PinError, "SEC_ERROR_EXPIRED_PASSWORD", "the PIN has expired and must be changed"),
    "CKR_PIN_LOCKED": (PinLocked, "SEC_ERROR_LOCKED_PASSWORD", "the token is locked after too many wrong PINs"),
    "CKR_USER_PIN_NOT_INITIALIZED": (PinError, "SEC_ERROR_TOKEN_NOT_LOGGED_IN", "no user PIN was ever set on the token"),
    "CKR_USER_NOT_LOGGED_IN": (PinError, "SEC_ERROR_TOKEN_NOT_LOGGED_IN", "the token wants a login for that"),
    "CKR_USER_ANOTHER_ALREADY_LOGGED_IN": (PinError, "SEC_ERROR_TOKEN_NOT_LOGGED_IN", "another user is logged in"),
    "CKR_FUNCTION_CANCELED": (PinCancelled, "SEC_ERROR_USER_CANCELLED", "it was cancelled at the token"),
}


def result_name(rv: int) -> str:
    """CKR_ name of a CK_RV; vendor and unknown ones as CKR_0x80000001."""
    return NAMES.get(rv, f"CKR_{rv:#x}")


# The classes of python-pkcs11's exceptions are named as the results in camel case, but for these.
_ODD_CLASSES = {
    "FunctionCancelled": "CKR_FUNCTION_CANCELED",
    "RandomNoRNG": "CKR_RANDOM_NO_RNG",
    "SessionReadWriteSOExists": "CKR_SESSION_READ_WRITE_SO_EXISTS",
    "SlotIDInvalid": "CKR_SLOT_ID_INVALID",
    "TokenNotRecognised": "CKR_TOKEN_NOT_RECOGNIZED",
    "AnotherUserAlreadyLoggedIn": "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
}


def result_of(error: Exception) -> int:
    """The CK_RV behind an exception of python-pkcs11, which keeps it only in the name of its class or in the message."""
    unmapped = re.search(r"Unmapped error code (0x[0-9a-f]+)", str(error))
    if unmapped:
        return int(unmapped[1], 16)
    kind = type(error).__name__
    name = _ODD_CLASSES.get(kind) or "CKR_" + re.sub(r"(?<!^)(?=[A-Z])", "_", kind).upper()
    return NUMBERS.get(name, GENERAL_ERROR)


def may_pass(error: BaseException) -> bool:
    """Whether the same operation may succeed later, or at once on another token with the same key."""
    return isinstance(error, TokenError) and (error.rv in _PASSING or error.name == "SEC_ERROR_BUSY")


def fault(
    rv: int, function: str, token: TokenInfo | None = None, *, module: str = "", mechanism: str = "", doing: str = ""
) -> TokenError:
    """The error for `rv`, returned to be raised.  `doing`: what was under way ("sign with key www"), put before the reason."""
    ckr = result_name(rv)
    kind, name, reason = _MEANINGS.get(ckr, (TokenError, "SEC_ERROR_UNKNOWN_PKCS11_ERROR", "the module refused"))
    where = token or TokenInfo("", module=module)
    return kind(
        f"{doing}: {reason}" if doing else reason,
        name=name,
        ckr=ckr,
        rv=rv,
        module=where.module,
        slot=where.slot,
        token=where.label,
        mechanism=mechanism,
        function=function,
    )
