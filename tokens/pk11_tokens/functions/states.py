"""Operations under way, saved and taken up again elsewhere (PKCS #11 2.40 section 5.6).

A token does this if a mechanism of it can be saved (`Capability.saves`).  What the host gets is where the work stands, without
the key, which it names again, and sealed with it: a host cannot make a state up, so it chooses no initialization vector
this way either.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha1
from hmac import digest
from struct import Struct

from cryptography.hazmat.primitives.constant_time import bytes_eq

from ..abi import CKA, CKR, Refused
from ..host import Session
from ..mechanisms import offered
from . import Call
from .operations import Work, key_for

_HEAD = Struct("@LBBB")  # mechanism, place in _KINDS, whether it is done in parts, bytes of the register
_KINDS = ("encrypt", "decrypt")
_NAME, _SEAL = 4, 12  # bytes that tell whether it is the same key, and that nobody changed anything


def C_GetOperationState(call: Call, session: int, state: int, length: int) -> None:
    found = _session(call, session)
    works = {kind: work for kind, work in found.operations.items() if isinstance(work, Work)}
    if not works:
        raise Refused(CKR.OPERATION_NOT_INITIALIZED)
    kind, work = next(iter(works.items()))
    if len(works) > 1 or not work.capability.saves:
        raise Refused(CKR.STATE_UNSAVEABLE)
    register, pending = work.stream.state()
    body = _HEAD.pack(work.capability.mechanism, _KINDS.index(kind), work.in_parts, len(register)) + register + pending
    call.memory.output(state, length, _mac(work.key, b"", _NAME) + body + _mac(work.key, body, _SEAL))


def C_SetOperationState(call: Call, session: int, state: int, length: int, key: int, authentication_key: int) -> None:
    """In place of what the session was doing."""
    found = _session(call, session)
    data = call.memory.read(state, length)
    name, body, seal = data[:_NAME], data[_NAME:-_SEAL], data[-_SEAL:]
    if len(data) < _NAME + _HEAD.size + _SEAL:
        raise Refused(CKR.SAVED_STATE_INVALID)
    number, place, in_parts, size = _HEAD.unpack_from(body)
    capability = offered(found.token.personality.mechanisms).get(number)
    if capability is None or not capability.saves or place >= len(_KINDS):
        raise Refused(CKR.SAVED_STATE_INVALID)
    if authentication_key:
        raise Refused(CKR.KEY_NOT_NEEDED)
    if not key:
        raise Refused(CKR.KEY_NEEDED)
    kind = _KINDS[place]
    item = key_for(found, capability, kind, key)
    if not bytes_eq(name, _mac(item.key, b"", _NAME)):
        raise Refused(CKR.KEY_CHANGED)
    if not bytes_eq(seal, _mac(item.key, body, _SEAL)):
        raise Refused(CKR.SAVED_STATE_INVALID)
    call.noted.update(mechanism=capability.name, object=item.label)
    register, pending = body[_HEAD.size :][:size], body[_HEAD.size + size :]
    begin = partial(getattr(capability, kind), item.key, register)
    work = Work(capability, begin, item.key, always_authenticate=item.is_true(CKA.ALWAYS_AUTHENTICATE))
    work.in_parts = bool(in_parts)
    work.stream.update(pending)  # less than a unit
    for other in [kind for kind, operation in found.operations.items() if isinstance(operation, Work)]:
        del found.operations[other]
    found.operations[kind] = work


def _session(call: Call, handle: int) -> Session:
    """Raises Refused(CKR_FUNCTION_NOT_SUPPORTED) where the token saves nothing."""
    session = call.session(handle)
    if not any(capability.saves for capability in offered(session.token.personality.mechanisms).values()):
        raise Refused(CKR.FUNCTION_NOT_SUPPORTED)
    return session


def _mac(key: bytes, data: bytes, size: int) -> bytes:
    return digest(key, data, sha1)[:size]
