"""`nss-pk11 connect`: talk to a TLS server and see what was negotiated.

What it says goes to stderr, what the server says to stdout, so that `echo … | nss-pk11 connect host > answer` does what it
looks like.  With --json the report is the result, and there is no relay.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from ..errors import AlertReceived, CertificateError, DecodeError, NSPRError
from .options import database_option, json_option, module_option, open_manager, pin_option
from .output import NETWORK, Failure, Text, emit_json, note
from .tls_options import Address, key_log, negotiation, negotiation_options, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..net.blocking import TLSSocket
    from ..net.executor import Verifier
    from ..pins import PinProvider
    from ..tls.config import Identity
    from ..tls.session import Session

CHUNK = 65536  # bytes read from stdin at once
FAREWELL = 2.0  # seconds a server may take to answer our close_notify, where nobody waits for its data


class Verdict:
    """Asks `trust` and remembers the answer, which it enforces only if `strict`."""

    def __init__(self, trust: Verifier, strict: bool) -> None:
        self._trust, self._strict = trust, strict
        self.error: NSPRError | None = None
        self.path: list[bytes] | None = None

    def verify_server(self, chain: tuple[bytes, ...], server_name: str, *, now: float, ocsp: bytes | None = b"") -> object:
        try:
            self.path = list(self._trust.verify_server(chain, server_name, now=now, ocsp=ocsp))  # type: ignore[call-overload]
        except NSPRError as error:
            self.error = error
            if self._strict:
                raise
        return self.path

    def verify_client(self, chain: tuple[bytes, ...], *, now: float) -> object:
        raise CertificateError("this is a client")


_FILE = click.Path(dir_okay=False)
_SECONDS = click.FloatRange(0.1, 3600)


@click.command(short_help="Connect to a TLS server and say what was negotiated.")
@click.argument("address", metavar="HOST[:PORT]")
@click.option(
    "--ca",
    type=click.Path(),
    metavar="FILE",
    help="Whose certificates are good, PEM. [default: the database's trust with -d, else the system's roots]",
)
@click.option("--no-verify", is_flag=True, help="Go on whatever certificate the server shows; say what is wrong with it.")
@click.option("--servername", metavar="NAME", help="Name to send and to check. [default: HOST]")
@click.option("--identity", metavar="URI|FILE", help="Private key for a client certificate: pkcs11: URI, PEM or PKCS #12 file.")
@click.option("--chain", type=click.Path(), metavar="FILE", help="Its certificate and issuers, PEM. [default: beside the key]")
@click.option("--nickname", metavar="NAME", help="Client certificate by its NSS nickname, in the database of -d, or TOKEN:NAME.")
@database_option()
@negotiation_options
@click.option("--session", "session_file", type=_FILE, metavar="FILE", help="Resume from it, then renew it.")
@click.option("--brief", is_flag=True, help="One line about the connection.")
@json_option
@click.option("--timeout", type=_SECONDS, default=10.0, show_default=True, metavar="SECONDS", help="To shake hands.")
@click.option("--keylog", type=click.Path(dir_okay=False), metavar="FILE", help="Append session secrets, for Wireshark.")
@pin_option
@module_option
def connect(
    address: str,
    ca: str | None,
    no_verify: bool,
    servername: str | None,
    identity: str | None,
    nickname: str | None,
    database: str | None,
    chain: str | None,
    session_file: str | None,
    brief: bool,
    as_json: bool,
    timeout: float,
    keylog: str | None,
    pin: PinProvider | None,
    modules: tuple[str, ...],
    **wanted: Any,
) -> None:
    """Connect to a TLS server, say what was negotiated, then relay stdin and stdout.

    The end of stdin half-closes: the server's answer is still read to its end.

    \b
    Examples:
      nss-pk11 connect example.org
      printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nss-pk11 connect localhost:8443 --ca ca.pem --brief
      nss-pk11 connect localhost:8443 --json --identity "pkcs11:token=card;object=me" --pin prompt
      nss-pk11 connect localhost:8443 -d ~/.pki/nssdb -f pwfile --nickname me
    """
    from ..net.executor import KeyExecutor
    from ..tls.config import ClientConfig

    if brief and as_json:
        raise click.UsageError("--brief and --json exclude each other")
    if nickname is not None and (database is None or identity is not None):
        raise click.UsageError("--nickname needs a database, -d DIR, and is instead of --identity")
    where = parse_address(address, 443)
    with _credentials(identity, nickname, chain, modules, pin, database, ca) as (identities, trust, mechanisms):
        verdict = Verdict(trust, strict=not no_verify)
        config = ClientConfig(
            server_name=servername if servername is not None else where.host,
            session=_load_session(session_file),
            identities=identities,
            mechanisms=mechanisms,
            keylog=key_log(keylog) if keylog else None,
            **negotiation(**wanted),
        )
        _converse(where, config, KeyExecutor(trust=verdict), verdict, _Sessions(session_file), timeout, brief, as_json)


@contextlib.contextmanager
def _credentials(
    source: str | None,
    nickname: str | None,
    chain: str | None,
    modules: tuple[str, ...],
    pin: PinProvider | None,
    database: str | None,
    ca: str | None,
) -> Iterator[tuple[tuple[Identity, ...], Verifier, Callable[[], frozenset[str]] | None]]:
    """Our own identities; whom to trust: the file `ca`, else the database, else the system's roots; and what answers which
    mechanisms present tokens offer, where there may be tokens."""
    from ..certs import Trust

    given: Verifier | None = Trust.from_file(ca) if ca else None
    if source is None and database is None:
        yield (), given or Trust.system(), None
        return
    from ..net.identity import load_identity
    from .nicknames import load_nickname
    from .trusting import trust_of

    with open_manager(modules, source, pin=pin, database=database, roots=given is None) as manager:
        identities = [load_identity(manager, source, chain=chain)] if source is not None else []
        identities += [load_nickname(manager, nickname)] if nickname is not None else []
        trust = given or (Trust.system() if database is None else trust_of(manager))
        yield tuple(identities), trust, manager.mechanisms


def _converse(
    where: Address, config: Any, executor: Any, verdict: Verdict, sessions: _Sessions, timeout: float, brief: bool, as_json: bool
) -> None:
    from ..net.client import wrap

    begun = time.monotonic()
    tls = wrap(_dial(where, timeout), config, executor, handshake_timeout=timeout, on_session=sessions.add)
    record: dict[str, Any] = {"address": str(where), "name": config.server_name}
    with tls:
        try:
            tls.settimeout(None)
            tls.do_handshake()
            record |= {"handshake_ms": round((time.monotonic() - begun) * 1e3, 2)} | _facts(tls, verdict)
            if as_json:
                _farewell(tls)
            else:
                _show(record, brief)
                _relay(tls)
        except NSPRError as error:
            if as_json or "version" not in record:
                record |= _facts(tls, verdict)
                record["error"] = {"name": error.name, "number": error.errno, "detail": error.detail}
                if as_json:
                    emit_json(record)
                elif not brief and record["chain"]:
                    _show(record, brief)
            raise
        finally:
            sessions.save()
        if as_json:
            emit_json(record)


def _dial(where: Address, timeout: float) -> socket.socket:
    try:
        return socket.create_connection(where, timeout)
    except OSError as error:
        reason = "it takes too long" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise Failure(f"cannot connect to {where}: {reason}", NETWORK.code) from error


# --- the conversation ------------------------------------------------------------------------------------------------------


def _relay(tls: TLSSocket) -> None:
    """stdin to the server, the server to stdout, both at once; ends when the server does, or nobody reads stdout any more."""
    threading.Thread(target=_send_stdin, args=(tls,), daemon=True).start()
    while data := tls.recv():
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
        except BrokenPipeError:
            return


def _send_stdin(tls: TLSSocket) -> None:
    # Whatever goes wrong with the connection shows in the other thread as well, which reports it.
    with suppress(OSError, NSPRError):
        try:
            while data := os.read(0, CHUNK):
                tls.sendall(data)
        finally:
            tls.shutdown_write()


def _farewell(tls: TLSSocket) -> None:
    """Say goodbye and wait for the answer: tickets come now, and with TLS 1.3 the server's word on our certificate."""
    try:
        tls.shutdown_write()
        tls.settimeout(FAREWELL)
        while tls.recv():
            pass
    except AlertReceived:
        raise
    except (OSError, NSPRError):
        pass  # a server that goes without a word has negotiated all the same


