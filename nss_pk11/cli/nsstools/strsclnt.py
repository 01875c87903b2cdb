"""`strsclnt`: many connections to one server, most of which resume a session.

As NSS's program of that name: the first connection alone, then the rest on some threads; exit status 0 when as many sessions were
resumed as should have been.  `nss_pk11.nss` by its public names only.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ...nss.cert import CERT_DestroyCertificate, CERT_GetDefaultCertDB, CERTCertDBHandle
from ...nss.nss import NSS_INIT_READONLY, NSS_Initialize, NSS_Shutdown
from ...nss.pk11pub import PK11_SetPasswordFunc
from ...nss.prerror import NSPRError, PR_ErrorToString, PR_GetError
from ...nss.prinit import PR_PRIORITY_NORMAL, PR_SYSTEM_THREAD, PR_Cleanup, PR_Init
from ...nss.prinrval import PR_INTERVAL_NO_TIMEOUT, PR_SecondsToInterval
from ...nss.prio import (
    PR_SHUTDOWN_SEND,
    PR_Close,
    PR_Connect,
    PR_OpenTCPSocket,
    PR_Recv,
    PR_Send,
    PR_SetSocketOption,
    PR_Shutdown,
    PR_SockOpt_NoDelay,
    PRFileDesc,
    PRNetAddr,
    PRSocketOptionData,
)
from ...nss.ssl import (
    SSL_ENABLE_FDX,
    SSL_ENABLE_OCSP_STAPLING,
    SSL_ENABLE_SESSION_TICKETS,
    SSL_NO_CACHE,
    NSS_SetDomesticPolicy,
    SECFailure,
    SECSuccess,
    SSL_AuthCertificateHook,
    SSL_BadCertHook,
    SSL_CipherPrefSetDefault,
    SSL_ClearSessionCache,
    SSL_GetClientAuthDataHook,
    SSL_GetStatistics,
    SSL_HandshakeCallback,
    SSL_ImportFD,
    SSL_LocalCertificate,
    SSL_OptionSet,
    SSL_PeerCertificate,
    SSL_PeerStapledOCSPResponses,
    SSL_ResetHandshake,
    SSL_SetPKCS11PinArg,
    SSL_SetSockPeerID,
    SSL_SetURL,
    SSL_SignatureSchemePrefSet,
    SSL_VersionRangeGetSupported,
    SSL_VersionRangeSet,
    SSLProtocolVariant,
    SSLSignatureScheme,
    SSLVersionRange,
)
from . import report, words
from .hosts import known, look_up, no_suites, usual_suites
from .identity import Identity
from .passwords import Passwords, module_password
from .report import Fatal, print_error, say, step, warn
from .sidechannel import authenticate

PROGRAM = "strsclnt"
LETTERS = "46C:DJ:NP:TUV:W:a:c:d:f:gin:op:qst:uvw:z"
REQUEST = b"GET /abc HTTP/1.0\r\n\r\n"
READ_SIZE = 4096 * 8
MOST_THREADS = 128
LONGEST_PAUSE = 40.0  # seconds between two tries of a server that is not there, with -q

_ANSWER = (
    b"HTTP/1.0 200 OK\r\nServer: Netscape-Enterprise/2.0a\r\nDate: Tue, 26 Aug 1997 22:10:05 GMT\r\n"
    b"Content-type: text/plain\r\n\r\n"
)

USAGE = f"""\
Usage: {PROGRAM} [-n nickname] [-p port] [-d dbdir] [-c connections]
          [-46DNTgoqsuv] [-f filename] [-N | -P percentage]
          [-w dbpasswd] [-C cipher(s)] [-t threads] [-W pwfile]
          [-V [min-version]:[max-version]] [-a sniHostName]
          [-J signatureschemes] hostname
 -o once: whatever is wrong with the server's certificate is overlooked; twice: it is not looked at
 -D no delays in TCP        -q give up when the server has gone      -N no session reuse
 -P percentage of full handshakes (0-100)                            -T OCSP stapling
 -u session tickets         -i go on after failures                  -v verbose
 -a name to ask for by SNI, in place of the host's                   -n client's certificate, or none
 -J signature schemes       -g, -z, -s, -U: not done here, or mean nothing
 -f send a file while reading (full duplex)
 -C letters or :XXXX, as selfserv's -c"""


