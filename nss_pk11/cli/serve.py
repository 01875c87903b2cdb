"""`nss-pk11 serve`: a TLS server whose keys lie in tokens, or in files."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CertificateError, ConfigurationError, PinError
from .options import database_option, module_option, open_manager, pin_option
from .output import NETWORK, Failure, note
from .tls_options import Address, key_log, negotiation, negotiation_options, parse_address
from .watched import Publish, Scraped, watched

if TYPE_CHECKING:
    from ..net.connection import Application, Connection
    from ..net.server import Server
    from ..net.workers import Worker
    from ..pins import PinProvider
    from ..sessions import SharedServerCache
    from ..slots import SlotEvent, SlotManager
    from ..tls.config import Identity, ServerConfig, Tickets
    from ..tls.suites import Suite

BACKLOG = 1024  # connections the kernel completes before we accept them
SESSION_LIFETIME = 7200  # seconds that a session can be resumed by its id


@dataclass(frozen=True)
class Settings:
    """What the command line says, all of it that a worker needs."""

    identities: tuple[str, ...]
    chains: tuple[str, ...]
    ocsp: str | None
    modules: tuple[str, ...]
    pin: PinProvider | None
    negotiation: dict[str, Any]
    client_auth: str
    ca: str | None
    application: Callable[[Connection], Application]
    key_log: Callable[[str], None] | None
    log_format: str
    handshake_timeout: float
    check_signatures: bool | None
    tickets: Callable[[], Tickets | None]
    workers: int = 1
    metrics: str | None = None
    audit: str | None = None
    database: str | None = None
    nicknames: tuple[str, ...] = ()
    share_key_with_ssl2: bool = False


_IDENTITY = "Private key: a pkcs11: URI, a PEM or a PKCS #12 file. Repeatable: the name that the client asks for decides."


@click.command(short_help="Serve TLS with a key on a token or in a file.")
@click.option("--listen", "addresses", multiple=True, required=True, metavar="HOST:PORT", help="Port 0 is any. Repeatable.")
@click.option("--identity", "identities", multiple=True, metavar="URI|FILE", help=_IDENTITY)
@click.option("--nickname", "nicknames", multiple=True, metavar="NAME",
              help="Certificate and key by their NSS nickname, in the database of -d, or TOKEN:NAME. Repeatable.")  # fmt: skip
@database_option()
@click.option("--chain", "chains", multiple=True, type=click.Path(), metavar="FILE",
              help="Certificate and issuers, PEM. Repeatable: each goes with its key. [default: beside the key]")  # fmt: skip
@click.option("--ocsp", type=click.Path(), metavar="FILE", help="OCSP response to staple, DER.")
@negotiation_options
@click.option("--client-auth", type=click.Choice(["none", "request", "require"]), default="none", show_default=True,
              help="Whether clients show a certificate.")  # fmt: skip
@click.option(
    "--ca",
    type=click.Path(),
    metavar="FILE",
    help="Whose client certificates are good, PEM. [default: the database's trust with -d]",
)
@click.option("--www", is_flag=True, help="Answer with a page about the connection; JSON at /status.json. [the default]")
@click.option("--dir", "directory", type=click.Path(exists=True, file_okay=False), metavar="DIR", help="Serve the files in DIR.")
@click.option("--echo", is_flag=True, help="Send back whatever comes.")
@pin_option
@module_option
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--keylog", type=click.Path(dir_okay=False), metavar="FILE", help="Append session secrets, for Wireshark.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Log lines, on stderr."
)
@click.option("--metrics", metavar="HOST:PORT", help="Answer Prometheus there, in plain HTTP.")
@click.option("--audit", type=click.Path(dir_okay=False), metavar="FILE",
              help="Append a line to FILE for every use of a private key, JSON.")  # fmt: skip
@click.option("--handshake-timeout", type=click.FloatRange(0.1, 3600), default=10.0, show_default=True, metavar="SECONDS",
              help="How long a client may take over its handshake.")  # fmt: skip
@click.option("--share-key-with-ssl2", is_flag=True, help="Let an RSA key serve SSL 2.0 and newer versions (DROWN).")
@click.option("--no-tickets", is_flag=True, help="Hand out no session tickets.")
@click.option("--check-signatures/--no-check-signatures", default=None,
              help="Verify the token's signatures before they leave. [default: of hardware and of slow tokens]")  # fmt: skip
def serve(
    addresses: tuple[str, ...],
    client_auth: str,
    ca: str | None,
    www: bool,
    directory: str | None,
    echo: bool,
    keylog: str | None,
    no_tickets: bool,
    oldest: str,
    newest: str,
    suites: tuple[Suite, ...] | None,
    groups: tuple[Any, ...] | None,
    schemes: tuple[Any, ...] | None,
    alpn: tuple[str, ...] | None,
    renegotiation: str,
    v2_hello: bool,
    **rest: Any,
) -> None:
    """Serve TLS with a key on a token or in a file.

    Prints "listening on HOST:PORT" when it is ready, then one line per connection on stderr. SIGTERM or Ctrl-C lets
    open requests finish; a second one does not.

    \b
    Examples:
      nss-pk11 serve --listen 127.0.0.1:8443 --identity "pkcs11:token=web;object=www" --pin prompt --www
      nss-pk11 serve --listen :443 --identity server.key --chain server.pem --dir public --workers 2
      nss-pk11 serve --listen :443 -d /etc/pki/nssdb -f pwfile --nickname www
    """
    if not rest["identities"] and not rest["nicknames"]:
        raise click.UsageError("what to serve with: give --identity, or -d and --nickname")
    if rest["nicknames"] and rest["database"] is None:
        raise click.UsageError("--nickname needs a database: give -d DIR")
    if sum((www, directory is not None, echo)) > 1:
        raise click.UsageError("--www, --dir and --echo exclude each other")
    if client_auth != "none" and ca is None and rest["database"] is None:
        raise click.UsageError(f"--client-auth {client_auth} needs --ca FILE, or -d DIR")
    if alpn is None and not echo:
        alpn = ("http/1.1",)
    settings = Settings(
        modules=rest.pop("modules"),
        negotiation=negotiation(oldest, newest, suites, groups, schemes, alpn, renegotiation, v2_hello),
        client_auth=client_auth,
        ca=ca,
        application=application_for(directory, echo),
        key_log=key_log(keylog) if keylog else None,
        tickets=tickets_for(no_tickets, rest["workers"]),
        **rest,
    )
    listeners = [listen(parse_address(address)) for address in addresses]
    raise SystemExit(run(settings, listeners))


def application_for(directory: str | None, echo: bool) -> Callable[[Connection], Application]:
    """What speaks over each connection."""
    if echo:
        from ..net.connection import Echo

        return Echo
    from .http import HTTP

    if directory is not None:
        from .files import Files

        return partial(HTTP, site=Files(directory))
    from .www import status_site

    return partial(HTTP, site=status_site)


def tickets_for(none: bool, workers: int) -> Callable[[], Tickets | None]:
    """What makes a worker's ticket keys.  Workers derive them from one secret, to open each other's tickets; a single one draws
    them at random and forgets them, which is better for past connections."""
    from ..sessions import TicketKeys

    if none:
        return lambda: None
    return TicketKeys if workers == 1 else partial(TicketKeys.from_secret, os.urandom(32))


def listen(address: Address) -> socket.socket:
    """A listening socket; "" as host is every address, of both families.  Raises Failure that names the address."""
    try:
        if not address.host:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            return socket.create_server(("", address.port), family=family, dualstack_ipv6=both, backlog=BACKLOG)
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, where = found[0]
        return socket.create_server(where[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise Failure(f"cannot listen on {address}: {reason}", NETWORK.code) from error


def announce(listeners: list[socket.socket]) -> None:
    """The first thing on stdout, and only when connections are welcome."""
    from ..net.log import peer_name

    for listener in listeners:
        click.echo(f"listening on {peer_name(listener.getsockname())}")
    sys.stdout.flush()


def run(settings: Settings, listeners: list[socket.socket]) -> int:
    """Serve, in this process or in workers; returns the exit code."""
    scraped = Scraped(settings.metrics, listen, settings.workers) if settings.metrics else None
    if settings.workers == 1:
        serve_here(settings, listeners, settings.pin, lambda: announce(listeners), publish=scraped.here if scraped else None)
        return 0
    from .. import pins
    from ..net.workers import Supervisor
    from ..sessions import SharedServerCache
    from ..slots import PinMemory

    with ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener)
        # Made before the first fork: a client comes back to whichever worker takes it.
        sessions = SharedServerCache(ssl3_timeout=SESSION_LIFETIME, storage="memory")
        stack.callback(sessions.close)

        supervisor = Supervisor(
            settings.workers,
            partial(_work, settings, listeners, scraped, sessions),
            settings.pin or pins.terminal(),
            PinMemory(),
            companion=partial(_answer_scrapes, scraped, listeners) if scraped is not None else None,
        )
        return supervisor.run(lambda: announce(listeners))


def _answer_scrapes(scraped: Scraped, listeners: list[socket.socket], worker: Worker) -> int:
    """The life of the process that gives out the workers' metrics."""
    for listener in listeners:
        listener.close()
    with scraped.in_parent():
        worker.ready()
        worker.wait()
    return 0


