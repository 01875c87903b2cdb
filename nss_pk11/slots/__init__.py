"""The slot manager: modules, slots, tokens, keys and certificates by their names.  Knows PKCS #11, knows no TLS."""

from __future__ import annotations

from .events import SlotEvent, Watcher
from .group import KeyGroup, Member
from .health import Breaker, BreakerState
from .internal import DatabaseKey, DatabaseSlot, DatabaseToken, SoftwareKey
from .keys import TokenKey
from .login import PinMemory
from .manager import SlotManager
from .model import Algorithm, MechanismInfo, Module, PrivateKey, PublicKey, Slot, Token, TokenCertificate, TokenInfo
from .uri import Uri, is_uri

__all__ = [
    "Algorithm",
    "Breaker",
    "BreakerState",
    "DatabaseKey",
    "DatabaseSlot",
    "DatabaseToken",
    "KeyGroup",
    "MechanismInfo",
    "Member",
    "Module",
    "PinMemory",
    "PrivateKey",
    "PublicKey",
    "Slot",
    "SlotEvent",
    "SlotManager",
    "SoftwareKey",
    "Token",
    "TokenCertificate",
    "TokenInfo",
    "TokenKey",
    "Uri",
    "Watcher",
    "is_uri",
]
