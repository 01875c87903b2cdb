"""The module list of a database directory, `pkcs11.txt`: blocks of `key=value` lines, with blank lines between them.

The grammar is that of NSS's lib/util/{utilmod.c, utilpars.c}.  What other tools wrote is kept line for line; a change replaces
the file as a whole, so that a reader sees the old list or the new one.  Loads no module: names them only.

One defect of NSS's parser is in every file there is, and kept: in `slotFlags` the word RC2 stands for the bit of RC4 and the
other way round, and DSA for the bit of RSA.  NSS writes by the same table, so that no file can say DSA.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntFlag
from pathlib import Path

from ..errors import ConfigurationError, DatabaseError, NotFound

FILE = "pkcs11.txt"
INTERNAL_NAME = "NSS Internal PKCS #11 Module"
ROOTS_LIBRARY = "libnssckbi.so"

_MOST_BYTES = 1 << 20  # of a file: a list has a few hundred
_QUOTES = {"'": "'", '"': '"', "<": ">", "{": "}", "(": ")", "[": "]"}


class SlotFlags(IntFlag):
    """For what a slot is the first choice (NSS secmodt.h, SECMOD_…_FLAG; PK11_OWN_PW_DEFAULTS, PK11_DISABLE_FLAG)."""

    rsa = 0x1
    dsa = 0x2
    rc2 = 0x4
    rc4 = 0x8
    des = 0x10
    dh = 0x20
    fortezza = 0x40
    rc5 = 0x80
    sha1 = 0x100
    md5 = 0x200
    md2 = 0x400
    ssl = 0x800
    tls = 0x1000
    aes = 0x2000
    sha256 = 0x4000
    sha512 = 0x8000
    camellia = 0x10000
    seed = 0x20000
    ecc = 0x40000
    public_certs = 0x10000000
    disable = 0x40000000
    random = 0x80000000


_NO_FLAGS = SlotFlags(0)

# The words in files, in the order in which NSS looks for the word of a bit.  Wrong on purpose, see above: RC2, RC4, DSA.
_SLOT_WORDS = {
    "RSA": SlotFlags.rsa,
    "ECC": SlotFlags.ecc,
    "DSA": SlotFlags.rsa,
    "RC2": SlotFlags.rc4,
    "RC4": SlotFlags.rc2,
    "DES": SlotFlags.des,
    "DH": SlotFlags.dh,
    "FORTEZZA": SlotFlags.fortezza,
    "RC5": SlotFlags.rc5,
    "SHA1": SlotFlags.sha1,
    "SHA256": SlotFlags.sha256,
    "SHA512": SlotFlags.sha512,
    "MD5": SlotFlags.md5,
    "MD2": SlotFlags.md2,
    "SSL": SlotFlags.ssl,
    "TLS": SlotFlags.tls,
    "AES": SlotFlags.aes,
    "Camellia": SlotFlags.camellia,
    "SEED": SlotFlags.seed,
    "PublicCerts": SlotFlags.public_certs,
    "RANDOM": SlotFlags.random,
    "Disable": SlotFlags.disable,
}


@dataclass(frozen=True)
class SlotSettings:
    """What a module's entry says of one slot.  `askpw`: "any" (once), "every" use, or "timeout" after so many idle minutes."""

    flags: SlotFlags = _NO_FLAGS
    askpw: str = ""
    timeout: int = 0
    root_certs: bool = False
    root_trust: bool = False

    @classmethod
    def parse(cls, text: str) -> SlotSettings:
        values = parse_parameters(text)
        words = _words(values.get("slotflags", ""))
        flags = _NO_FLAGS
        for word, flag in _SLOT_WORDS.items():
            if word.lower() in words or "all" in words:
                flags |= flag
        roots = _words(values.get("rootflags", ""))
        return cls(
            flags, values.get("askpw", ""), _number(values.get("timeout", "")), "hasrootcerts" in roots, "hasroottrust" in roots
        )

    def __str__(self) -> str:
        words = [next(word for word, its in _SLOT_WORDS.items() if its == flag) for flag in self.flags & _SAYABLE]
        roots = [word for word, holds in (("hasRootCerts", self.root_certs), ("hasRootTrust", self.root_trust)) if holds]
        parts = {
            "slotFlags": ",".join(words),
            "askpw": self.askpw,
            "timeout": str(self.timeout or ""),
            "rootFlags": ",".join(roots),
        }
        return " ".join(f"{name}={value}" for name, value in parts.items() if value)