def _work(
    settings: Settings, listeners: list[socket.socket], scraped: Scraped | None, sessions: SharedServerCache, worker: Worker
) -> int:
    """A child's whole life.  Its errors are shown here: the parent's command frame is not its own."""
    try:
        publish = scraped.in_worker(worker.number) if scraped is not None else None
        serve_here(settings, listeners, worker.pins, worker.ready, worker, publish, sessions)
    except Exception as error:
        failure = Failure.of(error)
        if failure is None:
            raise
        failure.show()
        if isinstance(error, PinError):
            worker.pin_failed()
        return failure.exit_code
    return 0


def serve_here(
    settings: Settings,
    listeners: list[socket.socket],
    pin: PinProvider | None,
    ready: Callable[[], None],
    worker: Worker | None = None,
    publish: Publish | None = None,
    sessions: SharedServerCache | None = None,
) -> None:
    """Load the keys, serve until told to stop.  `sessions`: those of all workers."""
    from ..net.executor import KeyExecutor
    from ..net.log import ConnectionLog
    from ..net.server import Server
    from ..sessions import ServerCache

    _raise_file_limit()
    memory = worker.memory if worker is not None else None
    with open_manager(settings.modules, *settings.identities, pin=pin, memory=memory, database=settings.database) as manager:
        identities = load_identities(manager, settings)
        if worker is not None and any(identity.kea for identity in identities):
            raise ConfigurationError("a server with a FORTEZZA card is one process: leave --workers out")
        if worker is None or (worker.number == 0 and not worker.replaces):
            introduce(identities)
        config, trust = configure(manager, settings, identities)
        log = ConnectionLog(format=settings.log_format)  # type: ignore[arg-type]
        with (
            manager.watch(tell),
            watched(publish, settings.audit) as watch,
            KeyExecutor(
                trust=trust,
                sessions=sessions if sessions is not None else ServerCache(lifetime=SESSION_LIFETIME),
                check_signatures=settings.check_signatures,
                observers=watch.observers,
            ) as executor,
        ):
            application, closed = watch.callbacks(settings.application, log.closed)
            server = Server(
                config,
                executor,
                listeners,
                application,
                closed=closed,
                turn_over=log.flush,
                handshake_timeout=settings.handshake_timeout,
                shared=settings.workers > 1,
                drain_when_closed=worker.parent if worker is not None else None,
            )
            watch.server(server)
            with _drained_by((signal.SIGTERM,) if worker is not None else (signal.SIGTERM, signal.SIGINT), server):
                ready()
                server.run()


