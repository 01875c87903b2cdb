"""The TLS 1.3 handshake, server side (RFC 8446 section 2, figure 1), top to bottom.

`ServerHandshake.run` is the flow; each method is one step of it.  Waits are `yield`ed: messages from the client, signatures
from a token, verdicts on a certificate.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import (
    CertificateRequired,
    HandshakeFailure,
    IllegalParameter,
    MissingExtension,
    UnrecognizedName,
)
from .. import groups, negotiation, selection, signatures
from ..codepoints import Group, H, V, X
from ..config import ServerConfig
from ..link import Flow, Link, Steps
from ..messages import certificate as certificates
from ..messages import extensions as ext
from ..messages.hello import HELLO_RETRY_RANDOM, ClientHello, ServerHello, message
from ..session import Session
from ..suites import Suite
from ..transcript import Transcript
from ..waits import Receive, Sign, VerifyPeer
from . import keys, psk
from .connected import ServerConnected
from .peer import receive_certificate, request_extensions
from .schedule import KeySchedule

MAX_SKIPPED_EARLY_DATA = (1 << 14) + 4096  # bytes of refused 0-RTT records thrown away (RFC 8446 section 4.2.10)


class ServerHandshake:
    """One handshake.  Attributes appear as the flow learns them."""

    def __init__(self, link: Link, config: ServerConfig) -> None:
        self.link, self.config, self.info = link, config, link.info
        self.transcript = Transcript()
        self.session: Session | None = None  # the one being resumed
        self.requested_certificate = False

    def run(self, hello: ClientHello) -> Steps[ServerConnected]:
        hello = yield from self._agree_on_parameters(hello)
        self._send_server_hello(hello)
        self._send_encrypted_extensions(hello)
        if self.session is None:
            self._send_certificate_request()
            yield from self._send_certificate(hello)
        self._send_finished()
        yield from self._receive_client_certificate()
        yield from self._receive_finished()
        self.link.complete()
        connected = ServerConnected(
            self.link, self.config, self.schedule, self.transcript, self.client_secret, self.server_secret
        )
        connected.may_request_certificate = X.post_handshake_auth in hello.extensions
        if self._tickets_welcome:
            connected.send_tickets(self.session)
        return connected

    # --- parameters ----------------------------------------------------------------------------------------------------

    def _agree_on_parameters(self, hello: ClientHello) -> Steps[ClientHello]:
        """Suite, PSK, group and share; a HelloRetryRequest where the client guessed the wrong group (section 4.1.4)."""
        self._check_hello(hello)
        self.link.records.ignore_change_cipher_spec = True
        self.suite = self._choose_suite(hello)
        self.transcript.use(self.suite.hash)
        retried = False
        group = self._choose_group(hello)
        if group not in self.shares:
            first = hello
            self._send_hello_retry_request(first, group)
            self.link.records.skip_early_data = MAX_SKIPPED_EARLY_DATA if X.early_data in first.extensions else 0
            hello = ClientHello.decode((yield Receive(H.client_hello)))
            self.link.records.skip_early_data = 0
            self._check_second_hello(first, hello, group)
            retried = True
        self.group, self.info.hello_retry = group, retried
        yield from self._choose_psk(hello)
        self.schedule = KeySchedule(self.suite, self.session.secret if self.session else b"")
        self.transcript.add(hello.raw)
        if X.early_data in hello.extensions:
            self.link.records.skip_early_data = MAX_SKIPPED_EARLY_DATA
        self.answers = negotiation.answer_client(hello, self.config, self.info)
        if self.session is None:
            self._choose_identity(hello)
        return hello

    def _check_hello(self, hello: ClientHello) -> None:
        """What every TLS 1.3 ClientHello owes (sections 4.1.2, 9.2)."""
        if hello.compression != b"\0":
            raise IllegalParameter("compression offered in TLS 1.3", name="SSL_ERROR_RX_MALFORMED_CLIENT_HELLO")
        extensions = hello.extensions
        for kind in (X.supported_groups, X.key_share, X.signature_algorithms):
            if kind not in extensions and (kind != X.signature_algorithms or X.pre_shared_key not in extensions):
                raise MissingExtension(f"ClientHello lacks {kind.name}", name=_MISSING[kind])
        self.groups = ext.decode_u16_list(extensions[X.supported_groups])
        self.shares = ext.decode_key_shares(extensions[X.key_share])
        for group in self.shares:
            if group not in self.groups:
                raise IllegalParameter(
                    "key share of a group that supported_groups does not name", name="SSL_ERROR_RX_MALFORMED_KEY_SHARE"
                )
        self.schemes = ext.decode_u16_list(extensions[X.signature_algorithms]) if X.signature_algorithms in extensions else ()
        if X.signature_algorithms_cert in extensions:
            ext.decode_u16_list(extensions[X.signature_algorithms_cert])
        if X.pre_shared_key in extensions and X.psk_key_exchange_modes not in extensions:
            raise MissingExtension(
                "pre_shared_key without psk_key_exchange_modes", name="SSL_ERROR_MISSING_PSK_KEY_EXCHANGE_MODES"
            )
        self.modes = ext.decode_u8_list(extensions[X.psk_key_exchange_modes]) if X.psk_key_exchange_modes in extensions else b""
        offered = ext.decode_versions(extensions[X.compress_certificate]) if X.compress_certificate in extensions else ()
        self.compressions = tuple(algorithm for algorithm in self.config.certificate_compression if algorithm in offered)

    def _choose_suite(self, hello: ClientHello) -> Suite:
        usable = self.config.usable_suites()
        return self.config.remember((V.tls1_3, usable, hello.suites), lambda: self._best_suite(usable, hello))

    def _best_suite(self, usable: Sequence[Suite], hello: ClientHello) -> Suite:
        usable = [suite for suite in usable if suite.min_version == V.tls1_3]
        by_client = {suite.code: suite for suite in usable}
        common = [suite for suite in usable if suite.code in hello.suites]
        if not self.config.prefer_own_order:
            common = [by_client[code] for code in hello.suites if code in by_client]
        if not common:
            raise HandshakeFailure("no TLS 1.3 cipher suite in common")
        return common[0]

    def _choose_group(self, hello: ClientHello) -> Group:
        """A group with a share in hand before a better one without: a round trip costs more than a preference."""
        common = [group for group in self.config.groups if group in self.groups]
        if not self.config.prefer_own_order:
            common.sort(key=self.groups.index)
        if not common:
            raise HandshakeFailure("no key exchange group in common")
        return next((group for group in common if group in self.shares), common[0])

    def _send_hello_retry_request(self, hello: ClientHello, group: Group) -> None:
        self.transcript.add(hello.raw)
        self.transcript.replace_by_message_hash()
        extensions: ext.Extensions = {X.key_share: group.to_bytes(2, "big"), X.supported_versions: b"\x03\x04"}
        retry = ServerHello(0x0303, HELLO_RETRY_RANDOM, hello.session_id, self.suite.code, extensions).encode()
        self.transcript.add(retry)
        self.link.send(retry)
        if hello.session_id:
            self.link.send_change_cipher_spec()  # middlebox compatibility (appendix D.4)

    def _check_second_hello(self, first: ClientHello, second: ClientHello, group: Group) -> None:
        """Only what section 4.1.2 lists may differ, and the share must be the one asked for."""
        self._check_hello(second)
        same = (first.version, first.random, first.session_id, first.suites) == (
            second.version,
            second.random,
            second.session_id,
            second.suites,
        )
        may_change = {X.key_share, X.early_data, X.cookie, X.pre_shared_key, X.padding}
        kept = {kind: body for kind, body in first.extensions.items() if kind not in may_change}
        now = {kind: body for kind, body in second.extensions.items() if kind not in may_change}
        if not same or kept != now or X.early_data in second.extensions or X.cookie in second.extensions:
            raise IllegalParameter("second ClientHello changes what it must keep", name="SSL_ERROR_BAD_2ND_CLIENT_HELLO")
        if list(self.shares) != [group]:
            raise IllegalParameter("second ClientHello lacks the share that was asked for", name="SSL_ERROR_BAD_2ND_CLIENT_HELLO")

    def _choose_psk(self, hello: ClientHello) -> Flow:
        """A ticket of ours that still holds (section 4.2.11); the binder proves that the client knows its secret."""
        self.psk_index = -1
        if X.pre_shared_key not in hello.extensions:
            return
        found = psk.choose(self.config, hello, self.suite, self.transcript, psk_dhe_allowed=psk.PSK_DHE_KE in self.modes)
        if found is None:
            if not self.schemes:
                raise MissingExtension("ClientHello lacks signature_algorithms", name=_MISSING[X.signature_algorithms])
            return
        self.psk_index, self.session = found
        self.info.resumed = True
        self.info.peer_chain = self.session.peer_chain
        if self.session.peer_chain:  # today's rules hold for yesterday's certificate
            yield VerifyPeer(self.session.peer_chain, "", None, "client")

    def _choose_identity(self, hello: ClientHello) -> None:
        """Before anything is sent, so that a refusal is one plain alert."""
        extensions, name = hello.extensions, self.info.server_name
        authorities = (
            ext.decode_authorities(extensions[X.certificate_authorities]) if X.certificate_authorities in extensions else ()
        )
        if name and self.config.refuse_unknown_names and not selection.knows(self.config, name):
            raise UnrecognizedName(f"no identity is named {name}")
        config, schemes = self.config, self.schemes
        self.info.identity, self.info.signature_scheme = config.remember(
            (V.tls1_3, name, schemes, authorities),
            lambda: selection.choose_identity(config.identities, name, config.common_schemes(schemes), V.tls1_3, authorities),
        )

    # --- the server's flight -------------------------------------------------------------------------------------------

    def _send_server_hello(self, hello: ClientHello) -> None:
        """Section 4.1.3; from here on everything is encrypted."""
        link, info = self.link, self.info
        share, shared_secret = groups.respond(self.group, self.shares[self.group])
        extensions: ext.Extensions = {} if self.session is None else {X.pre_shared_key: self.psk_index.to_bytes(2, "big")}
        extensions[X.key_share] = ext.encode_key_share(self.group, share)
        extensions[X.supported_versions] = b"\x03\x04"
        random = self.config.random(32)
        raw = ServerHello(0x0303, random, hello.session_id, self.suite.code, extensions).encode()
        self.transcript.add(raw)
        link.send(raw)
        if hello.session_id and not info.hello_retry:
            link.send_change_cipher_spec()
        info.suite, info.group = self.suite, self.group
        schedule = self.schedule
        self.client_secret, self.server_secret = keys.handshake_secrets(link, schedule, shared_secret, self.transcript)
        link.change_write_key(schedule.protection(self.server_secret))
        link.change_read_key(schedule.protection(self.client_secret))

    def _send(self, raw: bytes) -> None:
        self.transcript.add(raw)
        self.link.send(raw)

    def _send_encrypted_extensions(self, hello: ClientHello) -> None:
        self._send(message(H.encrypted_extensions, ext.encode_block(self.answers)))
        limits = self.link.records
        limits.send_limit = self.info.record_size_limit
        if X.record_size_limit in self.answers:
            limits.receive_limit = self.config.record_size_limit

    def _send_certificate_request(self) -> None:
        if self.config.client_auth != "none":
            self.requested_certificate = True
            self._send(certificates.encode_request13(b"", request_extensions(self.config)))

    def _send_certificate(self, hello: ClientHello) -> Flow:
        """Certificate and CertificateVerify (sections 4.4.2, 4.4.3): the one use of the token."""
        extensions, identity, scheme = hello.extensions, self.info.identity, self.info.signature_scheme
        assert identity is not None
        assert scheme is not None
        wants_ocsp = X.status_request in extensions and ext.decode_status_request(extensions[X.status_request])
        raw = certificates.encode_certificate13(identity.chain, ocsp=identity.ocsp if wants_ocsp else b"")
        if self.compressions:
            raw = certificates.compress_certificate(self.compressions[0], raw)
        self._send(raw)
        signature = yield Sign(identity, scheme, signatures.to_be_signed(True, self.transcript.digest()))
        self._send(certificates.encode_verify(scheme, signature))

    def _send_finished(self) -> None:
        """Our Finished; then our side's application keys (section 7.1)."""
        link, schedule = self.link, self.schedule
        verify_data = schedule.finished(self.server_secret, self.transcript.digest())
        self._send(message(H.finished, verify_data))
        self.next_client_secret, self.server_secret = keys.application_secrets(link, schedule, self.transcript)
        link.change_write_key(schedule.protection(self.server_secret))

    # --- the client's flight -------------------------------------------------------------------------------------------

    def _receive_client_certificate(self) -> Flow:
        if not self.requested_certificate:
            return
        chain, scheme = yield from receive_certificate(self.link, self.transcript, b"", by_server=False)
        if not chain and self.config.client_auth == "require":
            raise CertificateRequired("client sent no certificate")
        self.info.peer_chain, self.info.client_signature_scheme = chain, scheme

    def _receive_finished(self) -> Flow:
        keys.check_finished(self.schedule, (yield Receive(H.finished)), self.client_secret, self.transcript)
        self.client_secret = self.next_client_secret
        self.link.change_read_key(self.schedule.protection(self.client_secret))
        self.link.records.ignore_change_cipher_spec = False
        self.link.records.skip_early_data = 0

    @property
    def _tickets_welcome(self) -> bool:
        """A client that names no mode at all may get tickets; one that names only others should not (section 4.2.9)."""
        return self.config.tickets is not None and (not self.modes or psk.PSK_DHE_KE in self.modes)


_MISSING = {
    X.supported_groups: "SSL_ERROR_MISSING_SUPPORTED_GROUPS_EXTENSION",
    X.key_share: "SSL_ERROR_MISSING_KEY_SHARE",
    X.signature_algorithms: "SSL_ERROR_MISSING_SIGNATURE_ALGORITHMS_EXTENSION",
}
