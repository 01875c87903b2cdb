"""The slot manager: every module, slot and token there is, and keys and certificates by their URIs."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from ..db import Database, Location
from ..db import modules as lists
from ..errors import Ambiguous, ConfigurationError, NotFound, TokenError
from ..pins import PinProvider
from .events import SlotEvent, Watcher
from .forks import prepare_for_forks
from .group import KeyGroup
from .internal import DatabaseKey, DatabaseSlot, DatabaseToken, InternalModule, read
from .internal.database import FIRST_SLOT
from .keys import TokenKey
from .login import SHARED_MEMORY, PinMemory
from .model import Module, PrivateKey, Slot, Token, TokenCertificate
from .modules import PKCS11Module, library_key, registrations
from .nicknames import nicknamed, private_half
from .publickeys import from_certificate, spki
from .uri import Uri

_log = logging.getLogger(__name__)


class SlotManager:
    """Modules in use, the internal one always among them.  A context manager; thread-safe.

    `pins` is asked where a caller names nobody; a `pin-value` or `pin-source` in a URI wins over both.  `memory`: what is known
    of PINs, by default one of all managers of the process.  Forked processes share it if it was made before they were forked.
    """

    def __init__(self, pins: PinProvider | None = None, *, memory: PinMemory | None = None) -> None:
        self._pins = pins
        self._memory = memory or SHARED_MEMORY
        self._internal = InternalModule()
        self._databases: tuple[DatabaseSlot, ...] = ()
        self._loaded: dict[str, PKCS11Module] = {}
        self._lock = threading.RLock()
        self._mechanisms: frozenset[str] | None = None
        self._looked = 0.0  # when, in seconds of time.monotonic
        self._changes = 0  # that watchers or policy brought
        self._watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()
        prepare_for_forks(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()
        self._memory.after_fork()
        self._internal.token.after_fork()
        for slot in self.databases:
            slot.contents.after_fork()
        for module in self._loaded.values():
            module.after_fork()

    def __enter__(self) -> SlotManager:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching, close every session, log out, finalise the modules that nobody else in the process uses.  Keys are dead
        after it."""
        for watcher in list(self._watchers):
            watcher.close()
        with self._lock:
            loaded, self._loaded = list(self._loaded.values()), {}
            databases, self._databases, self._internal.databases = self._databases, (), ()
            self._mechanisms = None
        for slot in databases:
            slot.contents.close()
        for module in loaded:
            module.close()

    # --- modules -----------------------------------------------------------------------------------------------------

    def load(self, path: str, parameters: str = "") -> Module:
        """The module at `path` (or of that name, as the dynamic linker finds it); the same path twice is the same module.

        `parameters` go to C_Initialize as NSS's softokn wants them; those of the first load count.  Raises TokenError.
        """
        key = library_key(path)
        with self._lock:
            module = self._loaded.get(key)
            if module is None:
                module = self._loaded[key] = PKCS11Module(path, parameters, self._pins, self._memory)
                self._mechanisms = None
            return module

    def load_registered(self) -> list[Module]:
        """The modules that p11-kit knows.  One that does not load is passed over, unless it is registered as critical."""
        found = (self._load_listed(entry.name, entry.path, entry.parameters, entry.critical) for entry in registrations())
        return [module for module in found if module is not None]

    def _load_listed(self, name: str, path: str, parameters: str, critical: bool) -> Module | None:
        try:
            return self.load(path, parameters)
        except TokenError as error:
            if critical:
                raise
            _log.info("module %s, which is listed: %s", name, error)
            return None

    def unload(self, module: Module) -> None:
        """Close a module that was loaded; its keys are dead.  Raises NotFound (SEC_ERROR_NO_MODULE)."""
        with self._lock:
            key = next((key for key, loaded in self._loaded.items() if loaded is module), None)
            if key is None:
                raise NotFound(f"module {module.path!r} is not loaded", name="SEC_ERROR_NO_MODULE", module=module.path)
            closing = self._loaded.pop(key)
            self._mechanisms = None
        closing.close()

    @property
    def modules(self) -> list[Module]:
        with self._lock:
            return [self._internal, *self._loaded.values()]

    def slots(self) -> list[Slot]:
        """Every slot of every module, as of now."""
        self._mechanisms = None
        return [slot for module in self.modules for slot in module.slots()]

    def tokens(self) -> list[Token]:
        """Every token that is present now."""
        return [token for slot in self.slots() if (token := slot.token) is not None]

    def mechanisms(self, max_age: float = math.inf) -> frozenset[str]:
        """The CKM_ names that the present tokens offer.  Remembered until `load` or `slots` looks again, and kept up to date by
        `watch`: costs no call.  Where nobody watches, what was seen more than `max_age` seconds ago is looked at again."""
        known = self._mechanisms
        if known is None or (time.monotonic() - self._looked > max_age and not self._watched):
            changes = self._changes
            known = frozenset(name for token in self.tokens() for name in _mechanisms_of(token))
            if changes == self._changes:  # else what was seen may be old already
                self._mechanisms, self._looked = known, time.monotonic()
        return known

    @property
    def _watched(self) -> bool:
        return any(not watcher.closed for watcher in list(self._watchers))

    @property
    def withheld(self) -> frozenset[str]:
        """Mechanisms that the internal module does not offer, by policy: with them go the suites that need them, unless a token
        offers them.  May be set at any time, for handshakes that begin later; databases' slots are of the internal module, too.
        What keys can do does not change.  Raises ConfigurationError for a name that the module does not know."""
        return self._internal.offer.withheld

    @withheld.setter
    def withheld(self, names: Iterable[str]) -> None:
        with self._lock:
            self._internal.offer.withhold(names)
            self._changes += 1
            self._mechanisms = None

    # --- databases ---------------------------------------------------------------------------------------------------

    def open_database(
        self,
        location: str | os.PathLike[str] | Location,
        *,
        read_only: bool = True,
        cert_prefix: str = "",
        key_prefix: str = "",
        load_modules: bool = True,
        load_roots: bool = True,
    ) -> DatabaseSlot:
        """The database directory at `location` as a slot of the internal module, until the manager is closed.

        Read-write, what is missing of it is made.  The modules that its pkcs11.txt names are loaded, and libnssckbi.so where it
        is found and not among them; one that does not load is passed over unless it is critical.  They run in this process: do
        not open the directory of somebody you do not trust.  Raises DatabaseError, ConfigurationError, TokenError.
        """
        database = Database.open(
            location, read_only=read_only, create=not read_only, cert_prefix=cert_prefix, key_prefix=key_prefix
        )
        try:
            listed = database.directory / lists.FILE
            if not read_only:
                lists.create(listed, f"sql:{database.directory}")
            if load_modules:
                self._load_list(listed)
            if load_roots:
                self._load_roots(database.directory)
        except BaseException:
            database.close()
            raise
        with self._lock:
            slot_id = FIRST_SLOT + len(self._databases)
            slot = DatabaseSlot(self._internal, slot_id, database, self._pins, self._memory)
            self._internal.databases = self._databases = (*self._databases, slot)
            self._mechanisms = None
        return slot

    @property
    def databases(self) -> tuple[DatabaseSlot, ...]:
        """In the order in which they were opened."""
        return self._databases

    @property
    def database(self) -> Database | None:
        """The one that was opened first."""
        return self.databases[0].contents.database if self.databases else None

    def _load_list(self, path: Path) -> None:
        for entry in lists.read(path):
            if entry.library and not entry.internal:
                self._load_listed(entry.name, entry.library, entry.parameters, entry.critical)

    def _load_roots(self, directory: Path) -> None:
        library = lists.roots_library(directory)
        if library is not None and not any(Path(key).name == library.name for key in self._loaded):
            self._load_listed(library.name, str(library), "", False)

    # --- hot plug ----------------------------------------------------------------------------------------------------

    def watch(self, callback: Callable[[SlotEvent], object], interval: float = 1.0) -> Watcher:
        """Have `callback` called for each token that is there now, and from then on for each that comes or goes.

        In one thread, in order, until the watcher that is returned is closed; a module that does not report events is looked at
        every `interval` seconds.  Modules that are loaded later are watched too.  Raises ConfigurationError.
        """
        watcher = Watcher(self._loaded_modules, self._tokens_changed, callback, interval)
        self._watchers.add(watcher)
        return watcher

    def _loaded_modules(self) -> list[PKCS11Module]:
        with self._lock:
            return list(self._loaded.values())

    def _tokens_changed(self) -> None:
        """A watcher saw tokens come or go.  No token is called here: one that hangs would hang whoever asks for mechanisms."""
        self._changes += 1
        inside = (self._internal.token, *(slot.contents for slot in self.databases))
        present = [*inside, *(token for module in self._loaded_modules() for token in module.remembered_tokens())]
        self._mechanisms = frozenset(name for token in present for name in _mechanisms_of(token))

    # --- keys and certificates ---------------------------------------------------------------------------------------

    def find_key(self, uri: str, pins: PinProvider | None = None) -> PrivateKey:
        """The private key that `uri` names; its token is logged in to where that is needed to see it.

        With `type=cert` or `type=public` it is the private key beside that object.  Raises NotFound, Ambiguous, PinError,
        TokenError, ConfigurationError.
        """
        found = self._find_keys(uri, pins)
        return found[0] if len(found) == 1 else _ambiguous(uri, found)

    def find_key_group(self, uri: str, pins: PinProvider | None = None) -> PrivateKey:
        """As `find_key`; but where several tokens hold the one key pair that `uri` names, it is all of them (`KeyGroup`)."""
        found = self._find_keys(uri, pins)
        if len(found) == 1:
            return found[0]
        pairs = {spki(key.public_key) if key.algorithms else b"" for key in found}
        tokens = {key.token.identity for key in found}
        return KeyGroup(found) if len(pairs) == 1 and len(tokens) == len(found) else _ambiguous(uri, found)

    def _find_keys(self, uri: str, pins: PinProvider | None) -> list[PrivateKey]:
        """At least one.  Raises as `find_key`, but for Ambiguous."""
        wanted = Uri.parse(uri)
        if wanted.type in ("secret-key", "data"):
            raise ConfigurationError(f"{wanted}: a private key is not of type {wanted.type}")
        pins = wanted.provider() or pins or self._pins
        for tokens in self._tokens_of(wanted):
            found: list[PrivateKey] = []
            for token in self._likely(wanted, tokens, pins):
                token.login(pins)
                found += _matching_keys(wanted, token, pins)
            if found or _of_modules(tokens):
                break
        if found:
            return found
        where = ", ".join(f'"{token.info.label}"' for token in tokens)
        label = tokens[0].info.label if len(tokens) == 1 else ""
        raise NotFound(f"{wanted}: no such private key on token {where}", name="SEC_ERROR_NO_KEY", token=label)

    def find_certificates(self, uri: str, pins: PinProvider | None = None) -> list[TokenCertificate]:
        """The X.509 certificates that `uri` names, [] for none.  Logs in only where the URI brings its own PIN or `pins` is given
        and none shows without.  Raises as `find_key`."""
        wanted = Uri.parse(uri)
        pins = wanted.provider() or pins
        for tokens in self._tokens_of(wanted):
            found = _matching_certificates(wanted, tokens)
            if not found and pins:
                for token in self._likely(wanted, tokens, pins):
                    token.login(pins)
                found = _matching_certificates(wanted, tokens)
            if found or _of_modules(tokens):
                break
        return found

    def certificate_for(self, key: PrivateKey) -> bytes | None:
        """The certificate (DER) of a key, from its own token: by CKA_ID, else any with the same public key."""
        if isinstance(key, KeyGroup):
            found = (self.certificate_for(member.key) for member in key.members)
            return next((der for der in found if der is not None), None)
        token = key.home if isinstance(key, TokenKey | DatabaseKey) else self._internal.token
        try:
            mine = spki(key.public_key)
        except NotFound:  # no certificate either, else it would have told the public key
            return None
        fitting = [item for item in token.certificates() if _certifies(item, mine)]
        fitting.sort(key=lambda item: item.id != key.id)
        return fitting[0].der if fitting else None

    def load_key_file(self, path: str, pins: PinProvider | None = None) -> tuple[PrivateKey, list[bytes]]:
        """A key from a PEM, PKCS #8 or PKCS #12 file, and the certificates found in it (DER, in the file's order).

        Raises ConfigurationError, PinError.
        """
        key, chain = read(path, pins or self._pins)
        return self._internal.token.add(key, chain, Path(path).stem), chain

    # --- nicknames ---------------------------------------------------------------------------------------------------

    def find_certificates_by_nickname(self, nickname: str, pins: PinProvider | None = None) -> list[TokenCertificate]:
        """The certificates that NSS's name `TOKEN:NICKNAME` stands for, or NICKNAME alone, which is that of a database; of an
        e-mail address those with it.  [] for none, and where there is no such token.  Logs in to a token only where it shows none
        before, and `pins` is given.  Raises PinError, TokenError, DatabaseError."""
        label, colon, name = nickname.partition(":")
        tokens: list[Token] = [slot.contents for slot in self.databases]
        if colon:
            tokens, nickname = [token for token in self.tokens() if token.info.label == label], name
        return [item for token in tokens for item in nicknamed(token, nickname, pins)]

    def find_key_by_certificate(self, der: bytes, pins: PinProvider | None = None) -> PrivateKey:
        """The private key that a certificate is of, on whatever token it lies, databases first; one that shows its keys only
        after login is logged in to where the certificate lies on it too.  Raises NotFound, PinError, TokenError."""
        public = from_certificate(der)
        tokens = sorted(self.tokens(), key=lambda token: not isinstance(token, DatabaseToken)) if public is not None else []
        for token in tokens:
            key = private_half(token, der, spki(public), pins or self._pins) if public is not None else None
            if key is not None:
                return key
        raise NotFound("no token has the private key of this certificate", name="SEC_ERROR_NO_KEY")

    # --- which tokens ------------------------------------------------------------------------------------------------

    def _tokens_of(self, uri: Uri) -> Iterator[list[Token]]:
        """The present tokens that the URI's module, slot and token attributes fit: those of the modules in use, then those of
        the modules that are registered.  Never nothing: raises NotFound."""
        if uri.vendor:
            raise NotFound(f"{uri}: attribute {uri.vendor[0][0]} is not known, so nothing matches (RFC 7512 section 2.5)")
        none, broken = True, list[TokenError]()
        for modules in self._modules_of(uri):
            tokens = _once([token for module in modules for token in _matching_tokens(uri, module, broken)])
            if tokens:
                none = False
                yield tokens
        if none and broken:
            raise broken[0]
        if none:
            raise NotFound(f"{uri}: there is no such token", token=uri.token or "")

    def _modules_of(self, uri: Uri) -> Iterator[list[Module]]:
        """Where to look: the module that is named, else those that are loaded, then those that are registered."""
        if uri.module_path:
            yield [self.load(_library_path(uri.module_path, uri.module_name))]
            return
        loaded = self.modules
        yield [module for module in loaded if uri.module_name in (None, _module_name(module.path))]
        registered = (module for module in self.load_registered() if module not in loaded)
        yield [module for module in registered if uri.module_name in (None, _module_name(module.path))]

    def _likely(self, uri: Uri, tokens: list[Token], pins: PinProvider | None) -> list[Token]:
        """Of several tokens those that show, before any login, that they have the key: no PIN is asked for the others'.

        Raises Ambiguous where nothing shows and a static PIN would have to be tried on one token after the other.
        """
        if len(tokens) < 2:
            return tokens
        for shows in (_shows_key, _shows_certificate):
            likely = [token for token in tokens if _tolerantly(shows, uri, token)]
            if likely:
                return likely
        closed = [token for token in tokens if "CKF_LOGIN_REQUIRED" in token.flags and not token.logged_in]
        if len(closed) > 1 and pins is not None and pins.static:
            names = ", ".join(f'"{token.info.label}"' for token in closed)
            raise Ambiguous(f"{uri}: the PIN may be that of any of {names}; name the token")
        return tokens


