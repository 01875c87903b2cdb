"""A PKCS #11 module function by function, by ctypes: what a test calls when it wants to know the very number that comes back.

Numbers and layouts are `pk11_tokens.abi`'s; that these are PKCS #11's is for test_shim to find out, from other people's code.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from pk11_tokens.abi import CKF, CKR, CKS, CKU, FUNCTIONS, SESSION_INFO, TOKEN_INFO, name_of

PIN, SO_PIN = b"123456", b"12345678"
SERIAL, READ_WRITE = CKF.SERIAL_SESSION, CKF.SERIAL_SESSION | CKF.RW_SESSION
SLOT = 1  # the first reader

# CK_FUNCTION_LIST: a version, padding, pointers.
_POINTERS = ctypes.sizeof(ctypes.c_void_p)


class Module:
    """`module.C_Login(session, CKU.USER, b"1234", 4)`: a CKR's name, "CKR_OK".

    Arguments are numbers, bytes and ctypes buffers (their addresses), None (NULL).  Between `with`, it is initialised.
    """

    def __init__(self, path: str | Path) -> None:
        library = ctypes.CDLL(str(path))
        address = ctypes.c_void_p()
        assert library.C_GetFunctionList(ctypes.byref(address)) == CKR.OK
        assert address.value
        pointers = (ctypes.c_void_p * len(FUNCTIONS)).from_address(address.value + _POINTERS)
        self._functions = dict(zip(FUNCTIONS, pointers, strict=True))

    def __enter__(self) -> Module:
        assert self.C_Initialize(None) == "CKR_OK"
        return self

    def __exit__(self, *_: object) -> None:
        self.C_Finalize(None)

    def __getattr__(self, name: str) -> Any:
        function = ctypes.CFUNCTYPE(ctypes.c_ulong, *(ctypes.c_void_p,) * _ARITY.get(name, 8))(self._functions[name])

        def call(*arguments: Any) -> str:
            # What is not given is 0: more words than a function takes do no harm in C.
            words = [ctypes.cast(word, ctypes.c_void_p) if not isinstance(word, int | None) else word for word in arguments]
            return name_of(CKR, function(*words, *(0,) * (_ARITY.get(name, 8) - len(words))))

        return call

    # --- what most tests need, and do not test ------------------------------------------------------------------------

    def open(self, flags: int = SERIAL, slot: int = SLOT) -> int:
        """A session's handle."""
        handle = ctypes.c_ulong()
        assert self.C_OpenSession(slot, flags, None, None, ctypes.byref(handle)) == "CKR_OK"
        return handle.value

    def login(self, session: int, pin: bytes | None = PIN, user: int = CKU.USER) -> str:
        """C_Login; None: NULL, for a keypad."""
        return str(self.C_Login(session, user, pin, len(pin or b"")))

    def state(self, session: int) -> CKS:
        """The state of a session."""
        room = ctypes.create_string_buffer(SESSION_INFO.size)
        assert self.C_GetSessionInfo(session, room) == "CKR_OK"
        return CKS(SESSION_INFO.unpack(room.raw)[1])

    def token_info(self, slot: int = SLOT) -> tuple[Any, ...]:
        """CK_TOKEN_INFO's members in order."""
        room = ctypes.create_string_buffer(TOKEN_INFO.size)
        assert self.C_GetTokenInfo(slot, room) == "CKR_OK"
        return TOKEN_INFO.unpack(room.raw)

    def token_flags(self, slot: int = SLOT) -> int:
        """CK_TOKEN_INFO.flags."""
        return int(self.token_info(slot)[4])


_ARITY = {"C_Initialize": 1, "C_Finalize": 1}
