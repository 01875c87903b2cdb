"""Slots and tokens (PKCS #11 2.40 section 5.5): what readers there are, what is in them, and what a token can do."""

from __future__ import annotations

from time import gmtime, strftime

from ..abi import (
    CKF,
    CKR,
    EFFECTIVELY_INFINITE,
    MECHANISM_INFO,
    SLOT_INFO,
    TOKEN_INFO,
    ULONG,
    UNAVAILABLE_INFORMATION,
    Refused,
    padded,
)
from ..machine import Machine, Pin, Reader, Token
from ..mechanisms import offered, sizes
from ..mechanisms.fortezza import CLOCK
from . import Call
from .pins import new_pin, pin_from

HARDWARE_VERSION = (1, 0)
FIRMWARE_VERSION = (1, 0)
LOOK_FOR_HOST = 0.5  # seconds between looks whether a host that waits for an event is still there

# How the counter of a PIN is told: what is true of it, and the flags of C_GetTokenInfo for the user and for the officer.
_PIN_FLAGS = (
    ("low", CKF.USER_PIN_COUNT_LOW, CKF.SO_PIN_COUNT_LOW),
    ("final", CKF.USER_PIN_FINAL_TRY, CKF.SO_PIN_FINAL_TRY),
    ("locked", CKF.USER_PIN_LOCKED, CKF.SO_PIN_LOCKED),
)


def reader_of(machine: Machine, slot: int) -> Reader:
    """The reader with this slot id.  Raises Refused(CKR_SLOT_ID_INVALID)."""
    reader = machine.reader(slot)
    if reader is None:
        raise Refused(CKR.SLOT_ID_INVALID)
    return reader


def token_in(machine: Machine, slot: int) -> tuple[Reader, Token]:
    """The reader, and what is in it.  Raises Refused: CKR_SLOT_ID_INVALID, CKR_TOKEN_NOT_PRESENT."""
    reader = reader_of(machine, slot)
    token = reader.token
    if token is None:
        raise Refused(CKR.TOKEN_NOT_PRESENT)
    return reader, token


def _numbers(call: Call, pointer: int, count_pointer: int, numbers: list[int]) -> None:
    """An array of CK_ULONG as section 5.2 says: like any output, but counted in members."""
    if not pointer:
        call.memory.set_ulong(count_pointer, len(numbers))
        return
    room = call.memory.ulong(count_pointer)
    call.memory.set_ulong(count_pointer, len(numbers))
    if room < len(numbers):
        raise Refused(CKR.BUFFER_TOO_SMALL)
    call.memory.write(pointer, b"".join(map(ULONG.pack, numbers)))


def C_GetSlotList(call: Call, token_present: int, slots: int, count: int) -> None:
    """The readers there are now; `token_present`: only those with a token."""
    readers = [reader.id for reader in call.machine.readers if reader.token is not None or not token_present]
    _numbers(call, slots, count, readers)


def C_GetSlotInfo(call: Call, slot: int, info: int) -> None:
    """CK_SLOT_INFO."""
    reader = reader_of(call.machine, slot)
    flags = (
        CKF.TOKEN_PRESENT * (reader.token is not None) | CKF.REMOVABLE_DEVICE * reader.removable | CKF.HW_SLOT * reader.hardware
    )
    names = padded(reader.description, 64), padded("nss-pk11", 32)
    call.memory.write(info, SLOT_INFO.pack(*names, flags, *HARDWARE_VERSION, *FIRMWARE_VERSION))


def _token_flags(token: Token) -> int:
    flags = (
        CKF.RNG
        | CKF.LOGIN_REQUIRED * token.login_required
        | CKF.CLOCK_ON_TOKEN * ("CKM_FORTEZZA_TIMESTAMP" in token.personality.mechanisms)
        | CKF.USER_PIN_INITIALIZED * token.user_pin.known
        | CKF.PROTECTED_AUTHENTICATION_PATH * token.personality.protected_path
        | CKF.TOKEN_INITIALIZED * token.initialised
    )
    for state, user, officer in _PIN_FLAGS:
        flags |= user * getattr(token.user_pin, state) | officer * getattr(token.so_pin, state)
    return flags


