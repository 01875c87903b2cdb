"""Making keys: generated, derived, wrapped and unwrapped (PKCS #11 2.40 section 5.13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from .. import keytypes
from ..abi import CKA, CKK, CKO, CKR, ULONG, Refused
from ..attributes import FALSE, TRUE, Purpose, complete, distinct
from ..host import Session
from ..keytypes import number
from ..mechanisms import Capability, Transformation, sizes
from ..memory import Mechanism
from ..objects import Object, completed_key, kept, made_here
from . import Call
from .objects import check_place, keep, with_habits
from .operations import KeyErrors, capability_of, key_for

_WRAPPING = KeyErrors(CKR.WRAPPING_KEY_HANDLE_INVALID, CKR.WRAPPING_KEY_TYPE_INCONSISTENT)
_UNWRAPPING = KeyErrors(CKR.UNWRAPPING_KEY_HANDLE_INVALID, CKR.UNWRAPPING_KEY_TYPE_INCONSISTENT)
# What is wrong with encrypted data is, when it is a key, called otherwise.
_WRAPPED_ERRORS = {
    CKR.ENCRYPTED_DATA_INVALID: CKR.WRAPPED_KEY_INVALID,
    CKR.ENCRYPTED_DATA_LEN_RANGE: CKR.WRAPPED_KEY_LEN_RANGE,
}


def _begin(call: Call, handle: int, mechanism_pointer: int, use: str) -> tuple[Session, Mechanism, Capability]:
    session = call.session(handle)
    mechanism = call.memory.mechanism(mechanism_pointer)
    capability = capability_of(session, mechanism.type, use)
    call.noted["mechanism"] = capability.name
    return session, mechanism, capability


def _label(call: Call, values: Mapping[int, bytes]) -> None:
    call.noted["object"] = values[CKA.LABEL].decode("utf-8", "replace")


def _check_length(kind: int, length: int, sizes: tuple[int, int]) -> None:
    if not sizes[0] <= length <= sizes[1] or length not in keytypes.SECRET_SIZES.get(kind, (length,)):
        raise Refused(CKR.KEY_SIZE_RANGE)


# --- generated -------------------------------------------------------------------------------------------------------


def C_GenerateKey(call: Call, session: int, mechanism: int, template: int, count: int, handle: int) -> None:
    """A secret key, CKA_VALUE_LEN bytes long."""
    found, asked, capability = _begin(call, session, mechanism, "generate")
    capability.parameter(asked, call.memory)
    kind = capability.key_types[0]
    fixed = {CKA.CLASS: number(CKO.SECRET_KEY), CKA.KEY_TYPE: number(kind), **made_here(capability.mechanism)}
    fixed |= capability.fixed
    values = complete(call.memory.template(template, count), Purpose.GENERATE, fixed)
    _label(call, values)
    check_place(found, values)
    (length,) = ULONG.unpack(values[CKA.VALUE_LEN])
    _check_length(kind, length, capability.sizes)
    assert capability.generate
    values[CKA.VALUE] = capability.generate(length)
    call.memory.set_ulong(handle, keep(found, kept(values)))


def C_GenerateKeyPair(
    call: Call,
    session: int,
    mechanism: int,
    public_template: int,
    public_count: int,
    private_template: int,
    private_count: int,
    public_handle: int,
    private_handle: int,
) -> None:
    """Both halves have the key type of the mechanism; what kind of key it is, the public template says."""
    found, asked, capability = _begin(call, session, mechanism, "generate_pair")
    capability.parameter(asked, call.memory)
    kind = capability.key_types[0]
    fixed = {CKA.KEY_TYPE: number(kind), **made_here(capability.mechanism)}
    given = distinct(call.memory.template(private_template, private_count))
    public = complete(
        call.memory.template(public_template, public_count),
        Purpose.GENERATE,
        fixed | {CKA.CLASS: number(CKO.PUBLIC_KEY)},
    )
    private = complete(given.items(), Purpose.GENERATE, fixed | {CKA.CLASS: number(CKO.PRIVATE_KEY)} | capability.fixed)
    _label(call, private)
    check_place(found, public)
    check_place(found, private)
    assert capability.generate_pair
    key = capability.generate_pair(public)
    least, most = sizes(found.token.personality, capability)
    if not least <= (keytypes.bits(key) or least) <= most:
        raise Refused(CKR.KEY_SIZE_RANGE)
    row = keytypes.KEY_TYPES[kind]
    # Curves have several names: both halves bear the one that was asked for.
    both = {CKA.PUBLIC_KEY_INFO: keytypes.public_key_info(key.public_key())}
    both |= {CKA.EC_PARAMS: public[CKA.EC_PARAMS]} if CKA.EC_PARAMS in public else {}
    private = with_habits(found, given, kept(private | row.private(key) | both))
    call.memory.set_ulong(public_handle, keep(found, public | row.public(key.public_key()) | both))
    call.memory.set_ulong(private_handle, keep(found, private))


# --- derived ---------------------------------------------------------------------------------------------------------


def C_DeriveKey(call: Call, session: int, mechanism: int, base: int, template: int, count: int, handle: int) -> None:
    """A secret key; without CKA_VALUE_LEN as long as the mechanism gives it."""
    found, asked, capability = _begin(call, session, mechanism, "derive")
    key = key_for(found, capability, "derive", base)
    parameter = capability.parameter(asked, call.memory)
    if capability.first_phase and capability.first_phase(key.key, parameter):
        return
    given = distinct(call.memory.template(template, count))
    fixed: dict[int, bytes] = {
        CKA.CLASS: number(CKO.SECRET_KEY),
        CKA.KEY_TYPE: given.get(CKA.KEY_TYPE, number(CKK.GENERIC_SECRET)),
        **capability.fixed,
    }
    values = complete(given.items(), Purpose.DERIVE, fixed)
    _label(call, values)
    check_place(found, values)
    assert capability.derive
    length = ULONG.unpack(given[CKA.VALUE_LEN])[0] if CKA.VALUE_LEN in given else None
    secret = capability.derive(key.key, parameter, length)
    if length not in (None, len(secret)):
        raise Refused(CKR.KEY_SIZE_RANGE)
    values[CKA.VALUE] = secret
    call.memory.set_ulong(handle, keep(found, _descended(completed_key(values), key)))


def _descended(values: dict[int, bytes], base: Object) -> dict[int, bytes]:
    """A derived key was always what it is only if its base was so too (section 4.9)."""
    now = kept(values)
    always = {
        attribute: TRUE if now[attribute] == TRUE and base.is_true(attribute) else FALSE
        for attribute in (CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE)
    }
    return now | always


# --- wrapped ---------------------------------------------------------------------------------------------------------


def C_WrapKey(call: Call, session: int, mechanism: int, wrapping: int, key: int, output: int, output_length: int) -> None:
    """A secret key as its value, a private key as PKCS #8."""
    found, asked, capability = _begin(call, session, mechanism, "wrap")
    wrapper = key_for(found, capability, "wrap", wrapping, _WRAPPING)
    item = found.token.objects.get(found, key, CKR.KEY_HANDLE_INVALID)
    call.noted["object"] = item.label
    plain = _plain(item, wrapper)
    assert capability.encrypt
    stream: Transformation = capability.encrypt(wrapper.key, capability.parameter(asked, call.memory))
    if not output:
        call.memory.set_ulong(output_length, stream.size(len(plain)) + stream.last(len(plain)))
        return
    try:
        wrapped = stream.update(plain) + stream.finish()
    except Refused as refused:
        raise Refused(CKR.KEY_SIZE_RANGE if refused.rv == CKR.DATA_LEN_RANGE else refused.rv) from None
    call.memory.output(output, output_length, wrapped)


