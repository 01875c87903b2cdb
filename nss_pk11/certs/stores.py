"""Where verification as NSS does it (`nss`) finds certificates, trust and CRLs: a database, memory, or several in order.

Knows a database by what it answers (`Records`), not by its room.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from .facts import facts
from .info import reading
from .nss import TrustStore

T = TypeVar("T")
_MOST_ANSWERS = 4096  # kept of one database: peers ask about certificates of their own making


class Records(Protocol):
    """What is asked of a database (`nss_pk11.db.database.Database` answers it)."""

    @property
    def version(self) -> object:
        """Another value whenever answers may be other than before."""

    def certificates(self, *, subject: bytes | None = None) -> Sequence[Any]:
        """Records with the `der` of the certificates of this subject, or of all."""

    def recorded_trust(self, der: bytes) -> Any:
        """Its `ssl` prints as certutil's letters; None where nothing is said of the certificate."""

    def crls(self) -> Sequence[Any]:
        """Records with the `der` of CRLs and of their `issuer`."""


class DatabaseStore:
    """A database as it is at the moment: answers are kept for as long as its `version` stays.  Thread-safe."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._answers: _Answers = _Answers(None)

    def find_by_subject(self, subject: bytes) -> Sequence[bytes]:
        return self._ask("subject", subject, lambda: [record.der for record in self._records.certificates(subject=subject)])

    def trust(self, der: bytes) -> str | None:
        said = self._ask("trust", der, lambda: self._records.recorded_trust(der))
        return None if said is None else str(said.ssl)

    def crls(self, issuer: bytes) -> Sequence[bytes]:
        lists = self._ask("crls", b"", lambda: list(self._records.crls()))
        return [record.der for record in lists if record.issuer == issuer]

    def client_authorities(self) -> list[bytes]:
        """The certificates, DER, that are trusted to issue clients' certificates."""
        known = self._ask("all", b"", lambda: [record.der for record in self._records.certificates()])
        return [der for der in known if "T" in (self.trust(der) or "")]

    def _ask(self, question: str, about: bytes, ask: Callable[[], T]) -> T:
        version = self._records.version
        answers = self._answers
        if answers.version != version or len(answers.known) >= _MOST_ANSWERS:
            answers = self._answers = _Answers(version)
        if (question, about) not in answers.known:
            answers.known[question, about] = ask()  # of this version or a later one: never an older answer
        found: T = answers.known[question, about]
        return found


@dataclass
class _Answers:
    """What a database answered while it had this version."""

    version: object
    known: dict[tuple[str, bytes], Any] = field(default_factory=dict)


class MemoryStore:
    """Certificates with their letters, all there from the beginning: a root module's, say, or those of a file."""

    @reading()
    def __init__(self, certificates: Mapping[bytes, str], crls: Mapping[bytes, Sequence[bytes]] | None = None) -> None:
        """`certificates`: DER, with letters as `TrustStore.trust` gives them; `crls`: by the DER of their issuer's name.
        Raises CertificateError where a certificate does not parse."""
        self._trust, self._crls = dict(certificates), dict(crls or {})
        self._by_subject: dict[bytes, list[bytes]] = {}
        for der in certificates:
            self._by_subject.setdefault(facts(der).subject, []).append(der)

    def find_by_subject(self, subject: bytes) -> Sequence[bytes]:
        return self._by_subject.get(subject, ())

    def trust(self, der: bytes) -> str | None:
        return self._trust.get(der)

    def crls(self, issuer: bytes) -> Sequence[bytes]:
        return self._crls.get(issuer, ())


class JoinedStore:
    """Several stores as one, in the order of their trust: the first that says anything about a certificate is believed, so that
    a user's database overrules the root module."""

    def __init__(self, *stores: TrustStore) -> None:
        self._stores = stores

    def find_by_subject(self, subject: bytes) -> Iterator[bytes]:
        return (der for store in self._stores for der in store.find_by_subject(subject))

    def trust(self, der: bytes) -> Container[str] | None:
        found = (store.trust(der) for store in self._stores)
        return next((letters for letters in found if letters is not None), None)

    def crls(self, issuer: bytes) -> Iterable[bytes]:
        return (der for store in self._stores for der in store.crls(issuer))
