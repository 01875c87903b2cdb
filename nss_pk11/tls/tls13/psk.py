"""Pre-shared keys of resumption: tickets offered, checked, accepted (RFC 8446 sections 2.2, 4.2.11)."""

from __future__ import annotations

from hmac import compare_digest

from ...errors import DecodeError, DecryptError, IllegalParameter
from ..codepoints import V, X
from ..config import ClientConfig, ServerConfig
from ..messages import extensions as ext
from ..messages.hello import ClientHello
from ..session import Session
from ..suites import BY_CODE, Suite
from ..transcript import Transcript
from .schedule import KeySchedule

PSK_DHE_KE = 1  # the only mode we use: a stolen ticket key must not open recorded traffic (section 2.2)
MAX_TRIED = 5  # identities; each costs an AEAD operation on bytes a stranger chose


def choose(
    config: ServerConfig, hello: ClientHello, suite: Suite, transcript: Transcript, psk_dhe_allowed: bool
) -> tuple[int, Session] | None:
    """The first offered PSK that is a ticket of ours and still good, with its index; None for a full handshake.

    Raises DecryptError where its binder does not verify (section 4.2.11: the server must abort).
    """
    identities, binders, binder_bytes = ext.decode_offered_psks(hello.extensions[X.pre_shared_key])
    if config.tickets is None or not psk_dhe_allowed:
        return None
    server_name = ""
    if X.server_name in hello.extensions:
        server_name = ext.decode_server_name(hello.extensions[X.server_name])
    for index, (ticket, _age) in enumerate(identities[:MAX_TRIED]):
        session = open_ticket(config, ticket)
        if session is None or not _acceptable(config, session, suite, server_name):
            continue
        expected = KeySchedule(suite, session.secret).binder(transcript.digest(hello.raw[:-binder_bytes]))
        if not compare_digest(expected, binders[index]):
            raise DecryptError("PSK binder does not verify", name="SSL_ERROR_BAD_HANDSHAKE_HASH_VALUE")
        return index, session
    return None


def open_ticket(config: ServerConfig, ticket: bytes) -> Session | None:
    """The session in a ticket, or None where it is not ours or too old."""
    assert config.tickets is not None
    state = config.tickets.unseal(ticket)
    if state is None:
        return None
    try:
        session = Session.decode(state)
    except (DecodeError, UnicodeDecodeError):
        return None
    return session if session.fresh(config.clock()) and session.context == config.context else None


def _acceptable(config: ServerConfig, session: Session, suite: Suite, server_name: str) -> bool:
    """Same version, same hash (section 4.2.11), same name (RFC 6066 section 3), and as much client authentication as asked."""
    old = BY_CODE.get(session.suite)
    return (
        session.version == V.tls1_3
        and old is not None
        and old.hash == suite.hash
        and session.server_name == server_name
        and config.accepts_session_of(session.peer_chain)
    )


class Offer:
    """The client's one offered PSK.  Goes last into the ClientHello; `fill_binder` completes the encoded message."""

    __slots__ = ("session", "suite")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.suite = BY_CODE[session.suite]

    @classmethod
    def of(cls, config: ClientConfig) -> Offer | None:
        """The configured session, if it is a TLS 1.3 one that may still be used with these settings."""
        session = config.session
        if session is None or session.version != V.tls1_3 or config.max_version < V.tls1_3:
            return None
        usable = any(suite.code == session.suite for suite in config.usable_suites())
        same_name = session.server_name == config.server_name  # section 4.6.1
        return cls(session) if usable and same_name and session.ticket and session.fresh(config.clock()) else None

    def extension(self, now: float) -> bytes:
        """pre_shared_key with a binder of zeros.  `now`: seconds since 1970."""
        age = (int((now - self.session.created) * 1000) + self.session.age_add) & 0xFFFFFFFF
        return ext.encode_offered_psk(self.session.ticket, age, self.suite.hash_bytes)

    def fill_binder(self, raw: bytes, transcript: Transcript) -> bytes:
        """`raw`, a whole ClientHello, with its binder; `transcript` holds what came before it."""
        tail = 3 + self.suite.hash_bytes
        binder = KeySchedule(self.suite, self.session.secret).binder(transcript.digest(raw[:-tail]))
        return raw[: -len(binder)] + binder

    def accepted(self, index: int, suite: Suite) -> Session:
        """The server took PSK number `index` with `suite`.  Raises IllegalParameter where it could not have."""
        if index != 0 or suite.hash != self.suite.hash:
            raise IllegalParameter(
                "server chose a PSK that was not offered, or with the wrong hash", name="SSL_ERROR_MALFORMED_PRE_SHARED_KEY"
            )
        return self.session
