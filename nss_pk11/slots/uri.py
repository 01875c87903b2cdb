"""PKCS #11 URIs (RFC 7512): parse, write, match, and the PIN source they may carry.

Every path attribute is kept; one that is not known, a vendor's included, matches nothing (section 2.5).  The PIN in
`pin-value` shows neither in repr() nor in str().
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes, unquote_to_bytes

from .. import pins
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..pins import PinProvider
    from .model import Module, Slot, TokenInfo

SCHEME = "pkcs11:"
TYPES = ("public", "private", "cert", "secret-key", "data")

# RFC 7512 section 2.3: what may stand unencoded in the value of a path or query attribute.
_PATH_SAFE = ":[]@!$'()*+,=&"
_QUERY_SAFE = ":[]@!$'()*+,=/?|"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_PATH_VALUE, _QUERY_VALUE = (
    re.compile(rf"(?:[A-Za-z0-9._~-]|[{re.escape(safe)}]|%[0-9A-Fa-f]{{2}})*") for safe in (_PATH_SAFE, _QUERY_SAFE)
)


@dataclass(frozen=True)
class Uri:
    """A parsed URI.  None means "not said", which matches everything; an empty value matches only emptiness (section 2.5)."""

    # path
    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    library_manufacturer: str | None = None
    library_description: str | None = None
    library_version: tuple[int, int] | None = None
    slot_manufacturer: str | None = None
    slot_description: str | None = None
    slot_id: int | None = None
    object: str | None = None
    type: str | None = None
    id: bytes | None = None
    vendor: tuple[tuple[str, str], ...] = ()
    # query
    pin_source: str | None = None
    pin_value: str | None = field(default=None, repr=False)
    module_name: str | None = None
    module_path: str | None = None
    vendor_query: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Raises ConfigurationError, which never shows the query."""
        if text[: len(SCHEME)].lower() != SCHEME:
            raise ConfigurationError("a PKCS #11 URI begins with pkcs11:")
        path, _, query = text[len(SCHEME) :].partition("?")
        shown = SCHEME + path
        values: dict[str, object] = {}
        vendor: list[tuple[str, str]] = []
        for name, value in _pairs(path, ";", _PATH_VALUE, shown):
            if name not in _PATH:
                _refuse_duplicate(name in dict(vendor), name, shown)
                vendor.append((name, _text(value, name, shown)))
                continue
            _refuse_duplicate(_field(name) in values, name, shown)
            values[_field(name)] = _PATH[name](value, name, shown)
        vendor_query: list[tuple[str, str]] = []
        for name, value in _pairs(query, "&", _QUERY_VALUE, shown):
            if name not in _QUERY:
                vendor_query.append((name, _text(value, name, shown)))
                continue
            _refuse_duplicate(_field(name) in values, name, shown)
            values[_field(name)] = _text(value, name, shown)
        if "pin_source" in values and "pin_value" in values:
            raise ConfigurationError(f"{shown}: pin-source and pin-value exclude each other (RFC 7512 section 2.4)")
        return cls(**values, vendor=tuple(vendor), vendor_query=tuple(vendor_query))  # type: ignore[arg-type]

    def text(self, *, secrets: bool = False) -> str:
        """The URI, attributes in the order of the RFC.  `secrets`: with the PIN, which is otherwise left out."""
        path = [(name, _written(getattr(self, _field(name)))) for name in _PATH if getattr(self, _field(name)) is not None]
        path += [(name, value.encode()) for name, value in self.vendor]
        query = [(name, getattr(self, _field(name)).encode()) for name in _QUERY if getattr(self, _field(name)) is not None]
        query += [(name, value.encode()) for name, value in self.vendor_query]
        if not secrets:
            query = [pair for pair in query if pair[0] != "pin-value"]
        text = SCHEME + ";".join(f"{name}={_quote(name, value, _PATH_SAFE)}" for name, value in path)
        return text + ("?" + "&".join(f"{name}={quote_from_bytes(value, _QUERY_SAFE)}" for name, value in query) if query else "")

    def __str__(self) -> str:
        return self.text()

    def provider(self) -> PinProvider | None:
        """The PIN source that the URI itself names: `pin-value`, or `pin-source` as file:, path, or |command (section 2.4)."""
        if self.pin_value is not None:
            return pins.value(self.pin_value)
        if self.pin_source is None:
            return None
        if self.pin_source.startswith("|"):
            return pins.command(self.pin_source[1:])
        path = self.pin_source
        if path.startswith("file:"):
            # file:/path and file://host/path (RFC 8089); the value was percent-decoded once, the file URI within is again.
            path = unquote_to_bytes(re.sub(r"^file:(?://[^/]*(?=/))?", "", path)).decode("utf-8", "surrogateescape")
        return pins.file(path)

    def matches_module(self, module: Module) -> bool:
        return all(
            (
                self.library_manufacturer in (None, module.manufacturer),
                self.library_description in (None, module.description),
                self.library_version in (None, module.version),
            )
        )

    def matches_slot(self, slot: Slot) -> bool:
        return all(
            (
                self.slot_manufacturer in (None, slot.manufacturer),
                self.slot_description in (None, slot.description),
                self.slot_id in (None, slot.id),
            )
        )

    def matches_token(self, info: TokenInfo) -> bool:
        return all(
            (
                self.token in (None, info.label),
                self.manufacturer in (None, info.manufacturer),
                self.serial in (None, info.serial),
                self.model in (None, info.model),
            )
        )

    def matches_object(self, label: str, id: bytes) -> bool:
        """By label and id; what type is looked for is the caller's to say."""
        return self.object in (None, label) and self.id in (None, id)


