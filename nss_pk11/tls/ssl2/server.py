"""The handshake of SSL 2.0, server side (Hickman, section 1.3), top to bottom.

Where the protocol lets a server show its ServerVerify before the client has proven that it knows the master key, this one waits:
a server that answers to whatever a ciphertext decrypts to is DROWN's oracle (CVE-2016-0703, CVE-2016-0704).
"""

from __future__ import annotations

from hmac import compare_digest

from ...errors import CertificateRequired, DecodeError, DecryptError, HandshakeFailure, IllegalParameter
from .. import signatures
from ..codepoints import V
from ..config import Identity, ServerConfig
from ..events import StoreSession
from ..link import Flow, Link
from ..messages import ssl2 as messages
from ..messages.ssl2 import ErrorCode, MessageType
from ..record.ssl2 import Ssl2Records
from ..session import Session
from ..suites import Suite
from ..waits import DecryptSsl2, LookupSession, Receive, VerifyPeer
from .keys import LIFETIME, Keys, receive, require_unsafe, rsa_key

M = MessageType
MARK = b"\x03" * 8  # what ends the padding of a client that knows SSL 3.0 or newer
_IS_ZERO = b"\1" + bytes(255)  # for bytes.translate, which looks at every byte


class ServerHandshake:
    """One handshake.  Attributes appear as the flow learns them."""

    def __init__(self, link: Link, config: ServerConfig) -> None:
        self.link, self.config, self.info = link, config, link.info
        self.records = link.records = Ssl2Records(link.records, sent=0, received=1)
        self.session: Session | None = None  # the one being resumed
        self.connection_id = config.random(messages.CONNECTION_ID_BYTES)

    def run(self, hello: messages.ClientHello) -> Flow:
        """The whole life of the connection."""
        require_unsafe(self.config)
        self.challenge = hello.challenge
        self._choose(hello)
        yield from self._find_session(hello)
        self._send_server_hello()
        if self.session is None:
            yield from self._receive_client_master_key()
        self._use_keys()
        yield from self._receive_client_finished()
        self.records.send_ssl2(bytes((M.server_verify,)) + self.challenge)
        if self.session is None:
            yield from self._authenticate_client()
        self._send_server_finished()
        self.records.application = True
        self.link.complete()
        while True:
            yield Receive()

    # --- parameters ----------------------------------------------------------------------------------------------------

    def _choose(self, hello: messages.ClientHello) -> None:
        """The suites in common, of which the client takes one, and the cheapest key that decrypts."""
        self.common = tuple(suite for suite in self.config.usable_suites() if suite.kind and suite.kind in hello.kinds)
        if not self.common:
            self.records.send_ssl2(messages.encode_error(ErrorCode.no_cipher))
            raise HandshakeFailure("no cipher of SSL 2.0 in common")
        decrypting = [identity for identity in self.config.identities if identity.can_decrypt]
        if not decrypting:
            raise HandshakeFailure("no identity can decrypt, which SSL 2.0 needs", name="SSL_ERROR_NO_SERVER_KEY_FOR_ALG")
        self.identity: Identity = min(decrypting, key=lambda identity: identity.cost)
        self.info.identity = self.identity

    def _find_session(self, hello: messages.ClientHello) -> Flow:
        if not hello.session_id or not self.config.session_ids:
            return
        state = yield LookupSession(hello.session_id)
        session = self._acceptable(state) if state is not None else None
        if session is None:
            return
        if session.peer_chain:  # today's rules hold for yesterday's certificate
            yield VerifyPeer(session.peer_chain, "", None, "client")
        self.session, self.session_id = session, hello.session_id
        self.info.resumed, self.info.peer_chain = True, session.peer_chain
        self._take_master(next(suite for suite in self.common if suite.code == session.suite), session.secret)

    def _acceptable(self, state: bytes) -> Session | None:
        """Of SSL 2.0, by a suite in common, fresh, and with as much client authentication as is asked for."""
        try:
            session = Session.decode(state)
        except (DecodeError, UnicodeDecodeError):
            return None
        good = (
            session.version == V.ssl2
            and any(suite.code == session.suite for suite in self.common)
            and session.fresh(self.config.clock())
            and session.context == self.config.context
            and self.config.accepts_session_of(session.peer_chain)
        )
        return session if good else None

    def _take_master(self, suite: Suite, secret: bytes) -> None:
        """`secret`: the master key, and the IV of a block cipher."""
        self.suite = self.info.suite = suite
        self.master, self.argument = secret[: suite.cipher.key], secret[suite.cipher.key :]

    def _send_server_hello(self) -> None:
        hit = self.session is not None
        certificate, kinds = self.identity.chain[0], tuple(suite.kind for suite in self.common)
        hello = messages.ServerHello(hit, V.ssl2, b"" if hit else certificate, () if hit else kinds, self.connection_id)
        self.records.send_ssl2(hello.encode())

    # --- the client's part -----------------------------------------------------------------------------------------------

    def _receive_client_master_key(self) -> Flow:
        """Whatever the ciphertext decrypts to, or fails to, the handshake goes on with a secret of the right length, and only a
        ClientFinished shows whether it was the right one.  What is in clear is as long as the cipher has it, neither more nor
        less: to try some bytes at a time is another of DROWN's oracles.

        A server that could have spoken SSL 3.0 looks for the mark of a client that could, too (RFC 6101 appendix E.2), where the
        token gives it the padding to look at."""
        key = messages.ClientMasterKey.decode((yield from receive(self.link, M.client_master_key)))
        suite = next((suite for suite in self.common if suite.kind == key.kind), None)
        if suite is None:
            raise IllegalParameter(
                f"client chose cipher kind {key.kind:#08x}, which was not offered", name="SSL_ERROR_BAD_CLIENT"
            )
        cipher = suite.cipher
        if len(key.clear) != cipher.key - cipher.secret or len(key.argument) != cipher.block:
            raise DecodeError("master key or argument of a wrong length")
        fallback = self.config.random(cipher.secret)  # before anything is known, so that its cost tells nothing
        raw = self.identity.can_decrypt_raw and self.config.max_version > V.ssl2
        decrypted = yield DecryptSsl2(self.identity, key.encrypted, raw)
        secret = select_unmarked(decrypted, fallback, len(key.encrypted)) if raw else select(decrypted, fallback)
        self._take_master(suite, key.clear + secret + key.argument)

    def _use_keys(self) -> None:
        self.keys = Keys(self.suite, self.master, self.argument, self.challenge, self.connection_id)
        self.keys.use(self.records, is_server=True)

    def _receive_client_finished(self) -> Flow:
        raw = yield from receive(self.link, M.client_finished)
        if not compare_digest(raw[1:], self.connection_id):
            raise DecryptError("client's Finished is not of this connection", name="SSL_ERROR_BAD_CLIENT")

    def _authenticate_client(self) -> Flow:
        """RequestCertificate and its answer."""
        if self.config.client_auth == "none":
            return
        challenge = self.config.random(16)
        self.records.send_ssl2(messages.encode_request(challenge))
        raw = yield from receive(self.link, M.client_certificate, M.error)
        if raw[0] == M.error:
            if messages.decode_error(raw) != ErrorCode.no_certificate or self.config.client_auth == "require":
                self.records.send_ssl2(messages.encode_error(ErrorCode.bad_certificate))
                raise CertificateRequired("client shows no certificate")
            return
        certificate, response = messages.decode_certificate(raw)
        chain = (certificate,)
        key = rsa_key(signatures.load_leaf(chain), "SSL_ERROR_UNSUPPORTED_CERTIFICATE_TYPE")
        self.keys.verify(key, response, challenge, self.identity.chain[0])
        yield VerifyPeer(chain, "", b"", "client")
        self.info.peer_chain = chain

    # --- the end ---------------------------------------------------------------------------------------------------------

    def _send_server_finished(self) -> None:
        """With the session's id, which the protocol wants even where nothing is kept."""
        if self.session is None:
            self.session_id = self.config.random(messages.SESSION_ID_BYTES)
        self.records.send_ssl2(bytes((M.server_finished,)) + self.session_id)
        if not self.config.session_ids:
            return
        self.link.session_id = self.session_id
        if self.session is None:
            session = Session(
                V.ssl2, self.suite.code, self.master + self.argument, self.config.clock(),
                min(LIFETIME, self.config.session_lifetime), peer_chain=self.info.peer_chain, context=self.config.context,
            )  # fmt: skip
            self.link.emit(StoreSession(self.session_id, session.encode()))