@dataclass
class Settings:
    """What the flags say.  `options`: what is switched on, and how NSS's program calls that."""

    host: str = ""
    port: int = 443
    directory: str = "."
    connections: int = 1
    threads: int = 8
    versions: SSLVersionRange = field(default_factory=lambda: SSL_VersionRangeGetSupported(SSLProtocolVariant.ssl_variant_stream))
    suites: str | None = None
    schemes: list[SSLSignatureScheme] | None = None
    nickname: str | None = None
    sni: str | None = None
    file: str | None = None
    full_percentage: int | None = None
    options: dict[int, str] = field(default_factory=dict)
    no_delay: bool = False
    quit_when_gone: bool = False
    go_on: bool = False
    overlook: int = 0
    verbose: int = 0
    families: set[str] = field(default_factory=lambda: {"4", "6"})
    passwords: Passwords = field(default_factory=Passwords)

    @property
    def no_reuse(self) -> bool:
        return SSL_NO_CACHE in self.options


_OPTIONS = {
    "N": (SSL_NO_CACHE, "SSL_OptionSet SSL_NO_CACHE"),
    "T": (SSL_ENABLE_OCSP_STAPLING, "SSL_OptionSet SSL_ENABLE_OCSP_STAPLING"),
    "u": (SSL_ENABLE_SESSION_TICKETS, "SSL_OptionSet SSL_ENABLE_SESSION_TICKETS"),
}
_FIELDS = words.Fields(
    switches={"D": "no_delay", "i": "go_on", "q": "quit_when_gone"},
    texts={"C": "suites", "a": "sni", "d": "directory", "f": "file", "n": "nickname", "": "host"},
    numbers={"P": "full_percentage", "c": "connections", "t": "threads"},
    counts={"o": "overlook", "v": "verbose"},
)  # fmt: skip
_NOTED = {
    "g": "false start is not done here; requests wait for the handshake",
    "z": "compression is not done here",
}


def parse(arguments: list[str]) -> Settings:
    """Raises BadFlags."""
    settings = Settings()
    for flag, value in words.flags(arguments, LETTERS):
        if flag == "" and settings.host:
            raise words.BadFlags("")
        _take(settings, flag, value)
    share = settings.full_percentage
    if not settings.host or not settings.port or (share is not None and (not 0 <= share <= 100 or settings.no_reuse)):
        raise words.BadFlags("")
    if not 0 < settings.threads < MOST_THREADS:
        settings.threads = Settings.threads
    return settings


def _take(settings: Settings, flag: str, value: str) -> None:
    """One flag."""
    if _FIELDS.take(settings, flag, value):
        return
    if flag in _OPTIONS:
        option, what = _OPTIONS[flag]
        settings.options[option] = what
    elif flag in _VALUES:
        name, read = _VALUES[flag]
        setattr(settings, name, read(settings, value))
    elif flag in _NOTED:
        say(f"{PROGRAM}: -{flag}: {_NOTED[flag]}")


ONE_FAMILY = "Only one of [-4, -6] can be specified."
# Flags whose value becomes a field's.
_VALUES: dict[str, tuple[str, Callable[[Settings, str], object]]] = {
    "4": ("families", lambda settings, _: words.only_family(settings.families, "4", ONE_FAMILY)),
    "6": ("families", lambda settings, _: words.only_family(settings.families, "6", ONE_FAMILY)),
    "J": ("schemes", lambda _, text: words.schemes(text)),
    "V": ("versions", lambda settings, text: words.version_range(text, settings.versions)),
    "W": ("passwords", lambda _, text: Passwords(file=text)),
    "p": ("port", lambda _, text: words.port(text)),
    "w": ("passwords", lambda _, text: Passwords(plain=text)),
}


def _payload(file: str | None) -> bytes:
    """What -f sends: nothing, and so no file, where there is none to read or nothing in it."""
    with suppress(OSError):
        content = Path(file).read_bytes() if file else b""
        return _ANSWER + content if content else b""
    return b""