def tell(event: SlotEvent) -> None:
    """A token has come or gone."""
    if event.kind != "present":
        note(f'token "{event.token.label}" (serial {event.token.serial}) was {event.kind}, slot "{event.slot.description}"')


@contextmanager
def _drained_by(numbers: Iterable[int], server: Server) -> Iterator[None]:
    """Signals that tell the server to finish; whoever had them before has them again afterwards."""
    before = {number: signal.signal(number, lambda n, _: _drain(server, n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drain(server: Server, number: int) -> None:
    signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not want to wait
    server.drain()


def configure(manager: SlotManager, settings: Settings, identities: tuple[Identity, ...]) -> tuple[ServerConfig, Any]:
    """The engine's settings, and whose client certificates are good."""
    from ..certs import Trust
    from ..certs.database import DatabaseTrust
    from ..tls.codepoints import Version
    from ..tls.config import ServerConfig
    from .trusting import trust_of

    fields = dict(settings.negotiation)
    if not any(_speaks_tls13(identity) for identity in identities):
        if fields["min_version"] > Version.tls1_2:
            raise ConfigurationError("no key here can sign for TLS 1.3", name="SSL_ERROR_UNSUPPORTED_VERSION")
        fields["max_version"] = min(fields["max_version"], Version.tls1_2)
    if any(suite.export for suite in fields.get("suites", ())):
        from ..net.stepdown import step_down

        fields["step_down"] = step_down
    trust: Trust | DatabaseTrust | None = Trust.from_file(settings.ca) if settings.ca else None
    if trust is None and settings.database is not None and settings.client_auth != "none":
        trust = trust_of(manager)
    config = ServerConfig(
        identities=identities,
        client_auth=settings.client_auth,  # type: ignore[arg-type]
        authorities=trust.authorities if trust and settings.client_auth != "none" else (),
        tickets=settings.tickets(),
        session_ids=True,
        mechanisms=manager.mechanisms,
        keylog=settings.key_log,
        context=b"nss-pk11 serve",
        **fields,
    )
    return config, trust


def load_identities(manager: SlotManager, settings: Settings) -> tuple[Identity, ...]:
    """Each --identity and --nickname, those of one key pair as one."""
    from ..certs import load_pem_chain
    from ..net.identity import join_identities, load_identity

    staple = _read_staple(settings.ocsp) if settings.ocsp else b""
    loaded = [load_identity(manager, source, chain=settings.chains, ocsp=staple) for source in settings.identities]
    if settings.nicknames:
        from .nicknames import load_nickname

        loaded += [load_nickname(manager, nickname, ocsp=staple) for nickname in settings.nicknames]
    identities = join_identities(loaded)
    if settings.share_key_with_ssl2:
        identities = tuple(replace(identity, shared_with_ssl2=True) for identity in identities)
    if staple and len(identities) > 1:
        raise ConfigurationError("--ocsp speaks for one certificate, and there are several")
    for file in settings.chains:
        if load_pem_chain(file)[0] not in {identity.chain[0] for identity in identities}:
            raise CertificateError(
                f"{file}: its certificate does not belong to the key of an --identity", name="SEC_ERROR_NO_KEY"
            )
    return identities


def _read_staple(path: str) -> bytes:
    """Raises ConfigurationError for a file that cannot be read or holds no OCSP response."""
    from cryptography.x509.ocsp import load_der_ocsp_response

    try:
        staple = Path(path).read_bytes()
        load_der_ocsp_response(staple)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", name="PR_FILE_NOT_FOUND_ERROR") from None
    except ValueError:
        raise ConfigurationError(f"{path} is no OCSP response in DER", name="SEC_ERROR_OCSP_MALFORMED_RESPONSE") from None
    return staple


def introduce(identities: tuple[Identity, ...]) -> None:
    """A line about each identity."""
    from ..certs import describe
    from ..net.identity import key_of

    for identity in identities:
        key, about = key_of(identity), describe(identity.chain[0])
        where = f'on token "{key.token.label}"' if key.token.module else "in a file"
        note(f"{about.subject}: {about.key} key {where}, valid until {about.not_after:%Y-%m-%d}")


def _speaks_tls13(identity: Identity) -> bool:
    from ..net.identity import limitations

    return not limitations(identity)


def _raise_file_limit() -> None:
    """As many connections as the system lets us have."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
