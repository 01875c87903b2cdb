"""One connection of `tstclnt`: what goes in at standard input goes to the server, what comes from it goes to standard output."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from ...nss.cert import CERT_DerNameToAscii, CERT_DestroyCertificate, CERT_GetDefaultCertDB, CERTCertDBHandle, CERTCertificate
from ...nss.keyhi import SECKEYPrivateKey
from ...nss.prerror import NSPRError, PR_ErrorToString, PR_GetError
from ...nss.prinrval import PR_INTERVAL_NO_TIMEOUT
from ...nss.prio import (
    PR_POLL_ERR,
    PR_POLL_EXCEPT,
    PR_POLL_HUP,
    PR_POLL_READ,
    PR_POLL_WRITE,
    PR_Close,
    PR_Connect,
    PR_GetConnectStatus,
    PR_OpenTCPSocket,
    PR_Poll,
    PR_Recv,
    PR_Send,
    PR_SetSocketOption,
    PR_SockOpt_Nonblocking,
    PRFileDesc,
    PRNetAddr,
    PRPollDesc,
    PRSocketOptionData,
)
from ...nss.ssl import (
    SSL_ENABLE_SSL2,
    SSL_V2_COMPATIBLE_HELLO,
    NSS_GetClientAuthData,
    SECFailure,
    SECSuccess,
    SECWouldBlock,
    SSL_AuthCertificateComplete,
    SSL_AuthCertificateHook,
    SSL_BadCertHook,
    SSL_CipherPrefSet,
    SSL_ClientCertCallbackComplete,
    SSL_ForceHandshake,
    SSL_GetClientAuthDataHook,
    SSL_HandshakeCallback,
    SSL_ImportFD,
    SSL_NamedGroupConfig,
    SSL_OptionSet,
    SSL_PeerCertificate,
    SSL_PeerStapledOCSPResponses,
    SSL_ReHandshake,
    SSL_SetPKCS11PinArg,
    SSL_SetURL,
    SSL_SignatureSchemePrefSet,
    SSL_VersionRangeSet,
)
from . import report, sidechannel
from .certdump import dump_chain
from .headers import HeaderSkipper
from .hosts import known
from .report import Fatal, print_error, say, step

if TYPE_CHECKING:
    from .tstclnt import Settings

PROGRAM = "tstclnt"
HANDSHAKE_FAILED = 254
BUFFER = 4000
RECEIVED = PR_POLL_READ | PR_POLL_ERR | PR_POLL_HUP


class Failed(Exception):
    """The connection is over with an exit status; why has been said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connection:
    """One connection, from the first handshake to its end."""

    def __init__(
        self, settings: Settings, address: PRNetAddr, source: PRFileDesc, interval: int = PR_INTERVAL_NO_TIMEOUT
    ) -> None:
        self.settings, self.address, self.source, self.interval = settings, address, source, interval
        self.revocation = HANDSHAKE_FAILED  # of -F
        self._certificate_waits = False  # for our verdict
        self._authorities: list[bytes] | None = None  # of a server that waits for our certificate
        self._renegotiations = 0
        self._done = False
        self._headers = HeaderSkipper(skip=settings.skip_header)

    def run(self) -> int:
        """The exit status."""
        fd: PRFileDesc | None = None
        try:
            with step("error creating socket"):
                fd = PR_OpenTCPSocket(self.address.family)
            self._configure(fd)
            self._connect(fd)
            if self.settings.revocation:
                with suppress(NSPRError):
                    SSL_ForceHandshake(fd)
                return self.revocation
            self._tell("ready...")
            return self._pump(fd)
        except Fatal as failure:
            print_error(PROGRAM, failure.what, failure.error)
            return 1
        except Failed as failure:
            return failure.status
        finally:
            if fd is not None:
                with suppress(NSPRError):
                    PR_Close(fd)

    def _tell(self, line: str) -> None:
        if self.settings.verbose:
            say(f"{PROGRAM}: {line}")

    # --- settings ----------------------------------------------------------------------------------------------------------

    def _configure(self, fd: PRFileDesc) -> None:
        settings = self.settings
        with step("error setting socket options"):
            PR_SetSocketOption(fd, PRSocketOptionData(PR_SockOpt_Nonblocking, not settings.revocation))
        with step("error importing socket"):
            SSL_ImportFD(None, fd)
        SSL_SetPKCS11PinArg(fd, settings.passwords)
        with step("SSL_CipherPrefSet()"):
            known(settings.suites or ())
            for suite in settings.suites or ():
                SSL_CipherPrefSet(fd, suite, True)
        with step("error setting SSL/TLS version range "):
            SSL_VersionRangeSet(fd, settings.versions)
        if settings.no_ssl2:  # which -V may have switched on, with its hello
            with step("error enabling SSLv2 "):
                SSL_OptionSet(fd, SSL_ENABLE_SSL2, False)
            with step("error disabling v2 compatibility"):
                SSL_OptionSet(fd, SSL_V2_COMPATIBLE_HELLO, False)
        for option, what in settings.options.items():
            with step(what):
                SSL_OptionSet(fd, option, True)
        if settings.groups:
            with step("SSL_NamedGroupConfig failed"):
                SSL_NamedGroupConfig(fd, settings.groups)
        if settings.schemes:
            with step("SSL_SignatureSchemePrefSet failed"):
                SSL_SignatureSchemePrefSet(fd, settings.schemes)
        SSL_AuthCertificateHook(fd, self._authenticate, CERT_GetDefaultCertDB())
        if settings.overlook:
            SSL_BadCertHook(fd, self._overlook, None)
        SSL_GetClientAuthDataHook(fd, self._choose_certificate, settings.nickname)
        SSL_HandshakeCallback(fd, self._handshake_done, None)
        SSL_SetURL(fd, settings.sni[0] if settings.sni else settings.host)

    # --- hooks -------------------------------------------------------------------------------------------------------------

    def _authenticate(self, arg: CERTCertDBHandle | None, fd: PRFileDesc, check_signature: bool, is_server: bool) -> int:
        """The server's certificate: judged at once with -O, else when the handshake has come back to us."""
        settings = self.settings
        if settings.dump_chain:
            dump_chain(fd, settings.dump_chain)
        if settings.revocation:
            self.revocation = sidechannel.judge(fd, settings.revocation, settings.revocation_methods)
        elif settings.synchronous:
            sidechannel.authenticate(fd, check_signature)
        else:
            self._tell("using asynchronous certificate validation")
            self._certificate_waits = True
            return SECWouldBlock
        return SECSuccess

    def _overlook(self, arg: object, fd: PRFileDesc) -> None:
        number = PR_GetError()
        say(f"Bad server certificate: {number}, {PR_ErrorToString(number)}")

    def _choose_certificate(
        self, nickname: str | None, fd: PRFileDesc, authorities: list[bytes]
    ) -> tuple[CERTCertificate, SECKEYPrivateKey] | int:
        if not self.settings.synchronous:
            self._authorities = authorities
            return SECWouldBlock
        if self.settings.verbose < 2:
            return NSS_GetClientAuthData(nickname, fd, authorities)
        say("Server requested Client Authentication")
        for number, name in enumerate(authorities, 1):
            say(f"CA[{number}]: {CERT_DerNameToAscii(name)}")
        try:
            found = NSS_GetClientAuthData(nickname, fd, authorities)
        except NSPRError:
            say("send no cert")
            raise
        say(f"sent cert: {found[0].subjectName}")
        return found

    def _handshake_done(self, fd: PRFileDesc, arg: object) -> None:
        settings = self.settings
        if len(settings.sni) > 1:
            SSL_SetURL(fd, settings.sni[1])
        self._tell_security(fd)
        if self._renegotiations < settings.renegotiations:
            self._renegotiations += 1
            try:
                SSL_ReHandshake(fd, settings.renegotiations < 2)
            except NSPRError as error:
                self._tell(f"SSL_ReHandshake: {report.error_text(error)}")
        if settings.stop_after_handshake:
            self._done = True
        try:
            report.export(fd, settings.exporters, wrap=not settings.dump_chain)
        except NSPRError as error:
            if settings.verbose:
                say(f"couldn't export keying material: {PR_ErrorToString(error.errno)}")

    def _tell_security(self, fd: PRFileDesc) -> None:
        if self.settings.verbose:
            report.channel(PROGRAM, fd, master_secret=True, scheme=True)
        report.names(SSL_PeerCertificate(fd))
        say(report.cache_statistics())
        say(f"Received {len(SSL_PeerStapledOCSPResponses(fd))} Cert Status items (OCSP stapled data)")

    def _take_up_verdict(self, fd: PRFileDesc) -> None:
        """The handshake waits for a verdict on the server's certificate.  Raises Failed."""
        if not self._certificate_waits or self._authorities is not None:
            return
        self._certificate_waits = False
        self._tell("handshake was paused by auth certificate hook")
        refusal: NSPRError | None = None
        try:
            sidechannel.authenticate(fd)
        except NSPRError as error:
            if self.settings.overlook:
                self._overlook(None, fd)
            else:
                refusal = error
        SSL_AuthCertificateComplete(fd, refusal.errno if refusal is not None else 0)
        if refusal is not None:
            print_error(PROGRAM, "authentication of server cert failed", refusal)
            raise Failed(HANDSHAKE_FAILED)

    def _take_up_choice(self, fd: PRFileDesc) -> bool:
        """Whether the handshake waited for a certificate of ours, which it then gets."""
        authorities, self._authorities = self._authorities, None
        if authorities is None:
            return False
        try:
            certificate, key = NSS_GetClientAuthData(self.settings.nickname, fd, authorities)
        except NSPRError:
            say("Failed to load a suitable client certificate ")
            SSL_ClientCertCallbackComplete(fd, SECFailure, None, None)
        else:
            SSL_ClientCertCallbackComplete(fd, SECSuccess, key, certificate)
            CERT_DestroyCertificate(certificate)
        return True

    # --- connecting --------------------------------------------------------------------------------------------------------

    def _connect(self, fd: PRFileDesc) -> None:
        """Raises Failed."""
        try:
            PR_Connect(fd, self.address)
        except NSPRError as error:
            if error.name != "PR_IN_PROGRESS_ERROR":
                print_error(PROGRAM, "unable to connect", error)
                raise Failed(1) from None
            if self.settings.verbose:
                print_error(PROGRAM, "connect", error)
            self._await_connection(fd)

    def _await_connection(self, fd: PRFileDesc) -> None:
        wait = PRPollDesc(fd, PR_POLL_WRITE | PR_POLL_EXCEPT)
        while True:
            self._tell("about to call PR_Poll for connect completion!")
            PR_Poll([wait])
            self._tell(f"PR_Poll returned 0x{wait.out_flags:02x} for socket out_flags.")
            try:
                PR_GetConnectStatus(wait)
            except NSPRError as error:
                if error.name != "PR_IN_PROGRESS_ERROR":
                    print_error(PROGRAM, "unable to connect (poll)", error)
                    raise Failed(1) from None
            else:
                return

    # --- data ----------------------------------------------------------------------------------------------------------------

    def _pump(self, fd: PRFileDesc) -> int:
        """Until the server closes, or the handshake is done and that was all there was to do."""
        settings = self.settings
        socket = PRPollDesc(fd, PR_POLL_EXCEPT | (0 if settings.client_speaks_first else PR_POLL_READ))
        source = PRPollDesc(self.source, PR_POLL_READ)
        while not self._done and (socket.in_flags or source.in_flags):
            self._take_up_verdict(fd)
            if self._take_up_choice(fd):
                continue
            self._tell("about to call PR_Poll !")
            PR_Poll([socket, source])
            self._tell("PR_Poll returned!")
            self._tell_flags(source, "stdin")
            self._tell_flags(socket, "socket")
            if source.out_flags & PR_POLL_READ:
                self._pass_on(fd, source, socket)
            self._tell_flags(socket, "socket")
            if socket.out_flags & RECEIVED:
                self._receive(fd, socket)
            if settings.pause:
                threading.Event().wait(0.05 * settings.pause)
        return 0

    def _tell_flags(self, wait: PRPollDesc, what: str) -> None:
        if wait.in_flags:
            self._tell(f"PR_Poll returned 0x{wait.out_flags:02x} for {what} out_flags.")

    def _pass_on(self, fd: PRFileDesc, source: PRPollDesc, socket: PRPollDesc) -> None:
        """From standard input to the server."""
        data = PR_Recv(self.source, BUFFER)
        self._tell(f"stdin read {len(data)} bytes")
        if data:
            self._send(fd, data)
            socket.in_flags = PR_POLL_READ
        else:
            source.in_flags = 0

    def _send(self, fd: PRFileDesc, data: bytes) -> None:
        """All of it.  Raises Failed."""
        self._tell(f"Writing {len(data)} bytes to server")
        wait = PRPollDesc(fd, PR_POLL_WRITE | PR_POLL_EXCEPT)
        while True:
            sent = 0
            try:
                sent = PR_Send(fd, data, 0, self.interval)
            except NSPRError as error:
                if error.name != "PR_WOULD_BLOCK_ERROR":
                    print_error(PROGRAM, "write to SSL socket failed", error)
                    raise Failed(HANDSHAKE_FAILED) from None
            self._tell(f"{sent} bytes written")
            data = data[sent:]
            if not data:
                return
            self._take_up_verdict(fd)
            if self._take_up_choice(fd):
                continue
            self._tell("about to call PR_Poll on writable socket !")
            PR_Poll([wait])
            self._tell("PR_Poll returned with writable socket !")

    def _receive(self, fd: PRFileDesc, socket: PRPollDesc) -> None:
        """From the server to standard output.  Raises Failed."""
        try:
            data = PR_Recv(fd, BUFFER, 0, self.interval)
        except NSPRError as error:
            self._tell("Read from server -1 bytes")
            if error.name != "PR_WOULD_BLOCK_ERROR":
                print_error(PROGRAM, "read from socket failed", error)
                raise Failed(1) from None
            return
        self._tell(f"Read from server {len(data)} bytes")
        if not data:
            socket.in_flags = 0
            return
        sys.stdout.buffer.write(self._headers.rest(data))
        sys.stdout.buffer.flush()
        if self.settings.verbose:
            say("\n")