def _mechanisms_of(token: Token) -> Iterable[str]:
    try:
        return token.mechanisms()
    except TokenError as error:  # it has just gone, and takes with it what only it could do
        _log.info("mechanisms of token %s: %s", token.info.label, error)
        return ()


def _matching_tokens(uri: Uri, module: Module, broken: list[TokenError]) -> list[Token]:
    """None of a module that does not work, whose error goes to `broken`: the key may well be on another's token."""
    if not uri.matches_module(module):
        return []
    try:
        present = [slot.token for slot in module.slots() if uri.matches_slot(slot)]
    except TokenError as error:
        _log.info("module %s: %s", module.path, error)
        broken.append(error)
        return []
    return [token for token in present if token is not None and uri.matches_token(token.info) and _is_initialised(token)]


def _is_initialised(token: Token) -> bool:
    """A blank token (SoftHSM always shows one) has no sessions, so nothing to find."""
    try:
        return bool(token.info.label) or "CKF_TOKEN_INITIALIZED" in token.flags
    except TokenError:
        return False


def _once(tokens: list[Token]) -> list[Token]:
    """A token that two modules show (OpenSC comes in several libraries) is one token: the first that shows it counts."""
    seen: dict[object, Token] = {}
    for token in tokens:
        info = token.info
        shared = info.serial and not isinstance(token, DatabaseToken)  # NSS gives all databases the same serial number
        seen.setdefault((info.label, info.serial, info.manufacturer, info.model) if shared else token, token)
    return list(seen.values())