def _plain(item: Object, wrapper: Object) -> bytes:
    if item.kind not in (CKO.SECRET_KEY, CKO.PRIVATE_KEY):
        raise Refused(CKR.KEY_NOT_WRAPPABLE)
    if not item.is_true(CKA.EXTRACTABLE):
        raise Refused(CKR.KEY_UNEXTRACTABLE)
    if item.is_true(CKA.WRAP_WITH_TRUSTED) and not wrapper.is_true(CKA.TRUSTED):
        raise Refused(CKR.KEY_NOT_WRAPPABLE)
    key: Any = item.key
    if isinstance(key, bytes):
        return key
    return bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def C_UnwrapKey(
    call: Call,
    session: int,
    mechanism: int,
    unwrapping: int,
    wrapped: int,
    length: int,
    template: int,
    count: int,
    handle: int,
) -> None:
    """What the template says it is.  An unwrapped key was known elsewhere: never local, never always sensitive."""
    found, asked, capability = _begin(call, session, mechanism, "unwrap")
    wrapper = key_for(found, capability, "unwrap", unwrapping, _UNWRAPPING)
    given = distinct(call.memory.template(template, count))
    values = complete(given.items(), Purpose.UNWRAP, capability.fixed)
    _label(call, values)
    check_place(found, values)
    assert capability.decrypt
    stream: Transformation = capability.decrypt(wrapper.key, capability.parameter(asked, call.memory))
    try:
        plain = stream.update(call.memory.read(wrapped, length)) + stream.finish()
    except Refused as refused:
        raise Refused(_WRAPPED_ERRORS.get(CKR(refused.rv), refused.rv)) from None
    values = completed_key(_unwrapped(values, plain))
    call.memory.set_ulong(handle, keep(found, with_habits(found, given, values)))


def _unwrapped(values: dict[int, bytes], plain: bytes) -> dict[int, bytes]:
    """Raises Refused: CKR_WRAPPED_KEY_INVALID, CKR_TEMPLATE_INCONSISTENT for a public key."""
    kind = ULONG.unpack(values[CKA.CLASS])[0]
    if kind == CKO.SECRET_KEY:
        return values | {CKA.VALUE: plain}
    if kind != CKO.PRIVATE_KEY:
        raise Refused(CKR.TEMPLATE_INCONSISTENT)
    try:
        key: Any = load_der_private_key(plain, None)
        key_type = keytypes.type_of(key)
    except (ValueError, TypeError):
        raise Refused(CKR.WRAPPED_KEY_INVALID) from None
    if values[CKA.KEY_TYPE] != number(key_type):
        raise Refused(CKR.WRAPPED_KEY_INVALID)
    return values | keytypes.KEY_TYPES[key_type].private(key)
