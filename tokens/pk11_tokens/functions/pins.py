"""PINs as they come to a token: from the host's memory, or from the keypad of the reader (PKCS #11 2.40 section 3.7)."""

from __future__ import annotations

from ..abi import CKR, Refused
from ..machine import Token
from . import Call


def pin_from(call: Call, token: Token, pointer: int, length: int) -> bytes:
    """A PIN.  May take as long as a person takes: hold no lock.

    Raises Refused: CKR_ARGUMENTS_BAD for a PIN from the host where there is a keypad, or for none where there is not;
    CKR_FUNCTION_CANCELED, CKR_PIN_LEN_RANGE.
    """
    if token.personality.protected_path:
        if pointer:
            raise Refused(CKR.ARGUMENTS_BAD)
        typed = token.behaviour.person()
        if typed is None:
            raise Refused(CKR.FUNCTION_CANCELED)
        return typed
    if not pointer:
        raise Refused(CKR.ARGUMENTS_BAD)
    shortest, longest = token.personality.pin_lengths
    if not shortest <= length <= longest:
        raise Refused(CKR.PIN_LEN_RANGE)
    return call.memory.read(pointer, length)


def new_pin(token: Token, pin: bytes) -> bytes:
    """The same, where it may become the PIN of the token.  Raises Refused(CKR_PIN_LEN_RANGE)."""
    shortest, longest = token.personality.pin_lengths
    if not shortest <= len(pin) <= longest:
        raise Refused(CKR.PIN_LEN_RANGE)
    return pin
