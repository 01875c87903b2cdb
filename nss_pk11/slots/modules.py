"""Modules and their slots; one library per path and process; the modules that p11-kit has registered.

A library belongs to the process, not to a manager: it is initialised by the first that loads it and finalised when the last
lets go, and never unloaded.  A forked child starts over.
"""

from __future__ import annotations

import logging
import os
import re
import sysconfig
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from . import faults
from .cryptoki import Library, TokenDetails
from .forks import prepare_library
from .login import PinMemory
from .model import Module, Slot, Token, TokenInfo
from .tokens import PKCS11Token

if TYPE_CHECKING:
    from ..pins import PinProvider

_log = logging.getLogger(__name__)
_STUCK_FOR = 3.0  # seconds
_lock = threading.Lock()
_libraries: dict[str, Library] = {}
_users: dict[str, int] = {}


def _acquire(path: str, parameters: str) -> Library:
    with _lock:
        key = library_key(path)
        library = _libraries.get(key)
        if library is None:
            library = _libraries[key] = Library(path, parameters)
            prepare_library(library)
        else:
            library.reopen()
        _users[key] = _users.get(key, 0) + 1
        return library


def _release(path: str) -> None:
    with _lock:
        key = library_key(path)
        _users[key] -= 1
        if not _users[key]:
            _libraries[key].finalize()


def _shared(path: str) -> bool:
    """Whether other managers of this process use the library."""
    return _users.get(library_key(path), 0) > 1


def library_key(path: str) -> str:
    """The same for every path of one library.  A bare name is left to the dynamic linker."""
    return os.path.realpath(path) if os.sep in path else path


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class PKCS11Module(Module):
    """A library in use by one manager.  Raises TokenError (SEC_ERROR_NO_MODULE) if it does not load."""

    def __init__(self, path: str, parameters: str, pins: PinProvider | None, memory: PinMemory) -> None:
        self.path = path
        self._pins, self._memory = pins, memory
        self.library = _acquire(path, parameters)
        self.manufacturer, self.description = self.library.manufacturer_id, self.library.library_description
        self.version = self.library.library_version
        self._slots: dict[int, PKCS11Slot] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._stuck_since: float | None = None  # monotonic: since when nothing but errors of the device

    def slots(self) -> list[Slot]:
        ids = self.library.slot_ids()
        with self._lock:
            self._slots = {id: self._slots.get(id) or PKCS11Slot(self, id) for id in ids}
            return list(self._slots.values())

    def remembered_tokens(self) -> list[PKCS11Token]:
        """The tokens that were there when their slots were last looked at; costs no call."""
        with self._lock:
            return [token for slot in self._slots.values() if (token := slot.remembered) is not None]

    def make_token(self, slot: PKCS11Slot, details: TokenDetails) -> PKCS11Token:
        names = (details.label, details.serial, details.manufacturer, details.model)
        info = TokenInfo(*names, slot.description, slot.id, self.path, slot.hardware)
        return PKCS11Token(self, self.library, info, details, self._pins, self._memory)

    def recovered(self, token: PKCS11Token, rv: int) -> None:
        """How the search for a token that was lost ended: CKR_OK, or what its module says.

        Some modules do not get over a broken link (yubihsm-pkcs11, CloudHSM's): only C_Finalize and C_Initialize help.  That ends
        every session in the library, so it is the last resort: after `_STUCK_FOR` seconds, and while no other token is logged in.
        """
        if rv not in faults.STUCK:
            self._stuck_since = None
            return
        now = time.monotonic()
        since = self._stuck_since = self._stuck_since or now
        others = [other for other in self.remembered_tokens() if other is not token]
        if now < since + _STUCK_FOR or _shared(self.path) or any(other.logged_in for other in others):
            return
        self._stuck_since = None
        token.forget_sessions()
        if self.library.restart():
            what = faults.result_name(rv)
            _log.warning("%s has had nothing but %s for %g s and was initialised anew", self.path, what, now - since)

    def close(self) -> None:
        """Close every session and let the library go."""
        if self._closed:
            return
        self._closed = True
        idle = [slot.close() for slot in self._slots.values()]
        if all(idle):
            _release(self.path)
        else:  # C_Finalize under a running C_Sign crashes: better initialised for ever
            _log.warning("%s is still busy and stays initialised", self.path)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        for slot in self._slots.values():
            slot.after_fork()


