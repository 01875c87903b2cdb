"""What `serve` shows of its work while it runs: `--metrics` and `--audit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .output import note
from .tls_options import Address, parse_address

if TYPE_CHECKING:
    import socket

    from prometheus_client import CollectorRegistry

    from ..net.connection import Application, Connection
    from ..net.metrics import Metrics
    from ..net.server import Server
    from ..net.uses import Observer

Publish = Callable[["CollectorRegistry"], AbstractContextManager[object]]  # gives the numbers out while it is entered


class Scraped:
    """The socket of --metrics HOST:PORT, and who answers there.  Make it before the fork.

    Raises ConfigurationError where prometheus-client is not installed, and whatever `listen` does.
    """

    def __init__(self, address: str, listen: Callable[[Address], socket.socket], workers: int) -> None:
        from ..net import scrape

        scrape.omit_birthdays()
        self._scrape = scrape
        self._listener = listen(parse_address(address))
        self._links = scrape.Links(workers if workers > 1 else 0)

    def here(self, registry: CollectorRegistry) -> AbstractContextManager[object]:
        """The only process answers by itself."""
        from ..net.log import peer_name

        note(f"metrics at http://{peer_name(self._listener.getsockname())}/metrics")
        return self._scrape.Endpoint(self._listener, registry)

    def in_worker(self, number: int) -> Publish:
        """A worker answers the process that answers for all."""
        self._listener.close()
        link = self._links.keep(number)
        return lambda registry: self._scrape.Reporter(link, registry)

    def in_parent(self) -> AbstractContextManager[object]:
        """For all workers.  The process must fork no more: this starts a thread."""
        return self.here(self._links.registry())


@dataclass(frozen=True)
class Watched:
    """`observers`: to be told of every use of a key.  `metrics`: to be told of the rest; None without --metrics."""

    observers: tuple[Observer, ...]
    metrics: Metrics | None

    def callbacks(
        self, application: Callable[[Connection], Application], closed: Callable[[Connection], None]
    ) -> tuple[Callable[[Connection], Application], Callable[[Connection], None]]:
        """A server's callbacks, counted if there is who counts."""
        return (application, closed) if self.metrics is None else self.metrics.counting(application, closed)

    def server(self, server: Server) -> None:
        """Whose connections are counted, and whose keys' tokens are watched."""
        if self.metrics is not None:
            from ..net.identity import key_of

            self.metrics.connections = lambda: server.connections
            self.metrics.groups = [server.executor.group(key_of(identity)) for identity in server.config.identities]


@contextmanager
def watched(publish: Publish | None, audit: str | None) -> Iterator[Watched]:
    """Metrics given out by `publish`, and an audit log in the file `audit`.  Raises ConfigurationError."""
    observers: list[Observer] = []
    metrics: Metrics | None = None
    with ExitStack() as stack:
        if publish is not None:
            from ..net.metrics import Metrics

            metrics = Metrics()
            observers.append(metrics.key_used)
            stack.enter_context(publish(metrics.registry))
        if audit is not None:
            from ..net.audit import AuditLog

            audit_log = stack.enter_context(AuditLog(audit))
            observers.append(audit_log)
            if metrics is not None:
                metrics.audit_lines_lost = lambda: audit_log.lost
        yield Watched(tuple(observers), metrics)
