"""tlslite-ng's key derivation and record layer: an implementation of SSL 3.0 to TLS 1.2 that owes nothing to this one."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.suites import Suite

from ..support.require import missing


def module(name: str) -> Any:
    """One of tlslite-ng's modules; without it the test is skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it tries asyncore
        try:
            return importlib.import_module(f"tlslite.{name}")
        except ImportError:
            missing("tlslite-ng")


def number(version: Version) -> tuple[int, int]:
    return version >> 8, version & 0xFF


class Wire:
    """A socket's two ends in memory: what was sent, and what is there to be received."""

    def __init__(self) -> None:
        self.sent, self.coming = bytearray(), bytearray()

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def recv(self, size: int) -> bytes:
        data = bytes(self.coming[:size])
        del self.coming[:size]
        return data


class Records:
    """One side's record layer, its keys made from a master secret."""

    def __init__(
        self, suite: Suite, version: Version, master: bytes, randoms: tuple[bytes, bytes], *, client: bool, etm: bool = False
    ) -> None:
        self._wire = Wire()
        self._layer = module("recordlayer").RecordLayer(self._wire)
        self._layer.version, self._layer.client = number(version), client
        self._layer.encryptThenMAC = etm
        self._layer.calcPendingStates(suite.code, bytearray(master), *map(bytearray, randoms), ["python"])
        self._layer.changeWriteState()
        self._layer.changeReadState()
        self._message = module("messages").Message

    def seal(self, content_type: int, content: bytes) -> bytes:
        """A whole record."""
        self._wire.sent.clear()
        for _ in self._layer.sendRecord(self._message(content_type, bytearray(content))):
            pass
        return bytes(self._wire.sent)

    def open(self, records: bytes) -> list[tuple[int, bytes]]:
        """Content types and contents.  Raises tlslite's TLSBadRecordMAC."""
        self._wire.coming += records
        opened = []
        while self._wire.coming:
            header, parser = next(result for result in self._layer.recvRecord() if result not in (0, 1))
            opened.append((header.type, bytes(parser.bytes)))
        return opened