class Client:
    """All connections.  `tested`: server certificates that were looked at; `failed`: something went wrong on the way."""

    def __init__(self, settings: Settings) -> None:
        """Raises BadFlags for a certificate that is not there."""
        self.settings = settings
        self.tested = 0
        self.failed = False
        self._told = False
        self._lock = threading.Lock()
        self._timeout = PR_INTERVAL_NO_TIMEOUT
        if (seconds := os.environ.get("NSS_DEBUG_TIMEOUT", "")).isdigit():
            self._timeout = PR_SecondsToInterval(int(seconds))
        self._numbers = itertools.count(1)
        self._peer_ids = itertools.count(1)
        self._last_full = 0  # peer id of the last full handshake
        self._identity = Identity(settings.nickname, settings.passwords)
        self._payload = _payload(settings.file)

    # --- the model, and what it asks ---------------------------------------------------------------------------------------

    def model(self, address: PRNetAddr) -> PRFileDesc:
        """A socket with all settings, for the others to copy.  Raises Fatal."""
        settings = self.settings
        with step("PR_OpenTCPSocket for model socket"):
            fd = PR_OpenTCPSocket(address.family)
        with step("SSL_ImportFD"):
            fd = SSL_ImportFD(None, fd)
        with step("error setting SSL/TLS version range "):
            SSL_VersionRangeSet(fd, settings.versions)
        if settings.schemes:
            with step("SSL_SignatureSchemePrefSet"):
                SSL_SignatureSchemePrefSet(fd, settings.schemes)
        if self._payload:
            with step("SSL_OptionSet SSL_ENABLE_FDX"):
                SSL_OptionSet(fd, SSL_ENABLE_FDX, True)
        for option, what in settings.options.items():
            with step(what):
                SSL_OptionSet(fd, option, True)
        SSL_SetPKCS11PinArg(fd, settings.passwords)
        SSL_SetURL(fd, settings.sni or settings.host)
        SSL_AuthCertificateHook(fd, self._authenticate, CERT_GetDefaultCertDB())
        SSL_BadCertHook(fd, self._overlook, None)
        SSL_GetClientAuthDataHook(fd, self._identity.choose, None)
        return fd

    def _authenticate(self, arg: CERTCertDBHandle | None, fd: PRFileDesc, check_signature: bool, is_server: bool) -> None:
        if self.settings.overlook >= 2:
            return
        certificate = SSL_PeerCertificate(fd)
        if certificate is not None and self.settings.verbose:
            print(f"{PROGRAM}: Subject: {certificate.subjectName}\n{PROGRAM}: Issuer : {certificate.issuerName}")
            print(f"Received {len(SSL_PeerStapledOCSPResponses(fd))} Cert Status items (OCSP stapled data)")
        if certificate is not None:
            CERT_DestroyCertificate(certificate)
        with self._lock:
            self.tested += 1
        authenticate(fd, check_signature)
        say(f"{PROGRAM}: -- SSL: Server Certificate Validated.")

    def _overlook(self, arg: object, fd: PRFileDesc) -> int:
        if self.settings.overlook:
            return SECSuccess
        number = PR_GetError()
        say(f"{PROGRAM}: -- SSL: Server Certificate Invalid, err {number}.\n{PR_ErrorToString(number)}")
        return SECFailure

    # --- connections ---------------------------------------------------------------------------------------------------------

    def run(self, address: PRNetAddr) -> None:
        """All of them: the first alone, so that the others have a session to resume.  Raises Fatal."""
        model = self.model(address)
        try:
            first = 0 if self.settings.no_reuse else 1
            if first:
                self._run_threads(address, model, 1, slot=0)
            self._run_threads(address, model, self.settings.connections - first, slot=first)
        finally:
            PR_Close(model)

    def _run_threads(self, address: PRNetAddr, model: PRFileDesc, connections: int, slot: int) -> None:
        """So many connections, on threads of which the first has the number `slot` in what is told."""
        turns = iter(range(connections))
        threads = []
        for number in range(min(self.settings.threads, connections)):
            threads.append(threading.Thread(target=self._some, args=(address, model, turns, number), name=f"{PROGRAM} {number}"))
            threads[-1].start()
            self._note(f"Launched thread in slot {slot + number} ")
        for thread in threads:
            thread.join()

    def _some(self, address: PRNetAddr, model: PRFileDesc, turns: Iterator[int], thread: int) -> None:
        """One thread's share: a connection for each turn it gets.  As with NSS's, what failed before it began does not keep it
        from the first."""
        while True:
            with self._lock:
                if next(turns, None) is None:
                    return
            status = self._connect(address, model, thread)
            self._note(f"Thread in slot {thread} returned {status}")
            if self.failed and not self.settings.go_on:
                return

    def _connect(self, address: PRNetAddr, model: PRFileDesc, thread: int) -> int:
        """A SECStatus: SECFailure where it could not begin."""
        try:
            fd = self._reach(address)
        except NSPRError as error:
            warn(PROGRAM, "PR_Connect", error)
            self.failed = True
            return SECSuccess
        try:
            fd = SSL_ImportFD(model, fd)
            self._share_sessions(fd)
            SSL_ResetHandshake(fd, False)
            if self._payload:
                self._exchange_both_ways(fd, thread)
            else:
                self._exchange(fd, thread)
        except NSPRError as error:
            warn(PROGRAM, "SSL_ResetHandshake", error)
            self.failed = True
            return SECFailure
        finally:
            PR_Close(fd)
        return SECSuccess

    def _reach(self, address: PRNetAddr) -> PRFileDesc:
        """A connected socket; a server that is not there yet is tried again, less and less often."""
        pause = 0.05
        while True:
            fd = PR_OpenTCPSocket(address.family)
            try:
                if self.settings.no_delay:
                    PR_SetSocketOption(fd, PRSocketOptionData(PR_SockOpt_NoDelay, True))
                PR_Connect(fd, address)
            except NSPRError as error:
                PR_Close(fd)
                if error.name not in ("PR_CONNECT_REFUSED_ERROR", "PR_CONNECT_RESET_ERROR"):
                    raise
                if self.settings.quit_when_gone and pause > LONGEST_PAUSE:
                    say(f"{PROGRAM}: Client timed out waiting for connection to server.")
                    os._exit(1)
            else:
                return fd
            threading.Event().wait(pause)
            pause *= 2

    def _share_sessions(self, fd: PRFileDesc) -> None:
        """-P: so many of a hundred connections get a peer id of their own, and so a full handshake."""
        share, total = self.settings.full_percentage, self.settings.connections
        if share is None:
            return
        with self._lock:
            number = next(self._numbers)
            place, odd = 1 + (number - 1) % 100, total % 100
            full = number != 1 and ((number <= total - odd and place <= share) or place * 100 <= odd * share)
            peer_id = next(self._peer_ids) if full else self._last_full
        SSL_SetSockPeerID(fd, f"ID{peer_id}")
        SSL_HandshakeCallback(fd, partial(self._remember, peer_id), None)

    def _remember(self, peer_id: int, fd: PRFileDesc, data: object) -> None:
        self._last_full = peer_id

    # --- data ------------------------------------------------------------------------------------------------------------------

    def _exchange(self, fd: PRFileDesc, thread: int) -> None:
        """A request, and all of the answer."""
        try:
            PR_Send(fd, REQUEST, 0, self._timeout)
        except NSPRError as error:
            warn(PROGRAM, "PR_Send", error)
            self.failed = True
            return
        self._tell(fd)
        total = 0
        try:
            while data := PR_Recv(fd, READ_SIZE, 0, self._timeout):
                total += len(data)
                self._chat(f"connection on thread {thread} read {len(data)} bytes ({total} total).")
        except NSPRError as error:
            warn(PROGRAM, "PR_Recv", error)
            self.failed = True
        self._chat(f"connection on thread {thread} read {total} bytes total. ---------")

    def _exchange_both_ways(self, fd: PRFileDesc, number: int) -> None:
        """A file goes out on a thread of its own while this one reads."""
        writer = threading.Thread(target=self._write_all, args=(fd,), name=f"{PROGRAM} writer {number}")
        writer.start()
        total = 0
        try:
            while data := PR_Recv(fd, READ_SIZE, 0, self._timeout):
                total += len(data)
                self._chat(f"connection {number} read {len(data)} bytes ({total} total).")
                self._tell(fd)
        except NSPRError as error:
            warn(PROGRAM, "PR_Recv", error)
        writer.join()
        self._chat(f"connection {number} read {total} bytes total. -----------------------")

    def _write_all(self, fd: PRFileDesc) -> None:
        try:
            sent = PR_Send(fd, self._payload, 0, self._timeout)
            self._chat(f"PR_Send wrote {sent} bytes from bigBuf")
            PR_Shutdown(fd, PR_SHUTDOWN_SEND)
        except NSPRError as error:
            warn(PROGRAM, "PR_Send bigBuf", error)

    # --- telling ---------------------------------------------------------------------------------------------------------------

    def _chat(self, line: str) -> None:
        if self.settings.verbose:
            say(f"{PROGRAM}: {line}")

    def _note(self, line: str) -> None:
        """On standard output, whole though several threads tell theirs."""
        if self.settings.verbose:
            sys.stdout.write(f"{PROGRAM}: {line}\n")

    def _tell(self, fd: PRFileDesc) -> None:
        """What was negotiated: of the first connection, of every one with -v -v."""
        with self._lock:
            if self._told and self.settings.verbose < 2:
                return
            self._told = True
        if self.settings.verbose:
            report.channel(PROGRAM, fd)
            report.names(SSL_LocalCertificate(fd) or SSL_PeerCertificate(fd), PROGRAM)
        say(report.cache_statistics(PROGRAM))

    def forget(self) -> None:
        """Give the client's certificate back."""
        self._identity.forget()

    def verdict(self) -> int:
        """The exit status: 0 where as many sessions were resumed as should have been."""
        found, settings = SSL_GetStatistics(), self.settings
        stateless, misses = found.hsh_sid_stateless_resumes, found.hsh_sid_cache_misses
        if settings.no_reuse:
            print(f"{PROGRAM}: NoReuse - {self.tested} server certificates tested.")
            wrong = misses != settings.connections or stateless != 0 or self.tested != settings.connections
        else:
            tickets = SSL_ENABLE_SESSION_TICKETS in settings.options
            wrong = stateless == 0 if tickets else misses > 1 or stateless != 0
            wrong = wrong or found.hsh_sid_cache_not_ok != 0 or self.tested > 1
        return int(wrong or self.failed)


