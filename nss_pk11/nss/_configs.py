"""From settings to what the engine negotiates by: the frozen configurations of `tls.config`.

Present tokens are asked for mechanisms at each handshake, as in NSS (ssl3_config_match_init): setting a preference never asks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigurationError, NSPRError
from ..net.purposes import PURPOSES
from ..net.stepdown import step_down
from ..sessions.shared_layout import MAX_SSL3_TIMEOUT
from ..tls.codepoints import SignatureScheme, Version
from ..tls.config import DEFAULT_GROUPS, DEFAULT_SCHEMES, ClientConfig, ServerConfig
from ..tls.signatures import allowed_in
from . import _sslt as o
from ._serverkeys import client_authorities, identities
from ._slots import usable_slots
from ._state import state
from ._suites import OFFERED
from .types import PK11SlotInfo

if TYPE_CHECKING:
    from ..tls.codepoints import Group
    from ..tls.config import ClientAuth, Identity, Tickets
    from ..tls.session import Session
    from ..tls.suites import Suite
    from ._settings import Settings

# As later NSS: SHA-1 last, and signatures by DSA.
SCHEMES = (
    *DEFAULT_SCHEMES,
    *(scheme for scheme in SignatureScheme if scheme not in DEFAULT_SCHEMES and scheme.name != "rsa_pkcs1_md5_sha1"),
)

LEAST_DH_BITS = 1023  # NSS's SSL_DH_MIN_P_BITS
SHARES_KEYS = "NSS_PK11_SHARE_KEYS_WITH_SSL2"  # in the environment, not empty: an RSA key may serve SSL 2.0 and newer versions
_LOOK_AGAIN = 1.0  # seconds until a slot is asked again whether its token is there, as in NSS (nssSlot_IsTokenPresent)

Mode = Literal["never", "secure", "legacy"]

# By SSL_ENABLE_RENEGOTIATION.  "Transitional" is for clients: they still renegotiate with servers that lack RFC 5746.
CLIENT_MODES: dict[int, Mode] = {0: "never", 1: "legacy", 2: "secure", 3: "legacy"}
SERVER_MODES: dict[int, Mode] = {0: "never", 1: "legacy", 2: "secure", 3: "secure"}


def client_config(
    settings: Settings, session: Session | None, restricted: bool, chosen_from: tuple[Identity, ...]
) -> ClientConfig:
    """See `Settings.client_config`."""
    base: ClientConfig = settings.remember(("client", restricted), lambda: _client(settings, restricted))
    return replace(base, server_name=settings.url, session=session, identities=chosen_from)


def _client(settings: Settings, restricted: bool) -> ClientConfig:
    extra = {} if settings.additional_key_shares is None else {"key_shares": 1 + settings.additional_key_shares}
    common = _common(settings, restricted)
    if common["min_version"] == Version.ssl2:  # whose hello has no room for TLS 1.3
        common["max_version"] = min(common["max_version"], Version.tls1_2)
    made: ClientConfig = _made(
        ClientConfig,
        **common,
        **extra,
        renegotiation=CLIENT_MODES[settings.options[o.SSL_ENABLE_RENEGOTIATION]],
        request_ocsp=settings.on(o.SSL_ENABLE_OCSP_STAPLING),
        post_handshake_auth=settings.on(o.SSL_ENABLE_POST_HANDSHAKE_AUTH),
        middlebox_compatibility=settings.on(o.SSL_ENABLE_TLS13_COMPAT_MODE),
        fallback=settings.on(o.SSL_ENABLE_FALLBACK_SCSV),
        tickets=settings.on(o.SSL_ENABLE_SESSION_TICKETS) and not settings.no_cache,
        least_dh_bits=LEAST_DH_BITS,
    )
    return made


def server_config(settings: Settings, first: bool, session_ids: bool, tickets: Tickets | None) -> ServerConfig:
    """See `Settings.server_config`."""
    if not session_ids and not settings.no_cache:
        raise NSPRError(
            "SSL_ConfigServerSessionIDCache was not called, and SSL_NO_CACHE is off", name="SSL_ERROR_SERVER_CACHE_NOT_CONFIGURED"
        )
    if settings.no_cache or not settings.on(o.SSL_ENABLE_SESSION_TICKETS):
        tickets = None
    client_auth = _client_auth(settings, first)
    made: ServerConfig = settings.remember(("server", client_auth, tickets), lambda: _server(settings, client_auth, tickets))
    if not made.usable_suites():  # as it was when it was made
        raise NSPRError("no present token offers what a suite needs", name="SSL_ERROR_NO_CIPHERS_SUPPORTED")
    return made


def _server(settings: Settings, client_auth: ClientAuth, tickets: Tickets | None) -> ServerConfig:
    served = identities(settings)
    if os.environ.get(SHARES_KEYS):
        served = tuple(replace(identity, shared_with_ssl2=True) for identity in served)
    common = _common(settings, restricted=False)
    if not settings.on(o.SSL_ENABLE_SERVER_DHE):
        common["suites"] = tuple(suite for suite in common["suites"] if not suite.key_exchange.startswith("dhe"))
    common["suites"] = _served(common["suites"], served)
    if not common["suites"]:
        raise NSPRError("no certificate of this server fits a suite that is on", name="SSL_ERROR_NO_CIPHERS_SUPPORTED")
    made: ServerConfig = _made(
        ServerConfig,
        **common,
        identities=served,
        client_auth=client_auth,
        authorities=client_authorities(settings) if client_auth != "none" else (),
        renegotiation=SERVER_MODES[settings.options[o.SSL_ENABLE_RENEGOTIATION]],
        tickets=tickets,
        session_ids=not settings.no_cache,
        session_lifetime=MAX_SSL3_TIMEOUT,  # the cache has limits of its own
        context=_sessions_of(served),
        resume_without_certificate=settings.options[o.SSL_REQUIRE_CERTIFICATE] != o.SSL_REQUIRE_NO_ERROR,
        rollback_detection=settings.on(o.SSL_ROLLBACK_DETECTION),
        step_down=None if settings.on(o.SSL_NO_STEP_DOWN) else step_down,
    )
    PURPOSES.claim_all(made)
    return made


def _made(kind: type[Any], **fields: Any) -> Any:
    """Raises NSPRError (SSL_ERROR_NO_CIPHERS_SUPPORTED) where no present token offers what a suite needs."""
    try:
        return kind(**fields)
    except ConfigurationError as error:
        raise NSPRError(error.detail, name=error.name) from None


def _common(settings: Settings, restricted: bool) -> dict[str, Any]:
    low, high = settings.version_range
    oldest_beside_ssl2 = low or Version.ssl3
    if settings.on(o.SSL_ENABLE_SSL2) and _permitted(settings, restricted, range(Version.ssl2, Version.ssl2 + 1)):
        low, high = int(Version.ssl2), high or int(Version.ssl2)
    suites = _permitted(settings, restricted, range(low, high + 1)) if high else ()
    if not suites:
        raise NSPRError("no version is on that a permitted suite is for", name="SSL_ERROR_SSL_DISABLED")
    return {
        "min_version": Version(low),
        "max_version": Version(high),
        "oldest_beside_ssl2": Version(oldest_beside_ssl2),
        "suites": suites,
        "groups": _groups(settings),
        "schemes": settings.schemes or SCHEMES,
        "alpn": settings.alpn if settings.on(o.SSL_ENABLE_ALPN) else (),
        "record_size_limit": min(settings.options[o.SSL_RECORD_SIZE_LIMIT], 16384),
        "mechanisms": _offered,
        "require_safe_negotiation": settings.on(o.SSL_REQUIRE_SAFE_NEGOTIATION),
        "split_records": settings.on(o.SSL_CBC_RANDOM_IV),
        "extended_master_secret": settings.on(o.SSL_ENABLE_EXTENDED_MASTER_SECRET),
        "v2_hello": settings.on(o.SSL_V2_COMPATIBLE_HELLO),
        "named_dh_groups_only": settings.on(o.SSL_REQUIRE_DH_NAMED_GROUPS),
    }


def _offered() -> frozenset[str]:
    """The mechanisms of the tokens that are present, but those in slots that the user has disabled."""
    if not state.disabled:
        return state.manager.mechanisms(_LOOK_AGAIN)
    offered: set[str] = set()
    for slot in usable_slots():
        with suppress(NSPRError):  # it has just gone
            offered.update(PK11SlotInfo(slot).token.mechanisms())
    return frozenset(offered)


def _permitted(settings: Settings, restricted: bool, versions: range) -> tuple[Suite, ...]:
    return tuple(
        suite
        for suite in OFFERED
        if settings.permits(suite.code, restricted) and suite.min_version < versions.stop and suite.max_version >= versions.start
    )


def _groups(settings: Settings) -> tuple[Group, ...]:
    return DEFAULT_GROUPS if settings.groups is None else settings.groups


# --- server ----------------------------------------------------------------------------------------------------------


def _sessions_of(served: tuple[Identity, ...]) -> bytes:
    """Marks sessions as made by whoever serves these certificates: they are no other server's, though all share a cache."""
    leaves = sorted(sha256(b"".join(identity.chain[:1])).digest() for identity in served)
    return sha256(b"".join(leaves)).digest()[:16]


