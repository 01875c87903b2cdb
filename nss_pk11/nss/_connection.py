"""One SSL connection as its engine sees it: what it negotiates by, what it asks for, what comes of it.

An engine asks questions while a handshake goes on (a token's key, a verdict, a session) and tells what happened.  Here both meet
the rest of NSS: settings, callbacks, session caches, the executor of keys.  No bytes move here; that is `_sslsocket`.  All of
this is called with the lock held.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import NSPRError
from ..tls.codepoints import V
from ..tls.engine import Engine
from ..tls.events import (
    ConnectionInfo,
    Data,
    ForgetSession,
    HandshakeCompleted,
    NewSession,
    PeerCertificate,
    RenegotiationDeclined,
    StoreSession,
)
from ..tls.waits import (
    ChooseClientIdentity,
    Decrypt,
    KeaInitiate,
    KeaRespond,
    KeaResume,
    LookupSession,
    Operation,
    Sign,
    VerifyPeer,
)
from . import _callbacks, _fortezza, _sidcaches, _stepup
from ._keys import executor
from ._layers import DescriptorReference, Layer, PRFileDesc, SocketLayer
from .types import CERTCertificate

if TYPE_CHECKING:
    from ..tls.config import ClientConfig, ServerConfig
    from ..tls.session import Session
    from ._clienttoken import ClientToken
    from ._settings import Settings


class Connection(Layer):
    """`settings`: this socket's own; `is_server`: the role, None until one is known; `engine`: None until the first I/O;
    `first_done`: the first handshake is complete.  What is known of peer and session is for `_sockets` to tell."""

    settings: Settings

    def __init__(self, lower: SocketLayer, settings: Settings) -> None:
        self.lower, self.settings = lower, settings
        self.lock = threading.RLock()
        self._reference: DescriptorReference | None = None
        self.is_server: bool | None = None
        self._clear()

    def _clear(self) -> None:
        """As before the first handshake."""
        self.engine: Engine | None = None
        self.first_done = self._end = self._awaits_certificate = False
        self._received: deque[memoryview] = deque()
        self._completed = 0  # handshakes that the callback has not been told of
        self._paused: Operation | None = None  # put off by a callback
        self._answering = False  # a callback is running that the engine waits for
        self.peer_chain: list[CERTCertificate] = []
        self.local_certificate: CERTCertificate | None = None
        self.client_token: ClientToken | None = None
        self.staple = b""
        self.session = _sidcaches.SessionInUse(self)
        self.step_up = _stepup.StepUp(self)

    # --- what it is ------------------------------------------------------------------------------------------------------

    def bind_to(self, descriptor: PRFileDesc) -> None:
        self._reference = DescriptorReference(descriptor)

    @property
    def descriptor(self) -> PRFileDesc:
        """For callbacks."""
        found = self._reference() if self._reference is not None else None
        return found if found is not None else PRFileDesc(self)

    @property
    def bottom(self) -> SocketLayer:
        return self.lower

    @property
    def secure(self) -> bool:
        """Whether SSL_SECURITY is on: otherwise this layer is not there."""
        return self.settings.security

    @property
    def info(self) -> ConnectionInfo | None:
        """What was negotiated; None before the first handshake is complete."""
        engine = self.engine  # asked without the lock: the application's callback may wait for another thread that asks
        return engine.info if engine is not None and self.first_done else None

    @property
    def pending(self) -> int:
        """Bytes of application data that can be read without reading the socket."""
        return sum(map(len, self._received))

    # --- settings for the engine -----------------------------------------------------------------------------------------------

    def _client_config(self, session: Session | None) -> ClientConfig:
        identities = (_callbacks.ANY_IDENTITY,) if self.settings.client_auth_data is not None else ()
        return self.settings.client_config(session=session, restricted=self.step_up.restricted, identities=identities)

    def _server_config(self, *, first: bool) -> ServerConfig:
        tickets = _sidcaches.tickets_for(self.settings, first)
        return self.settings.server_config(first=first, session_ids=_sidcaches.has_server_cache(), tickets=tickets)

    # --- what moves bytes does this ------------------------------------------------------------------------------------------

    def renegotiate(self, *, resume: bool) -> None:
        """Begin another handshake by the settings of now."""
        raise NotImplementedError

    def _send_what_fits(self) -> None:
        raise NotImplementedError

    # --- events ----------------------------------------------------------------------------------------------------------

    def _handle_events(self) -> None:
        """Do what the engine asks until it asks no more."""
        engine = self.engine
        assert engine is not None
        while events := engine.events():
            for event in events:
                self._handle(event)
        if engine.peer_closed:
            self._end = True

    def _gather(self) -> None:
        """What came before an error.  A goodbye in the first handshake is an end like any other (ssl3gthr.c)."""
        assert self.engine is not None
        if self.engine.error is not None and self.engine.peer_closed and not self.first_done:
            self.engine.error.name = "PR_END_OF_FILE_ERROR"
        for event in self.engine.events():
            if isinstance(event, Data | ForgetSession | HandshakeCompleted):
                self._handle(event)

    def _handle(self, event: object) -> None:
        match event:
            case Data():
                self._received.append(memoryview(event.data))
            case Operation():
                self._operate(event)
            case HandshakeCompleted():
                self._handshake_completed(event.info)
            case NewSession():
                self.session.put(event.session)
            case StoreSession():
                self.session.store(event.session_id, event.state)
            case ForgetSession():
                self.session.forget(event.session_id)
            case PeerCertificate():
                self._awaits_certificate = False
                self._completed += 1
            case RenegotiationDeclined():
                self.step_up.declined()

    def _operate(self, operation: Operation) -> None:
        assert self.engine is not None
        try:
            self._answering = True
            try:
                result = self._answer(operation)
            finally:
                self._answering = False
        except _callbacks.PutOff:
            self._paused = operation
        except Exception as error:
            self.engine.fail(operation, error)
        except BaseException as interruption:  # Ctrl-C while a callback runs: nobody will answer any more
            with suppress(NSPRError):
                self.engine.fail(operation, interruption)
            self._send_what_fits()
            raise
        else:
            self.engine.complete(operation, result)

    def _answer(self, operation: Operation) -> object:
        match operation:
            case Sign() | Decrypt() | KeaRespond():
                return executor().run(operation)
            case KeaResume() if self.is_server:
                return executor().run(operation)
            case KeaInitiate() | KeaResume():
                return executor().run(_fortezza.with_best_match(operation, self.settings.pin_arg))
            case LookupSession():
                return self.session.look_up_id(operation.session_id)
            case VerifyPeer():
                _callbacks.verify_peer(self, operation)
                return None
            case ChooseClientIdentity():
                return _callbacks.choose_identity(self, operation)
        raise AssertionError(operation)

    def resume(self, kind: type[Operation], answer: Callable[[Operation], object]) -> None:
        """Answer what a callback put off.  Raises NSPRError (PR_INVALID_STATE_ERROR) where nothing of that kind waits."""
        with self.lock:
            operation, engine = self._paused, self.engine
            if not isinstance(operation, kind) or engine is None:
                raise NSPRError("no handshake waits for this", name="PR_INVALID_STATE_ERROR")
            self._paused = None
            with suppress(NSPRError):  # the handshake's end, which the next call on the socket tells
                try:
                    result = answer(operation)
                except Exception as error:
                    engine.fail(operation, error)
                else:
                    engine.complete(operation, result)
                    self._handle_events()
            self._gather()
            if engine.error is not None:
                self.session.failed()
            self._send_what_fits()
            self._tell_application()

    def _handshake_completed(self, info: ConnectionInfo) -> None:
        self.first_done = True
        self._completed += 1
        if not info.peer_chain:
            self.peer_chain = []
        if self.is_server:
            self.local_certificate = self.settings.certificate_of(info.identity) or self._only_certificate()
        self.session.completed(info)
        self.step_up.consider(info)
        if self.is_server and info.version != V.tls1_3 and self.engine is not None:
            with suppress(NSPRError):  # what is wrong with settings of now concerns the next handshake
                self.engine.use(self._server_config(first=False))

    def _only_certificate(self) -> CERTCertificate | None:
        """A resumed session does not say which it was made with."""
        servers = list(self.settings.servers.values())
        return servers[0].certificate if len(servers) == 1 else None

    def _tell_application(self) -> None:
        """SSLHandshakeCallback, once all that the engine had to say is done."""
        while self._completed:
            self._completed -= 1
            hook = self.settings.handshake
            if hook is not None and hook[0] is not None:
                hook[0](self.descriptor, hook[1])
