"""Resuming a session on a server: by ticket (RFC 5077) or by id (RFC 5246 section 7.4.1.2), under RFC 7627's rules."""

from __future__ import annotations

from ...errors import DecodeError, HandshakeFailure, IllegalParameter
from ..codepoints import Version
from ..config import ServerConfig
from ..link import Steps
from ..messages.hello import ClientHello
from ..session import Session
from ..suites import BY_CODE
from ..waits import LookupSession
from .choice import Offer, usable_suites


def find(config: ServerConfig, hello: ClientHello, offer: Offer, server_name: str, version: Version) -> Steps[Session | None]:
    """The session the client asks for, if it may be resumed; None for a full handshake.

    Raises IllegalParameter where the client leaves out the session's suite, HandshakeFailure where it dropped the extended
    master secret (RFC 7627 section 5.3).
    """
    state: bytes | None = None
    if offer.ticket:
        state = config.tickets.unseal(offer.ticket) if config.tickets is not None else None
    elif hello.session_id and config.session_ids:
        state = yield LookupSession(hello.session_id)
    session = _restore(config, state) if state is not None else None
    if session is not None and session.version == version and session.suite not in offer.suites:
        raise IllegalParameter("client resumes a session without its suite (RFC 5246 section 7.4.1.2)")
    if session is None or not _acceptable(config, offer, session, server_name, version):
        return None
    if session.extended_master_secret and not offer.extended_master_secret:
        raise HandshakeFailure(
            "client resumes without the extended master secret", name="SSL_ERROR_MISSING_EXTENDED_MASTER_SECRET"
        )
    return session


def _restore(config: ServerConfig, state: bytes) -> Session | None:
    try:
        session = Session.decode(state)
    except (DecodeError, UnicodeDecodeError):
        return None
    return session if session.fresh(config.clock()) and session.context == config.context else None


def _acceptable(config: ServerConfig, offer: Offer, session: Session, server_name: str, version: Version) -> bool:
    """Same version, suite and name (RFC 6066 section 3), as much client authentication as asked, and no session from before
    the extended master secret under one with it (RFC 7627 section 5.3)."""
    return (
        session.version == version
        and BY_CODE.get(session.suite) in usable_suites(config, offer, version)
        and session.server_name == server_name
        and (session.extended_master_secret or not offer.extended_master_secret)
        and (config.extended_master_secret or not session.extended_master_secret)
        and config.accepts_session_of(session.peer_chain)
    )