def C_GetTokenInfo(call: Call, slot: int, info: int) -> None:
    """CK_TOKEN_INFO; the sessions counted are this host's."""
    _, token = token_in(call.machine, slot)
    sessions = call.host.sessions_with(token)
    most = token.personality.max_sessions or EFFECTIVELY_INFINITE
    shortest, longest = token.personality.pin_lengths
    texts = ((token.label, 32), (token.manufacturer, 32), (token.model, 16), (token.serial, 16))
    call.memory.write(
        info,
        TOKEN_INFO.pack(
            *(padded(text, length) for text, length in texts),
            _token_flags(token),
            *(most, len(sessions), most, sum(session.read_write for session in sessions)),
            *(longest, shortest),
            *4 * (UNAVAILABLE_INFORMATION,),  # memory, public and private
            *(*HARDWARE_VERSION, *FIRMWARE_VERSION),
            strftime(CLOCK, gmtime()).encode(),
        ),
    )


def C_GetMechanismList(call: Call, slot: int, mechanisms: int, count: int) -> None:
    """What the token offers, in the order of its personality."""
    _, token = token_in(call.machine, slot)
    _numbers(call, mechanisms, count, list(offered(token.personality.mechanisms)))


def C_GetMechanismInfo(call: Call, slot: int, mechanism: int, info: int) -> None:
    """CK_MECHANISM_INFO."""
    _, token = token_in(call.machine, slot)
    capability = offered(token.personality.mechanisms).get(mechanism)
    if capability is None:
        raise Refused(CKR.MECHANISM_INVALID)
    flags = capability.flags | CKF.HW * token.personality.hardware
    call.memory.write(info, MECHANISM_INFO.pack(*sizes(token.personality, capability), flags))


def C_InitToken(call: Call, slot: int, pin: int, pin_length: int, label: int) -> None:
    """Everything on the token is gone but the security officer's PIN, which has to be given, or is set on a token never used."""
    _, token = token_in(call.machine, slot)
    name = call.memory.read(label, 32)
    if call.machine.sessions_with(token):
        raise Refused(CKR.SESSION_EXISTS)
    given = pin_from(call, token, pin, pin_length)
    with token.lock:
        if token_in(call.machine, slot)[1] is not token:
            raise Refused(CKR.DEVICE_REMOVED)
        _officer(token.so_pin, given, token)
        if call.machine.sessions_with(token):
            raise Refused(CKR.SESSION_EXISTS)
        token.objects.clear()
        token.user_pin.set(None)
        token.label = name.decode(errors="replace").rstrip()
        token.initialised = token.login_required = True


def _officer(so_pin: Pin, given: bytes, token: Token) -> None:
    if not so_pin.known:
        so_pin.set(new_pin(token, given))
        return
    result = so_pin.verify(given)
    if result != CKR.OK:
        raise Refused(result)


def C_WaitForSlotEvent(call: Call, flags: int, slot: int, reserved: int) -> None:
    """The next slot in which a token came or went.  Blocks until C_Finalize at the latest, or not at all (CKF_DONT_BLOCK)."""
    if reserved or not slot:
        raise Refused(CKR.ARGUMENTS_BAD)
    if any(token.personality.slot_events == "unsupported" for token in call.machine.tokens.values()):
        raise Refused(CKR.FUNCTION_NOT_SUPPORTED)
    host = call.host
    with call.machine.changed:
        life = host.life
        while not host.events:
            if flags & CKF.DONT_BLOCK:
                raise Refused(CKR.NO_EVENT)
            call.machine.changed.wait(LOOK_FOR_HOST)
            if host.life != life:
                raise Refused(CKR.CRYPTOKI_NOT_INITIALIZED)
            call.memory.check_host()
        number = next(iter(host.events))
        del host.events[number]
    call.memory.set_ulong(slot, number)
