"""Trust as an NSS database gives it, where `Trust` gives that of a file or of the system: the same questions, NSS's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from . import nss
from .facts import facts
from .stores import DatabaseStore, JoinedStore, Records


class DatabaseTrust:
    """A `Verifier` for `net` on any `nss.TrustStore`.  Thread-safe where the store is."""

    def __init__(self, store: nss.TrustStore, anchors: Callable[[], Iterable[bytes]] = tuple) -> None:
        """`anchors`: the certificates, DER, that are trusted to issue clients' certificates, asked for `authorities`."""
        self.store, self._anchors = store, anchors

    @classmethod
    def of(cls, records: Records, *more: nss.TrustStore) -> DatabaseTrust:
        """That of a database and, for what it says nothing about, of `more`: root modules, say."""
        store = DatabaseStore(records)
        return cls(JoinedStore(store, *more) if more else store, store.client_authorities)

    @property
    def authorities(self) -> tuple[bytes, ...]:
        """Subject names, DER, each once, of the CAs trusted for clients (`T`), for certificate_authorities (RFC 8446 section
        4.2.4), as CERT_GetSSLCACerts collects them."""
        return tuple(dict.fromkeys(facts(der).subject for der in self._anchors()))

    def verify_server(self, chain: Sequence[bytes], server_name: str, *, now: float, ocsp: bytes | None = b"") -> list[bytes]:
        """As `Trust.verify_server`."""
        return nss.verify_peer(chain, self.store, nss.Usage.SERVER, now=now, host=server_name, ocsp=ocsp)

    def verify_client(self, chain: Sequence[bytes], *, now: float) -> list[bytes]:
        """As `Trust.verify_client`."""
        return nss.verify_peer(chain, self.store, nss.Usage.CLIENT, now=now)