def object_uri(info: TokenInfo, kind: str, label: str, id: bytes) -> str:
    """The URI that this package gives an object of a token: `kind` is a type of RFC 7512."""
    return Uri(
        token=info.label or None,
        manufacturer=info.manufacturer or None,
        serial=info.serial or None,
        model=info.model or None,
        object=label or None,
        type=kind,
        id=id or None,
    ).text()


# --- attributes ------------------------------------------------------------------------------------------------------


def _text(value: bytes, name: str, shown: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{shown}: {name} is not UTF-8") from None


def _bytes(value: bytes, name: str, shown: str) -> bytes:
    return value


def _type(value: bytes, name: str, shown: str) -> str:
    text = _text(value, name, shown)
    if text not in TYPES:
        raise ConfigurationError(f"{shown}: type is one of {', '.join(TYPES)}")
    return text


def _number(value: bytes, name: str, shown: str) -> int:
    if not re.fullmatch(rb"[0-9]{1,20}", value):
        raise ConfigurationError(f"{shown}: {name} is a decimal number")
    return int(value)


def _version(value: bytes, name: str, shown: str) -> tuple[int, int]:
    match = re.fullmatch(rb"([0-9]{1,3})(?:\.([0-9]{1,3}))?", value)
    if not match or max(numbers := (int(match[1]), int(match[2] or 0))) > 255:
        raise ConfigurationError(f"{shown}: {name} is MAJOR or MAJOR.MINOR, each at most 255")
    return numbers


_PATH = {
    "token": _text,
    "manufacturer": _text,
    "serial": _text,
    "model": _text,
    "library-manufacturer": _text,
    "library-description": _text,
    "library-version": _version,
    "slot-manufacturer": _text,
    "slot-description": _text,
    "slot-id": _number,
    "object": _text,
    "type": _type,
    "id": _bytes,
}
_QUERY = ("pin-source", "pin-value", "module-name", "module-path")


def _field(name: str) -> str:
    return name.replace("-", "_")


def _pairs(part: str, separator: str, allowed: re.Pattern[str], shown: str) -> list[tuple[str, bytes]]:
    pairs = []
    for item in part.split(separator) if part else ():
        name, equals, value = item.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise ConfigurationError(f"{shown}: attributes are written name=value")
        if not allowed.fullmatch(value):
            raise ConfigurationError(f"{shown}: {name} has a character that must be percent-encoded, or a bad percent-encoding")
        pairs.append((name, unquote_to_bytes(value)))
    return pairs


def _refuse_duplicate(duplicate: bool, name: str, shown: str) -> None:
    if duplicate:
        raise ConfigurationError(f"{shown}: {name} is given twice")


def _written(value: str | bytes | int | tuple[int, int]) -> bytes:
    match value:
        case bytes():
            return value
        case tuple():
            return f"{value[0]}.{value[1]}".encode()
        case _:
            return str(value).encode()


def _quote(name: str, value: bytes, safe: str) -> str:
    if name == "id":  # section 2.3: all of it should be percent-encoded
        return "".join(f"%{byte:02X}" for byte in value)
    return quote_from_bytes(value, safe)


def is_uri(text: str) -> bool:
    """Whether a source names something on a token rather than a file."""
    return text[: len(SCHEME)].lower() == SCHEME


assert {_field(name) for name in (*_PATH, *_QUERY)} | {"vendor", "vendor_query"} == {item.name for item in fields(Uri)}
