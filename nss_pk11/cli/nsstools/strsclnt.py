"""`strsclnt`: many connections to one server, most of which resume a session.

As NSS's program of that name: the first connection alone, then the rest on some threads; exit status 0 when as many sessions were
resumed as should have been.  `nss_pk11.nss` by its public names only.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
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
from .hosts import look_up, only_suites, usual_suites
from .identity import Identity
from .passwords import Passwords, module_password
from .report import say, warn
from .sidechannel import authenticate

PROGRAM = "strsclnt"
LETTERS = "46C:DJ:NP:TUV:W:a:c:d:f:gin:op:qst:uvw:z"
REQUEST = b"GET /abc HTTP/1.0\r\n\r\n"
READ_SIZE = 4096 * 8
MOST_THREADS = 128
LONGEST_PAUSE = 40.0  # seconds between two tries of a server that is not there, with -q

_ANSWER = b"HTTP/1.0 200 OK\r\nContent-type: text/plain\r\n\r\n"

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
    """What the flags say."""

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
    options: dict[int, int] = field(default_factory=dict)
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


_OPTIONS = {"N": SSL_NO_CACHE, "T": SSL_ENABLE_OCSP_STAPLING, "u": SSL_ENABLE_SESSION_TICKETS}
_FIELDS = words.Fields(
    switches={"D": "no_delay", "i": "go_on", "q": "quit_when_gone"},
    texts={"C": "suites", "a": "sni", "d": "directory", "f": "file", "n": "nickname", "": "host"},
    numbers={"P": "full_percentage", "c": "connections", "p": "port", "t": "threads"},
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
        settings.options[_OPTIONS[flag]] = 1
    elif flag == "V":
        settings.versions = words.version_range(value, settings.versions)
    elif flag == "J":
        settings.schemes = words.schemes(value)
    elif flag in "46":
        settings.families = words.only_family(settings.families, flag)
    elif flag == "w":
        settings.passwords = Passwords(plain=value)
    elif flag == "W":
        settings.passwords = Passwords(file=value)
    elif flag in _NOTED:
        say(f"{PROGRAM}: -{flag}: {_NOTED[flag]}")


class Client:
    """All connections.  `tested`: server certificates that were looked at; `failed`: something went wrong on the way."""

    def __init__(self, settings: Settings) -> None:
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
        self._payload = _ANSWER + Path(settings.file).read_bytes() if settings.file else b""

    # --- the model, and what it asks ---------------------------------------------------------------------------------------

    def model(self, address: PRNetAddr) -> PRFileDesc:
        """A socket with all settings, for the others to copy."""
        settings = self.settings
        fd = SSL_ImportFD(None, PR_OpenTCPSocket(address.family))
        SSL_VersionRangeSet(fd, settings.versions)
        if settings.schemes:
            SSL_SignatureSchemePrefSet(fd, settings.schemes)
        for option, value in settings.options.items():
            SSL_OptionSet(fd, option, value)
        if self._payload:
            SSL_OptionSet(fd, SSL_ENABLE_FDX, 1)
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
            stapled = SSL_PeerStapledOCSPResponses(fd)
            if stapled:
                print(f"Received {len(stapled)} Cert Status items (OCSP stapled data)")
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
        """All of them: the first alone, so that the others have a session to resume."""
        model = self.model(address)
        try:
            left = self.settings.connections
            if not self.settings.no_reuse:
                self._connect(address, model, 0)
                left -= 1
            turns = iter(range(left))
            threads = [
                threading.Thread(target=self._some, args=(address, model, turns, thread), name=f"{PROGRAM} {thread}")
                for thread in range(min(self.settings.threads, left))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            PR_Close(model)
            self._identity.forget()

    def _some(self, address: PRNetAddr, model: PRFileDesc, turns: itertools.count[int], thread: int) -> None:
        """One thread's share: a connection for each turn it gets."""
        while True:
            with self._lock:
                turn = next(turns, None) if self.settings.go_on or not self.failed else None
            if turn is None:
                return
            self._connect(address, model, thread)

    def _connect(self, address: PRNetAddr, model: PRFileDesc, thread: int) -> None:
        try:
            fd = self._reach(address)
        except NSPRError as error:
            warn(PROGRAM, "PR_Connect", error)
            self.failed = True
            return
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
        finally:
            PR_Close(fd)

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
    NSS_SetDomesticPolicy()
    try:
        if settings.suites:
            _choose_suites(settings.suites)
        else:
            usual_suites()
        address = look_up(settings.host, settings.port, settings.families)
        client = Client(settings)
        client.run(address)
    except words.BadFlags as error:
        say(str(error))
        return 1
    except NSPRError as error:
        warn(PROGRAM, "socket configuration", error)
        return 1
    except OSError as error:
        say(f"{PROGRAM}: {error}")
        return 1
    print(report.cache_statistics(PROGRAM))
    status = client.verdict()
    sys.stdout.flush()
    return status


def _choose_suites(text: str) -> None:
    """Raises BadFlags."""
    try:
        only_suites(words.suites(text))
    except words.BadSuite as error:
        raise words.BadFlags(
            f"{PROGRAM}: Invalid cipher {'letter' if error.kind == 'letter' else 'value'}: {error.what}"
        ) from None
    except NSPRError:
        raise words.BadFlags(f"{PROGRAM}: SSL_CipherPrefSetDefault(-C {text}) failed") from None
