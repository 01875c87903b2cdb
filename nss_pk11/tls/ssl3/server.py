"""The handshake of SSL 3.0 to TLS 1.2, server side (RFC 5246 section 7.3, RFC 6101 section 5.5), top to bottom.

`ServerHandshake.run` is the flow, full or abbreviated; each method is one step of it.  Waits are `yield`ed: messages from the
client, signatures and decryptions from a token, sessions from the driver's cache, verdicts on a certificate.
"""

from __future__ import annotations

from hmac import compare_digest

from cryptography.x509 import Certificate

from ...errors import CertificateRequired, DecodeError, DecryptError, UnrecognizedName
from .. import negotiation, selection, signatures
from ..codepoints import H, SignatureScheme, V, Version, X
from ..config import ServerConfig
from ..events import StoreSession
from ..link import Flow, Link
from ..messages import certificate as certificates
from ..messages import extensions as ext
from ..messages import fortezza, tls12
from ..messages import ticket as tickets
from ..messages.hello import DOWNGRADE_TLS11, DOWNGRADE_TLS12, ClientHello, ServerHello, message
from ..session import MAX_TICKET, Session
from ..suites import BY_CODE, Suite
from ..transcript import Transcript
from ..waits import CHANGE_CIPHER_SPEC, NO_CERTIFICATE, Receive, Sign, VerifyPeer
from . import keyexchange, renegotiation, resumption
from .choice import CERTIFICATE_TYPES, SIGNS_AS, Choice, Offer, choose
from .fortezza import Ciphers, FortezzaServer, resume_server
from .secrets import Secrets