def _of_modules(tokens: list[Token]) -> bool:
    """Whether one of them is not the internal one, which any loose URI fits."""
    return any(token.info.module for token in tokens)


def _matching_keys(uri: Uri, token: Token, pins: PinProvider | None) -> list[PrivateKey]:
    """The keys that the URI names, themselves or by the certificate or public key beside them."""
    if uri.type in ("cert", "public"):
        if uri.type == "cert":
            ids = {item.id for item in token.certificates() if uri.matches_object(item.label, item.id)}
        else:
            ids = {id for label, id in token.public_names() if uri.matches_object(label, id)}
        return [key for id in ids if id for key in token.find_keys(pins, id=id)]
    return list(token.find_keys(pins, uri.object, uri.id))


def _tolerantly(shows: Callable[[Uri, Token], bool], uri: Uri, token: Token) -> bool:
    """A token that fails while one looks for what may lie on another shows nothing."""
    try:
        return shows(uri, token)
    except TokenError as error:
        _log.info("looking for %s on token %s: %s", uri, token.info.label, error)
        return False


def _shows_key(uri: Uri, token: Token) -> bool:
    public = any(uri.matches_object(label, id) for label, id in token.public_names())
    return public or bool(token.find_keys(label=uri.object, id=uri.id))


def _shows_certificate(uri: Uri, token: Token) -> bool:
    return "CKF_LOGIN_REQUIRED" in token.flags and bool(_matching_certificates(uri, [token]))


