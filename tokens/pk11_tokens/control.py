"""The server's side of control: what hands do to tokens and readers, and what can be asked, over a socket of its own.

A request is a line of JSON, `{"command": "remove", "token": "card"}` with the command's arguments beside it; the answer is
one too: `{"result": ...}` or `{"error": "in words"}`.  Every public method of `Control` is a command.  May use `machine`,
`behaviour` and `journal`; the other side is `simulator`.
"""

from __future__ import annotations

import inspect
import json
import socketserver
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .abi import CKA, CKM, CKO, CKR, FUNCTIONS
from .behaviour import RANDOM_RESULTS, Failure
from .personalities import Person

if TYPE_CHECKING:
    from .journal import Journal
    from .machine import Machine, Reader, Token


class Control:
    """What can be done to a machine while hosts use it.  Commands raise ValueError with words for whoever asked."""

    def __init__(self, machine: Machine, journal: Journal) -> None:
        self._machine = machine
        self._journal = journal
        self._last_reader: dict[Token, Reader] = {reader.token: reader for reader in machine.readers if reader.token}

    # --- hands -------------------------------------------------------------------------------------------------------

    def remove(self, token: str) -> None:
        """Pull the token out of its reader."""
        found = self._token(token)
        reader = self._machine.reader_of(found)
        if reader is None:
            raise ValueError(f'token "{token}" is in no reader')
        reader.remove()

    def insert(self, token: str, reader: str | None = None) -> None:
        """Put the token into a reader, into the one that it was in last if none is named."""
        found = self._token(token)
        into = self._reader(reader) if reader is not None else self._last_reader.get(found) or self._empty_reader()
        into.insert(found)
        self._last_reader[found] = into

    def swap(self, reader: str, token: str) -> None:
        """Take out what is in the reader and put another token in."""
        into, found = self._reader(reader), self._token(token)
        elsewhere = self._machine.reader_of(found)
        if elsewhere is not None:
            raise ValueError(f'token "{token}" is in "{elsewhere.description}"')
        with self._machine.changed:
            if into.token is not None:
                into.remove()
            into.insert(found)
        self._last_reader[found] = into

    def lock(self, token: str) -> None:
        """Use up the tries of the user PIN."""
        found = self._token(token)
        with found.lock:
            found.user_pin.lock()

    def unlock(self, token: str) -> None:
        """Give all tries back, of both PINs."""
        found = self._token(token)
        with found.lock:
            found.user_pin.unlock()
            found.so_pin.unlock()

    def person(self, token: str, delay: float = 0.0, pin: str | None = None, mistakes: int = 0, *, cancels: bool = False) -> None:
        """Somebody else stands at the keypad."""
        self._token(token).behaviour.meet(Person(_seconds(delay), pin, mistakes, cancels))

    def offer(self, token: str, mechanisms: Sequence[str]) -> None:
        """Have the token offer these mechanisms and no other."""
        found = self._token(token)
        names = tuple(dict.fromkeys(map(_mechanism, mechanisms)))
        with found.lock:
            found.personality = replace(found.personality, mechanisms=names)

    # --- misfortunes -------------------------------------------------------------------------------------------------

    def disconnect(self, token: str) -> None:
        """End every session and login with the token."""
        self._machine.disconnect(self._token(token))

    def slow(self, token: str, seconds: float, function: str = "*") -> None:
        """Let a function take so long; "*": every operation, and nothing else that was slow."""
        self._token(token).behaviour.slow(_seconds(seconds), _function(function))

    def fail(
        self, token: str, function: str, result: str, times: int = 1, *, when: str = "before", disconnect: bool = False
    ) -> None:
        """Let the next calls of a function fail."""
        if when not in ("before", "after"):
            raise ValueError(f'when is "before" or "after", not "{when}"')
        if times < 0:
            raise ValueError("times must not be negative; 0 is until cleared")
        failure = Failure(_function(function), _result(result), times, when == "after", disconnect)
        self._token(token).behaviour.fail(failure)

    def fail_randomly(self, token: str, rate: float, seed: int = 0, results: Sequence[str] = ()) -> None:
        """Let calls fail by chance."""
        named = [_result(result) for result in results]
        self._token(token).behaviour.fail_randomly(_rate(rate), seed, named or RANDOM_RESULTS)

    def wrong_signatures(self, token: str, rate: float, seed: int = 0) -> None:
        """Let signatures be wrong by chance."""
        self._token(token).behaviour.wrong_signatures(_rate(rate), seed)

    def clear(self, token: str) -> None:
        """Let nothing fail any longer."""
        self._token(token).behaviour.clear()

    # --- questions ---------------------------------------------------------------------------------------------------

    def tokens(self) -> list[str]:
        """The tokens by name, those in readers first."""
        inserted = [reader.token.name for reader in self._machine.readers if reader.token]
        return inserted + [name for name in self._machine.tokens if name not in inserted]

    def readers(self) -> list[dict[str, Any]]:
        """The readers and what is in them."""
        return [
            {"slot": reader.id, "name": reader.description, "token": reader.token and reader.token.name}
            for reader in self._machine.readers
        ]

    def status(self, token: str) -> dict[str, Any]:
        """How a token is: the fields of `TokenStatus`."""
        found = self._token(token)
        reader = self._machine.reader_of(found)
        behaviour = found.behaviour
        behaviour.expire(found)
        with self._machine.lock:
            logged_in = any(found in host.logins for host in self._machine.hosts.values())
        pin = found.user_pin
        return {
            "name": found.name,
            "label": found.label,
            "serial": found.serial,
            "personality": found.personality.name,
            "present": reader is not None,
            "reader": reader and reader.description,
            "sessions": len(self._machine.sessions_with(found)),
            "logged_in": logged_in,
            "tries_left": None if not pin.limit else 0 if pin.locked else pin.tries,
            "locked": pin.locked,
            "pin_attempts": pin.attempts,
            "objects": len(found.objects),
            "operations_running": behaviour.operations_running,
            "operations_waiting": behaviour.operations_waiting,
            "most_running": behaviour.most_running,
            "waiting_for_person": bool(behaviour.waiting_for_person),
            "wrong_signatures": behaviour.spoiled,
            "calls": self._journal.count(found.name),
        }

    def mechanisms(self, token: str) -> list[str]:
        """What the token offers."""
        return list(self._token(token).personality.mechanisms)

    def calls(self, since: int = 0) -> list[dict[str, Any]]:
        """The last calls of all hosts, those after number `since`."""
        return self._journal.calls(since)

    def forget_calls(self) -> None:
        """Forget the calls so far, and their counts."""
        self._journal.forget()

    def journal(self, path: str) -> None:
        """Append calls to a file from now on."""
        try:
            self._journal.write_to(Path(path))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None

    def certificate(self, token: str, label: str) -> str:
        """A certificate of the token by its label: DER in hexadecimal."""
        return self._value(token, label, CKO.CERTIFICATE, CKA.VALUE, "certificate")

    def public_key(self, token: str, label: str) -> str:
        """The public key of a pair by its label: SubjectPublicKeyInfo, DER in hexadecimal."""
        return self._value(token, label, CKO.PUBLIC_KEY, CKA.PUBLIC_KEY_INFO, "public key")

    # --- names -------------------------------------------------------------------------------------------------------

    def _token(self, name: str) -> Token:
        if name not in self._machine.tokens:
            raise ValueError(f'there is no token "{name}"; there is {_list(self._machine.tokens)}')
        return self._machine.tokens[name]

    def _reader(self, name: str) -> Reader:
        """A reader by its name, the beginning of it, or its slot number."""
        readers = self._machine.readers
        exact = [reader for reader in readers if name in (reader.description, str(reader.id))]
        similar = [reader for reader in readers if reader.description.lower().startswith(name.lower())]
        for found in (exact, similar):
            if len(found) == 1:
                return found[0]
        names = _list(reader.description for reader in readers)
        raise ValueError(f'"{name}" names {"several readers" if similar else "no reader"}; there is {names}')

    def _empty_reader(self) -> Reader:
        for reader in self._machine.readers:
            if reader.token is None:
                return reader
        raise ValueError("every reader has a token in it; swap takes one out")

    def _value(self, token: str, label: str, kind: CKO, attribute: CKA, what: str) -> str:
        found = self._token(token).objects.find(kind, label)
        if found is None:
            raise ValueError(f'token "{token}" has no {what} labelled "{label}"')
        return found.values[attribute].hex()


