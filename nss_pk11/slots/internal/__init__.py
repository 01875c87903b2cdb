"""The internal module: software keys and ciphers behind the same interface as any token.  Knows no PKCS #11 library."""

from __future__ import annotations

from .database import DatabaseKey, DatabaseSlot, DatabaseToken
from .files import read
from .keys import SoftwareKey
from .module import InternalModule, InternalToken

__all__ = ["DatabaseKey", "DatabaseSlot", "DatabaseToken", "InternalModule", "InternalToken", "SoftwareKey", "read"]