_SAYABLE = _NO_FLAGS
for _flag in _SLOT_WORDS.values():
    _SAYABLE |= _flag


@dataclass(frozen=True)
class ModuleEntry:
    """A module.  `library` is empty for the internal one; `parameters` go to C_Initialize; `nss` is what NSS makes of it, its
    text as it is in the file."""

    name: str
    library: str = ""
    parameters: str = ""
    nss: str = ""
    other: tuple[str, ...] = field(default=(), repr=False)  # lines that this package has no use for, such as config=

    def __post_init__(self) -> None:
        if not self.name or any("\n" in text or "\r" in text or "\0" in text for text in self._texts()):
            raise ConfigurationError("a module has a name, and neither that nor its path and parameters have line breaks")

    def _texts(self) -> tuple[str, ...]:
        return self.name, self.library, self.parameters, self.nss, *self.other

    @property
    def flags(self) -> frozenset[str]:
        """In small letters: internal, fips, critical, moduledb, moduledbonly."""
        return _words(self._settings.get("flags", ""))

    @property
    def internal(self) -> bool:
        return "internal" in self.flags

    @property
    def critical(self) -> bool:
        return "critical" in self.flags

    @property
    def trust_order(self) -> int:
        return _number(self._settings.get("trustorder", ""), 50)

    @property
    def cipher_order(self) -> int:
        return _number(self._settings.get("cipherorder", ""), 0)

    @property
    def slots(self) -> dict[int, SlotSettings]:
        """By slot id."""
        slots = parse_parameters(self._settings.get("slotparams", ""))
        return {_number(name): SlotSettings.parse(value) for name, value in slots.items()}

    def with_slot(self, id: int, settings: SlotSettings) -> ModuleEntry:
        """The same with other settings of one slot."""
        slots = self.slots | {id: settings}
        values = self._settings | {"slotparams": " ".join(f"{id:#010x}=[{its}]" for id, its in slots.items())}
        words = (f"{_SPELLING.get(name, name)}={_bracketed(value)}" for name, value in values.items())
        return replace(self, nss=" ".join(words))

    @property
    def _settings(self) -> dict[str, str]:
        return parse_parameters(self.nss)

    def __str__(self) -> str:
        pairs = (("library", self.library), ("name", self.name), ("parameters", self.parameters), ("NSS", self.nss))
        lines = [f"{name}={value}" for name, value in pairs if value or name == "library"]
        return "\n".join([*lines, *self.other]) + "\n"


_SPELLING = {"trustorder": "trustOrder", "cipherorder": "cipherOrder", "slotparams": "slotParams"}  # as NSS's tools write them


def _bracketed(value: str) -> str:
    """As `parse_parameters` reads it."""
    if re.fullmatch(r"[\w,.+-]+", value):
        return value
    return "{" + re.sub(r"([\\}])", r"\\\1", value) + "}"


def external(
    name: str,
    library: str,
    parameters: str = "",
    slots: Mapping[int, SlotSettings] | None = None,
    *,
    critical: bool = False,
    trust_order: int = 50,
) -> ModuleEntry:
    """An entry as modutil writes it; `slots` by their ids.  Raises ConfigurationError."""
    if not library:
        raise ConfigurationError(f"module {name!r} needs the path of its library")
    words = ["flags=critical"] * critical + [f"trustOrder={trust_order}"] * (trust_order != 50)
    if slots:
        words.append("slotParams={" + " ".join(f"{id:#010x}=[{settings}]" for id, settings in slots.items()) + "}")
    return ModuleEntry(name, library, parameters, " ".join(words))


