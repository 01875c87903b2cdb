"""A session of a PKCS #11 module, by ctypes: templates, objects and operations, with the very CKR that comes back.

Works with any module, so that simulated tokens can be held against SoftHSM.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pk11_tokens.abi import ATTRIBUTE, CKA, CKK, CKO, MECHANISM, ULONG, UNAVAILABLE_INFORMATION
from pk11_tokens.keytypes import KEY_TYPES, Values, type_of

from .cryptoki import PIN, READ_WRITE, SLOT, Module

Value = bytes | bool | int | str
ROOM = 8192


class Refusal(Exception):
    """A call that did not answer CKR_OK; its text is the CKR's name."""


def raw(value: Value) -> bytes:
    """An attribute's value as it lies in memory."""
    match value:
        case bool():
            return bytes([value])
        case int():
            return ULONG.pack(value)
        case str():
            return value.encode()
    return value


# What keys in tests are made of.
P256 = bytes.fromhex("06082a8648ce3d030107")
AES: dict[int, Value] = {CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.AES, CKA.VALUE: bytes(32)}
SHOWN: dict[int, Value] = {CKA.SENSITIVE: False, CKA.EXTRACTABLE: True}


def refused(name: str) -> pytest.RaisesExc[Refusal]:
    return pytest.raises(Refusal, match=f"^CKR_{name}$")


class Template:
    """An array of CK_ATTRIBUTE, and the buffers it points to."""

    def __init__(self, values: Mapping[int, Value]) -> None:
        self._buffers = [ctypes.create_string_buffer(raw(value), max(1, len(raw(value)))) for value in values.values()]
        rows = zip(values.items(), self._buffers, strict=True)
        packed = b"".join(
            ATTRIBUTE.pack(attribute, ctypes.addressof(buffer), len(raw(value))) for (attribute, value), buffer in rows
        )
        self.address = ctypes.create_string_buffer(packed, max(1, len(packed)))
        self.count = len(values)


