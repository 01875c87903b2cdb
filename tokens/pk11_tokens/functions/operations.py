"""Digests, signatures and encryption, in one part or in several (PKCS #11 2.40 sections 5.8 to 5.12).

All kinds of operation are one state machine: what is computed is a `Transformation` or `Verification` of `mechanisms`.  An
operation ends with its result and with every error but CKR_BUFFER_TOO_SMALL; asking for a length does not end it
(section 5.2).  The error may come from elsewhere, so the server ends it: `abandon`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..abi import CKA, CKO, CKR, Refused
from ..host import Operation, Session
from ..mechanisms import Capability, Transformation, Verification, offered
from ..objects import Object
from . import Call


class KeyErrors(NamedTuple):
    """What a key that does not do is called: there are other names for keys that wrap."""

    handle: int = CKR.KEY_HANDLE_INVALID
    kind: int = CKR.KEY_TYPE_INCONSISTENT


# What a key must permit, and of which half of a pair it is; secret keys are good for all.
_USES: dict[str, tuple[CKA, CKO]] = {
    "encrypt": (CKA.ENCRYPT, CKO.PUBLIC_KEY),
    "decrypt": (CKA.DECRYPT, CKO.PRIVATE_KEY),
    "sign": (CKA.SIGN, CKO.PRIVATE_KEY),
    "verify": (CKA.VERIFY, CKO.PUBLIC_KEY),
    "wrap": (CKA.WRAP, CKO.PUBLIC_KEY),
    "unwrap": (CKA.UNWRAP, CKO.PRIVATE_KEY),
    "derive": (CKA.DERIVE, CKO.PRIVATE_KEY),
}

# By which errors of which function which kind of operation ends.
_ENDED = {
    f"C_{kind.capitalize()}{part}": kind
    for kind in ("digest", "sign", "verify", "encrypt", "decrypt")
    for part in ("", "Update", "Final")
} | {"C_DigestKey": "digest"}


class Work(Operation):
    """An operation under way.  `stream`: what has been put in so far; `begin` starts it; `key`: None for digests."""

    def __init__(self, capability: Capability, begin: Callable[[], Any], key: Any, *, always_authenticate: bool) -> None:
        self.capability, self._begin, self.key = capability, begin, key
        self.always_authenticate = always_authenticate
        self.stream: Any = begin()
        self.in_parts = False
        self.result: bytes | None = None  # of all parts, while the host has no room for it

    def restart(self) -> None:
        self.stream = self._begin()


def abandon(call: Call) -> None:
    """A function failed: what it was part of is over."""
    kind = _ENDED.get(call.function)
    session = call.host.sessions.get(call.arguments[0]) if kind else None
    if session and kind:
        session.operations.pop(kind, None)


# --- beginning -------------------------------------------------------------------------------------------------------


def capability_of(session: Session, mechanism: int, use: str) -> Capability:
    """The mechanism, if the token offers it for this use.  Raises Refused(CKR_MECHANISM_INVALID)."""
    capability = offered(session.token.personality.mechanisms).get(mechanism)
    if capability is None or not capability.can(use):
        raise Refused(CKR.MECHANISM_INVALID)
    return capability


def key_for(session: Session, capability: Capability, use: str, handle: int, errors: KeyErrors = KeyErrors()) -> Object:  # noqa: B008
    """The key with this handle, if it may be used so.

    Raises Refused: CKR_KEY_HANDLE_INVALID, CKR_KEY_TYPE_INCONSISTENT (or those of `errors`), CKR_KEY_FUNCTION_NOT_PERMITTED,
    CKR_MECHANISM_INVALID where CKA_ALLOWED_MECHANISMS lacks the mechanism.
    """
    key = session.token.objects.get(session, handle, errors.handle)
    permission, half = _USES[use]
    if key.kind not in (half, CKO.SECRET_KEY) or key.number(CKA.KEY_TYPE) not in capability.key_types:
        raise Refused(errors.kind)
    if not key.is_true(permission):
        raise Refused(CKR.KEY_FUNCTION_NOT_PERMITTED)
    if key.allowed_mechanisms and capability.mechanism not in key.allowed_mechanisms:
        raise Refused(CKR.MECHANISM_INVALID)
    return key


def _init(call: Call, handle: int, kind: str, mechanism_pointer: int, key_handle: int) -> None:
    session = _idle(call, handle, kind)
    mechanism = call.memory.mechanism(mechanism_pointer)
    capability = capability_of(session, mechanism.type, kind)
    call.noted["mechanism"] = capability.name
    key = key_for(session, capability, kind, key_handle)
    call.noted["object"] = key.label
    made = capability.made_parameter if kind == "encrypt" else None
    begin = partial(getattr(capability, kind), key.key, (made or capability.parameter)(mechanism, call.memory))
    session.operations[kind] = Work(capability, begin, key.key, always_authenticate=key.is_true(CKA.ALWAYS_AUTHENTICATE))


def _idle(call: Call, handle: int, kind: str) -> Session:
    session = call.session(handle)
    if kind in session.operations:
        raise Refused(CKR.OPERATION_ACTIVE)
    return session


# --- going on --------------------------------------------------------------------------------------------------------


def _work(session: Session, kind: str, *, parts: bool) -> Work:
    """The operation under way, if it is one of several parts or can still become so, as `parts` asks.

    Raises Refused(CKR_OPERATION_NOT_INITIALIZED); also where SoftHSM and others say so: one part after several, several with
    a mechanism that takes one.
    """
    work = session.operations.get(kind)
    if not isinstance(work, Work) or (work.in_parts and not parts) or (parts and not work.capability.parts):
        raise Refused(CKR.OPERATION_NOT_INITIALIZED)
    return work


def _authorised(work: Work) -> None:
    if work.always_authenticate and not work.authenticated:
        raise Refused(CKR.USER_NOT_LOGGED_IN)  # C_Login with CKU_CONTEXT_SPECIFIC was not called (section 4.9)


def _single(call: Call, handle: int, kind: str, data: int, length: int, output: int, output_length: int) -> None:
    session = call.session(handle)
    work = _work(session, kind, parts=False)
    stream: Transformation = work.stream
    call.noted["length"] = length
    if not _room(call, kind, output, output_length, stream.size(length) + stream.last(length)):
        return
    _authorised(work)
    result = stream.update(call.memory.read(data, length)) + stream.finish()
    if kind == "decrypt":
        work.restart()  # there may be no room for the result, then the host gives the same data again
    call.memory.output(output, output_length, _leaving(session, kind, result))
    session.operations.pop(kind, None)


def _room(call: Call, kind: str, output: int, output_length: int, needed: int) -> bool:
    """Whether the host wants the result, not its length alone, which it is told here (section 5.2).

    Raises Refused(CKR_BUFFER_TOO_SMALL) before the key is used; except for what is decrypted, which may be shorter.
    """
    if output and (kind == "decrypt" or call.memory.ulong(output_length) >= needed):
        return True
    call.memory.set_ulong(output_length, needed)
    if output:
        raise Refused(CKR.BUFFER_TOO_SMALL)
    return False


def _leaving(session: Session, kind: str, result: bytes) -> bytes:
    return session.token.behaviour.spoil(result) if kind == "sign" else result


def _update(call: Call, handle: int, kind: str, data: int, length: int) -> None:
    """For operations that give nothing before their end."""
    work = _work(call.session(handle), kind, parts=True)
    _authorised(work)
    call.noted["length"] = length
    work.in_parts = True
    work.stream.update(call.memory.read(data, length))


def _update_output(call: Call, handle: int, kind: str, data: int, length: int, output: int, output_length: int) -> None:
    work = _work(call.session(handle), kind, parts=True)
    stream: Transformation = work.stream
    call.noted["length"] = length
    work.in_parts = True
    if not _room(call, "part", output, output_length, stream.size(length)):
        return
    _authorised(work)
    call.memory.output(output, output_length, stream.update(call.memory.read(data, length)))


def _final(call: Call, handle: int, kind: str, output: int, output_length: int) -> None:
    session = call.session(handle)
    work = _work(session, kind, parts=True)
    stream: Transformation = work.stream
    if not _room(call, kind, output, output_length, stream.last()):
        return
    _authorised(work)
    if work.result is None:
        work.result = _leaving(session, kind, stream.finish())
    call.memory.output(output, output_length, work.result)
    session.operations.pop(kind, None)


# --- digests ---------------------------------------------------------------------------------------------------------


def C_DigestInit(call: Call, session: int, mechanism: int) -> None:
    found = _idle(call, session, "digest")
    asked = call.memory.mechanism(mechanism)
    capability = capability_of(found, asked.type, "digest")
    call.noted["mechanism"] = capability.name
    assert capability.digest
    begin = partial(capability.digest, capability.parameter(asked, call.memory))
    found.operations["digest"] = Work(capability, begin, None, always_authenticate=False)


def C_Digest(call: Call, session: int, data: int, length: int, digest: int, digest_length: int) -> None:
    _single(call, session, "digest", data, length, digest, digest_length)


def C_DigestUpdate(call: Call, session: int, part: int, length: int) -> None:
    _update(call, session, "digest", part, length)


def C_DigestKey(call: Call, session: int, key: int) -> None:
    """The value of a secret key, though it may not be read."""
    found = call.session(session)
    work = _work(found, "digest", parts=True)
    item = found.token.objects.get(found, key, CKR.KEY_HANDLE_INVALID)
    if item.kind != CKO.SECRET_KEY:
        raise Refused(CKR.KEY_INDIGESTIBLE)
    work.in_parts = True
    work.stream.update(item.key)


def C_DigestFinal(call: Call, session: int, digest: int, digest_length: int) -> None:
    _final(call, session, "digest", digest, digest_length)


# --- signatures and MACs ---------------------------------------------------------------------------------------------


def C_SignInit(call: Call, session: int, mechanism: int, key: int) -> None:
    _init(call, session, "sign", mechanism, key)


def C_Sign(call: Call, session: int, data: int, data_length: int, signature: int, signature_length: int) -> None:
    _single(call, session, "sign", data, data_length, signature, signature_length)


def C_SignUpdate(call: Call, session: int, part: int, length: int) -> None:
    _update(call, session, "sign", part, length)


def C_SignFinal(call: Call, session: int, signature: int, signature_length: int) -> None:
    _final(call, session, "sign", signature, signature_length)


def C_VerifyInit(call: Call, session: int, mechanism: int, key: int) -> None:
    _init(call, session, "verify", mechanism, key)


def C_Verify(call: Call, session: int, data: int, data_length: int, signature: int, signature_length: int) -> None:
    found = call.session(session)
    stream: Verification = _work(found, "verify", parts=False).stream
    stream.update(call.memory.read(data, data_length))
    stream.finish(call.memory.read(signature, signature_length))
    found.operations.pop("verify", None)


def C_VerifyUpdate(call: Call, session: int, part: int, length: int) -> None:
    _update(call, session, "verify", part, length)


def C_VerifyFinal(call: Call, session: int, signature: int, signature_length: int) -> None:
    found = call.session(session)
    _work(found, "verify", parts=True).stream.finish(call.memory.read(signature, signature_length))
    found.operations.pop("verify", None)


# --- encryption ------------------------------------------------------------------------------------------------------


def C_EncryptInit(call: Call, session: int, mechanism: int, key: int) -> None:
    _init(call, session, "encrypt", mechanism, key)


def C_Encrypt(call: Call, session: int, data: int, length: int, output: int, output_length: int) -> None:
    _single(call, session, "encrypt", data, length, output, output_length)


def C_EncryptUpdate(call: Call, session: int, part: int, length: int, output: int, output_length: int) -> None:
    _update_output(call, session, "encrypt", part, length, output, output_length)


def C_EncryptFinal(call: Call, session: int, output: int, output_length: int) -> None:
    _final(call, session, "encrypt", output, output_length)


def C_DecryptInit(call: Call, session: int, mechanism: int, key: int) -> None:
    _init(call, session, "decrypt", mechanism, key)


def C_Decrypt(call: Call, session: int, data: int, length: int, output: int, output_length: int) -> None:
    _single(call, session, "decrypt", data, length, output, output_length)


def C_DecryptUpdate(call: Call, session: int, part: int, length: int, output: int, output_length: int) -> None:
    _update_output(call, session, "decrypt", part, length, output, output_length)


def C_DecryptFinal(call: Call, session: int, output: int, output_length: int) -> None:
    _final(call, session, "decrypt", output, output_length)
