"""`nss-pk11 slots`: what is there to work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import json_option, module_option, open_manager, pin_option, token_option
from .output import Text, emit_json, note

if TYPE_CHECKING:
    from ..pins import PinProvider


@click.command(short_help="Show modules, slots, tokens, mechanisms, keys and certificates.")
@module_option
@token_option()
@pin_option
@json_option
def slots(modules: tuple[str, ...], token: str | None, pin: PinProvider | None, as_json: bool) -> None:
    """Show modules, slots, tokens, mechanisms, keys and certificates.

    Private keys usually show only after login; this logs in only if --pin is given.

    \b
    Example:
      nss-pk11 slots --module /usr/lib/softhsm/libsofthsm2.so --token web --pin prompt
    """
    from .records import module_record, show_module
    from .select import find_token, log_in_all, pin_for

    with open_manager(modules, token, pin=pin) as manager:
        chosen = [find_token(manager, token)] if token else manager.tokens()
        hidden = log_in_all(chosen, pin_for(token, pin))
        records = [module_record(module, chosen if token else None) for module in manager.modules]
        records = [record for record in records if record["slots"] or not token]
    if as_json:
        emit_json({"modules": records})
        return
    text = Text()
    for i, record in enumerate(records):
        if i:
            text.blank()
        show_module(text, record)
    if hidden:
        note(f"private keys may be hidden on {', '.join(hidden)}; --pin SOURCE logs in")
