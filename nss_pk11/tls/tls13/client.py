"""The TLS 1.3 handshake, client side (RFC 8446 section 2, figure 1), from the ServerHello on, top to bottom."""

from __future__ import annotations

from ...errors import IllegalParameter, MissingExtension, UnexpectedMessage, UnsupportedExtension
from .. import groups
from ..codec import Reader
from ..codepoints import Group, H, V, X
from ..config import ClientConfig
from ..link import Flow, Link, Steps
from ..messages import extensions as ext
from ..messages.hello import ClientHello, ServerHello, message
from ..opening import Opening
from ..suites import BY_CODE, Suite
from ..waits import Receive, VerifyPeer
from . import keys
from .connected import ClientConnected
from .peer import CERTIFICATE_TYPES, answer_request, receive_certificate
from .schedule import KeySchedule


class ClientHandshake:
    """One handshake.  `opening`: what the first flight offered."""

    def __init__(self, link: Link, config: ClientConfig, opening: Opening) -> None:
        self.link, self.config, self.info, self.opening = link, config, link.info, opening
        self.transcript = opening.transcript
        self.hello: ClientHello = opening.hello
        self.certificate_request: bytes = b""

    def run(self, server_hello: ServerHello) -> Steps[ClientConnected]:
        self.link.records.ignore_change_cipher_spec = True
        self.suite = self._check_server_hello(server_hello)
        self.transcript.use(self.suite.hash)
        if server_hello.retry:
            self._answer_hello_retry_request(server_hello)
            server_hello = ServerHello.decode((yield Receive(H.server_hello)))
            self._check_second_server_hello(server_hello)
        self._agree_on_keys(server_hello)
        if self.info.resumed:  # the session may come from a time, or a caller, that trusted more
            yield VerifyPeer(self.info.peer_chain, self.config.server_name, None, "server")
        self._receive_encrypted_extensions((yield Receive(H.encrypted_extensions)))
        if not self.info.resumed:
            yield from self._receive_server_certificate()
        yield from self._receive_finished()
        yield from self._send_client_flight()
        self.link.complete()
        return ClientConnected(self.link, self.config, self.schedule, self.transcript, self.server_secret, self.client_secret)

    # --- ServerHello ----------------------------------------------------------------------------------------------------

    def _check_server_hello(self, server_hello: ServerHello) -> Suite:
        """Section 4.1.3 (and 4.1.4 for a HelloRetryRequest)."""
        extensions = server_hello.extensions
        if server_hello.version != 0x0303 or server_hello.session_id != self.hello.session_id or server_hello.compression:
            raise IllegalParameter("ServerHello does not echo what it must", name="SSL_ERROR_RX_MALFORMED_SERVER_HELLO")
        if ext.decode_u16(extensions[X.supported_versions]) != V.tls1_3:
            raise IllegalParameter("ServerHello selects a version that is none", name="SSL_ERROR_UNSUPPORTED_VERSION")
        suite = BY_CODE.get(server_hello.suite)
        if suite is None or server_hello.suite not in self.hello.suites or suite.min_version != V.tls1_3:
            raise IllegalParameter(
                f"server chose suite {server_hello.suite:#06x}, which was not offered", name="SSL_ERROR_NO_CYPHER_OVERLAP"
            )
        allowed = ext.HELLO_RETRY_REQUEST if server_hello.retry else ext.SERVER_HELLO_13
        for kind in extensions:
            if kind not in self.hello.extensions and not (server_hello.retry and kind == X.cookie):
                raise UnsupportedExtension(f"extension {kind} was not offered")
            if kind not in allowed:
                raise IllegalParameter(
                    f"extension {kind} has no place in ServerHello", name="SSL_ERROR_RX_MALFORMED_SERVER_HELLO"
                )
        return suite

    def _answer_hello_retry_request(self, retry: ServerHello) -> None:
        """Section 4.1.4: the second ClientHello changes only what it is told to."""
        extensions, hello = retry.extensions, self.hello
        if X.key_share not in extensions and X.cookie not in extensions:
            raise IllegalParameter("HelloRetryRequest that changes nothing", name="SSL_ERROR_RX_MALFORMED_HELLO_RETRY_REQUEST")
        self.transcript.replace_by_message_hash()
        self.transcript.add(retry.raw)
        answered = dict(hello.extensions)
        psk = answered.pop(X.pre_shared_key, None)
        if X.key_share in extensions:
            group = ext.decode_u16(extensions[X.key_share])
            if group not in self.config.groups or group in self.opening.shares:
                raise IllegalParameter(
                    f"HelloRetryRequest for group {group:#06x}", name="SSL_ERROR_RX_MALFORMED_HELLO_RETRY_REQUEST"
                )
            share = groups.new_share(Group(group))
            self.opening.shares = {Group(group): share}
            answered[X.key_share] = ext.encode_key_shares([(group, share.public)])
        if X.cookie in extensions:
            answered[X.cookie] = ext.encode_cookie(ext.decode_cookie(extensions[X.cookie]))
        offer = self.opening.offer
        if psk is not None and offer is not None and offer.suite.hash == self.suite.hash:
            answered[X.pre_shared_key] = offer.extension(self.config.clock())
        else:
            self.opening.offer = None
        self.hello = ClientHello(hello.version, hello.random, hello.session_id, hello.suites, answered)
        raw = self.hello.encode()
        if self.opening.offer is not None:
            raw = self.hello.raw = self.opening.offer.fill_binder(raw, self.transcript)
        self.transcript.add(raw)
        self._send_compatibility_change_cipher_spec()
        self.link.send(raw)
        self.info.hello_retry = True

    def _send_compatibility_change_cipher_spec(self) -> None:
        """Once, before our second flight (appendix D.4)."""
        if self.hello.session_id and not self.info.hello_retry and self.config.middlebox_compatibility:
            self.link.send_change_cipher_spec()

    def _check_second_server_hello(self, server_hello: ServerHello) -> None:
        if server_hello.retry:
            raise UnexpectedMessage("second HelloRetryRequest", name="SSL_ERROR_RX_UNEXPECTED_HELLO_RETRY_REQUEST")
        if X.supported_versions not in server_hello.extensions or self._check_server_hello(server_hello) is not self.suite:
            raise IllegalParameter("server changed its mind after HelloRetryRequest", name="SSL_ERROR_RX_MALFORMED_SERVER_HELLO")

    def _agree_on_keys(self, server_hello: ServerHello) -> None:
        """PSK, key share, handshake keys (sections 4.2.8, 4.2.11, 7.1)."""
        link, info, extensions = self.link, self.info, server_hello.extensions
        self.transcript.add(server_hello.raw)
        psk = b""
        if X.pre_shared_key in extensions and self.opening.offer is not None:
            session = self.opening.offer.accepted(ext.decode_u16(extensions[X.pre_shared_key]), self.suite)
            psk, info.resumed, info.peer_chain = session.secret, True, session.peer_chain
        if X.key_share not in extensions:
            raise MissingExtension("ServerHello lacks key_share", name="SSL_ERROR_MISSING_KEY_SHARE")
        group, share = ext.decode_key_share(extensions[X.key_share])
        ours = self.opening.shares.get(group)  # type: ignore[call-overload]
        if ours is None:
            raise IllegalParameter(
                f"server's key share is of group {group:#06x}, which was not offered", name="SSL_ERROR_RX_MALFORMED_KEY_SHARE"
            )
        self._send_compatibility_change_cipher_spec()
        info.suite, info.group = self.suite, Group(group)
        schedule = self.schedule = KeySchedule(self.suite, psk)
        self.client_secret, self.server_secret = keys.handshake_secrets(link, schedule, ours.agree(share), self.transcript)
        link.change_read_key(schedule.protection(self.server_secret))
        link.change_write_key(schedule.protection(self.client_secret))

    # --- the server's encrypted flight ----------------------------------------------------------------------------------

    def _receive_encrypted_extensions(self, raw: bytes) -> None:
        """Section 4.3.1: answers to what was offered, nothing else."""
        reader = Reader(raw, 4)
        extensions = ext.decode_block(reader)
        reader.end()
        for kind in extensions:
            if kind not in self.hello.extensions:
                raise UnsupportedExtension(f"extension {kind} was not offered")
            if kind not in ext.ENCRYPTED_EXTENSIONS:
                raise IllegalParameter(
                    f"extension {kind} has no place in EncryptedExtensions", name="SSL_ERROR_EXTENSION_DISALLOWED_FOR_VERSION"
                )
        ext.take_server_answers(extensions, self.hello.extensions, self.config, self.info)
        records = self.link.records
        if X.record_size_limit in extensions:
            self.info.record_size_limit = min(self.info.record_size_limit - 1, 16384)  # the limit counts the content type
            records.receive_limit = self.config.record_size_limit
        records.send_limit = self.info.record_size_limit
        self.transcript.add(raw)

    def _receive_server_certificate(self) -> Flow:
        types = CERTIFICATE_TYPES if self.config.certificate_compression else CERTIFICATE_TYPES[:1]
        raw = yield Receive(H.certificate_request, *types)
        if raw[0] == H.certificate_request:
            self.certificate_request = raw
            self.transcript.add(raw)
            raw = yield Receive(*types)
        chain, scheme = yield from receive_certificate(
            self.link, self.transcript, b"", by_server=True, first=raw, server_name=self.config.server_name
        )
        self.info.peer_chain, self.info.signature_scheme = chain, scheme

    def _receive_finished(self) -> Flow:
        link, schedule = self.link, self.schedule
        keys.check_finished(schedule, (yield Receive(H.finished)), self.server_secret, self.transcript)
        self.next_client_secret, self.server_secret = keys.application_secrets(link, schedule, self.transcript)
        link.change_read_key(schedule.protection(self.server_secret))
        link.records.ignore_change_cipher_spec = False

    # --- our flight -----------------------------------------------------------------------------------------------------

    def _send_client_flight(self) -> Flow:
        link, schedule = self.link, self.schedule
        if self.certificate_request:
            messages, _ = yield from answer_request(link, self.certificate_request, self.transcript, self.config)
            for raw in messages:
                link.send(raw)
        finished = message(H.finished, schedule.finished(self.client_secret, self.transcript.digest()))
        self.transcript.add(finished)
        link.send(finished)
        self.client_secret = self.next_client_secret
        link.change_write_key(schedule.protection(self.client_secret))