class ServerHandshake:
    """One handshake.  Attributes appear as the flow learns them."""

    def __init__(self, link: Link, config: ServerConfig) -> None:
        self.link, self.config, self.info = link, config, link.info
        assert link.info.version is not None
        self.version: Version = link.info.version
        self.transcript = Transcript()
        self.session: Session | None = None  # the one being resumed
        self.session_id = b""
        self.client_leaf: Certificate | None = None
        self.ciphers: Ciphers | None = None
        self.kept = b""

    def run(self, hello: ClientHello) -> Flow:
        self._read_client_hello(hello)
        yield from self._find_session(hello)
        if self.session is None:
            yield from self._full_handshake(hello)
        else:
            yield from self._abbreviated_handshake(hello, self.session)
        self.link.complete()

    def _full_handshake(self, hello: ClientHello) -> Flow:
        """RFC 5246 section 7.3, figure 1."""
        self._choose_parameters(hello)
        self._send_server_hello(hello)
        self._send_certificate()
        yield from self._send_server_key_exchange()
        self._send_certificate_request()
        self._send(tls12.SERVER_HELLO_DONE)
        yield from self._receive_client_certificate()
        yield from self._receive_client_key_exchange()
        yield from self._receive_certificate_verify()
        yield from self._receive_finished()
        self._send_ticket()
        self._send_finished()
        self._store_session()

    def _abbreviated_handshake(self, hello: ClientHello, session: Session) -> Flow:
        """RFC 5246 section 7.3, figure 2.  No new ticket: the one at hand is as good as it was."""
        self._take_up_session(hello, session)
        self._send_server_hello(hello)
        self._use_secrets(Secrets(self.suite, self.version, session.secret, hello.random, self.random))
        self._send_finished()
        yield from self._receive_finished()

    # --- parameters ----------------------------------------------------------------------------------------------------

    def _read_client_hello(self, hello: ClientHello) -> None:
        self.transcript.add(hello.raw)
        if self.version == V.ssl3:  # knows no extension but RFC 5746's, whatever the client hoped for
            hello.extensions = {kind: body for kind, body in hello.extensions.items() if kind == X.renegotiation_info}
        if self.link.previous is not None:  # the protocol above stays as it is
            hello.extensions.pop(X.application_layer_protocol_negotiation, None)
        self.offer = Offer.of(hello, self.config, self.version)
        renegotiation.check_client_hello(self.link, self.config, hello)
        self.answers = negotiation.answer_client(hello, self.config, self.info)
        renegotiation.keep_server_name(self.link)
        name = self.info.server_name
        if name and self.config.refuse_unknown_names and not selection.knows(self.config, name):
            raise UnrecognizedName(f"no identity is named {name}")

    def _find_session(self, hello: ClientHello) -> Flow:
        if not self.link.may_resume:
            return
        found = yield from resumption.find(self.config, hello, self.offer, self.info.server_name, self.version)
        if found is not None and BY_CODE[found.suite].cipher.kind == "token":
            self.ciphers = yield from resume_server(self.config.identities, found.card)
            found = found if self.ciphers is not None else None
        if found is not None and found.peer_chain:  # today's rules hold for yesterday's certificate
            yield VerifyPeer(found.peer_chain, "", None, "client")
        self.session = found

    def _choose_parameters(self, hello: ClientHello) -> None:
        choice: Choice = choose(self.config, self.offer, self.info.server_name, self.version)
        self._use_suite(choice.suite)
        self.identity, self.scheme = choice.identity, choice.scheme
        info = self.info
        info.identity, info.signature_scheme, info.group = choice.identity, choice.scheme, choice.group
        self.key_exchange = keyexchange.for_server(choice, hello, self.version, self.config)
        on_token = choice.suite.cipher.kind == "token"  # it is not known yet whether the card can keep the keys: no promises
        self.sends_ticket = not on_token and self.config.tickets is not None and self.offer.ticket is not None
        if self.config.session_ids and not self.sends_ticket:
            self.session_id = self.config.random(32)
        self.sends_status = self.offer.wants_ocsp and bool(choice.identity.ocsp)
        if self.sends_ticket:
            self.answers[X.session_ticket] = b""
        if self.sends_status:
            self.answers[X.status_request] = b""

    def _take_up_session(self, hello: ClientHello, session: Session) -> None:
        self._use_suite(BY_CODE[session.suite])
        if not self.offer.ticket:
            self.link.session_id = hello.session_id
        self.info.resumed, self.info.peer_chain = True, session.peer_chain
        self.answers.pop(X.server_name, None)  # RFC 6066 section 3
        self.transcript.forget_messages()

    def _use_suite(self, suite: Suite) -> None:
        info, offer = self.info, self.offer
        self.suite = info.suite = suite
        self.transcript.use(suite.hash_in(self.version), keep=self.config.client_auth != "none")
        info.extended_master_secret = offer.extended_master_secret
        info.encrypt_then_mac = offer.encrypt_then_mac and suite.cipher.kind == "cbc"
        renegotiation.keep_encrypt_then_mac(self.link)

    # --- the server's flight -------------------------------------------------------------------------------------------

    def _send(self, raw: bytes) -> None:
        self.transcript.add(raw)
        self.link.send(raw)

    def _send_server_hello(self, hello: ClientHello) -> None:
        """RFC 5246 section 7.4.1.3."""
        info, answers, records = self.info, self.answers, self.link.records
        indication = renegotiation.answer(self.link)
        if indication is not None:
            answers[X.renegotiation_info] = indication
        if info.extended_master_secret:
            answers[X.extended_master_secret] = b""
        if info.encrypt_then_mac:
            answers[X.encrypt_then_mac] = b""
        if self.offer.point_formats and self.suite.key_exchange.startswith("ecdhe"):
            answers[X.ec_point_formats] = ext.encode_u8_list((0,))
        self.random = self.config.random(32)
        if self.config.max_version > self.version:
            self.random = self.random[:24] + (_downgrade_sentinel(self.config.max_version, self.version) or self.random[24:])
        session_id = hello.session_id if self.session is not None else self.session_id
        self._send(ServerHello(self.version, self.random, session_id, self.suite.code, answers).encode())
        self.link.randoms = hello.random + self.random
        if X.max_fragment_length in answers:  # at once, in both directions (RFC 6066 section 4)
            records.send_limit = records.receive_limit = info.record_size_limit

    def _send_certificate(self) -> None:
        self._send(certificates.encode_certificate12(self.identity.chain))
        if self.sends_status:
            self._send(tls12.encode_certificate_status(self.identity.ocsp))

    def _send_server_key_exchange(self) -> Flow:
        """RFC 5246 section 7.4.3: ephemeral parameters under the token's signature; nothing for RSA but in export suites."""
        parameters = self.key_exchange.parameters
        if parameters and self.scheme is None:
            self._send(fortezza.encode_server_key_exchange(parameters))
        elif parameters:
            assert self.scheme is not None
            signature = yield Sign(self.identity, self.scheme, self.link.randoms + parameters)
            scheme = signatures.number(self.scheme, self.version)
            self._send(tls12.encode_server_key_exchange(parameters, scheme, signature))

    def _send_certificate_request(self) -> None:
        """RFC 5246 section 7.4.4."""
        if self.config.client_auth != "none":
            schemes = signatures.permitted(self.config.schemes, self.version)
            types = tuple(kind for kind, way in CERTIFICATE_TYPES.items() if any(SIGNS_AS[scheme] == way for scheme in schemes))
            if self.suite.key_exchange == "fortezza":
                types = (fortezza.FORTEZZA_DMS,)
            named = schemes if self.version >= V.tls1_2 else None
            self._send(tls12.encode_request(types, named, self.config.authorities))

    # --- the client's flight -------------------------------------------------------------------------------------------

    def _receive_client_certificate(self) -> Flow:
        """RFC 5246 section 7.4.6; a client of SSL 3.0 that has none warns of it instead (RFC 6101 section 5.6.6)."""
        if self.config.client_auth == "none":
            return
        raw = yield Receive(H.certificate, *((NO_CERTIFICATE,) if self.version == V.ssl3 else ()))
        chain: tuple[bytes, ...] = ()
        if raw != tls12.NO_CERTIFICATE_WARNING:
            self.transcript.add(raw)
            chain = certificates.decode_certificate12(raw)
        if not chain:
            if self.config.client_auth == "require":
                raise CertificateRequired("client sent no certificate")
            self.transcript.forget_messages()
            return
        self.client_leaf = signatures.load_leaf(chain)
        yield VerifyPeer(chain, "", b"", "client")
        self.info.peer_chain = chain

    def _receive_client_key_exchange(self) -> Flow:
        """RFC 5246 section 7.4.7, and the master secret."""
        raw = yield Receive(H.client_key_exchange)
        if isinstance(self.key_exchange, FortezzaServer):
            self.key_exchange.client, self.key_exchange.keep = self.client_leaf, bool(self.session_id)
        premaster = yield from self.key_exchange.receive(raw)
        if isinstance(self.key_exchange, FortezzaServer):
            self.ciphers, self.kept = self.key_exchange.ciphers, self.key_exchange.kept
        self.transcript.add(raw)
        session_hash = self.transcript.digest() if self.info.extended_master_secret else None
        self._use_secrets(Secrets.agree(self.suite, self.version, premaster, self.info.client_random, self.random, session_hash))

    def _use_secrets(self, secrets: Secrets) -> None:
        self.secrets = secrets
        self.link.exporter_secret = secrets.master
        self.link.log_secret("CLIENT_RANDOM", secrets.master)
        self.read_keys, self.write_keys = secrets.protections(
            self.info.encrypt_then_mac, self.config.random, self.config.split_records, self.ciphers
        )

    def _receive_certificate_verify(self) -> Flow:
        """RFC 5246 section 7.4.8: over all messages so far."""
        if self.client_leaf is None:
            return
        raw = yield Receive(H.certificate_verify)
        scheme, signature = certificates.decode_verify(raw, signatures.unnamed(self.client_leaf, self.version))
        content, prehashed = self.secrets.certificate_verify(self.transcript)
        signed = signatures.part_signed(scheme, content, prehashed)
        signatures.verify(scheme, self.config.schemes, self.client_leaf, self.version, signature, signed, prehashed)
        self.info.client_signature_scheme = SignatureScheme(scheme)
        self.transcript.forget_messages()
        self.transcript.add(raw)

    def _receive_finished(self) -> Flow:
        """RFC 5246 sections 7.1 and 7.4.9."""
        yield Receive(CHANGE_CIPHER_SPEC)
        self.link.change_read_key(self.read_keys)
        if X.record_size_limit in self.answers:  # holds for protected records (RFC 8449 section 4)
            self.link.records.receive_limit = self.config.record_size_limit
        raw = yield Receive(H.finished)
        expected = self.secrets.finished(False, self.transcript)
        if len(raw) != 4 + len(expected):
            raise DecodeError(f"Finished of {len(raw) - 4} bytes", name="SSL_ERROR_RX_MALFORMED_FINISHED")
        if not compare_digest(raw[4:], expected):
            raise DecryptError("client's Finished does not verify")
        self.transcript.add(raw)
        self.link.client_finished = expected

    # --- the end -------------------------------------------------------------------------------------------------------

    def _send_finished(self) -> None:
        link = self.link
        link.send_change_cipher_spec()
        link.change_write_key(self.write_keys)
        link.records.send_limit = self.info.record_size_limit
        verify_data = self.secrets.finished(True, self.transcript)
        self._send(message(H.finished, verify_data))
        link.server_finished = verify_data

    def _state(self, lifetime: int) -> bytes:
        """What a ticket or cache entry holds; `lifetime` in seconds."""
        info = self.info
        return Session(
            self.version, self.suite.code, self.secrets.master, self.config.clock(), lifetime,
            extended_master_secret=info.extended_master_secret, encrypt_then_mac=info.encrypt_then_mac,
            server_name=info.server_name, alpn=info.alpn, peer_chain=info.peer_chain, context=self.config.context,
            card=self.kept,
        ).encode()  # fmt: skip

    def _send_ticket(self) -> None:
        """RFC 5077 section 3.3; an empty one, as it was promised, where the client's certificates are too long for a ticket."""
        if self.sends_ticket:
            assert self.config.tickets is not None
            lifetime = self.config.tickets.lifetime
            ticket = self.config.tickets.seal(self._state(lifetime))
            self._send(tickets.encode_ticket12(lifetime, ticket if len(ticket) <= MAX_TICKET else b""))

    def _store_session(self) -> None:
        resumable = self.session_id and (self.kept or self.ciphers is None)
        state = self._state(self.config.session_lifetime) if resumable else b""
        if 0 < len(state) <= MAX_TICKET:
            self.link.session_id = self.session_id
            self.link.emit(StoreSession(self.session_id, state))


def _downgrade_sentinel(best: Version, version: Version) -> bytes:
    """RFC 8446 section 4.1.3: for a server that could do `best`; b"" where that is nothing to boast of."""
    if version == V.tls1_2:
        return DOWNGRADE_TLS12
    return DOWNGRADE_TLS11 if best >= V.tls1_2 else b""