def main(arguments: list[str]) -> int:
    """The program; its exit status."""
    try:
        settings = parse(arguments)
    except words.BadFlags as error:
        say("\n".join(filter(None, (str(error), USAGE if error.usage else ""))))
        return error.status
    PR_Init(PR_SYSTEM_THREAD, PR_PRIORITY_NORMAL, 1)
    PK11_SetPasswordFunc(module_password)
    try:
        NSS_Initialize(settings.directory, "", "", "secmod.db", NSS_INIT_READONLY)
    except NSPRError:
        say("NSS_Init failed.")
        return 1
    status = _run(settings)
    SSL_ClearSessionCache()
    try:
        NSS_Shutdown()
    except NSPRError:
        print(f"{PROGRAM}: NSS_Shutdown() failed.")
        return 1
    PR_Cleanup()
    return status


def _run(settings: Settings) -> int:
    """The exit status."""
    NSS_SetDomesticPolicy()
    try:
        client = Client(settings)
    except words.BadFlags as error:
        say(str(error))
        return 1
    try:
        _connect_all(client)
    except Fatal as failure:
        warn(PROGRAM, failure.what, failure.error)
        return 1
    finally:
        client.forget()
    print(report.cache_statistics(PROGRAM))
    status = client.verdict()
    sys.stdout.flush()
    return status


def _connect_all(client: Client) -> None:
    """Or else say why not, for which the statistics are told nevertheless.  Raises Fatal."""
    settings = client.settings
    client.failed = True
    try:
        address = look_up(settings.host, settings.port, settings.families)
        if settings.suites is None:
            usual_suites()
        else:
            _choose_suites(settings.suites)
    except words.BadFlags as error:
        say(str(error))
    except NSPRError as error:
        print_error(PROGRAM, "error looking up host", error)
    else:
        client.failed = False
        client.run(address)


def _choose_suites(text: str) -> None:
    """Raises BadFlags."""
    try:
        suites = words.suites(text)
    except words.BadSuite as error:
        what = f"letter: {error.what}" if error.kind == "letter" else f"value: {error.what:<5}"
        raise words.BadFlags(f"{PROGRAM}: Invalid cipher {what}") from None
    no_suites()
    for suite in suites:
        try:
            known([suite])
            SSL_CipherPrefSetDefault(suite, True)
        except NSPRError:
            raise words.BadFlags(f"{PROGRAM}: SSL_CipherPrefSetDefault(0x{suite:04x}) failed") from None
