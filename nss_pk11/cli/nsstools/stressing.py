"""The connections of `strsclnt`: one alone, then the rest on some threads, which resume its session."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...nss.cert import CERT_DestroyCertificate, CERT_GetDefaultCertDB, CERTCertDBHandle
from ...nss.prerror import NSPRError, PR_ErrorToString, PR_GetError
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
    SSL_ENABLE_SESSION_TICKETS,
    SECFailure,
    SECSuccess,
    SSL_AuthCertificateHook,
    SSL_BadCertHook,
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
    SSL_VersionRangeSet,
)
from . import report
from .identity import Identity
from .report import say, step, warn
from .sidechannel import authenticate

if TYPE_CHECKING:
    from .strsclnt import Settings

PROGRAM = "strsclnt"
REQUEST = b"GET /abc HTTP/1.0\r\n\r\n"
READ_SIZE = 4096 * 8
LONGEST_PAUSE = 40.0  # seconds between two tries of a server that is not there, with -q

_ANSWER = (
    b"HTTP/1.0 200 OK\r\nServer: Netscape-Enterprise/2.0a\r\nDate: Tue, 26 Aug 1997 22:10:05 GMT\r\n"
    b"Content-type: text/plain\r\n\r\n"
)


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