# --- sessions --------------------------------------------------------------------------------------------------------------


def _load_session(path: str | None) -> Session | None:
    from ..tls.session import Session

    if path is None or not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            note(f"{path} is open to others: its secret is theirs too", style="yellow")
        try:
            return Session.decode(file.read())
        except DecodeError:
            note(f"{path} holds no session; it will be overwritten", style="yellow")
            return None


class _Sessions:
    """Keeps the newest session, and at the end writes it to `path`, for its owner only."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._newest: Session | None = None

    def add(self, session: Session) -> None:
        self._newest = session

    def save(self) -> None:
        if self._path is None or self._newest is None:
            return
        # mkstemp makes it 0600; the rename replaces a file with other rights instead of writing into it.
        fd, temporary = tempfile.mkstemp(dir=os.path.dirname(self._path) or ".")
        with open(fd, "wb") as file:
            file.write(self._newest.encode())
        os.replace(temporary, self._path)


# --- the report --------------------------------------------------------------------------------------------------------------


def _facts(tls: TLSSocket, verdict: Verdict) -> dict[str, Any]:
    from ..net.record import key_facts, negotiated
    from .www import describe

    info = tls.info
    error = verdict.error
    return negotiated(info) | {
        "verified": verdict.path is not None or None if error is None else False,
        "verify_error": None if error is None else {"name": error.name, "number": error.errno, "detail": error.detail},
        "chain": [describe(der) for der in info.peer_chain],
        "client_key": key_facts(info.identity) if info.identity is not None else None,
    }


def _show(record: dict[str, Any], brief: bool) -> None:
    if brief:
        words = [record[name] for name in ("version", "suite", "group", "signature_scheme") if record[name]]
        if record["alpn"]:
            words.append(f"alpn {record['alpn']}")
        if record["resumed"]:
            words.append("resumed")
        note(f"{record['address']}: {', '.join([*words, _verification(record)])}")
        return
    text = Text()
    text.console.stderr = True
    text.heading("server", record["address"], record["version"] or "no version")
    rows = {
        "suite": record["suite"],
        "group": record["group"],
        "signature": record["signature_scheme"],
        "alpn": record["alpn"],
        "resumed": "yes" if record["resumed"] else "no",
        "ocsp": "stapled" if record["ocsp_stapled"] else "not stapled",
        "certificate": _verification(record),
    }
    if record["client_key"]:
        rows["client key"] = f"{record['client_key']['uri'] or record['client_key']['key']} ({record['client_signature_scheme']})"
    for label, value in rows.items():
        if value:
            text.line(label, value, "green" if value.startswith("verified") else "yellow" if value.startswith("NOT") else "")
    for i, certificate in enumerate(record["chain"]):
        text.heading("chain" if i == 0 else "", certificate.get("subject") or "(no subject)", certificate.get("key", ""), level=1)
        if "error" in certificate:
            text.line("", certificate["error"], level=2)
            continue
        text.line("issuer", certificate["issuer"], level=2)
        if certificate["names"]:
            text.words("names", certificate["names"], level=2)
        text.line("valid", f"{certificate['not_before']} to {certificate['not_after']}", level=2)
        text.line("sha-256", certificate["fingerprint"], level=2)
    text.blank()


def _verification(record: dict[str, Any]) -> str:
    error = record["verify_error"]
    if error is not None:
        return f"NOT VERIFIED: {error['detail']} [{error['name']}]"
    if record["verified"]:
        return f"verified for {record['name']}"
    return "not verified"