def _served(suites: Iterable[Suite], served: tuple[Identity, ...]) -> tuple[Suite, ...]:
    """Those of which some identity has the key."""
    found: set[str] = set()
    for identity in served:
        found.update(_KEY_EXCHANGES[scheme.name.split("_")[0]] for scheme in identity.schemes)
        if identity.can_decrypt:
            found |= {"rsa", "rsa_export"}
        if identity.kea:
            found.add("fortezza")
        if any(allowed_in(scheme, Version.tls1_3) for scheme in identity.schemes):
            found.add("any")
        if any(scheme.name.startswith("rsa") for scheme in identity.schemes):
            found.add("dhe_rsa")
    return tuple(suite for suite in suites if suite.key_exchange in found)


# By the kind of key that signs.
_KEY_EXCHANGES = {
    "rsa": "ecdhe_rsa",
    "ecdsa": "ecdhe_ecdsa",
    "ed25519": "ecdhe_ecdsa",
    "ed448": "ecdhe_ecdsa",
    "dsa": "dhe_dss",
    "mldsa44": "any",
    "mldsa65": "any",
    "mldsa87": "any",
}


def _client_auth(settings: Settings, first: bool) -> ClientAuth:
    if not settings.on(o.SSL_REQUEST_CERTIFICATE):
        return "none"
    required = settings.options[o.SSL_REQUIRE_CERTIFICATE]
    always = required == o.SSL_REQUIRE_ALWAYS or (required == o.SSL_REQUIRE_FIRST_HANDSHAKE and first)
    return "require" if always else "request"
