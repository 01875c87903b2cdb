"""What is set on an SSL socket, and for the process: options, suites, versions, certificates, callbacks.

A new socket copies `Settings.defaults`, one that is accepted the listening socket's, one with a model the model's; what is
changed later is of that one alone.  The engine's view of them is made in `_configs`, once until something is changed, and copies
share it: a server does not begin anew with each connection.  Touches no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..errors import NSPRError
from ..tls.codepoints import Version
from ._sslt import (
    FACTORY_OPTIONS,
    SSL_ALLOWED,
    SSL_ENABLE_FDX,
    SSL_HANDSHAKE_AS_CLIENT,
    SSL_HANDSHAKE_AS_SERVER,
    SSL_NO_CACHE,
    SSL_RESTRICTED,
    SSL_SECURITY,
    SSLVersionRange,
)
from ._suites import FACTORY_PREFERENCES, IMPLEMENTED

if TYPE_CHECKING:
    from ..tls.codepoints import Group, SignatureScheme
    from ..tls.config import ClientConfig, Identity, ServerConfig, Tickets
    from ..tls.session import Session
    from ._layers import PRFileDesc
    from ._serverkeys import ServerKey
    from .types import CERTCertificate

Hook = tuple[Callable[..., Any] | None, object]

ALL_VERSIONS = SSLVersionRange(Version.ssl3, Version.tls1_3)
NO_VERSION = SSLVersionRange(0, 0)


class Settings:
    """`options` by number, without SSL_ENABLE_SSL3 and SSL_ENABLE_TLS, which `version_range` tells; `preferences` and `policies`
    by suite; `servers` by kind of key.  Hooks are (function, argument), or None if never set.  Whoever changes anything but
    hooks, `url`, `peer_id` and `pin_arg` says so by `changed()`."""

    defaults: ClassVar[Settings]

    def __init__(self) -> None:
        self.options: dict[int, int] = dict(FACTORY_OPTIONS)
        self.preferences: dict[int, bool] = dict(FACTORY_PREFERENCES)
        self.policies: dict[int, int] = dict.fromkeys(IMPLEMENTED, 0)
        self.version_range = ALL_VERSIONS
        self.servers: dict[str, ServerKey] = {}
        self.staples: dict[int, bytes] = {}  # OCSP responses by SSLKEAType; never changed in place
        self.groups: tuple[Group, ...] | None = None  # None: the engine's own
        self.schemes: tuple[SignatureScheme, ...] | None = None
        self.alpn: tuple[str, ...] = ()
        self.additional_key_shares: int | None = None
        self.trust_anchors: tuple[bytes, ...] | None = None  # DER names; None: the CAs that the database trusts
        self.auth_certificate: Hook | None = None
        self.bad_cert: Hook | None = None
        self.client_auth_data: Hook | None = None
        self.handshake: Hook | None = None
        self.sni_socket_config: Hook | None = None
        self.pin_arg: object = None
        self.url = ""
        self.peer_id = ""
        self._configs: dict[object, Any] = {}

    def copy(self) -> Self:
        """One that may be changed by itself."""
        new = type(self)()
        new.__dict__.update(self.__dict__)
        new.options, new.preferences, new.policies = dict(self.options), dict(self.preferences), dict(self.policies)
        new.servers = dict(self.servers)
        return new

    def take_over(self, other: Settings) -> None:
        """Everything as another has it."""
        self.__dict__.update(other.copy().__dict__)

    def changed(self) -> None:
        """What was made of the settings is void; copies from before keep theirs."""
        self._configs = {}

    def remember(self, key: object, make: Callable[[], Any]) -> Any:
        """`make()`, or what it gave since the last change."""
        known = self._configs
        if key not in known:
            known[key] = make()
        return known[key]

    def forget(self) -> None:
        """The socket is closed: give certificates and keys back, and what was for callbacks, which may be such too."""
        self.servers = {}
        self.auth_certificate = self.bad_cert = self.client_auth_data = self.handshake = self.sni_socket_config = None
        self.pin_arg = None
        self.changed()

    # --- what is asked often -------------------------------------------------------------------------------------------

    def on(self, option: int) -> bool:
        """Whether an option of `options` is not 0."""
        return bool(self.options[option])

    @property
    def security(self) -> bool:
        return self.on(SSL_SECURITY)

    @property
    def no_cache(self) -> bool:
        return self.on(SSL_NO_CACHE)

    @property
    def full_duplex(self) -> bool:
        return self.on(SSL_ENABLE_FDX)

    @property
    def has_restricted_suites(self) -> bool:
        """Whether step-up would permit a client more."""
        return any(policy == SSL_RESTRICTED and self.preferences[code] for code, policy in self.policies.items())

    def role(self, accepted: bool) -> bool:
        """Whether a socket that was accepted, or else connected, is the server in the handshake."""
        return not self.on(SSL_HANDSHAKE_AS_CLIENT) if accepted else self.on(SSL_HANDSHAKE_AS_SERVER)

    def permits(self, code: int, restricted: bool = False) -> bool:
        """Whether a suite is on and policy allows it; `restricted`: after step-up."""
        return self.preferences[code] and SSL_ALLOWED <= self.policies[code] <= (SSL_RESTRICTED if restricted else SSL_ALLOWED)

    def authentication(self) -> tuple[Callable[..., object], object]:
        """The SSLAuthCertificate function and its argument: SSL_AuthCertificate if none was set."""
        if self.auth_certificate is not None and self.auth_certificate[0] is not None:
            return self.auth_certificate[0], self.auth_certificate[1]
        from ._authenticate import SSL_AuthCertificate
        from .cert import CERT_GetDefaultCertDB

        return SSL_AuthCertificate, CERT_GetDefaultCertDB()

    # --- for the engine ------------------------------------------------------------------------------------------------

    def client_config(
        self, *, session: Session | None = None, restricted: bool = False, identities: tuple[Identity, ...] = ()
    ) -> ClientConfig:
        """How a client is to shake hands.  `session`: one to resume; `restricted`: after step-up; `identities`: what may be
        chosen when the server asks for a certificate.  Raises NSPRError: SSL_ERROR_SSL_DISABLED (no version, or no permitted
        suite), SSL_ERROR_NO_CIPHERS_SUPPORTED (no present token offers what a suite needs)."""
        from ._configs import client_config

        return client_config(self, session, restricted, identities)

    def server_config(self, *, first: bool = True, session_ids: bool = True, tickets: Tickets | None = None) -> ServerConfig:
        """How a server is to.  `first`: no handshake is complete yet; `session_ids`: there is a cache; `tickets`: their sealer.

        Raises NSPRError as `client_config` does, with SSL_ERROR_NO_CIPHERS_SUPPORTED for no certificate too, and
        SSL_ERROR_SERVER_CACHE_NOT_CONFIGURED, SSL_ERROR_NO_TRUSTED_SSL_CLIENT_CA.
        """
        from ._configs import server_config

        return server_config(self, first, session_ids, tickets)

    def chain_of(self, cert: CERTCertificate) -> tuple[bytes, ...]:
        """A certificate and its issuers as far as they are known, DER, leaf first."""
        from ._serverkeys import chain_of

        return chain_of(cert)

    def certificate_of(self, identity: Identity | None) -> CERTCertificate | None:
        """The server certificate behind an identity of the engine's."""
        chain = identity.chain if identity is not None else ()
        return next((server.certificate for server in self.servers.values() if chain[:1] == (server.certificate.derCert,)), None)


Settings.defaults = Settings()


def settings_of(fd: PRFileDesc) -> Settings:
    """Of an SSL socket.  Raises NSPRError (PR_BAD_DESCRIPTOR_ERROR) for any other, and for one that is closed: it would hold
    what it is given, and nothing would ever give that back."""
    settings: Settings | None = getattr(fd, "settings", None)
    if settings is None:
        raise NSPRError("this descriptor is no SSL socket", name="PR_BAD_DESCRIPTOR_ERROR")
    if fd.layer.bottom.sock.fileno() < 0:
        raise NSPRError("the descriptor is closed", name="PR_BAD_DESCRIPTOR_ERROR")
    return settings