def _matching_certificates(uri: Uri, tokens: list[Token]) -> list[TokenCertificate]:
    found = []
    for token in tokens:
        try:
            found += [item for item in token.certificates() if uri.matches_object(item.label, item.id)]
        except TokenError as error:
            if len(tokens) == 1:
                raise
            _log.info("looking for %s on token %s: %s", uri, token.info.label, error)
    return found


def _certifies(item: TokenCertificate, public: bytes) -> bool:
    key = from_certificate(item.der)
    return key is not None and spki(key) == public


def _ambiguous(uri: str, found: list[PrivateKey]) -> NoReturn:
    raise Ambiguous(f"{Uri.parse(uri)} names {len(found)} objects: {', '.join(item.uri for item in found)}")


def _module_name(path: str) -> str:
    """A library's name without path, prefix and suffix (RFC 7512 section 2.3)."""
    return os.path.basename(path).split(".")[0].removeprefix("lib")


def _library_path(path: str, name: str | None) -> str:
    """`module-path` is a library, or a directory that holds the one of `module-name`."""
    if not os.path.isdir(path):
        return path
    if not name:
        raise ConfigurationError(f"module-path {path} is a directory: module-name is wanted too")
    candidates = [os.path.join(path, file) for file in (f"{name}.so", f"lib{name}.so")]
    return next((file for file in candidates if os.path.exists(file)), candidates[0])
