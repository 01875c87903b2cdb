"""What a server tells Prometheus: uses of keys, the state of their tokens, handshakes.

Counts what happens where it happens, and reads states (sessions, logins, breakers) only when it is asked for them.  Touches
no socket: `scrape` gives the numbers out.  Needs the extra `metrics`; importing this module without it raises
ConfigurationError.

Theory of operation
-------------------

The hot path is one dictionary look-up and an increment per number: the labels of a combination are bound once.

A scrape must answer when a token hangs, since that is when it is wanted.  So whatever needs a call into a PKCS #11 module is
asked in a thread of its own and given `PATIENCE`; a token that does not answer in time is `up 0`, and what it would have said
is left out.  What we know ourselves, such as the threads that wait for its sessions, is always there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import add
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ConfigurationError, NSPRError
from ..slots import TokenKey

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
    from prometheus_client.metrics_core import GaugeMetricFamily, Metric
except ImportError:
    raise ConfigurationError("metrics need the package prometheus-client: pip install 'nss-pk11[metrics]'") from None

if TYPE_CHECKING:
    from ..slots import TokenInfo
    from ..slots.group import KeyGroup, Member
    from ..slots.keys import Home
    from ..slots.sessions import SessionPool
    from .connection import Application, Connection
    from .uses import KeyUse

PATIENCE = 0.5  # seconds that a scrape waits for the answers of tokens
REMEMBERED = 4096  # combinations of labels whose numbers are bound
# Seconds: a signature in software takes 50 microseconds, one by a card or a distant HSM up to seconds.
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

TOKEN = ("token", "serial")
PIN_FLAGS = ("CKF_USER_PIN_COUNT_LOW", "CKF_USER_PIN_FINAL_TRY", "CKF_USER_PIN_LOCKED")


class Metrics:
    """The numbers of one process.  Thread-safe.

    `registry`: where the numbers are to be had.  `groups`: the keys whose tokens are watched (`KeyExecutor.group`); `connections`
    and `audit_lines_lost` say how many there are.  Set these once there is an executor, a server, an audit log.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.groups: Sequence[KeyGroup] = ()
        self.connections: Callable[[], int] = lambda: 0
        self.audit_lines_lost: Callable[[], int] = lambda: 0
        self._uses: dict[tuple[object, ...], _Use] = {}
        self._handshakes: dict[tuple[object, ...], tuple[Counter, Histogram]] = {}
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, buckets=BUCKETS, registry=registry)
        use, negotiated = (*TOKEN, "mechanism"), ("version", "group", "signature", "resumed")
        self._operations = counter("nss_pk11_key_operations", "Signatures and decryptions.", (*use, "purpose", "result"))
        self._queue = histogram("nss_pk11_key_queue_seconds", "Waiting for a thread.", use)
        self._token = histogram("nss_pk11_key_token_seconds", "With the token, waiting for a session included.", use)
        self._completed = counter("nss_pk11_handshakes", "Handshakes completed.", negotiated)
        self._seconds = histogram("nss_pk11_handshake_seconds", "From accept to Finished.", ("resumed",))
        self._failed = counter("nss_pk11_handshake_failures", "Handshakes that failed.", ("error",))
        for name, help, read in (
            ("connections_open", "Connections open.", lambda: self.connections()),
            ("audit_lines_lost", "Lines of the audit log that could not be written.", lambda: self.audit_lines_lost()),
        ):
            Gauge(f"nss_pk11_{name}", help, registry=registry).set_function(read)
        registry.register(_Tokens(lambda: self.groups))
        ProcessCollector(registry=registry)

    # --- what happens ----------------------------------------------------------------------------------------------------

    def key_used(self, use: KeyUse) -> None:
        """An `Observer` of the executor."""
        case = (use.key, use.mechanism, use.purpose, use.result)
        bound = self._uses.get(case)
        if bound is None:
            bound = _remember(self._uses, case, self._bind_use(use))
        bound.tally()
        bound.queue(use.queue_seconds)
        bound.token(use.token_seconds)

    def counting(
        self, application: Callable[[Connection], Application], closed: Callable[[Connection], None]
    ) -> tuple[Callable[[Connection], Application], Callable[[Connection], None]]:
        """A server's two callbacks, wrapped: `application` is called when a handshake is complete, `closed` at the end."""

        def counted(connection: Connection) -> Application:
            self.handshake_completed(connection)
            return application(connection)

        def counted_end(connection: Connection) -> None:
            if connection.error is not None and not connection.handshake_seconds:
                self._failed.labels(connection.error.name).inc()
            closed(connection)

        return counted, counted_end

    def handshake_completed(self, connection: Connection) -> None:
        info = connection.info
        case = (info.version, info.group, info.signature_scheme, info.resumed)
        bound = self._handshakes.get(case)
        if bound is None:
            version = info.version.label if info.version is not None else ""
            named = (getattr(info.group, "name", ""), getattr(info.signature_scheme, "name", ""), _truth(info.resumed))
            completed, seconds = self._completed.labels(version, *named), self._seconds.labels(_truth(info.resumed))
            bound = _remember(self._handshakes, case, (completed, seconds))
        completed, seconds = bound
        completed.inc()
        seconds.observe(connection.handshake_seconds)

    def _bind_use(self, use: KeyUse) -> _Use:
        labels = (*_names(use.key.token), use.mechanism)
        return _Use(
            self._operations.labels(*labels, use.purpose, use.result).inc,
            self._queue.labels(*labels).observe,
            self._token.labels(*labels).observe,
        )


