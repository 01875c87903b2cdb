"""`serve --dir`: the files under one directory, and nothing outside it.

A path is refused if it leaves the directory in any way, by `..`, by a link, by an encoding; hidden files are not shown.
"""

from __future__ import annotations

import html
import mimetypes
import os
import re
import stat
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

from ..net.sizes import SEND_SIZE
from .http import Request, Response


class Files:
    """A `Site` over the directory `root`."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).resolve(strict=True)

    def __call__(self, request: Request) -> Response:
        path = self._resolve(request.target)
        if path is None:
            return Response.error(404)
        try:
            if path.is_dir():
                return self._directory(path, request)
            return _file(path, request.headers.get("range", ""))
        except PermissionError:
            return Response.error(403)
        except OSError:
            return Response.error(404)

    def _resolve(self, target: str) -> Path | None:
        """The file that a request target names, or None for anything that is not below the root."""
        raw = unquote_to_bytes(_path_of(target))
        segments = [segment for segment in raw.split(b"/") if segment not in (b"", b".")]
        if b"\0" in raw or any(segment.startswith(b".") for segment in segments):
            return None
        try:
            path = self._root.joinpath(*map(os.fsdecode, segments)).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return path if path.is_relative_to(self._root) else None

    def _directory(self, path: Path, request: Request) -> Response:
        if path != self._root and not _path_of(request.target).endswith("/"):
            # By the file's own path, never by what was asked: "//host" must not lead to another host.
            location = "/" + quote(os.fsencode(path.relative_to(self._root))) + "/"
            return Response.of(301, "text/plain", b"", ("Location", location))
        index = path / "index.html"
        if index.is_file():
            return _file(index, request.headers.get("range", ""))
        return Response.of(200, "text/html; charset=utf-8", _listing(path, self._root).encode("utf-8", "surrogateescape"))


def _path_of(target: str) -> str:
    """Of the origin form or the absolute form (RFC 9112 section 3.2)."""
    return urlsplit(target).path if target.startswith(("http://", "https://")) else target.partition("?")[0]


def _file(path: Path, wanted: str) -> Response:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        return Response.error(403)
    kind, encoding = mimetypes.guess_type(path.name)
    content_type = "application/octet-stream" if kind is None or encoding else kind
    if content_type.startswith("text/"):
        content_type += "; charset=utf-8"
    headers = (("Last-Modified", formatdate(status.st_mtime, usegmt=True)), ("Accept-Ranges", "bytes"))
    start, end = _range(wanted, status.st_size)
    if start >= end and status.st_size:
        os.close(fd)
        return Response.error(416, ("Content-Range", f"bytes */{status.st_size}"))
    if end - start == status.st_size:
        return Response(200, content_type, _Chunks(fd, 0, end), end, headers)
    content_range = ("Content-Range", f"bytes {start}-{end - 1}/{status.st_size}")
    return Response(206, content_type, _Chunks(fd, start, end), end - start, (*headers, content_range))


def _range(wanted: str, size: int) -> tuple[int, int]:
    """First byte and the one after the last (RFC 9110 section 14.1.2); several ranges at once are answered by the whole."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted.strip())
    if match is None or match.group(0) == "bytes=-":
        return 0, size
    first, last = match.groups()
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size


# One buffer for all: a chunk is encrypted before the next is read.
_BUFFER = memoryview(bytearray(SEND_SIZE))


class _Chunks:
    """An open file, read a chunk at a time, each good until the next is read; closed at its end or with its last reference."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self._fd, self._position, self._end = fd, start, end

    def __iter__(self) -> Iterator[memoryview]:
        return self

    def __next__(self) -> memoryview:
        room = min(SEND_SIZE, self._end - self._position)
        count = os.preadv(self._fd, [_BUFFER[:room]], self._position) if self._fd >= 0 and room else 0
        if not count:
            self.close()
            raise StopIteration
        self._position += count
        return _BUFFER[:count]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    __del__ = close


_LISTING = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
td {{ padding: .1rem 2rem .1rem 0; }} td + td {{ text-align: right; opacity: .7; }}
</style>
<h1>{title}</h1>
<table>{rows}</table>
</html>
"""


def _listing(path: Path, root: Path) -> str:
    title = html.escape("/" + "".join(f"{part}/" for part in path.relative_to(root).parts))
    rows = [] if path == root else ['<tr><td><a href="../">../</a><td>']
    for entry in sorted(path.iterdir(), key=lambda entry: (not entry.is_dir(), entry.name)):
        if entry.name.startswith("."):
            continue
        name = entry.name + ("/" if entry.is_dir() else "")
        size = "" if entry.is_dir() else f"{entry.lstat().st_size:,}"
        rows.append(f'<tr><td><a href="{quote(os.fsencode(name))}">{html.escape(name)}</a><td>{size}')
    return _LISTING.format(title=title, rows="\n".join(rows))
