"""The sockets of `selfserv`: one that listens, threads that answer, until somebody says stop."""

from __future__ import annotations

import itertools
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from ...nss.cert import CERT_DestroyCertificate, CERT_GetDefaultCertDB, CERTCertDBHandle, CERTCertificate
from ...nss.keyhi import SECKEYPrivateKey
from ...nss.pk11pub import PK11_FindCertFromNickname, PK11_FindKeyByAnyCert
from ...nss.prerror import NSPRError, PR_ErrorToString, PR_GetError
from ...nss.prio import (
    PR_POLL_READ,
    PR_Accept,
    PR_Close,
    PR_NewTCPSocket,
    PR_NewTCPSocketPair,
    PR_Poll,
    PR_Send,
    PR_SetSocketOption,
    PR_SockOpt_NoDelay,
    PR_SockOpt_Nonblocking,
    PRFileDesc,
    PRPollDesc,
    PRSocketOptionData,
)
from ...nss.ssl import (
    SSL_ENABLE_ALPN,
    SSL_ENABLE_EXTENDED_MASTER_SECRET,
    SSL_ENABLE_FDX,
    SSL_ENABLE_POST_HANDSHAKE_AUTH,
    SSL_ENABLE_SERVER_DHE,
    SSL_ENABLE_SESSION_TICKETS,
    SSL_NO_CACHE,
    SSL_REQUEST_CERTIFICATE,
    SSL_REQUIRE_CERTIFICATE,
    SSL_REQUIRE_DH_NAMED_GROUPS,
    SSL_ROLLBACK_DETECTION,
    SSL_SNI_SEND_ALERT,
    SSL_AuthCertificate,
    SSL_AuthCertificateHook,
    SSL_BadCertHook,
    SSL_ConfigServerCert,
    SSL_GetNegotiatedHostInfo,
    SSL_HandshakeCallback,
    SSL_ImportFD,
    SSL_NamedGroupConfig,
    SSL_OptionSet,
    SSL_PeerCertificate,
    SSL_ResetHandshake,
    SSL_SetNextProtoNego,
    SSL_SetPKCS11PinArg,
    SSL_SignatureSchemePrefSet,
    SSL_SNISocketConfigHook,
    SSL_VersionRangeSet,
    SSLExtraServerCertData,
)
from ...nss.sslproto import SSL_LIBRARY_VERSION_TLS_1_3
from . import report
from .answering import answer
from .report import Fatal, complain, say, step

if TYPE_CHECKING:
    from .selfserv import Settings

PROGRAM = "selfserv"
LINES_BELOW_HEADING, MEGABYTE = 20, 1 << 20  # of -g with -L
HTTP_1_1 = b"\x08http/1.1"


class Certificate(NamedTuple):
    """What is served; `responses`: OCSP, DER."""

    certificate: CERTCertificate
    key: SECKEYPrivateKey
    responses: list[bytes]


