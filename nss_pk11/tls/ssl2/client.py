"""The handshake of SSL 2.0, client side (Hickman, section 1.3), top to bottom.  It begins with the ServerHello."""

from __future__ import annotations

from hmac import compare_digest

from cryptography.hazmat.primitives.asymmetric import rsa

from ...errors import DecryptError, HandshakeFailure, IllegalParameter, InsufficientSecurity, UnsupportedVersion
from .. import signatures
from ..codepoints import SignatureScheme, V
from ..config import ClientConfig, Identity
from ..events import NewSession
from ..link import Flow, Link, Steps
from ..messages import ssl2 as messages
from ..messages.ssl2 import ErrorCode, MessageType
from ..record.ssl2 import Ssl2Records
from ..session import Session
from ..suites import SSL2_SUITES, Suite
from ..waits import ChooseClientIdentity, Receive, Sign, VerifyPeer
from .keys import LIFETIME, Keys, check, receive, require_unsafe, rsa_key

M = MessageType
_PADDING = 8  # bytes at the least, which hold the mark
_MOST_BITS, _MOST_EXPONENT_BITS = 16384, 64  # of an RSA key, as OpenSSL has it: beyond, a server only makes its clients work


class ClientHandshake:
    """One handshake.  `session`: what the ClientHello offered to resume."""

    def __init__(self, link: Link, config: ClientConfig, session: Session | None) -> None:
        self.link, self.config, self.info, self.session = link, config, link.info, session
        self.records = link.records = Ssl2Records(link.records, sent=1, received=1)
        self.challenge = link.info.client_random

    def run(self, raw: bytes) -> Flow:
        """The whole life of the connection."""
        require_unsafe(self.config)
        hello = messages.ServerHello.decode(check(self.link, raw, M.server_hello))
        if hello.version != V.ssl2 or self.config.min_version > V.ssl2:
            raise UnsupportedVersion(f"server chose version {hello.version:#06x} in a hello of SSL 2.0")
        if hello.hit:
            yield from self._take_up_session()
        else:
            yield from self._send_client_master_key(hello)
        keys = Keys(self.suite, self.master, self.argument, self.challenge, hello.connection_id)
        keys.use(self.records, is_server=False)
        self.records.send_ssl2(bytes((M.client_finished,)) + hello.connection_id)
        yield from self._receive_server_verify()
        session_id = yield from self._receive_server_finished(keys)
        self.records.application = True
        self.link.complete()
        self._keep_session(session_id)
        while True:
            yield Receive()

    # --- parameters ----------------------------------------------------------------------------------------------------

    def _take_up_session(self) -> Flow:
        session = self.session
        if session is None:
            raise IllegalParameter("server resumes a session that was not offered", name="SSL_ERROR_BAD_SERVER")
        self.info.resumed, self.info.peer_chain = True, session.peer_chain
        yield VerifyPeer(session.peer_chain, self.config.server_name, None, "server")
        self.suite = self.info.suite = next(suite for suite in SSL2_SUITES if suite.code == session.suite)
        size = self.suite.cipher.key
        self.master, self.argument = session.secret[:size], session.secret[size:]

    def _choose_suite(self, kinds: tuple[int, ...]) -> Suite:
        """The first of ours that the server has, too.  Raises HandshakeFailure, which tells what the server has instead."""
        for suite in self.config.usable_suites():
            if suite.kind and suite.kind in kinds:
                return suite
        self.records.send_ssl2(messages.encode_error(ErrorCode.no_cipher))
        theirs = [suite for suite in SSL2_SUITES if suite.kind in kinds]
        names = {"SSL_ERROR_EXPORT_ONLY_SERVER" if suite.cipher.secret == 5 else "SSL_ERROR_US_ONLY_SERVER" for suite in theirs}
        raise HandshakeFailure(
            "no cipher of SSL 2.0 in common", name=names.pop() if len(names) == 1 else "SSL_ERROR_NO_CYPHER_OVERLAP"
        )

    def _send_client_master_key(self, hello: messages.ServerHello) -> Flow:
        chain = (hello.certificate,)
        self.suite = self.info.suite = self._choose_suite(hello.kinds)
        key = rsa_key(signatures.load_leaf(chain), "SEC_ERROR_UNSUPPORTED_KEYALG")
        yield VerifyPeer(chain, self.config.server_name, b"", "server")
        self.info.peer_chain = chain
        cipher, random = self.suite.cipher, self.config.random
        self.master, self.argument = random(cipher.key), random(cipher.block)
        clear = self.master[: cipher.key - cipher.secret]
        encrypted = self._encrypt(key, self.master[len(clear) :])
        self.records.send_ssl2(messages.ClientMasterKey(self.suite.kind, clear, encrypted, self.argument).encode())

    def _encrypt(self, key: rsa.RSAPublicKey, secret: bytes) -> bytes:
        """RSAES-PKCS1-v1_5 (RFC 8017 section 7.2.1).  A client that knows better than SSL 2.0 leaves a mark where the padding
        ends, which tells a server that knows better, too, that somebody is in between (RFC 6101 appendix E.2)."""
        size = (key.key_size + 7) // 8
        count = size - 3 - len(secret)
        numbers = key.public_numbers()
        if count < _PADDING:
            raise InsufficientSecurity("server's RSA key is too short", name="SSL_ERROR_WEAK_SERVER_CERT_KEY")
        if key.key_size > _MOST_BITS or numbers.e.bit_length() > _MOST_EXPONENT_BITS:
            raise IllegalParameter("server's RSA key is too long", name="SSL_ERROR_BAD_SERVER")
        padding = b"".join(self._nonzero() for _ in range(count))
        if self.config.max_version > V.ssl2:
            padding = padding[:-_PADDING] + b"\x03" * _PADDING
        block = b"\0\2" + padding + b"\0" + secret
        return pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(size, "big")

    def _nonzero(self) -> bytes:
        while not (byte := self.config.random(1).strip(b"\0")):
            pass
        return byte

    # --- the server's part -----------------------------------------------------------------------------------------------

    def _receive_server_verify(self) -> Flow:
        raw = yield from receive(self.link, M.server_verify)
        if not compare_digest(raw[1:], self.challenge):
            raise DecryptError("server's Verify is not of this connection", name="SSL_ERROR_BAD_SERVER")

    def _receive_server_finished(self, keys: Keys) -> Steps[bytes]:
        """Returns the session's id.  Before it the server may ask for a certificate."""
        raw = yield from receive(self.link, M.server_finished, M.request_certificate)
        if raw[0] == M.request_certificate:
            yield from self._send_certificate(keys, messages.decode_request(raw))
            raw = yield from receive(self.link, M.server_finished)
        return raw[1:]

    def _send_certificate(self, keys: Keys, challenge: bytes) -> Flow:
        scheme = SignatureScheme.rsa_pkcs1_md5_sha1  # RSA's signature over what is hashed already
        fitting = tuple(identity for identity in self.config.identities if scheme in identity.schemes)
        identity: Identity | None = None
        if fitting:
            identity = yield ChooseClientIdentity(fitting, (), (scheme,))
        if identity is None:
            self.records.send_ssl2(messages.encode_error(ErrorCode.no_certificate))
            return
        response = yield Sign(identity, scheme, keys.to_sign(challenge, self.info.peer_chain[0]), prehashed=True)
        self.info.identity, self.info.client_signature_scheme = identity, scheme
        self.records.send_ssl2(messages.encode_certificate(identity.chain[0], response))

    # --- the end ---------------------------------------------------------------------------------------------------------

    def _keep_session(self, session_id: bytes) -> None:
        if len(session_id) == messages.SESSION_ID_BYTES and not self.info.resumed:
            session = Session(
                V.ssl2, self.suite.code, self.master + self.argument, self.config.clock(), LIFETIME, session_id=session_id,
                server_name=self.config.server_name, peer_chain=self.info.peer_chain,
            )  # fmt: skip
            self.link.emit(NewSession(session))
