"""Gives metrics out: over HTTP to Prometheus, and from workers to the process that answers for them all.

Theory of operation
-------------------

One process answers by itself: a thread with an HTTP server on a socket of its own.

With several workers each keeps its own numbers and its own tokens' states.  Another process, which never loads a PKCS #11
library, answers HTTP; on every scrape it asks each worker over a socket pair that both have had since they were forked, and gives
each one's numbers a label `worker`.  So states are those of this moment, a worker that hangs costs the others nothing but
`PATIENCE`, the numbers of one that died go with it, and no file is shared.  (prometheus_client's own way, files that all
processes map, knows only numbers that are pushed.)

Knows no tokens, and no PKCS #11.  Needs the extra `metrics`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from ..errors import ConfigurationError

try:
    from prometheus_client import CollectorRegistry, disable_created_metrics, make_wsgi_app
    from prometheus_client.metrics_core import GaugeMetricFamily, Metric
except ImportError:
    raise ConfigurationError("metrics need the package prometheus-client: pip install 'nss-pk11[metrics]'") from None

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds to wait for the workers' numbers
REQUEST_TIMEOUT = 5.0  # seconds without a byte of a scraper's


def omit_birthdays() -> None:
    """Leave `_created` samples out, of every metric of this process: they double the page, and say nothing that the first value
    of a number does not."""
    disable_created_metrics()  # type: ignore[no-untyped-call]


class _Service:
    """A thread that serves `sock`, which it owns, while it is entered."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._ending = sock, False
        self._thread = Thread(target=self._run, name="metrics", daemon=True)

    def _run(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> _Service:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._ending = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # which wakes the thread
        self._thread.join()
        self._sock.close()


class Endpoint(_Service):
    """Answers HTTP requests on `listener` (bound and listening; owned) with the numbers of `registry`, while it is entered."""

    def __init__(self, listener: socket.socket, registry: CollectorRegistry) -> None:
        super().__init__(listener)
        self._server = _Server(listener, make_wsgi_app(registry))

    def _run(self) -> None:
        while not self._ending:
            self._server.handle_request()


class _Server(ThreadingMixIn, WSGIServer):
    """The standard library's, on a socket that is listening already."""

    daemon_threads = True  # a scraper that reads slowly must not keep the server from ending

    def __init__(self, listener: socket.socket, app: Callable[..., Any]) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()  # the one that the class has made
        self.socket = listener
        self.server_name, self.server_port = listener.getsockname()[:2]
        self.setup_environ()
        self.set_app(app)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a scraper went away: %s", client_address, exc_info=True)


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not news."""


# --- workers -----------------------------------------------------------------------------------------------------------------


class Links:
    """A socket pair for each of `count` workers and whoever answers for them; made before any of them is forked.

    The process that forks keeps all ends open: a worker that replaces another goes on with its link.
    """

    def __init__(self, count: int) -> None:
        self._pairs = [socket.socketpair() for _ in range(count)]

    def keep(self, number: int) -> socket.socket:
        """In worker `number`: its own end; all others are closed."""
        for index, (askers, workers) in enumerate(self._pairs):
            askers.close()
            if index != number:
                workers.close()
        return self._pairs[number][1]

    def registry(self) -> CollectorRegistry:
        """In the process that answers for all: the numbers of all workers."""
        for _, workers in self._pairs:
            workers.close()
        registry = CollectorRegistry()
        registry.register(_Workers([askers for askers, _ in self._pairs]))
        return registry


class Reporter(_Service):
    """In a worker: answers questions on `link` (owned) with the numbers of `registry`, while it is entered.

    A question is a line with a number; the answer a line of JSON that repeats it.
    """

    def __init__(self, link: socket.socket, registry: CollectorRegistry) -> None:
        super().__init__(link)
        self._registry = registry

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # nobody is left to ask
            while questions := self._sock.recv(1 << 16).split():
                # Of several the last: whoever put the others waits no more.
                answer = {"question": int(questions[-1]), "families": [_packed(each) for each in self._registry.collect()]}
                # The line before may be torn: that of a worker that was killed.
                self._sock.sendall(b"\n" + json.dumps(answer).encode() + b"\n")


class _Workers:
    """The numbers of several workers, as they are when Prometheus asks (a collector of prometheus_client)."""

    def __init__(self, links: Sequence[socket.socket]) -> None:
        self._links = links
        self._unread = [b"" for _ in links]
        self._question = time.monotonic_ns()  # no number twice: a process that answered before this one may have asked too
        self._lock = Lock()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            answers = self._ask()
        yield GaugeMetricFamily("nss_pk11_workers", "Workers that answered.", value=len(answers))
        families: dict[str, Metric] = {}
        for number, answer in answers.items():
            for name, documentation, kind, samples in answer:
                family = families.setdefault(name, Metric(name, documentation, kind))
                for sample, labels, value in samples:
                    family.add_sample(sample, labels | {"worker": str(number)}, value)
        yield from families.values()

    def _ask(self) -> dict[int, list[Any]]:
        """Ask all at once; what each that answers in time has said, by its number."""
        self._question += 1
        for link in self._links:
            link.setblocking(False)
            with contextlib.suppress(OSError):  # it has not read for very long
                link.sendall(b"%d\n" % self._question)
        deadline = time.monotonic() + PATIENCE
        answers = {number: self._answer(number, deadline) for number in range(len(self._links))}
        return {number: answer for number, answer in answers.items() if answer is not None}

    def _answer(self, number: int, deadline: float) -> list[Any] | None:
        """What worker `number` says to the present question; None if it does not in time."""
        link = self._links[number]
        while True:
            line, newline, rest = self._unread[number].partition(b"\n")
            if newline:
                self._unread[number] = rest
                with contextlib.suppress(ValueError):  # torn, or empty
                    answer = json.loads(line)
                    if answer["question"] == self._question:  # else it came too late
                        return list(answer["families"])
                continue
            link.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = link.recv(1 << 16)
            except OSError:  # most often TimeoutError
                return None
            if not data:
                return None
            self._unread[number] += data


def _packed(family: Metric) -> tuple[str, str, str, list[tuple[str, dict[str, str], float]]]:
    return family.name, family.documentation, family.type, [(s.name, s.labels, s.value) for s in family.samples]
