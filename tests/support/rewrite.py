"""Rewrites handshake messages between two drivers while they still travel in the clear, and says how that must end."""

from __future__ import annotations

from collections.abc import Callable

from nss_pk11.errors import Alert

from .drive import Driver

Edit = Callable[[bytes], bytes]  # a handshake message to what is sent instead, b"" for nothing


def records(flight: bytes) -> list[bytes]:
    found = []
    while flight:
        end = 5 + int.from_bytes(flight[3:5], "big")
        found.append(flight[:end])
        flight = flight[end:]
    return found


def rewrite(flight: bytes, kind: int, edit: Edit) -> bytes:
    """`flight` with its cleartext messages of `kind` put through `edit`."""
    out, clear = b"", True
    for record in records(flight):
        if record[0] == 20:
            clear = False
        if record[0] != 22 or not clear:
            out += record
            continue
        rest, messages = record[5:], b""
        while rest:
            end = 4 + int.from_bytes(rest[1:4], "big")
            messages += edit(rest[:end]) if rest[0] == kind else rest[:end]
            rest = rest[end:]
        if messages:
            out += record[:3] + len(messages).to_bytes(2, "big") + messages
    return out


def run(server: Driver, client: Driver, kind: int, edit: Edit, by: str) -> None:
    """A whole handshake in which messages of `kind` from `by` are rewritten."""
    while True:
        to_server, to_client = client.give(), server.give()
        if not to_server and not to_client:
            return
        if to_server:
            server.take(rewrite(to_server, kind, edit) if by == "client" else to_server)
        if to_client:
            client.take(rewrite(to_client, kind, edit) if by == "server" else to_client)


def refusal(driver: Driver, other: Driver, alert: Alert) -> None:
    assert driver.error is not None, "nobody noticed"
    assert other.alert == alert, f"{driver.error!r} sent {other.error!r}"
    assert not driver.engine.handshake_complete