class _Use(NamedTuple):
    """The numbers of one kind of use."""

    tally: Callable[[], None]
    queue: Callable[[float], None]
    token: Callable[[float], None]


# --- what is ---------------------------------------------------------------------------------------------------------------


class _Tokens:
    """The tokens of some keys, as they are when Prometheus asks (a collector of prometheus_client)."""

    def __init__(self, groups: Callable[[], Sequence[KeyGroup]]) -> None:
        self._groups = groups
        self._watches: dict[tuple[str, ...], _Watch] = {}

    def collect(self) -> Iterator[Metric]:
        members = [(_names(member.key.token), member) for group in self._groups() for member in group.members]
        homes = {token: member.key.home for token, member in members if isinstance(member.key, TokenKey)}
        watches = self._ask(homes)
        for name, help, gather, read in _OF_MEMBERS:
            values: dict[tuple[str, ...], float] = {}
            for token, member in members:
                values[token] = gather(values.get(token, 0), read(member))
            yield _family(name, help, TOKEN, values.items())
        for name, help, look in _OF_POOLS:
            yield _family(name, help, TOKEN, ((token, look(home.pool)) for token, home in homes.items()))
        yield _family("up", "Whether the token is there and answers.", TOKEN, ((t, w.up) for t, w in watches.items()))
        up = {token: watch for token, watch in watches.items() if watch.up}
        yield _family("logged_in", "Whether the user is logged in.", TOKEN, ((t, w.logged_in) for t, w in up.items()))
        flags = (((*token, flag), flag in watch.flags) for token, watch in up.items() for flag in PIN_FLAGS)
        yield _family("pin_flag", "What the token says of its PIN's tries.", (*TOKEN, "flag"), flags)

    def _ask(self, homes: dict[tuple[str, ...], Home]) -> dict[tuple[str, ...], _Watch]:
        """Ask all tokens at once."""
        watches = {names: self._watches.setdefault(names, _Watch()) for names in homes}
        for names, watch in watches.items():
            watch.ask(homes[names])
        deadline = time.monotonic() + PATIENCE
        for watch in watches.values():
            watch.wait(deadline)
        return watches


class _Watch:
    """What a token says of itself.  While one question is unanswered no other is put."""

    def __init__(self) -> None:
        self.up = self.logged_in = False
        self.flags: frozenset[str] = frozenset()
        self._thread: Thread | None = None

    def ask(self, token: Home) -> None:
        if self._thread is None or not self._thread.is_alive():
            # A daemon: a module that never returns must not keep the process from ending.
            self._thread = Thread(target=self._look, args=(token,), name=f"watch-{token.info.label}", daemon=True)
            self._thread.start()

    def wait(self, deadline: float) -> None:
        """Until it has answered, or `deadline` (of time.monotonic)."""
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
            if self._thread.is_alive():
                self.up = False

    def _look(self, token: Home) -> None:
        try:
            self.flags, self.logged_in = token.flags, token.logged_in
            self.up = True
        except NSPRError:  # it is gone
            self.up = False


# Of several keys on one token the sum counts, or the worst.
_OF_MEMBERS: tuple[tuple[str, str, Callable[[float, float], float], Callable[[Member], float]], ...] = (
    (
        "operations_pending",
        "Operations sent to the token and not back, those that wait included.",
        add,
        lambda member: member.running,
    ),
    ("breaker", "Circuit breaker: 0 closed, 1 half-open, 2 open.", max, lambda member: member.breaker.state),
    ("suspect", "Whether the token has made a wrong signature.", max, lambda member: member.breaker.suspect),
)
_OF_POOLS: tuple[tuple[str, str, Callable[[SessionPool], float]], ...] = (
    ("sessions_in_use", "Sessions that sign or decrypt now.", lambda pool: pool.in_use),
    ("sessions_waiting", "Threads that wait for a session.", lambda pool: pool.waiting),
    ("sessions_capacity", "Sessions at most.", lambda pool: pool.limit),
)


def _family(name: str, help: str, labels: Sequence[str], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(f"nss_pk11_token_{name}", help, labels=labels)
    for names, value in values:
        family.add_metric(names, float(value))
    return family


def _names(token: TokenInfo) -> tuple[str, ...]:
    """The values of the labels TOKEN."""
    return token.label, token.serial


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _remember(table: dict[tuple[object, ...], Any], case: tuple[object, ...], bound: Any) -> Any:
    if len(table) >= REMEMBERED:
        table.clear()  # nothing is lost: the numbers are the registry's
    table[case] = bound
    return bound
