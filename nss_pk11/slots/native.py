"""The C side of PKCS #11: structures, prototypes and the function list of one library, by ctypes.

For the calls that python-pkcs11 does not make, makes wrongly, or makes too often; `cryptoki` says which and why.  Every call
runs without the GIL.  Names and numbers: PKCS #11 3.1, sections 3 and 5.  Knows nothing of the rest of the room.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, Structure, c_char, c_char_p, c_ubyte, c_ulong, c_void_p

CKF_DONT_BLOCK = 1
CKF_OS_LOCKING_OK = 2
CKF_RW_SESSION = 2
CKF_SERIAL_SESSION = 4
CKU_SO, CKU_USER, CKU_CONTEXT_SPECIFIC = 0, 1, 2
CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS = 1, 3
UNAVAILABLE = c_ulong(-1).value  # CK_UNAVAILABLE_INFORMATION
EFFECTIVELY_INFINITE = 0  # CK_EFFECTIVELY_INFINITE


class CK_VERSION(Structure):
    _fields_ = (("major", c_ubyte), ("minor", c_ubyte))


class CK_SLOT_INFO(Structure):
    _fields_ = (
        ("slotDescription", c_char * 64),
        ("manufacturerID", c_char * 32),
        ("flags", c_ulong),
        ("hardwareVersion", CK_VERSION),
        ("firmwareVersion", CK_VERSION),
    )


class CK_TOKEN_INFO(Structure):
    _fields_ = (
        ("label", c_char * 32),
        ("manufacturerID", c_char * 32),
        ("model", c_char * 16),
        ("serialNumber", c_char * 16),
        ("flags", c_ulong),
        ("ulMaxSessionCount", c_ulong),
        ("ulSessionCount", c_ulong),
        ("ulMaxRwSessionCount", c_ulong),
        ("ulRwSessionCount", c_ulong),
        ("ulMaxPinLen", c_ulong),
        ("ulMinPinLen", c_ulong),
        ("ulTotalPublicMemory", c_ulong),
        ("ulFreePublicMemory", c_ulong),
        ("ulTotalPrivateMemory", c_ulong),
        ("ulFreePrivateMemory", c_ulong),
        ("hardwareVersion", CK_VERSION),
        ("firmwareVersion", CK_VERSION),
        ("utcTime", c_char * 16),
    )


class CK_SESSION_INFO(Structure):
    _fields_ = (("slotID", c_ulong), ("state", c_ulong), ("flags", c_ulong), ("ulDeviceError", c_ulong))


class CK_MECHANISM(Structure):
    _fields_ = (("mechanism", c_ulong), ("pParameter", c_void_p), ("ulParameterLen", c_ulong))


class CK_MECHANISM_INFO(Structure):
    _fields_ = (("ulMinKeySize", c_ulong), ("ulMaxKeySize", c_ulong), ("flags", c_ulong))


class CK_RSA_PKCS_PSS_PARAMS(Structure):
    _fields_ = (("hashAlg", c_ulong), ("mgf", c_ulong), ("sLen", c_ulong))


class CK_ATTRIBUTE(Structure):
    _fields_ = (("type", c_ulong), ("pValue", c_void_p), ("ulValueLen", c_ulong))


class CK_KEA_DERIVE_PARAMS(Structure):
    _fields_ = (
        ("isSender", c_ubyte),
        ("ulRandomLen", c_ulong),
        ("pRandomA", c_void_p),
        ("pRandomB", c_void_p),
        ("ulPublicDataLen", c_ulong),
        ("pPublicData", c_void_p),
    )


class CK_EDDSA_PARAMS(Structure):
    _fields_ = (("phFlag", c_ubyte), ("ulContextDataLen", c_ulong), ("pContextData", c_void_p))


class CK_C_INITIALIZE_ARGS(Structure):
    _fields_ = (
        ("CreateMutex", c_void_p),
        ("DestroyMutex", c_void_p),
        ("LockMutex", c_void_p),
        ("UnlockMutex", c_void_p),
        ("flags", c_ulong),
        ("pReserved", c_char_p),
    )


# The 68 members of CK_FUNCTION_LIST, in order (PKCS #11 2.40 section 5; 3.x leaves this structure as it is).
_FUNCTION_LIST = (
    "C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo",
    "C_GetMechanismList", "C_GetMechanismInfo", "C_InitToken", "C_InitPIN", "C_SetPIN", "C_OpenSession", "C_CloseSession",
    "C_CloseAllSessions", "C_GetSessionInfo", "C_GetOperationState", "C_SetOperationState", "C_Login", "C_Logout",
    "C_CreateObject", "C_CopyObject", "C_DestroyObject", "C_GetObjectSize", "C_GetAttributeValue", "C_SetAttributeValue",
    "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_EncryptUpdate",
    "C_EncryptFinal", "C_DecryptInit", "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest",
    "C_DigestUpdate", "C_DigestKey", "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal",
    "C_SignRecoverInit", "C_SignRecover", "C_VerifyInit", "C_Verify", "C_VerifyUpdate", "C_VerifyFinal",
    "C_VerifyRecoverInit", "C_VerifyRecover", "C_DigestEncryptUpdate", "C_DecryptDigestUpdate", "C_SignEncryptUpdate",
    "C_DecryptVerifyUpdate", "C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey", "C_DeriveKey",
    "C_SeedRandom", "C_GenerateRandom", "C_GetFunctionStatus", "C_CancelFunction", "C_WaitForSlotEvent",
)  # fmt: skip


class CK_FUNCTION_LIST(Structure):
    _fields_ = (("version", CK_VERSION), *((name, c_void_p) for name in _FUNCTION_LIST))


# One prototype object per signature, made once: making one per call costs more than the call.
_PROTOTYPES: dict[str, tuple[type[ctypes._SimpleCData[int]] | type[c_void_p] | type[c_ubyte], ...]] = {
    "C_Initialize": (c_void_p,),
    "C_Finalize": (c_void_p,),
    "C_GetSlotList": (c_ubyte, c_void_p, c_void_p),
    "C_GetSlotInfo": (c_ulong, c_void_p),
    "C_GetTokenInfo": (c_ulong, c_void_p),
    "C_GetMechanismList": (c_ulong, c_void_p, c_void_p),
    "C_GetMechanismInfo": (c_ulong, c_ulong, c_void_p),
    "C_InitToken": (c_ulong, c_void_p, c_ulong, c_void_p),
    "C_InitPIN": (c_ulong, c_void_p, c_ulong),
    "C_SetPIN": (c_ulong, c_void_p, c_ulong, c_void_p, c_ulong),
    "C_OpenSession": (c_ulong, c_ulong, c_void_p, c_void_p, c_void_p),
    "C_CloseSession": (c_ulong,),
    "C_GetSessionInfo": (c_ulong, c_void_p),
    "C_Login": (c_ulong, c_ulong, c_void_p, c_ulong),
    "C_Logout": (c_ulong,),
    "C_SignInit": (c_ulong, c_void_p, c_ulong),
    "C_Sign": (c_ulong, c_void_p, c_ulong, c_void_p, c_void_p),
    "C_DecryptInit": (c_ulong, c_void_p, c_ulong),
    "C_Decrypt": (c_ulong, c_void_p, c_ulong, c_void_p, c_void_p),
    "C_WaitForSlotEvent": (c_ulong, c_void_p, c_void_p),
    # FORTEZZA's alone
    "C_GetOperationState": (c_ulong, c_void_p, c_void_p),
    "C_SetOperationState": (c_ulong, c_void_p, c_ulong, c_ulong, c_ulong),
    "C_FindObjectsInit": (c_ulong, c_void_p, c_ulong),
    "C_FindObjects": (c_ulong, c_void_p, c_ulong, c_void_p),
    "C_FindObjectsFinal": (c_ulong,),
    "C_EncryptInit": (c_ulong, c_void_p, c_ulong),
    "C_Encrypt": (c_ulong, c_void_p, c_ulong, c_void_p, c_void_p),
    "C_EncryptUpdate": (c_ulong, c_void_p, c_ulong, c_void_p, c_void_p),
    "C_DecryptUpdate": (c_ulong, c_void_p, c_ulong, c_void_p, c_void_p),
    "C_GenerateKey": (c_ulong, c_void_p, c_void_p, c_ulong, c_void_p),
    "C_WrapKey": (c_ulong, c_void_p, c_ulong, c_ulong, c_void_p, c_void_p),
    "C_UnwrapKey": (c_ulong, c_void_p, c_ulong, c_void_p, c_ulong, c_void_p, c_ulong, c_void_p),
    "C_DeriveKey": (c_ulong, c_void_p, c_ulong, c_void_p, c_ulong, c_void_p),
}
_TYPES = {name: ctypes.CFUNCTYPE(c_ulong, *arguments) for name, arguments in _PROTOTYPES.items()}
_SINCE_2_01 = "C_WaitForSlotEvent"  # the last member, which older modules have no room for
# What a library may lack: it has no such operations.
_OPTIONAL = frozenset(
    {
        _SINCE_2_01, "C_GetOperationState", "C_SetOperationState", "C_EncryptInit", "C_Encrypt", "C_EncryptUpdate",
        "C_DecryptUpdate", "C_GenerateKey", "C_WrapKey", "C_UnwrapKey", "C_DeriveKey",
    }
)  # fmt: skip
_FUNCTION_NOT_SUPPORTED = 0x54

Function = Callable[..., int]


class Functions:
    """The C_ functions of one library, each an attribute that takes plain Python values and returns the CK_RV.

    Raises OSError if the library does not load, AttributeError if it is no PKCS #11 library.  It is never unloaded: a key used
    after dlclose() crashes the process.
    """

    C_Initialize: Function
    C_Finalize: Function
    C_GetSlotList: Function
    C_GetSlotInfo: Function
    C_GetTokenInfo: Function
    C_GetMechanismList: Function
    C_GetMechanismInfo: Function
    C_InitToken: Function
    C_InitPIN: Function
    C_SetPIN: Function
    C_OpenSession: Function
    C_CloseSession: Function
    C_GetSessionInfo: Function
    C_Login: Function
    C_Logout: Function
    C_SignInit: Function
    C_Sign: Function
    C_DecryptInit: Function
    C_Decrypt: Function
    C_WaitForSlotEvent: Function
    C_GetOperationState: Function
    C_SetOperationState: Function
    C_FindObjectsInit: Function
    C_FindObjects: Function
    C_FindObjectsFinal: Function
    C_EncryptInit: Function
    C_Encrypt: Function
    C_EncryptUpdate: Function
    C_DecryptUpdate: Function
    C_GenerateKey: Function
    C_WrapKey: Function
    C_UnwrapKey: Function
    C_DeriveKey: Function

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        get = self._library.C_GetFunctionList
        get.restype = c_ulong
        pointer = POINTER(CK_FUNCTION_LIST)()
        rv = get(ctypes.byref(pointer))
        if rv or not pointer:
            raise OSError(f"C_GetFunctionList failed with {rv:#x}")
        version = pointer.contents.version
        for name, prototype in _TYPES.items():
            old = name == _SINCE_2_01 and (version.major, version.minor) < (2, 1)
            address = None if old else getattr(pointer.contents, name)
            if not address and name in _OPTIONAL:
                setattr(self, name, lambda *_: _FUNCTION_NOT_SUPPORTED)
                continue
            if not address:
                raise OSError(f"its function list lacks {name}")
            setattr(self, name, prototype(address))


def text(field: bytes) -> str:
    """A blank-padded CK_UTF8CHAR array as text (some modules pad with NULs)."""
    return field.decode("utf-8", "replace").rstrip(" \0")
