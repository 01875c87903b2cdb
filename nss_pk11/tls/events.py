"""What an engine tells its driver, besides the operations it waits for (`waits`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from .codepoints import Group, SignatureScheme, Version
from .config import Identity
from .session import Session
from .suites import Suite


class ConnectionInfo:
    """What was negotiated, filled in as it becomes known.

    `record_size_limit`: the largest plaintext fragment we may send, bytes; `signature_scheme`: the server's signature;
    `peer_chain`: the other side's certificates, DER, leaf first; `identity`: ours, where one was used.
    """

    __slots__ = (
        "alpn", "client_random", "client_signature_scheme", "encrypt_then_mac", "extended_master_secret", "group", "hello_retry",
        "identity", "ocsp", "peer_chain", "record_size_limit", "resumed", "server_name", "signature_scheme", "suite", "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.version: Version | None = None
        self.suite: Suite | None = None
        self.group: Group | None = None
        self.signature_scheme: SignatureScheme | None = None
        self.client_signature_scheme: SignatureScheme | None = None
        self.alpn = ""
        self.server_name = ""
        self.identity: Identity | None = None
        self.peer_chain: tuple[bytes, ...] = ()
        self.resumed = False
        self.hello_retry = False
        self.extended_master_secret = False
        self.encrypt_then_mac = False
        self.ocsp = b""
        self.record_size_limit = 16384
        self.client_random = b""


@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """Both Finished messages are verified; application data may flow.  Anew, with an `info` of its own, after a renegotiation."""

    info: ConnectionInfo


class Data:
    """Application data; several records may come as one."""

    __slots__ = ("data",)

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data


@dataclass(frozen=True, slots=True)
class NewSession:
    """Client: a session that may be resumed later.  TLS 1.3 ones should be used once (RFC 8446 appendix C.4)."""

    session: Session


@dataclass(frozen=True, slots=True)
class StoreSession:
    """Server: keep `state` under `session_id` (RFC 5246 section 7.3).  It is secret, and no repr shows it."""

    session_id: bytes
    state: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ForgetSession:
    """The session must not be resumed any more: its connection ended in a fatal alert (RFC 5246 section 7.2.2)."""

    session_id: bytes


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """Server: the client authenticated after the handshake (RFC 8446 section 4.6.2); () when it declined."""

    chain: tuple[bytes, ...]


class RenegotiationDeclined:
    """The peer answered our wish for another handshake with no_renegotiation; the connection goes on as it was."""

    __slots__ = ()


class PeerClosed:
    """The peer sent close_notify: no more data will come."""

    __slots__ = ()
