"""PKCS #12 (RFC 7292) into a database and out of it, as pk12util does."""

from __future__ import annotations

from typing import NamedTuple

from .database import Database
from .records import CertificateRecord, KeyRecord


class Imported(NamedTuple):
    """What came in: the private keys and the certificates, the keys' own first."""

    keys: list[KeyRecord]
    certificates: list[CertificateRecord]


def import_(database: Database, data: bytes, password: str) -> Imported:
    """Keep the keys and certificates of a PKCS #12 file.  Raises PinIncorrect, DatabaseLocked, DatabaseError."""
    raise NotImplementedError


def export(database: Database, nickname: str, password: str) -> bytes:
    """The key and certificate of `nickname` and the chain above it.  Raises NotFound, DatabaseLocked."""
    raise NotImplementedError
