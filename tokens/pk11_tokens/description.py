"""What is to be simulated, as its user writes it: TOML, or a dictionary of the same shape.

`load` reads, `parse` checks everything that can be said without making keys; `build` makes it.  Whatever is wrong is a
`DescriptionError` that names file, key and fault.  Knows `personalities` and the numbers of `abi`, no machine.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from .abi import CKM, FUNCTIONS
from .kea import DOMAINS
from .personalities import PERSONALITIES, SLOT_EVENTS, Person, Personality

PIN = "123456"
SO_PIN = "12345678"

# Kinds of key, and the mechanism without which a token cannot have one.
KINDS = {
    "p256": "CKM_ECDSA",
    "p384": "CKM_ECDSA",
    "p521": "CKM_ECDSA",
    "dsa1024": "CKM_DSA",
    "dsa2048": "CKM_DSA",
    "kea": "CKM_KEA_KEY_DERIVE",
    "kea_other": "CKM_KEA_KEY_DERIVE",
    "rsa2048": "CKM_RSA_PKCS",
    "rsa3072": "CKM_RSA_PKCS",
    "rsa4096": "CKM_RSA_PKCS",
    "ed25519": "CKM_EDDSA",
    "ed448": "CKM_EDDSA",
    "mldsa44": "CKM_ML_DSA",
    "mldsa65": "CKM_ML_DSA",
    "mldsa87": "CKM_ML_DSA",
}

T = TypeVar("T")


class DescriptionError(ValueError):
    """The description cannot be followed: where, and why."""


@dataclass(frozen=True)
class KeyDescription:
    """A key pair: generated (`kind`) or read (`file`), with its certificate from a file, or for names, self-signed or issued."""

    label: str
    id: bytes
    kind: str | None
    file: Path | None
    always_authenticate: bool
    certificate: Path | None
    self_signed: tuple[str, ...]
    issued: tuple[str, ...]
    issuer: Path | None
    where: str  # for errors that show only when it is made


@dataclass(frozen=True)
class CertificateDescription:
    """A certificate without its key: an issuer."""

    file: Path
    label: str
    id: bytes
    where: str


@dataclass(frozen=True)
class TokenDescription:
    """A token: `blank` has nothing on it yet, and waits for C_InitToken."""

    name: str
    label: str
    serial: str
    pin: str
    so_pin: str
    blank: bool
    personality: Personality
    keys: tuple[KeyDescription, ...]
    certificates: tuple[CertificateDescription, ...]


@dataclass(frozen=True)
class ReaderDescription:
    """A reader, empty or with a token in it."""

    name: str
    token: TokenDescription | None


@dataclass(frozen=True)
class Description:
    """All readers, tokens in no reader, and files to note calls in."""

    readers: tuple[ReaderDescription, ...]
    drawer: tuple[TokenDescription, ...] = ()
    journal: Path | None = None

    @property
    def tokens(self) -> tuple[TokenDescription, ...]:
        return tuple(reader.token for reader in self.readers if reader.token) + self.drawer


# --- reading ---------------------------------------------------------------------------------------------------------


def load(source: str | Path | Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """The description as plain values, with absolute paths: what `parse` takes and JSON can carry.

    `source`: the path of a TOML file, a dictionary of the same shape, or a list of tokens, a reader for each.
    Raises DescriptionError.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise DescriptionError(f"{path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DescriptionError(f"{path}: not TOML: {error}") from None
        return {"source": str(path), "directory": str(path.absolute().parent), "values": values}
    if not isinstance(source, Mapping):
        source = {"reader": [{"token": token} for token in source]}
    return {"source": "description", "directory": str(Path.cwd()), "values": _plain(source)}


def _plain(value: Any) -> Any:
    """Dataclasses and paths as TOML would have them, so that a description in Python may use both."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def parse(loaded: Mapping[str, Any]) -> Description:
    """What `load` gave, checked.  Raises DescriptionError."""
    top = _Table(loaded["source"], "", loaded["values"], Path(loaded["directory"]))
    own = top.table("personality")
    personalities = dict(PERSONALITIES)
    for name in own.values:
        personalities[name] = _personality(own.table(name), name, personalities)
    readers = tuple(_reader(table, number, personalities) for number, table in enumerate(top.tables("reader"), 1))
    drawer = tuple(_token(table, personalities) for table in top.tables("drawer"))
    description = Description(readers, drawer, top.path("journal"))
    top.finish()
    if not readers:
        raise top.error("reader", "there is none; a simulator needs at least one [[reader]]")
    _unique(top, "reader", (reader.name for reader in readers))
    _unique(top, "token", (token.name for token in description.tokens))
    return description


def _unique(top: _Table, what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise top.error(what, f'two are called "{name}"; give each a name of its own')
        seen.add(name)


def _reader(table: _Table, number: int, personalities: Mapping[str, Personality]) -> ReaderDescription:
    token = _token(table.table("token"), personalities) if "token" in table.values else None
    reader = ReaderDescription(table.text("name", f"Reader {number}"), token)
    table.finish()
    return reader


def _token(table: _Table, personalities: Mapping[str, Personality]) -> TokenDescription:
    personality = _chosen(table, personalities)
    label = table.text("label", table.text("name", "") or "token")
    token = TokenDescription(
        name=table.text("name", label),
        label=label,
        serial=table.text("serial", "0001"),
        pin=_pin(table, "pin", PIN, personality),
        so_pin=_pin(table, "so_pin", SO_PIN, personality),
        blank=table.value("blank", bool, False),
        personality=personality,
        keys=tuple(_key(key, number, personality) for number, key in enumerate(table.tables("key"), 1)),
        certificates=tuple(_certificate(each) for each in table.tables("certificate")),
    )
    if token.blank and (token.keys or token.certificates):
        raise table.error("blank", "a blank token has neither keys nor certificates")
    for key, longest in (("label", 32), ("serial", 16)):
        if len(getattr(token, key).encode()) > longest:
            raise table.error(key, f"longer than the {longest} bytes that CK_TOKEN_INFO has for it")
    table.finish()
    return token


def _pin(table: _Table, key: str, default: str, personality: Personality) -> str:
    pin = table.text(key, default)
    shortest, longest = personality.pin_lengths
    if key in table.values and not shortest <= len(pin.encode()) <= longest:
        raise table.error(key, f"must have {shortest} to {longest} characters on a {personality.name}")
    return pin


def _key(table: _Table, number: int, personality: Personality) -> KeyDescription:
    key = KeyDescription(
        label=table.text("label"),
        id=table.hex("id", bytes([number])),
        kind=table.choice("kind", KINDS, None),
        file=table.path("file"),
        always_authenticate=table.value("always_authenticate", bool, personality.always_authenticate),
        certificate=table.path("certificate"),
        self_signed=table.texts("self_signed"),
        issued=table.texts("issued"),
        issuer=table.path("issuer"),
        where=f"{table.source}: {table.where}",
    )
    table.finish()
    if (key.kind is None) == (key.file is None):
        raise table.error(
            "kind", f"needed, unless a file is given; one of {', '.join(KINDS)}" if key.kind is None else "not with file"
        )
    if bool(key.certificate) + bool(key.self_signed) + bool(key.issued) > 1:
        raise table.error("certificate" if key.certificate else "self_signed", "not with " + _others(key))
    if key.self_signed and key.kind in DOMAINS:
        raise table.error("self_signed", "a key of KEA cannot sign; say issued")
    if key.issuer and not key.issued:
        raise table.error("issuer", "only with issued")
    if key.kind and KINDS[key.kind] not in personality.mechanisms:
        raise table.error("kind", f"a {personality.name} has no {KINDS[key.kind]}, so no {key.kind} key")
    return key


def _others(key: KeyDescription) -> str:
    return "self_signed" if key.certificate and key.self_signed else "issued"


def _certificate(table: _Table) -> CertificateDescription:
    file = table.path("file")
    if file is None:
        raise table.error("file", "needed")
    certificate = CertificateDescription(
        file, table.text("label", file.stem), table.hex("id", b""), f"{table.source}: {table.where}"
    )
    table.finish()
    return certificate


# --- personalities ---------------------------------------------------------------------------------------------------


def _chosen(table: _Table, personalities: Mapping[str, Personality]) -> Personality:
    """The personality that a token names (or, in Python, gives whole), with what it says otherwise beside it."""
    given = table.values.get("personality")
    if isinstance(given, Mapping):
        whole = table.table("personality")
        return _overridden(table, _personality(whole, whole.text("name"), personalities))
    return _overridden(table, personalities[table.choice("personality", personalities, "plain")])


def _personality(table: _Table, name: str, personalities: Mapping[str, Personality]) -> Personality:
    like = personalities[table.choice("like", personalities, "plain")]
    personality = _overridden(table, replace(like, name=name))
    table.finish()
    return personality


def _overridden(table: _Table, personality: Personality) -> Personality:
    names = {each.name for each in fields(Personality)} - {"name"}
    return replace(personality, **{name: _FIELDS[name](table, name) for name in names & table.values.keys()})


def _number(least: float = 0.0, most: float = float("inf")) -> Callable[[_Table, str], float]:
    def read(table: _Table, key: str) -> float:
        value = table.values[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise table.error(key, f"must be a number from {least:g}" + (f" to {most:g}" if most < float("inf") else ""))
        table.known.add(key)
        return float(value)

    return read


def _count(table: _Table, key: str) -> int:
    value = table.value(key, int, 0)
    if value < 0:
        raise table.error(key, "must not be negative")
    return value


def _lengths(table: _Table, key: str) -> tuple[int, int]:
    match table.value(key, list, []):
        case [int(shortest), int(longest)] if 0 < shortest <= longest:
            return shortest, longest
    raise table.error(key, "must be the least and the most, such as [4, 8]")


def _latency(table: _Table, key: str) -> dict[str, float]:
    if not isinstance(table.values[key], Mapping):
        return {"*": _number()(table, key)}
    each = table.table(key)
    for function in each.values:
        each.known_name(function, (*FUNCTIONS, "*"))
    return {function: _number()(each, function) for function in each.values}


def _mechanisms(table: _Table, key: str) -> tuple[str, ...]:
    names = table.texts(key)
    for name in names:
        if name.removeprefix("CKM_") not in CKM.__members__ or not name.startswith("CKM_"):
            raise table.error(key, f"{name} is no mechanism known here")
    return names


def _key_sizes(table: _Table, key: str) -> dict[str, tuple[int, int]]:
    each = table.table(key)
    for name in each.values:
        each.known_name(name, (f"CKM_{mechanism.name}" for mechanism in CKM))
    return {name: _lengths(each, name) for name in each.values}


def _person(table: _Table, key: str) -> Person:
    each = table.table(key)
    person = Person(
        delay=_number()(each, "delay") if "delay" in each.values else 0.0,
        pin=each.text("pin", "") or None,
        mistakes=_count(each, "mistakes"),
        cancels=each.value("cancels", bool, False),
    )
    each.finish()
    return person


def _read(kind: type[T]) -> Callable[[_Table, str], T]:
    return lambda table, key: table.value(key, kind, kind())


# How each field of a personality is read; a test holds that none is missing.
_FIELDS: dict[str, Callable[[_Table, str], Any]] = {
    "mechanisms": _mechanisms,
    "key_sizes": _key_sizes,
    "manufacturer": _read(str),
    "model": _read(str),
    "hardware": _read(bool),
    "removable": _read(bool),
    "pin_tries": _count,
    "pin_lengths": _lengths,
    "max_sessions": _count,
    "protected_path": _read(bool),
    "parallel": _count,
    "latency": _latency,
    "idle_timeout": _number(),
    "slot_events": lambda table, key: table.choice(key, SLOT_EVENTS, "yes"),
    "wrong_signatures": _number(0, 1),
    "exclusive": _read(bool),
    "key_registers": _count,
    "always_authenticate": _read(bool),
    "seed": _count,
    "person": _person,
}


# --- a table of the description --------------------------------------------------------------------------------------

_KINDS = {str: "text", bool: "true or false", int: "a whole number", list: "a list", dict: "a table"}


@dataclass
class _Table:
    """A table that remembers where it stands and what was asked of it: what nobody asked for is a mistake of the writer."""

    source: str
    where: str
    values: Mapping[str, Any]
    directory: Path
    known: set[str] = field(default_factory=set)

    def error(self, key: str, fault: str) -> DescriptionError:
        return DescriptionError(f"{self.source}: {self._path(key)}: {fault}")

    def _path(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def value(self, key: str, kind: type[T], default: T | None = None) -> T:
        self.known.add(key)
        value = self.values.get(key, default)
        if value is None:
            raise self.error(key, "needed")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"must be {_KINDS[kind]}, not {value!r}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return self.value(key, str, default)

    def texts(self, key: str) -> tuple[str, ...]:
        texts = self.value(key, list, [])
        if not all(isinstance(text, str) for text in texts):
            raise self.error(key, "must be a list of texts")
        return tuple(texts)

    def choice(self, key: str, names: Iterable[str], default: Any) -> Any:
        self.known.add(key)
        name = self.values.get(key, default)
        if name is not default:
            self.known_name(name, names, key)
        return name

    def known_name(self, name: object, names: Iterable[str], key: str = "") -> None:
        names = list(names)
        if name not in names:
            close = difflib.get_close_matches(str(name), names, 1)
            hint = f'did you mean "{close[0]}"?' if close else f"one of {', '.join(names)}" if len(names) < 20 else ""
            raise self.error(key or str(name), f'there is no "{name}"' + (f"; {hint}" if hint else ""))

    def hex(self, key: str, default: bytes) -> bytes:
        text = self.text(key, default.hex())
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise self.error(key, f"must be hexadecimal digits in pairs, not {text!r}") from None

    def path(self, key: str) -> Path | None:
        self.known.add(key)
        return self.directory / self.text(key) if key in self.values else None

    def table(self, key: str) -> _Table:
        return self._inner(key, self.value(key, dict, {}))

    def tables(self, key: str) -> list[_Table]:
        return [self._inner(f"{key}[{i}]", each) for i, each in enumerate(self.value(key, list, []), 1)]

    def _inner(self, key: str, values: object) -> _Table:
        if not isinstance(values, Mapping):
            raise self.error(key, "must be a table")
        return _Table(self.source, self._path(key), values, self.directory)

    def finish(self) -> None:
        """Whatever was never asked for is misspelt or misplaced."""
        for key in self.values:
            if key not in self.known:
                self.known_name(key, sorted(self.known))
