"""`tstclnt -S`: an HTTP answer without its header."""

from __future__ import annotations

_END = b"\n\r\n"


class HeaderSkipper:
    """Given an answer piece by piece, it gives what comes after the empty line; everything, where nothing is to be skipped."""

    def __init__(self, *, skip: bool) -> None:
        self._skip = skip
        self._tail = b""  # the end of what came, which may begin the empty line

    def rest(self, data: bytes) -> bytes:
        """Of this piece what is to be shown."""
        if not self._skip:
            return data
        seen = self._tail + data
        _, found, rest = seen.partition(_END)
        self._tail = seen[-len(_END) + 1 :]
        self._skip = not found
        return rest