def _list(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in names) or "none"


def _function(name: str) -> str:
    if name != "*" and name not in FUNCTIONS:
        raise ValueError(f'PKCS #11 has no function "{name}"')
    return name


def _result(name: str) -> int:
    """A CKR by name, or a vendor's by number."""
    short = name.removeprefix("CKR_")
    if short in CKR.__members__:
        return CKR[short]
    try:
        return int(name, 0)
    except ValueError:
        raise ValueError(f'PKCS #11 has no result "{name}"') from None


def _mechanism(name: str) -> str:
    if not name.startswith("CKM_") or name.removeprefix("CKM_") not in CKM.__members__:
        raise ValueError(f"{name} is no mechanism known here")
    return name


def _seconds(value: float) -> float:
    if value < 0:
        raise ValueError("seconds must not be negative")
    return value


def _rate(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("a rate is a number from 0 to 1")
    return value


# --- the socket ------------------------------------------------------------------------------------------------------


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Answers requests at `path`, each connection in a thread."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, control: Control) -> None:
        self.control = control
        super().__init__(str(path), _Requests)
        threading.Thread(target=self.serve_forever, name="control", daemon=True).start()


class _Requests(socketserver.StreamRequestHandler):
    """The requests of one connection."""

    server: ControlServer

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(json.dumps(_answer(self.server.control, line)).encode() + b"\n")


def _answer(control: Control, line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
        command = request.pop("command")
        method = None if command.startswith("_") else getattr(control, command, None)
        if method is None:
            raise ValueError(f'there is no command "{command}"')
        inspect.signature(method).bind(**request)
        return {"result": method(**request)}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return {"error": str(error)}