def internal(location: str) -> ModuleEntry:
    """The entry of the internal module as certutil makes it; `location` is the database directory as NSS tools take it."""
    directory = location.replace("\\", "\\\\").replace("'", "\\'")
    words = "ECC,RSA,DSA,DH,RC2,RC4,DES,RANDOM,SHA1,MD5,MD2,SSL,TLS,AES,Camellia,SEED,SHA256,SHA512"
    return ModuleEntry(
        INTERNAL_NAME,
        parameters=f"configdir='{directory}' certPrefix='' keyPrefix='' secmod='secmod.db' flags= updatedir='' "
        "updateCertPrefix='' updateKeyPrefix='' updateid='' updateTokenDescription='' ",
        nss=f"Flags=internal,critical trustOrder=75 cipherOrder=100 slotParams=(1={{slotFlags=[{words}] askpw=any timeout=30}})",
    )


# --- files -----------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> list[ModuleEntry]:
    """The modules in a file, in its order; of one that does not exist [].  Raises DatabaseError for what is no such file."""
    return [entry for block in _blocks(Path(path)) if (entry := _entry(block)) is not None]


def write(path: str | os.PathLike[str], entries: list[ModuleEntry]) -> None:
    """A file of `entries`, in place of what was there.  Raises DatabaseError."""
    _replace(Path(path), [str(entry) for entry in entries])


def create(path: str | os.PathLike[str], location: str) -> None:
    """A file with the internal module alone; one that exists stays as it is.  Raises DatabaseError."""
    with _changing(Path(path)):
        if not Path(path).exists():
            write(path, [internal(location)])


def add(path: str | os.PathLike[str], entry: ModuleEntry) -> None:
    """Put a module at the end, in place of one of its name.  Raises DatabaseError; ConfigurationError for the internal one."""
    with _changing(Path(path)):
        blocks = _blocks(Path(path))
        if any(found.internal for block in blocks if (found := _entry(block)) and found.name == entry.name):
            raise ConfigurationError(f"{entry.name!r} is the internal module, which stays", name="SEC_ERROR_INVALID_ARGS")
        _replace(Path(path), [*(block for block in blocks if not _is_named(block, entry.name)), str(entry)])


def delete(path: str | os.PathLike[str], name: str) -> ModuleEntry:
    """Take a module out.  Raises NotFound; ConfigurationError for the internal one; DatabaseError."""
    with _changing(Path(path)):
        blocks = _blocks(Path(path))
        found = next((entry for block in blocks if (entry := _entry(block)) and entry.name == name), None)
        if found is None:
            raise NotFound(f"{path} has no module {name!r}", name="SEC_ERROR_NO_MODULE")
        if found.internal:
            raise ConfigurationError(f"{name!r} is the internal module, which stays", name="SEC_ERROR_INVALID_ARGS")
        _replace(Path(path), [block for block in blocks if not _is_named(block, name)])
        return found


