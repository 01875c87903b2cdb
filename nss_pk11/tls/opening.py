"""What a client's first flight offered; whichever version the server picks goes on from here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .codepoints import Group
from .groups import KeyShare
from .messages.hello import ClientHello
from .session import Session
from .transcript import Transcript

if TYPE_CHECKING:
    from .tls13.psk import Offer


@dataclass
class Opening:
    """`shares`: our TLS 1.3 key shares by group; `offer`: the TLS 1.3 PSK; `session`: the TLS 1.2 session asked for;
    `transcript` holds the ClientHello."""

    hello: ClientHello
    transcript: Transcript
    shares: dict[Group, KeyShare] = field(default_factory=dict)
    offer: Offer | None = None
    session: Session | None = None
