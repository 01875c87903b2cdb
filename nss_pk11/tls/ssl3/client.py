"""The handshake of SSL 3.0 to TLS 1.2, client side (RFC 5246 section 7.3, RFC 6101 section 5.5), top to bottom.

It begins with the ServerHello.
"""

from __future__ import annotations

from hmac import compare_digest

from cryptography.x509 import Certificate

from ...errors import DecodeError, DecryptError, HandshakeFailure, IllegalParameter, UnsupportedExtension
from .. import selection, signatures
from ..codec import Reader
from ..codepoints import C, H, SignatureScheme, V, Version, X
from ..config import ClientConfig, Identity
from ..events import NewSession
from ..link import Flow, Link
from ..messages import certificate as certificates
from ..messages import extensions as ext
from ..messages import ticket as tickets
from ..messages import tls12
from ..messages.fortezza import FORTEZZA_DMS
from ..messages.hello import ClientHello, ServerHello, message
from ..opening import Opening
from ..session import MAX_TICKET, Session
from ..suites import BY_CODE, Suite
from ..waits import CHANGE_CIPHER_SPEC, ChooseClientIdentity, Receive, Sign, VerifyPeer
from . import keyexchange, renegotiation
from .choice import CERTIFICATE_TYPES, SIGNS_AS
from .fortezza import Ciphers, FortezzaClient, resume_client
from .secrets import Secrets

# How long a session is kept that its server gives no lifetime for, and at most (RFC 5246 appendix F.1.4), seconds.
DEFAULT_LIFETIME = 7200
MAX_LIFETIME = 86400

# What may answer our ClientHello here.  Some servers send supported_groups, which means nothing (RFC 8446 section 4.2.7).
_SERVER_HELLO = frozenset(
    {
        X.server_name, X.max_fragment_length, X.status_request, X.supported_groups, X.ec_point_formats,
        X.application_layer_protocol_negotiation, X.encrypt_then_mac, X.extended_master_secret, X.record_size_limit,
        X.session_ticket, X.renegotiation_info,
    }
)  # fmt: skip
_SERVER_HELLO_SSL3 = frozenset({X.renegotiation_info, X.session_ticket})  # NSS sends the ticket that it says it will