def change_slot(
    path: str | os.PathLike[str], name: str, slot: int, change: Callable[[SlotSettings], SlotSettings]
) -> ModuleEntry | None:
    """Change what the entry of a module says of one slot; None where the list has no such module.  Raises DatabaseError."""
    with _changing(Path(path)):
        blocks = _blocks(Path(path))
        for number, block in enumerate(blocks):
            entry = _entry(block)
            if entry is not None and entry.name == name:
                changed = entry.with_slot(slot, change(entry.slots.get(slot, SlotSettings())))
                kept = [line for line in block.splitlines() if line.partition("=")[0].strip().lower() != "nss"]
                blocks[number] = "\n".join([*kept, f"NSS={changed.nss}"]) + "\n"
                _replace(Path(path), blocks)
                return changed
    return None


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One change at a time; NSS's own tools take no lock."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _blocks(path: Path) -> list[str]:
    """The text of each block, comments with it."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(data) > _MOST_BYTES or b"\0" in data:
        raise DatabaseError(f"{path} is no list of modules")
    text = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n").replace("\r", " ")
    return [block.strip("\n") + "\n" for block in re.split(r"\n(?:[ \t]*\n)+", text) if block.strip()]


def _entry(block: str) -> ModuleEntry | None:
    """None for a block that names no module: a comment."""
    values: dict[str, str] = {}
    other = []
    for line in block.split("\n"):
        key, equals, value = line.partition("=")
        if line.startswith("#") or not equals:
            continue
        if key.strip().lower() in _KEYS:
            values.setdefault(key.strip().lower(), value)
        else:
            other.append(line)
    if not values.get("name"):
        return None
    return ModuleEntry(
        values["name"], values.get("library", ""), values.get("parameters", ""), values.get("nss", ""), tuple(other)
    )


_KEYS = frozenset({"library", "name", "parameters", "nss"})


def _is_named(block: str, name: str) -> bool:
    entry = _entry(block)
    return entry is not None and entry.name == name


def _replace(path: Path, blocks: list[str]) -> None:
    """All at once, for the owner alone, and on the disk before it counts."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
                stream.write("".join(f"{block}\n" for block in blocks))
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DatabaseError(f"cannot write {path}: {error.strerror}", name="SEC_ERROR_READ_ONLY") from None


def _unreadable(path: Path, error: OSError) -> DatabaseError:
    return DatabaseError(f"cannot read {path}: {error.strerror}")


# --- parameters ------------------------------------------------------------------------------------------------------


def parse_parameters(text: str) -> dict[str, str]:
    """`key=value …` by NSS's rules: names in small letters, the first of a name counts; a value may stand in any kind of
    brackets or quotes, in which a backslash takes the next character as it is."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if text[at].isspace() or text[at] == ",":
            at += 1
            continue
        start = at
        while at < len(text) and not text[at].isspace() and text[at] != "=":
            at += 1
        name = text[start:at].lower()
        if at < len(text) and text[at] == "=":
            value, at = _value(text, at + 1)
            found.setdefault(name, value)
    return found


def _value(text: str, at: int) -> tuple[str, int]:
    """A value that begins at `at`, and where it ends."""
    closing = _QUOTES.get(text[at : at + 1], "")
    at += bool(closing)
    value: list[str] = []
    while at < len(text):
        character = text[at]
        if character == closing or (not closing and character.isspace()):
            return "".join(value), at + 1
        if character == "\\" and at + 1 < len(text):
            at += 1
            character = text[at]
        value.append(character)
        at += 1
    return "".join(value), at


def _words(text: str) -> frozenset[str]:
    return frozenset(word.lower() for word in re.split(r"[,\s]+", text) if word)


def _number(text: str, default: int = 0) -> int:
    """As NSS reads it: 0x for hexadecimal, what is no number ends it."""
    match = re.match(r"(?i)0x([0-9a-f]{1,16})|([0-9]{1,18})", text)
    return default if match is None else int(match[1], 16) if match[1] else int(match[2])


# --- the roots -------------------------------------------------------------------------------------------------------


def roots_library(directory: Path | None = None) -> Path | None:
    """Where libnssckbi.so is, the module that carries the usual roots: beside the databases, as NSS looks for it, else where the
    system keeps its libraries."""
    multiarch = sysconfig.get_config_var("MULTIARCH")
    places = [directory] if directory is not None else []
    for library in (f"/usr/lib/{multiarch}", "/usr/lib64", "/usr/lib", "/usr/local/lib", "/opt/homebrew/lib"):
        places += [Path(library), Path(library) / "nss"]
    return next((place / ROOTS_LIBRARY for place in places if (place / ROOTS_LIBRARY).is_file()), None)