class Client:
    """One session.  Every method raises Refusal."""

    def __init__(self, module: Module, flags: int = READ_WRITE, slot: int = SLOT) -> None:
        self.module = module
        self.session = module.open(flags, slot)

    def __call__(self, function: str, *arguments: Any) -> None:
        result = getattr(self.module, function)(self.session, *arguments)
        if result != "CKR_OK":
            raise Refusal(result)

    def login(self, pin: bytes = PIN) -> Client:
        self("C_Login", 1, pin, len(pin))
        return self

    def close(self) -> None:
        self("C_CloseSession")

    # --- objects -----------------------------------------------------------------------------------------------------

    def create(self, values: Mapping[int, Value]) -> int:
        template, handle = Template(values), ctypes.c_ulong()
        self("C_CreateObject", template.address, template.count, ctypes.byref(handle))
        return handle.value

    def copy(self, original: int, values: Mapping[int, Value]) -> int:
        template, handle = Template(values), ctypes.c_ulong()
        self("C_CopyObject", original, template.address, template.count, ctypes.byref(handle))
        return handle.value

    def change(self, handle: int, values: Mapping[int, Value]) -> None:
        template = Template(values)
        self("C_SetAttributeValue", handle, template.address, template.count)

    def get(self, handle: int, attribute: int) -> bytes:
        return self.get_all(handle, [attribute])[attribute]

    def get_all(self, handle: int, attributes: list[int]) -> dict[int, bytes]:
        buffers = [ctypes.create_string_buffer(ROOM) for _ in attributes]
        rows = self.get_into(handle, [(a, b, ROOM) for a, b in zip(attributes, buffers, strict=True)])
        return {a: b.raw[:length] for a, b, length in zip(attributes, buffers, rows, strict=True)}

    def get_into(self, handle: int, rows: Sequence[tuple[int, Any, int]], lengths: list[int] | None = None) -> list[int]:
        """C_GetAttributeValue with these (attribute, buffer or None, room); the lengths it sets, in `lengths` even if refused."""
        packed = b"".join(ATTRIBUTE.pack(a, ctypes.addressof(b) if b else 0, room) for a, b, room in rows)
        array = ctypes.create_string_buffer(packed, len(packed))
        lengths = lengths if lengths is not None else []
        try:
            self("C_GetAttributeValue", handle, array, len(rows))
        finally:
            lengths.extend(length for _, _, length in ATTRIBUTE.iter_unpack(array.raw))
        return lengths

    def is_true(self, handle: int, attribute: int) -> bool:
        return self.get(handle, attribute) == b"\1"

    def number(self, handle: int, attribute: int) -> int:
        return int(ULONG.unpack(self.get(handle, attribute))[0])

    def find(self, values: Mapping[int, Value] | None = None) -> list[int]:
        template = Template(values or {})
        self("C_FindObjectsInit", template.address, template.count)
        found, handles, count = [], (ctypes.c_ulong * 3)(), ctypes.c_ulong(1)
        while count.value:
            self("C_FindObjects", handles, 3, ctypes.byref(count))
            found += handles[: count.value]
        self("C_FindObjectsFinal")
        return found

    def find_one(self, values: Mapping[int, Value]) -> int:
        (handle,) = self.find(values)
        return handle

    def labels(self) -> set[str]:
        return {self.get(handle, CKA.LABEL).decode() for handle in self.find()}

    # --- keys --------------------------------------------------------------------------------------------------------

    def generate(self, mechanism: Mechanism, values: Mapping[int, Value]) -> int:
        template, handle = Template(values), ctypes.c_ulong()
        self("C_GenerateKey", mechanism.address, template.address, template.count, ctypes.byref(handle))
        return handle.value

    def generate_pair(self, mechanism: Mechanism, public: Mapping[int, Value], private: Mapping[int, Value]) -> tuple[int, int]:
        first, second = Template(public), Template(private)
        halves = ctypes.c_ulong(), ctypes.c_ulong()
        self(
            "C_GenerateKeyPair",
            mechanism.address,
            first.address,
            first.count,
            second.address,
            second.count,
            *map(ctypes.byref, halves),
        )
        return halves[0].value, halves[1].value

    def derive(self, mechanism: Mechanism, base: int, values: Mapping[int, Value]) -> int:
        template, handle = Template(values), ctypes.c_ulong()
        self("C_DeriveKey", mechanism.address, base, template.address, template.count, ctypes.byref(handle))
        return handle.value

    def wrap(self, mechanism: Mechanism, wrapping: int, key: int) -> bytes:
        return self._output("C_WrapKey", mechanism.address, wrapping, key)

    def unwrap(self, mechanism: Mechanism, unwrapping: int, wrapped: bytes, values: Mapping[int, Value]) -> int:
        template, handle = Template(values), ctypes.c_ulong()
        self(
            "C_UnwrapKey",
            mechanism.address,
            unwrapping,
            wrapped,
            len(wrapped),
            template.address,
            template.count,
            ctypes.byref(handle),
        )
        return handle.value

    # --- operations --------------------------------------------------------------------------------------------------

    def _output(self, function: str, *arguments: Any, room: int = ROOM) -> bytes:
        buffer, length = ctypes.create_string_buffer(room), ctypes.c_ulong(room)
        self(function, *arguments, buffer, ctypes.byref(length))
        return buffer.raw[: length.value]

    def length(self, function: str, *arguments: Any) -> int:
        """What is told to a host that gives no room."""
        length = ctypes.c_ulong()
        self(function, *arguments, None, ctypes.byref(length))
        return length.value

    def finish(self, function: str, *arguments: Any, room: int = ROOM) -> bytes:
        """The end of an operation that was begun: C_Sign with data, C_SignFinal without."""
        return self._output(function, *arguments, room=room)

    def digest(self, mechanism: Mechanism, data: bytes) -> bytes:
        self("C_DigestInit", mechanism.address)
        return self._output("C_Digest", data, len(data))

    def run(self, kind: str, mechanism: Mechanism, key: int, data: bytes) -> bytes:
        """C_Sign, C_Encrypt or C_Decrypt in one part."""
        self(f"C_{kind}Init", mechanism.address, key)
        return self._output(f"C_{kind}", data, len(data))

    def run_parts(self, kind: str, mechanism: Mechanism, key: int, parts: list[bytes]) -> bytes:
        """The same in several."""
        self(f"C_{kind}Init", mechanism.address, key)
        result = b""
        for part in parts:
            if kind == "Sign":
                self("C_SignUpdate", part, len(part))
            else:
                result += self._output(f"C_{kind}Update", part, len(part))
        return result + self._output(f"C_{kind}Final")

    def sign(self, mechanism: Mechanism, key: int, data: bytes) -> bytes:
        return self.run("Sign", mechanism, key, data)

    def verify(self, mechanism: Mechanism, key: int, data: bytes, signature: bytes) -> None:
        self("C_VerifyInit", mechanism.address, key)
        self("C_Verify", data, len(data), signature, len(signature))


class Mechanism:
    """A CK_MECHANISM.  `parameter`: its structure; `keep`: what that points to."""

    def __init__(self, number: int, parameter: bytes = b"", *keep: Any) -> None:
        self.number = number
        buffer = ctypes.create_string_buffer(parameter, max(1, len(parameter)))
        packed = MECHANISM.pack(number, ctypes.addressof(buffer) if parameter else 0, len(parameter))
        self.address: Any = ctypes.create_string_buffer(packed, len(packed))
        self.address.keep = buffer, keep  # as long as it is used itself


UNAVAILABLE = UNAVAILABLE_INFORMATION


def key_values(key: object) -> tuple[dict[int, Value], dict[int, Value]]:
    """What C_CreateObject must be given for a private key and for its public half."""
    kind = type_of(key)
    row = KEY_TYPES[kind]

    def values(half: CKO, given: Values) -> dict[int, Value]:
        return {CKA.CLASS: half, CKA.KEY_TYPE: kind, **{a: v for a, v in given.items() if a != CKA.MODULUS_BITS}}

    public_key = key.public_key()  # type: ignore[attr-defined]
    return values(CKO.PRIVATE_KEY, row.private(key)), values(CKO.PUBLIC_KEY, row.public(public_key))


def key_of(client: Client, label: str, half: CKO = CKO.PRIVATE_KEY) -> int:
    return client.find_one({CKA.CLASS: half, CKA.LABEL: label})
