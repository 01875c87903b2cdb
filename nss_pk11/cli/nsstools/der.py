"""DER, as far as the parts of a certificate have to be found that no function of NSS gives (X.690)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Element:
    """`tag`: the first byte; `content`: without tag and length; `raw`: with them."""

    tag: int
    content: bytes
    raw: bytes

    @property
    def parts(self) -> list[Element]:
        """Of a constructed one."""
        return list(elements(self.content))


def elements(data: bytes) -> Iterator[Element]:
    """One after the other.  Certificates that come here were read before, so that all lengths fit."""
    start = 0
    while start < len(data):
        length, head = data[start + 1], 2
        if length & 0x80:
            head += length & 0x7F
            length = int.from_bytes(data[start + 2 : start + head], "big")
        end = start + head + length
        yield Element(data[start], data[start + head : end], data[start:end])
        start = end


def oid(content: bytes) -> str:
    """Dotted."""
    numbers, value = [], 0
    for byte in content:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


class Extension(NamedTuple):
    oid: str
    critical: bool
    value: bytes


class Parts(NamedTuple):
    """Of a certificate (RFC 5280 section 4.1).  `signature`, `key`: OIDs; `parameters`: of the key's algorithm; `public_key`: the
    content of its BIT STRING."""

    signature: str
    key: str
    parameters: Element | None
    public_key: bytes
    extensions: list[Extension]


def certificate(data: bytes) -> Parts:
    """Take it apart."""
    tbs, algorithm, _ = next(elements(data)).parts
    fields = [part for part in tbs.parts if part.tag not in (0xA0, 0x81, 0x82)]  # version, unique ids
    (kind, *parameters), bits = fields[5].parts[0].parts, fields[5].parts[1]
    found = []
    for extension in fields[6].parts[0].parts if len(fields) > 6 else ():
        name, *critical, value = extension.parts
        found.append(Extension(oid(name.content), bool(critical), value.content))
    first = parameters[0] if parameters else None
    return Parts(oid(algorithm.parts[0].content), oid(kind.content), first, bits.content[1:], found)
