"""`nss-pk11 slots`: what is there to work with, and what comes and goes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING

import click

from .options import database_option, json_option, module_option, open_manager, pin_option, token_option
from .output import Text, emit_json, note

if TYPE_CHECKING:
    from ..pins import PinProvider
    from ..slots import SlotEvent, SlotManager

_STYLES = {"present": "", "inserted": "green", "removed": "red"}


@click.command(short_help="Show modules, slots, tokens, mechanisms, keys and certificates.")
@module_option
@database_option()
@token_option()
@pin_option
@click.option("--watch", is_flag=True, help="Show the tokens there are, then each that comes or goes, until Ctrl-C.")
@json_option
def slots(
    modules: tuple[str, ...], database: str | None, token: str | None, pin: PinProvider | None, watch: bool, as_json: bool
) -> None:
    """Show modules, slots, tokens, mechanisms, keys and certificates.

    Private keys usually show only after login; this logs in only if --pin is given.

    \b
    Examples:
      nss-pk11 slots --module /usr/lib/softhsm/libsofthsm2.so --token web --pin prompt
      nss-pk11 slots -d ~/.pki/nssdb
      nss-pk11 slots --watch --json
    """
    from .records import module_record, show_module
    from .select import find_token, log_in_all, pin_for

    if watch:
        if pin is not None:
            raise click.UsageError("--watch logs in to nothing: leave --pin out")
        watch_tokens(modules, token, as_json, database)
        return
    with open_manager(modules, token, pin=pin, database=database, roots=True) as manager:
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


# --- watching --------------------------------------------------------------------------------------------------------


def watch_tokens(modules: tuple[str, ...], token: str | None, as_json: bool, database: str | None = None) -> None:
    """A line for each event until SIGINT or SIGTERM.  Raises TokenError for a module that does not load."""
    show = _show_json if as_json else _shower()
    happened: SimpleQueue[SlotEvent | None] = SimpleQueue()  # which a signal handler may write to, unlike a Queue
    with _ending(lambda: happened.put(None)), open_manager(modules, token, database=database) as manager:
        concerns = _concern(manager, token)
        with manager.watch(happened.put):
            while (event := happened.get()) is not None:
                if concerns(event):
                    show(event, datetime.now(UTC))


@contextmanager
def _ending(end: Callable[[], None]) -> Iterator[None]:
    """Call `end` at Ctrl-C and SIGTERM: whoever watches ends so, and has not failed."""
    before = {number: signal.signal(number, lambda *_: end()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _concern(manager: SlotManager, name: str | None) -> Callable[[SlotEvent], bool]:
    """Whether an event is about the token of that label or URI, whose module is loaded; without a name every event is."""
    from ..slots import Uri, is_uri

    if name is None:
        return lambda event: True
    uri = Uri.parse(name) if is_uri(name) else Uri(token=name)
    if uri.module_path:
        manager.load(uri.module_path)
    return lambda event: (
        not uri.vendor  # not known, so nothing matches (RFC 7512 section 2.5)
        and uri.matches_module(event.slot.module)
        and uri.matches_slot(event.slot)
        and uri.matches_token(event.token)
    )


def _show_json(event: SlotEvent, time: datetime) -> None:
    token = event.token
    record = {
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": event.kind,
        "token": {"label": token.label, "serial": token.serial, "manufacturer": token.manufacturer, "model": token.model},
        "slot": {"id": event.slot.id, "description": event.slot.description},
        "module": event.slot.module.path,
    }
    click.echo(json.dumps(record, ensure_ascii=False))


def _shower() -> Callable[[SlotEvent, datetime], None]:
    """What prints events as text."""
    text = Text()

    def show(event: SlotEvent, time: datetime) -> None:
        token, slot = event.token, event.slot
        about = (
            token.label or "(not initialised)",
            f"serial {token.serial}",
            f"slot {slot.id}",
            slot.description,
            slot.module.path,
        )
        line = f"{event.kind:<10}{' · '.join(about)}"
        # The names are the token's: none of them is to begin another line or to paint the terminal.
        printable = "".join(character if character.isprintable() else "\ufffd" for character in line)
        text.line(f"{time.astimezone():%H:%M:%S}", printable, _STYLES[event.kind], level=0)

    return show