def select(plaintext: bytes | None, fallback: bytes) -> bytes:
    """`plaintext` if it is as long as `fallback`, otherwise that; by a mask, not a branch."""
    size, found = len(fallback), plaintext or b""
    return _choose((found + bytes(size))[:size], fallback, len(found) == size)


def select_unmarked(block: bytes | None, fallback: bytes, size: int) -> bytes:
    """What the padding of `block` (RFC 8017 section 7.2.2, `size` bytes) leaves, if that is as long as `fallback`; otherwise,
    or if the padding bears the mark of a client that knows SSL 3.0 or newer (RFC 6101 appendix E.2), `fallback`.

    The mark is no error of its own.  Whoever varies a ciphertext would learn from one that the rest of the padding was good,
    which is Bleichenbacher's oracle.  So a rollback ends as bad padding does: the client's Finished does not fit.
    """
    whole = (block or b"").rjust(size, b"\0")  # tokens may leave out zeros in front; all zeros is bad padding
    start = size - len(fallback)
    padding = whole[2 : start - 1]
    good = (
        compare_digest(whole[:2], b"\0\2")
        & compare_digest(padding.translate(_IS_ZERO), bytes(len(padding)))
        & (len(padding) >= len(MARK))
        & compare_digest(whole[start - 1 : start], b"\0")
        & (not compare_digest(padding[-len(MARK) :], MARK))
    )
    return _choose(whole[start:], fallback, good)


def _choose(found: bytes, fallback: bytes, good: bool) -> bytes:
    size = len(fallback)
    ones = (1 << 8 * size) - 1
    mask = -int(good) & ones
    chosen = int.from_bytes(found, "big") & mask | int.from_bytes(fallback, "big") & (mask ^ ones)
    return chosen.to_bytes(size, "big")