class PKCS11Slot(Slot):
    def __init__(self, module: PKCS11Module, id: int) -> None:
        details = module.library.slot_details(id)
        self.id, self.module = id, module
        self._module = module
        self.description, self.manufacturer = details.description, details.manufacturer
        self.removable, self.hardware = details.removable, details.hardware
        # Every token that was ever here and is still in use: one that comes back is the same, or each would want the only
        # session of a card for itself.
        self._known: WeakValueDictionary[tuple[str, ...], PKCS11Token] = WeakValueDictionary()
        self._token: PKCS11Token | None = None
        self.remembered: PKCS11Token | None = None  # None where the last look found none
        self._lock = threading.Lock()

    @property
    def token(self) -> Token | None:
        with self._lock:
            details = self._module.library.token_details(self.id)
            if details is None:
                if self._token is not None:
                    self._token.forget_sessions()  # it may come back
                    self._token.forget_mechanisms()  # and with other firmware
                self.remembered = None
                return None
            if self._token is None or not self._token.is_described_by(details):
                if self._token is not None:
                    self._token.forget_sessions()
                names = (details.label, details.serial, details.manufacturer, details.model)
                self._token = self._known.get(names) or self._module.make_token(self, details)
                self._known[names] = self._token
            self.remembered = self._token
            return self._token

    def close(self) -> bool:
        """False if the token is still at work."""
        closed = [token.close() for token in list(self._known.values())]
        return all(closed)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        for token in list(self._known.values()):
            token.after_fork()


# --- p11-kit ---------------------------------------------------------------------------------------------------------

_PROGRAM = "nss-pk11"


@dataclass(frozen=True)
class Registration:
    """A module that pkcs11.conf(5) files name.  `critical`: an error of it is not passed over."""

    name: str
    path: str
    parameters: str = ""
    critical: bool = False


def registrations(directories: list[Path] | None = None) -> list[Registration]:
    """The registered modules, by priority, then name.  A later directory's file replaces an earlier one's of the same name."""
    files: dict[str, Path] = {}
    for directory in _directories() if directories is None else directories:
        if directory.is_dir():
            files.update({file.name: file for file in sorted(directory.glob("*.module"))})
    found = []
    for name, file in sorted(files.items()):
        settings = _settings(file)
        if settings.get("module") and _enabled(settings):
            path = _locate(settings["module"])
            entry = Registration(name, path, settings.get("x-init-reserved", ""), settings.get("critical") == "yes")
            found.append((-_priority(settings), entry))
    return [entry for _, entry in sorted(found, key=lambda item: (item[0], item[1].name))]


def _directories() -> list[Path]:
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [Path("/usr/share/p11-kit/modules"), Path("/etc/pkcs11/modules"), user / "pkcs11/modules"]


def _settings(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if not line.lstrip().startswith("#"))
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _enabled(settings: dict[str, str]) -> bool:
    enable, disable = (re.split(r"[,\s]+", settings.get(name, "")) for name in ("enable-in", "disable-in"))
    return (_PROGRAM in enable) if any(enable) else _PROGRAM not in disable


def _priority(settings: dict[str, str]) -> int:
    value = settings.get("priority", "0")
    return int(value) if re.fullmatch(r"-?\d+", value) else 0


def _locate(module: str) -> str:
    """A relative path is one in p11-kit's module directory, whose place depends on how it was built."""
    if os.path.isabs(module):
        return module
    return next((str(path) for path in _candidates(module) if path.exists()), module)


def _candidates(module: str) -> Iterator[Path]:
    multiarch = sysconfig.get_config_var("MULTIARCH")
    for library in (f"/usr/lib/{multiarch}", "/usr/lib64", "/usr/lib", "/usr/local/lib"):
        yield Path(library) / "pkcs11" / module