class ClientHandshake:
    """One handshake.  `opening`: what the first flight offered."""

    def __init__(self, link: Link, config: ClientConfig, opening: Opening) -> None:
        self.link, self.config, self.info, self.opening = link, config, link.info, opening
        assert link.info.version is not None
        self.version: Version = link.info.version
        self.transcript = opening.transcript
        self.hello: ClientHello = opening.hello
        self.request: bytes = b""  # the server's CertificateRequest
        self.identity: Identity | None = None
        self.ciphers: Ciphers | None = None
        self.kept = b""
        self.ticket = b""
        self.lifetime = DEFAULT_LIFETIME

    def run(self, server_hello: ServerHello) -> Flow:
        self._read_server_hello(server_hello)
        if not self.info.resumed:
            yield from self._full_handshake(server_hello)
        else:
            yield from self._abbreviated_handshake(server_hello)
        self.link.complete()
        self._keep_session(server_hello)

    def _full_handshake(self, server_hello: ServerHello) -> Flow:
        """RFC 5246 section 7.3, figure 1."""
        yield from self._receive_certificate()
        yield from self._receive_server_key_exchange(server_hello)
        yield from self._receive_hello_done()
        yield from self._send_certificate()
        yield from self._send_client_key_exchange(server_hello)
        yield from self._send_certificate_verify()
        self._send_finished()
        yield from self._receive_finished()

    def _abbreviated_handshake(self, server_hello: ServerHello) -> Flow:
        """RFC 5246 section 7.3, figure 2."""
        # The session may come from a time, or a caller, that trusted more.
        renegotiation.check_same_server(self.link, self.info.peer_chain)
        yield VerifyPeer(self.info.peer_chain, self.config.server_name, None, "server")
        session = self.opening.session
        assert session is not None
        if self.suite.cipher.kind == "token":
            self.ciphers = yield from resume_client(self.config.identities, session.peer_chain, session.card)
        self._use_secrets(Secrets(self.suite, self.version, session.secret, self.hello.random, server_hello.random))
        yield from self._receive_finished()
        self._send_finished()

    # --- ServerHello ----------------------------------------------------------------------------------------------------

    def _read_server_hello(self, server_hello: ServerHello) -> None:
        """RFC 5246 section 7.4.1.3: everything in it answers something of ours."""
        self.suite = self._check_suite(server_hello)
        self.answers = server_hello.extensions
        if self.version == V.ssl3:  # knows no extension but RFC 5746's; there are servers that answer others all the same
            self.answers = {kind: body for kind, body in self.answers.items() if kind in _SERVER_HELLO_SSL3}
        self._check_extensions()
        renegotiation.check_server_hello(self.link, self.config, server_hello)
        self.transcript.add(server_hello.raw)
        self.transcript.use(self.suite.hash_in(self.version), keep=True)
        info, records = self.info, self.link.records
        info.suite = self.suite
        info.extended_master_secret = X.extended_master_secret in self.answers
        info.encrypt_then_mac = X.encrypt_then_mac in self.answers and self.suite.cipher.kind == "cbc"
        renegotiation.keep_encrypt_then_mac(self.link)
        ext.take_server_answers(self.answers, self.hello.extensions, self.config, info)
        info.record_size_limit = min(info.record_size_limit, 16384)
        if X.max_fragment_length in self.answers:  # at once, in both directions (RFC 6066 section 4)
            records.send_limit = records.receive_limit = info.record_size_limit
        self.link.randoms = self.hello.random + server_hello.random
        self._check_session(server_hello)

    def _check_suite(self, server_hello: ServerHello) -> Suite:
        suite = BY_CODE.get(server_hello.suite)
        offered = suite is not None and server_hello.suite in self.hello.suites
        if suite is None or not offered or not suite.min_version <= self.version <= suite.max_version:
            raise IllegalParameter(
                f"server chose suite {server_hello.suite:#06x}, which was not offered", name="SSL_ERROR_NO_CYPHER_OVERLAP"
            )
        if server_hello.compression:
            raise IllegalParameter("server chose a compression that was not offered", name="SSL_ERROR_RX_MALFORMED_SERVER_HELLO")
        return suite

    def _check_extensions(self) -> None:
        answers, malformed = self.answers, "SSL_ERROR_RX_MALFORMED_SERVER_HELLO"
        for kind in answers:
            if kind not in self.hello.extensions and kind != X.renegotiation_info:  # that one answers the SCSV
                raise UnsupportedExtension(f"extension {kind} was not offered")
            if kind not in _SERVER_HELLO:
                raise IllegalParameter(f"extension {kind} has no place in ServerHello", name=malformed)
        for kind in (X.extended_master_secret, X.encrypt_then_mac, X.session_ticket, X.status_request):
            ext.require_empty(answers.get(kind, b""))
        if X.ec_point_formats in answers and 0 not in ext.decode_u8_list(answers[X.ec_point_formats]):
            raise IllegalParameter("server does not take uncompressed points (RFC 8422 section 5.1.2)", name=malformed)
        # OpenSSL says so of suites that encrypt nothing, too, where it makes no difference.
        if X.encrypt_then_mac in answers and self.suite.cipher.kind not in ("cbc", "null"):
            raise IllegalParameter("encrypt-then-MAC with a suite that has no block cipher (RFC 7366 section 3)", name=malformed)

    def _check_session(self, server_hello: ServerHello) -> None:
        """An echo of our session id means that the session is resumed (RFC 5246 section 7.4.1.2), as it was."""
        if not server_hello.session_id or server_hello.session_id != self.hello.session_id:
            return
        session, info = self.opening.session, self.info
        if session is None:
            raise IllegalParameter("server resumes a session that was not offered", name="SSL_ERROR_RX_MALFORMED_SERVER_HELLO")
        if (session.version, session.suite) != (self.version, self.suite.code):
            raise IllegalParameter("server resumes a session by another suite", name="SSL_ERROR_RX_MALFORMED_SERVER_HELLO")
        if session.extended_master_secret != info.extended_master_secret:  # RFC 7627 section 5.3
            verb = "MISSING" if session.extended_master_secret else "UNEXPECTED"
            raise HandshakeFailure(
                "server changes the extended master secret on resumption", name=f"SSL_ERROR_{verb}_EXTENDED_MASTER_SECRET"
            )
        info.resumed, info.peer_chain = True, session.peer_chain
        self.transcript.forget_messages()

    # --- the server's flight --------------------------------------------------------------------------------------------

    def _receive_certificate(self) -> Flow:
        """Certificate, and CertificateStatus where the server staples (RFC 6066 section 8: it may say so and not do it)."""
        raw = yield Receive(H.certificate)
        self.transcript.add(raw)
        chain = certificates.decode_certificate12(raw)
        if not chain:
            raise DecodeError("server sent no certificate", name="SSL_ERROR_RX_MALFORMED_CERTIFICATE")
        self.leaf: Certificate = signatures.load_leaf(chain)
        self.key_exchange = keyexchange.for_client(self.suite, self.leaf, self.hello, self.version, self.config)
        following: tuple[int, ...] = (H.certificate_request, H.server_hello_done)
        if keyexchange.has_parameters(self.suite, self.leaf):
            following = (H.server_key_exchange,)
        self.next = yield Receive(*following, *([H.certificate_status] if X.status_request in self.answers else ()))
        if self.next[0] == H.certificate_status:
            self.transcript.add(self.next)
            self.info.ocsp = tls12.decode_certificate_status(self.next)
            self.next = yield Receive(*following)
        renegotiation.check_same_server(self.link, chain)
        yield VerifyPeer(chain, self.config.server_name, self.info.ocsp, "server")
        self.info.peer_chain = chain

    def _receive_server_key_exchange(self, server_hello: ServerHello) -> Flow:
        """RFC 5246 section 7.4.3: parameters under the server's signature."""
        raw = self.next
        if raw[0] != H.server_key_exchange:
            return
        reader = Reader(raw, 4)
        self.key_exchange.read_parameters(reader)
        if self.suite.key_exchange == "fortezza":  # unsigned
            reader.end()
            self.transcript.add(raw)
            self.next = yield Receive(H.certificate_request, H.server_hello_done)
            return
        parameters = raw[4 : reader.position]
        scheme, signature = certificates.decode_signature(reader, signatures.unnamed(self.leaf, self.version))
        signatures.verify(scheme, self.config.schemes, self.leaf, self.version, signature, self.link.randoms + parameters)
        self.info.signature_scheme, self.info.group = SignatureScheme(scheme), self.key_exchange.group
        self.transcript.add(raw)
        self.next = yield Receive(H.certificate_request, H.server_hello_done)

    def _receive_hello_done(self) -> Flow:
        if self.next[0] == H.certificate_request:
            self.request = self.next
            self.transcript.add(self.next)
            self.next = yield Receive(H.server_hello_done)
        else:
            self.transcript.forget_messages()
        tls12.require_empty(self.next)
        self.transcript.add(self.next)

    # --- our flight -----------------------------------------------------------------------------------------------------

    def _send(self, raw: bytes) -> None:
        self.transcript.add(raw)
        self.link.send(raw)

    def _send_certificate(self) -> Flow:
        """RFC 5246 section 7.4.6: an empty one where nothing fits; in SSL 3.0 a warning (RFC 6101 section 5.6.6)."""
        if not self.request:
            return
        ours = signatures.permitted(self.config.schemes, self.version)
        types, schemes, authorities = tls12.decode_request(self.request, None if self.version >= V.tls1_2 else ours)
        accepted = {CERTIFICATE_TYPES[kind] for kind in types if kind in CERTIFICATE_TYPES}
        if self.suite.key_exchange == "fortezza":  # y_signature has room for DSA's alone
            accepted = {"dsa"} if FORTEZZA_DMS in types else accepted & {"dsa"}
        schemes = tuple(scheme for scheme in schemes if scheme in ours and SIGNS_AS[scheme] in accepted)
        fitting = tuple(i for i in self.config.identities if selection.usable_scheme(i, schemes, self.version))
        if fitting:
            self.identity = yield ChooseClientIdentity(fitting, authorities, schemes)
        if self.identity is not None:
            self.info.identity = self.identity
            self.info.client_signature_scheme = selection.usable_scheme(self.identity, schemes, self.version)
        if self.identity is None and self.version == V.ssl3:
            self.link.records.send(C.alert, tls12.NO_CERTIFICATE_WARNING)
        else:
            self._send(certificates.encode_certificate12(self.identity.chain if self.identity is not None else ()))

    def _send_client_key_exchange(self, server_hello: ServerHello) -> Flow:
        """RFC 5246 section 7.4.7, and the master secret."""
        if isinstance(self.key_exchange, FortezzaClient):
            exchanging = tuple(identity for identity in self.config.identities if identity.kea)
            raw, premaster = yield from self.key_exchange.initiate(
                exchanging, self.info.peer_chain, self.identity, keep=bool(server_hello.session_id)
            )
            self.ciphers, self.kept = self.key_exchange.ciphers, self.key_exchange.kept
        else:
            raw, premaster = self.key_exchange.answer()
        self._send(raw)
        session_hash = self.transcript.digest() if self.info.extended_master_secret else None
        self._use_secrets(
            Secrets.agree(self.suite, self.version, premaster, self.hello.random, server_hello.random, session_hash)
        )

    def _use_secrets(self, secrets: Secrets) -> None:
        self.secrets = secrets
        self.link.exporter_secret = secrets.master
        self.link.log_secret("CLIENT_RANDOM", secrets.master)
        self.write_keys, self.read_keys = secrets.protections(
            self.info.encrypt_then_mac, self.config.random, self.config.split_records, self.ciphers
        )

    def _send_certificate_verify(self) -> Flow:
        """RFC 5246 section 7.4.8: over all messages so far."""
        scheme = self.info.client_signature_scheme
        if self.identity is not None and scheme is not None:
            content, prehashed = self.secrets.certificate_verify(self.transcript)
            signature = yield Sign(self.identity, scheme, signatures.part_signed(scheme, content, prehashed), prehashed)
            if self.suite.key_exchange == "fortezza" and self.version == V.ssl3:
                signature = signatures.dsa_bare(signature)
            self._send(certificates.encode_verify(signatures.number(scheme, self.version), signature))
        self.transcript.forget_messages()

    def _send_finished(self) -> None:
        link = self.link
        link.send_change_cipher_spec()
        link.change_write_key(self.write_keys)
        link.records.send_limit = self.info.record_size_limit
        verify_data = self.secrets.finished(False, self.transcript)
        self._send(message(H.finished, verify_data))
        link.client_finished = verify_data

    # --- the end --------------------------------------------------------------------------------------------------------

    def _receive_finished(self) -> Flow:
        """RFC 5077 section 3.3, RFC 5246 sections 7.1 and 7.4.9."""
        if X.session_ticket in self.answers:
            raw = yield Receive(H.new_session_ticket)
            hint, ticket = tickets.decode_ticket12(raw)
            self.ticket = ticket if len(ticket) <= MAX_TICKET else b""
            self.lifetime = hint or DEFAULT_LIFETIME
            self.transcript.add(raw)
        yield Receive(CHANGE_CIPHER_SPEC)
        self.link.change_read_key(self.read_keys)
        if X.record_size_limit in self.answers:  # what we offered, whichever version we had in mind (RFC 8449 section 4)
            offered = ext.decode_u16(self.hello.extensions[X.record_size_limit])
            self.link.records.receive_limit = min(offered, 16384)
        raw = yield Receive(H.finished)
        expected = self.secrets.finished(True, self.transcript)
        if len(raw) != 4 + len(expected):
            raise DecodeError(f"Finished of {len(raw) - 4} bytes", name="SSL_ERROR_RX_MALFORMED_FINISHED")
        if not compare_digest(raw[4:], expected):
            raise DecryptError("server's Finished does not verify")
        self.transcript.add(raw)
        self.link.server_finished = expected

    def _keep_session(self, server_hello: ServerHello) -> None:
        """Tell the driver what may be resumed, unless it knows already."""
        session_id = b"" if self.ticket else server_hello.session_id
        if not self.ticket and (self.info.resumed or not session_id):
            return
        if self.ciphers is not None and not self.kept:
            return
        info = self.info
        session = Session(
            self.version, self.suite.code, self.secrets.master, self.config.clock(), min(self.lifetime, MAX_LIFETIME),
            ticket=self.ticket, session_id=session_id, extended_master_secret=info.extended_master_secret,
            encrypt_then_mac=info.encrypt_then_mac, server_name=self.config.server_name, alpn=info.alpn,
            peer_chain=info.peer_chain, card=self.kept,
        )  # fmt: skip
        self.link.emit(NewSession(session))