class Server:
    """Ended by SIGUSR1 from now on.  `connections`: how many there were, or with -g how many there are; `wrong_name`: a client
    asked for another than that of -k."""

    def __init__(self, settings: Settings, certificates: list[Certificate]) -> None:
        self.settings = settings
        self.wrong_name = False
        self.connections = 0
        self.blocks_sent = 0
        self.bytes_sent = 0  # in blocks, since the last line of -L
        self.lock = threading.Lock()
        self._certificates = certificates
        self._stopping = threading.Event()
        self._alarm, self._bell = PR_NewTCPSocketPair()  # wakes who waits for connections
        self._jobs: queue.SimpleQueue[PRFileDesc | None] = queue.SimpleQueue()
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGUSR1, self.stop)

    def stop(self, *_: object) -> None:
        """Take no more connections.  Also a handler of signals."""
        if not self._stopping.is_set():
            self._stopping.set()
            PR_Send(self._bell, b"!")

    def run(self, listener: PRFileDesc) -> None:
        """Until stopped; closes the listening socket.  Raises Fatal for settings that cannot be."""
        settings = self.settings
        with step("SSL_ImportFD"):
            model = SSL_ImportFD(None, PR_NewTCPSocket() if settings.model_socket else listener)
        self._configure(model)
        threads = [threading.Thread(target=self._work, name=f"{PROGRAM} {number}") for number in range(settings.threads)]
        if settings.log_seconds:
            threading.Thread(target=self._log, args=(settings.log_seconds,), daemon=True).start()
        for thread in threads:
            thread.start()
        try:
            self._accept(listener, model)
        finally:
            for _ in threads:
                self._jobs.put(None)
            for thread in threads:
                thread.join()
            for fd in (self._alarm, self._bell, *((model,) if settings.model_socket else ())):
                PR_Close(fd)
            self._certificates.clear()

    # --- settings ----------------------------------------------------------------------------------------------------------

    def _configure(self, model: PRFileDesc) -> None:
        settings = self.settings
        with step("error setting SSL/TLS version range "):
            SSL_VersionRangeSet(model, settings.versions)
        for option, value, what in self._options():
            with step(what):
                SSL_OptionSet(model, option, value)
        if settings.virtual_names:
            SSL_SNISocketConfigHook(model, self._choose_certificate, [settings.default_name, *settings.virtual_names])
        for certificate, key, responses in self._certificates:
            with step("SSL_ConfigServerCert"):
                SSL_ConfigServerCert(model, certificate, key, SSLExtraServerCertData(stapledOCSPResponses=responses))
        if settings.alpn:
            with step("error enabling ALPN"):
                SSL_SetNextProtoNego(model, HTTP_1_1)
        if settings.groups:
            with step("SSL_NamedGroupConfig failed"):
                SSL_NamedGroupConfig(model, settings.groups)
        if settings.schemes:
            with step("SSL_SignatureSchemePrefSet failed"):
                SSL_SignatureSchemePrefSet(model, settings.schemes)
        SSL_SetPKCS11PinArg(model, settings.passwords)
        self._set_hooks(model)

    def _options(self) -> list[tuple[int, bool, str]]:
        """Option, value, and what NSS's program calls the step."""
        settings = self.settings
        versions = settings.versions
        found = [(SSL_ROLLBACK_DETECTION, not settings.no_rollback_detection, "error enabling RollBack detection ")]
        if settings.tickets:
            found.append((SSL_ENABLE_SESSION_TICKETS, True, "error enabling Session Ticket extension "))
        if settings.dhe is not None:
            found.append((SSL_ENABLE_SERVER_DHE, settings.dhe > 0, "error configuring server side DHE support"))
            found.append((SSL_REQUIRE_DH_NAMED_GROUPS, settings.dhe > 1, "error configuring server side FFDHE support"))
        if settings.extended_master_secret:
            found.append((SSL_ENABLE_EXTENDED_MASTER_SECRET, True, "error enabling extended master secret "))
        if settings.full_duplex is not None:
            found.append((SSL_ENABLE_FDX, True, "SSL_OptionSet SSL_ENABLE_FDX"))
        if settings.no_cache:
            found.append((SSL_NO_CACHE, True, "SSL_OptionSet SSL_NO_CACHE"))
        if settings.zero_rtt:
            self._need_tls1_3(versions.max, "You tried enabling 0RTT without enabling TLS 1.3!")
            say(f"{PROGRAM}: -Z: 0-RTT data is not accepted here; clients send it again after the handshake")
        if settings.reuse_ecdhe:
            say(f"{PROGRAM}: -U: keys of ECDHE are not reused here")
        if settings.post_handshake:
            self._need_tls1_3(versions.max, "You tried enabling post-handshake auth without enabling TLS 1.3!")
            found.append((SSL_ENABLE_POST_HANDSHAKE_AUTH, True, "error enabling post-handshake auth"))
        if settings.alpn:
            found.append((SSL_ENABLE_ALPN, True, "error enabling ALPN"))
        if settings.requests in (1, 2):
            found.append((SSL_REQUEST_CERTIFICATE, True, "first SSL_OptionSet SSL_REQUEST_CERTIFICATE"))
            found.append((SSL_REQUIRE_CERTIFICATE, settings.requests == 2, "first SSL_OptionSet SSL_REQUIRE_CERTIFICATE"))
        return found

    @staticmethod
    def _need_tls1_3(newest: int, complaint: str) -> None:
        if newest < SSL_LIBRARY_VERSION_TLS_1_3:
            raise Fatal(complaint, NSPRError(complaint, name="SSL_ERROR_INVALID_VERSION_RANGE"))

    def _set_hooks(self, model: PRFileDesc) -> None:
        settings = self.settings
        if settings.expected_name is not None or settings.exporters:
            SSL_HandshakeCallback(model, self._handshake_done, settings.expected_name)
        if settings.requests:
            SSL_AuthCertificateHook(model, self._authenticate, CERT_GetDefaultCertDB())
        if settings.overlook:
            SSL_BadCertHook(model, lambda arg, fd: None, None)

    # --- hooks -------------------------------------------------------------------------------------------------------------

    def _choose_certificate(self, fd: PRFileDesc, names: list[str], known: list[str]) -> int:
        """For a name of -a the certificate whose nickname it is; the first name's is served already."""
        for number, name in enumerate(names):
            if name == known[0]:
                return 0
            if name in known:
                try:
                    certificate = PK11_FindCertFromNickname(name, self.settings.passwords)
                    SSL_ConfigServerCert(fd, certificate, PK11_FindKeyByAnyCert(certificate, self.settings.passwords))
                except NSPRError:
                    break
                return number
        return SSL_SNI_SEND_ALERT

    def _handshake_done(self, fd: PRFileDesc, expected: str | None) -> None:
        if expected is not None and self.negotiated_name(fd) != expected:
            self.wrong_name = True
        try:
            report.export(fd, self.settings.exporters)
        except NSPRError as error:
            say(f"couldn't export keying material: {PR_ErrorToString(error.errno)}")

    def negotiated_name(self, fd: PRFileDesc) -> str | None:
        """None without -a: who has one name for all answers none."""
        return SSL_GetNegotiatedHostInfo(fd) if self.settings.virtual_names else None

    def _authenticate(self, arg: CERTCertDBHandle | None, fd: PRFileDesc, check_signature: bool, is_server: bool) -> None:
        peer = SSL_PeerCertificate(fd)
        if peer is not None:
            self.tell(f"{PROGRAM}: Subject: {peer.subjectName}\n{PROGRAM}: Issuer : {peer.issuerName}", print)
            CERT_DestroyCertificate(peer)
        try:
            SSL_AuthCertificate(arg, fd, check_signature, is_server)
        except NSPRError as error:
            self.tell(f"{PROGRAM}: -- SSL3: Certificate Invalid, err {error.errno}.\n{PR_ErrorToString(PR_GetError())}")
            raise
        self.tell(f"{PROGRAM}: -- SSL3: Certificate Validated.", print)

    def tell(self, line: str, how: Callable[[str], None] = say) -> None:
        """Only with -v."""
        if self.settings.verbose:
            how(line)

    # --- connections ---------------------------------------------------------------------------------------------------------

    def _accept(self, listener: PRFileDesc, model: PRFileDesc) -> None:
        _set(listener, PR_SockOpt_Nonblocking, True)  # in a server of several processes another may be quicker
        waits = [PRPollDesc(listener, PR_POLL_READ), PRPollDesc(self._alarm, PR_POLL_READ)]
        self.tell(f"\n\n\n{PROGRAM}: About to call accept.")
        try:
            while True:
                PR_Poll(waits)
                if self._stopping.is_set():
                    if self.settings.verbose:
                        complain(PROGRAM, "PR_Accept", NSPRError("", name="PR_PENDING_INTERRUPT_ERROR"))
                    break
                self._accept_one(listener, model)
        finally:
            self.tell(f"{PROGRAM}: Closing listen socket.")
            PR_Close(listener)

    def _accept_one(self, listener: PRFileDesc, model: PRFileDesc) -> None:
        try:
            fd, _ = PR_Accept(listener)
        except NSPRError as error:
            if error.name not in ("PR_WOULD_BLOCK_ERROR", "PR_CONNECT_RESET_ERROR"):
                complain(PROGRAM, "PR_Accept", error)
                self._stopping.set()
            return
        with self.lock:
            self.connections += 1
        try:
            _set(fd, PR_SockOpt_Nonblocking, False)
            if self.settings.no_delay:
                _set(fd, PR_SockOpt_NoDelay, True)
            if self.settings.model_socket:
                SSL_ResetHandshake(SSL_ImportFD(model, fd), True)
        except NSPRError as error:
            complain(PROGRAM, "PR_SetSocketOption", error)
            PR_Close(fd)
        else:
            self._jobs.put(fd)
        self.tell(f"\n\n\n{PROGRAM}: About to call accept.")

    def _work(self) -> None:
        """One thread: connections, until there will be no more."""
        while (fd := self._jobs.get()) is not None:
            answer(self, fd)
            del fd

    def _log(self, seconds: int) -> None:
        """-L: how many connections a second; with -g, how many there are, and how much they get a second."""
        before, since = self.connections, time.monotonic()
        for number in itertools.count():
            if self._stopping.wait(seconds):
                return
            now, count = time.monotonic(), self.connections
            if self.settings.blocks is None:
                print(f"{(count - before) / (now - since):.2f} ops/second, {self.settings.threads} threads", flush=True)
            else:
                with self.lock:
                    sent, self.bytes_sent = self.bytes_sent, 0
                heading = "" if number % LINES_BELOW_HEADING else "Conn.--------App Data\n"
                print(f"{heading}{count or '':>4}       {sent / ((now - since) * MEGABYTE):5.3f} MB/s", flush=True)
            before, since = count, now


def _set(fd: PRFileDesc, option: int, value: bool) -> None:
    PR_SetSocketOption(fd, PRSocketOptionData(option, value))
