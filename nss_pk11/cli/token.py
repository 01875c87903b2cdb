"""`nss-pk11 token`: bring tokens to life."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..errors import Ambiguous, ConfigurationError, NotFound, PinCancelled, PinError
from .options import module_option, open_manager, pin_option, pin_provider, yes_option
from .output import confirm, note

if TYPE_CHECKING:
    from ..pins import PinProvider
    from ..slots import Slot, SlotManager, Token


@click.group(short_help="Initialise tokens.")
def token() -> None:
    """Initialise tokens."""


@token.command(short_help="Initialise a token and set its PINs.")
@module_option
@click.option("--label", required=True, help="The token's new label, at most 32 bytes.")
@click.option("--slot", "slot_id", type=int, metavar="ID", help="The slot; see `nss-pk11 slots`. [default: the blank token]")
@click.option("--so-pin", callback=pin_provider, metavar="SOURCE", help="The security officer's PIN. [default: prompt]")
@pin_option
@yes_option
def init(
    modules: tuple[str, ...], label: str, slot_id: int | None, so_pin: PinProvider | None, pin: PinProvider | None, yes: bool
) -> None:
    """Initialise a token and set its PINs.

    A token that is in use is erased, keys and all: that needs --slot and a confirmation, and the security officer's
    present PIN.

    \b
    Example:
      nss-pk11 token init --module /usr/lib/softhsm/libsofthsm2.so --label web --so-pin env:SO_PIN --pin env:PIN
    """
    if len(label.encode()) > 32:  # CK_TOKEN_INFO.label
        raise ConfigurationError(f"a token's label has at most 32 bytes, this one has {len(label.encode())}")
    with open_manager(modules) as manager:
        slot = _choose_slot(manager, slot_id)
        present = slot.token
        assert present is not None  # _choose_slot looks at nothing else
        in_use = "CKF_TOKEN_INITIALIZED" in present.flags
        if in_use:
            confirm(f"Erase token {present.info.label!r} in slot {slot.id} with all its keys?", yes=yes)
            _spare_the_last_try(present, so_pin)
        so = _new_pin(so_pin, "security officer's PIN", twice=not in_use)
        user = _new_pin(pin, "user PIN", twice=True)
        present.initialise(label, so, user)
        note(f"token {label!r} is ready")


def _choose_slot(manager: SlotManager, slot_id: int | None) -> Slot:
    """The slot with `slot_id`, or the first with a blank token.  Raises NotFound, Ambiguous."""
    slots = [slot for slot in manager.slots() if slot.token is not None and slot.module.path]  # the internal one has none
    if slot_id is None:
        blank = [slot for slot in slots if slot.token and "CKF_TOKEN_INITIALIZED" not in slot.token.flags]
        if not blank:
            raise NotFound("no blank token; --slot ID erases one that is in use")
        return blank[0]
    found = [slot for slot in slots if slot.id == slot_id]
    if not found:
        raise NotFound(f"no token in slot {slot_id}; present: {', '.join(str(slot.id) for slot in slots) or 'none'}")
    if len(found) > 1:
        raise Ambiguous(
            f"several modules have a slot {slot_id}: {', '.join(slot.module.path for slot in found)}; name one with --module"
        )
    return found[0]


def _spare_the_last_try(token: Token, so_pin: PinProvider | None) -> None:
    """Only a person may risk the last try before the security officer is locked out.  Raises PinError."""
    if "CKF_SO_PIN_FINAL_TRY" in token.flags and so_pin is not None and not so_pin.person:
        raise PinError(f"token {token.info.label!r}: one more wrong PIN locks the security officer out: only a person may try")


def _new_pin(source: PinProvider | None, what: str, *, twice: bool) -> str:
    """A PIN from `source`, or from the terminal, asked `twice` where a slip would lock the owner out."""
    if source is None or source.person:
        if not sys.stdin.isatty():
            raise click.UsageError(f"there is no terminal to ask for the {what} on: give its source (--so-pin, --pin)")
        return str(click.prompt(what, hide_input=True, confirmation_prompt=twice, err=True))
    from ..pins import PinRequest

    pin = source(PinRequest(token=what))
    if pin is None:
        raise PinCancelled(f"no {what} was given")
    return pin
