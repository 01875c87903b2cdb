"""After the TLS 1.3 handshake: tickets, key updates, post-handshake authentication (RFC 8446 section 4.6)."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from ...errors import CertificateRequired, ConfigurationError, IllegalParameter, UnexpectedMessage
from ..codepoints import H
from ..config import ClientConfig, Config, ServerConfig
from ..events import NewSession, PeerCertificate
from ..link import Flow, Link
from ..messages import certificate as certificates
from ..messages import ticket as tickets
from ..messages.hello import message
from ..session import MAX_TICKET, Session
from ..transcript import Transcript
from ..waits import Receive
from .keys import check_finished
from .peer import CERTIFICATE_TYPES, answer_request, receive_certificate, request_extensions
from .schedule import KeySchedule

MAX_TICKET_LIFETIME = 604800  # seconds (section 4.6.1)
ConfigT = TypeVar("ConfigT", bound=Config)


class Connected(Generic[ConfigT]):
    """Both sides' part: KeyUpdate.  The traffic secrets of the moment live here."""

    accepts: ClassVar[tuple[int, ...]] = (H.key_update,)

    def __init__(
        self, link: Link, config: ConfigT, schedule: KeySchedule, transcript: Transcript, read_secret: bytes, write_secret: bytes
    ) -> None:
        self.link, self.config, self.schedule, self.transcript = link, config, schedule, transcript
        self.read_secret, self.write_secret = read_secret, write_secret
        link.connected = self

    def run(self) -> Flow:
        while True:
            raw = yield Receive(*self.accepts)
            if raw[0] == H.key_update:
                self._receive_key_update(raw)
            else:
                yield from self._receive(raw)

    def _receive(self, raw: bytes) -> Flow:
        raise NotImplementedError

    def _receive_key_update(self, raw: bytes) -> None:
        """Section 4.6.3."""
        requested = tickets.decode_key_update(raw)
        self.read_secret = self.schedule.next_traffic_secret(self.read_secret)
        self.link.change_read_key(self.schedule.protection(self.read_secret))
        if requested:
            self.update_write_key(False)

    def update_write_key(self, request_peer: bool) -> None:
        self.link.send(tickets.encode_key_update(request_peer))
        self.write_secret = self.schedule.next_traffic_secret(self.write_secret)
        self.link.change_write_key(self.schedule.protection(self.write_secret))

    def request_certificate(self) -> None:
        raise ConfigurationError("only a server asks for certificates", name="SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_CLIENTS")


class ServerConnected(Connected[ServerConfig]):
    """Sends tickets and may ask for a certificate."""

    accepts = (H.key_update, *CERTIFICATE_TYPES)

    may_request_certificate = False
    _request: bytes = b""  # the outstanding CertificateRequest's context
    _request_message = b""

    def send_tickets(self, resumed: Session | None) -> None:
        """Several after a full handshake so that each is used once; one after a resumption, for the one spent (appendix C.4)."""
        config, info, schedule = self.config, self.link.info, self.schedule
        assert config.tickets is not None
        assert info.suite is not None
        resumption = schedule.derive(b"res master", self.transcript.digest())
        lifetime = min(config.tickets.lifetime, MAX_TICKET_LIFETIME)
        session = Session(
            0x0304, info.suite.code, b"", config.clock(), lifetime, server_name=info.server_name, alpn=info.alpn,
            peer_chain=info.peer_chain, context=config.context,
        )  # fmt: skip
        for number in range(1 if resumed else config.ticket_count):
            nonce = number.to_bytes(1, "big")
            session.secret = schedule.ticket_psk(resumption, nonce)
            session.age_add = int.from_bytes(config.random(4), "big")
            ticket = config.tickets.seal(session.encode())
            if len(ticket) <= MAX_TICKET:  # but for certificates of a length that no client needs
                self.link.send(tickets.encode_ticket13(lifetime, session.age_add, nonce, ticket))
        self.link.flush()

    def request_certificate(self) -> None:
        """Section 4.6.2."""
        if not self.may_request_certificate:
            raise ConfigurationError(
                "client did not offer post_handshake_auth", name="SSL_ERROR_MISSING_POST_HANDSHAKE_AUTH_EXTENSION"
            )
        if self._request:
            raise ConfigurationError("a certificate request is under way", name="PR_IN_PROGRESS_ERROR")
        self._request = self.config.random(16)
        raw = certificates.encode_request13(self._request, request_extensions(self.config))
        self._request_message = raw
        self.link.send(raw)
        self.link.flush()

    def _receive(self, raw: bytes) -> Flow:
        """The client's answer: Certificate, CertificateVerify, Finished over the handshake and the request."""
        if not self._request:
            raise UnexpectedMessage("certificate that was not asked for", name="SSL_ERROR_RX_UNEXPECTED_CERTIFICATE")
        branch = self.transcript.branch()
        branch.add(self._request_message)
        chain, scheme = yield from receive_certificate(self.link, branch, self._request, by_server=False, first=raw)
        check_finished(self.schedule, (yield Receive(H.finished)), self.read_secret, branch)
        if not chain and self.config.client_auth == "require":
            raise CertificateRequired("client sent no certificate")
        self._request = b""
        self.link.info.peer_chain, self.link.info.client_signature_scheme = chain, scheme
        self.link.emit(PeerCertificate(chain))


class ClientConnected(Connected[ClientConfig]):
    """Receives tickets and may be asked for a certificate."""

    accepts = (H.key_update, H.new_session_ticket, H.certificate_request)

    def __init__(
        self,
        link: Link,
        config: ClientConfig,
        schedule: KeySchedule,
        transcript: Transcript,
        read_secret: bytes,
        write_secret: bytes,
    ) -> None:
        super().__init__(link, config, schedule, transcript, read_secret, write_secret)
        self._resumption = schedule.derive(b"res master", transcript.digest())

    def _receive(self, raw: bytes) -> Flow:
        if raw[0] == H.new_session_ticket:
            self._receive_ticket(raw)
            return
        if not self.config.post_handshake_auth:
            raise UnexpectedMessage(
                "CertificateRequest though post_handshake_auth was not offered", name="SSL_ERROR_RX_UNEXPECTED_CERT_REQUEST"
            )
        branch = self.transcript.branch()
        branch.add(raw)
        if certificates.decode_request13(raw)[0] == b"":
            raise IllegalParameter(
                "post-handshake CertificateRequest without a context", name="SSL_ERROR_RX_MALFORMED_CERT_REQUEST"
            )
        messages, _ = yield from answer_request(self.link, raw, branch, self.config)
        finished = message(H.finished, self.schedule.finished(self.write_secret, branch.digest()))
        for answer in (*messages, finished):
            self.link.send(answer)
        self.link.flush()

    def _receive_ticket(self, raw: bytes) -> None:
        """Section 4.6.1.  A lifetime of 0 means throw away at once."""
        lifetime, age_add, nonce, ticket, _ = tickets.decode_ticket13(raw)
        if lifetime > MAX_TICKET_LIFETIME:
            raise IllegalParameter(f"ticket lifetime of {lifetime} s", name="SSL_ERROR_RX_MALFORMED_NEW_SESSION_TICKET")
        if lifetime == 0 or len(ticket) > MAX_TICKET:
            return
        info = self.link.info
        assert info.suite is not None
        session = Session(
            0x0304, info.suite.code, self.schedule.ticket_psk(self._resumption, nonce), self.config.clock(), lifetime, ticket,
            age_add=age_add, server_name=self.config.server_name, alpn=info.alpn, peer_chain=info.peer_chain,
        )  # fmt: skip
        self.link.emit(NewSession(session))
