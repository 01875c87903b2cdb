"""Settings of a connection, frozen: what may be negotiated, with which identities, and the few callbacks a pure engine needs.

No tokens, sockets or files here: `Identity.key` is opaque to the engine and comes back to the driver in `Sign` and
`Decrypt`; the clock, the random source and the ticket sealer are given.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar

from ..errors import ConfigurationError
from .codepoints import CertificateCompression, Group, SignatureScheme, Version
from .suites import DEFAULT_SUITES, Suite

if TYPE_CHECKING:
    from .session import Session

# ffdhe6144 and ffdhe8192 are known but cost milliseconds: only for who names them.
DEFAULT_GROUPS = (
    Group.X25519MLKEM768,
    Group.x25519,
    Group.secp256r1,
    Group.secp384r1,
    Group.secp521r1,
    Group.x448,
    Group.ffdhe2048,
    Group.ffdhe3072,
    Group.ffdhe4096,
)

# SHA-1 schemes are known (a TLS 1.2 caller may ask for them) but never a default (RFC 9155); nor is DSA, or what has no number.
DEFAULT_SCHEMES = tuple(
    scheme for scheme in SignatureScheme if not scheme.name.startswith("dsa_") and not scheme.name.endswith("sha1")
)
# In NSS's order.
DSA_SCHEMES = SignatureScheme.dsa_sha256, SignatureScheme.dsa_sha384, SignatureScheme.dsa_sha512, SignatureScheme.dsa_sha1

MAX_REMEMBERED = 256  # answers per configuration

T = TypeVar("T")


class Tickets(Protocol):
    """Seals session state into tickets that only this server (or its siblings with the same keys) can open (RFC 5077)."""

    @property
    def lifetime(self) -> int:
        """How long a new ticket is good, seconds; at most 604800 (RFC 8446 section 4.6.1)."""

    def seal(self, state: bytes) -> bytes:
        """An opaque ticket for `state`."""

    def unseal(self, ticket: bytes) -> bytes | None:
        """The state in `ticket`, or None where it is not ours, damaged, or too old.  Never raises on bad input."""


@dataclass(frozen=True, eq=False)
class Identity:
    """A certificate chain and the key behind its leaf.  Compared by identity.

    `chain`: DER, leaf first, root left out; `schemes`: what the key can sign, by its token's mechanisms and its own
    attributes; `can_decrypt`: RSA key exchange is possible; `names`: dNSName patterns of the leaf ("*.example.com"),
    lower case; `cost`: CPU microseconds of one signature, to choose the cheapest; `key`: the driver's own; `curve`: the
    group of an EC key; `modulus_bits`: of an RSA key; `ocsp`: a DER response to staple, or b""; `kea`: the key does KEA, and
    nothing else (FORTEZZA); `shared_with_ssl2`: an RSA key that may serve SSL 2.0 and do other things all the same (DROWN);
    `can_decrypt_raw`: also with the padding left on, in which SSL 2.0 looks for the mark of a rollback.
    """

    chain: tuple[bytes, ...]
    schemes: tuple[SignatureScheme, ...]
    key: object
    can_decrypt: bool = False
    names: tuple[str, ...] = ()
    cost: float = 0.0
    ocsp: bytes = b""
    curve: Group | None = None
    issuers: tuple[bytes, ...] = ()  # DER issuer names of the chain's certificates (for certificate_authorities)
    modulus_bits: int = 0
    kea: bool = False
    shared_with_ssl2: bool = False
    can_decrypt_raw: bool = False


@dataclass(frozen=True, eq=False)
class StepDownKey:
    """A short RSA key for export suites (RFC 2246 section 7.4.3): `identity` has no chain, its key decrypts with the modulus."""

    bits: int
    modulus: int
    exponent: int
    identity: Identity


@dataclass(frozen=True)
class Config:
    """What both sides share.  Lengths in bytes, times in seconds.

    `min_version`, `max_version`: narrowed to what the suites allow.  `oldest_beside_ssl2`: where `min_version` is SSL 2.0, the
    oldest version that is enabled beside it.
    `mechanisms`: answers which PKCS #11 mechanisms the present slots offer, asked at handshake start; None means all.
    `keylog`: called with one NSS key log line without newline (SSLKEYLOGFILE); None means never.
    `record_size_limit`: largest plaintext record we take (RFC 8449), 64 to 16384.
    `renegotiation`: with nobody, with peers that tie handshakes together (RFC 5746), or with all, below TLS 1.3;
    `require_safe_negotiation`: no handshake at all below TLS 1.3 with a peer that does not know RFC 5746.
    `split_records`: send application data in two records under CBC below TLS 1.1, whose IVs can be foreseen (BEAST).
    `extended_master_secret`: offer or accept it below TLS 1.3 (RFC 7627).
    `v2_hello`: a client that enables nothing newer than TLS 1.2 sends the ClientHello of SSL 2.0, which has no extensions; a
    server takes it (RFC 5246 appendix E.2).  Who enables SSL 2.0 means it.
    `named_dh_groups_only`: no finite field below TLS 1.3 but one of RFC 7919, with a peer that knows these.
    """

    min_version: Version = Version.tls1_2
    max_version: Version = Version.tls1_3
    oldest_beside_ssl2: Version = Version.ssl3
    suites: tuple[Suite, ...] = DEFAULT_SUITES
    groups: tuple[Group, ...] = DEFAULT_GROUPS
    schemes: tuple[SignatureScheme, ...] = DEFAULT_SCHEMES
    alpn: tuple[str, ...] = ()
    identities: tuple[Identity, ...] = ()
    record_size_limit: int = 16384
    certificate_compression: tuple[CertificateCompression, ...] = ()
    mechanisms: Callable[[], frozenset[str]] | None = None
    keylog: Callable[[str], None] | None = None
    renegotiation: Literal["never", "secure", "legacy"] = "never"
    require_safe_negotiation: bool = False
    split_records: bool = True
    extended_master_secret: bool = True
    named_dh_groups_only: bool = False
    v2_hello: bool = False
    clock: Callable[[], float] = time.time
    random: Callable[[int], bytes] = os.urandom
    _answers: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.min_version > self.max_version:
            raise ConfigurationError(
                f"oldest version {self.min_version.label} is newer than newest {self.max_version.label}",
                name="SSL_ERROR_INVALID_VERSION_RANGE",
            )
        if not 64 <= self.record_size_limit <= 16384:
            raise ConfigurationError("record_size_limit must be 64 to 16384 bytes (RFC 8449 section 4)")
        if not self.usable_suites():
            raise ConfigurationError("no enabled suite fits the enabled versions", name="SSL_ERROR_NO_CIPHERS_SUPPORTED")
        self._narrow_versions()
        self._settle_schemes()

    def _narrow_versions(self) -> None:
        """A version that no enabled suite fits is not enabled: whoever offered it would be taken at its word and then fail."""
        oldest, newest = self._versions_of([suite for suite in self.suites if self._has_version_for(suite)])
        object.__setattr__(self, "min_version", oldest)
        object.__setattr__(self, "max_version", newest)

    def enables(self, version: int) -> bool:
        """Whether a version is enabled: one of a range, or SSL 2.0 below it."""
        if version == Version.ssl2:
            return self.min_version == version
        return max(self.min_version, self.oldest_beside_ssl2) <= version <= self.max_version

    def _has_version_for(self, suite: Suite) -> bool:
        """Whether a suite fits an enabled version."""
        if suite.max_version == Version.ssl2:
            return self.min_version == Version.ssl2
        return suite.min_version <= self.max_version and suite.max_version >= max(self.min_version, self.oldest_beside_ssl2)

    def _settle_schemes(self) -> None:
        """TLS 1.2 needs DSA's schemes for DSS suites and for identities with DSA keys: whoever enables one means the other.
        What has no number can be neither offered nor asked for."""
        schemes: tuple[SignatureScheme, ...] = tuple(
            scheme for scheme in self.schemes if scheme != SignatureScheme.rsa_pkcs1_md5_sha1
        )
        dss = any(suite.key_exchange == "dhe_dss" for suite in self.suites)
        if dss or any(scheme in DSA_SCHEMES for identity in self.identities for scheme in identity.schemes):
            schemes += () if any(scheme in DSA_SCHEMES for scheme in schemes) else DSA_SCHEMES
        object.__setattr__(self, "schemes", schemes)

    def common_schemes(self, theirs: Iterable[int]) -> tuple[int, ...]:
        """Of the schemes the peer can verify, those we are willing to sign with; in the peer's order."""
        return tuple(scheme for scheme in theirs if scheme in self.schemes)

    def usable_suites(self) -> tuple[Suite, ...]:
        """Enabled suites that fit the enabled versions and whose every mechanism some present slot offers."""
        offered = self.mechanisms() if self.mechanisms else None
        return self.remember(offered, lambda: self._usable_with(offered))

    def _usable_with(self, offered: frozenset[str] | None) -> tuple[Suite, ...]:
        return tuple(
            suite for suite in self.suites if self._has_version_for(suite) and (offered is None or suite.mechanisms <= offered)
        )

    def at_start(self) -> Self:
        """For a handshake that begins now: itself, or the same without the newest or oldest versions whose suites all lack a
        mechanism, as whoever offered such a version would be taken at its word and then fail."""
        usable = self.usable_suites()
        oldest, newest = self.remember(("versions", usable), lambda: self._versions_of(usable))
        if (oldest, newest) == (self.min_version, self.max_version):
            return self
        return self.remember(("narrowed", oldest, newest), lambda: replace(self, min_version=oldest, max_version=newest))

    def _versions_of(self, usable: Sequence[Suite]) -> tuple[Version, Version]:
        """The oldest and newest enabled version that some of these suites fit."""
        if not usable:
            return self.min_version, self.max_version
        oldest, newest = min(suite.min_version for suite in usable), max(suite.max_version for suite in usable)
        least = max(self.min_version, oldest)
        return least if least == Version.ssl2 else max(least, self.oldest_beside_ssl2), min(self.max_version, newest)

    def remember(self, question: Hashable, answer: Callable[[], T]) -> T:
        """`answer()`, or what it was last time.  Thousands of clients offer the same, and what follows from an offer is a
        function of it and these frozen settings.  All is forgotten when much is known: strangers must not fill memory.
        """
        known = self._answers
        found: T | None = known.get(question)
        if found is None:
            if len(known) >= MAX_REMEMBERED:
                known.clear()
            found = known[question] = answer()
        return found


@dataclass(frozen=True)
class ClientConfig(Config):
    """A client.  `server_name`: DNS name or address to verify and (a DNS name) to send as SNI; "" for none.
    `key_shares`: how many of `groups` get a key share in the first flight.  `session`: one to resume.
    `least_dh_bits`: the shortest finite field we take from a server.  `tickets`: offer to keep session tickets (RFC 5077)."""

    server_name: str = ""
    session: Session | None = None
    key_shares: int = 2
    request_ocsp: bool = True
    post_handshake_auth: bool = True
    encrypt_then_mac: bool = True
    max_fragment_length: int = 0  # 512, 1024, 2048 or 4096 asks for it (RFC 6066 section 4); 0 does not
    middlebox_compatibility: bool = True
    least_dh_bits: int = 2048
    tickets: bool = True
    fallback: bool = False  # send TLS_FALLBACK_SCSV: this is a retry with a lower version (RFC 7507)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_version == Version.ssl2 and self.max_version > Version.tls1_2:
            raise ConfigurationError(
                "no ClientHello can offer SSL 2.0 and TLS 1.3 (RFC 8446 appendix D.5)", name="SSL_ERROR_INVALID_VERSION_RANGE"
            )


ClientAuth = Literal["none", "request", "require"]


@dataclass(frozen=True)
class ServerConfig(Config):
    """A server.  `authorities`: DER names of the CAs whose client certificates are welcome; `tickets`: None for no
    stateless resumption; `session_ids`: whether the driver answers LookupSession and keeps StoreSession events;
    `ticket_count`: TLS 1.3 tickets sent after a full handshake; `prefer_own_order`: the server's order of suites and groups wins;
    `refuse_unknown_names`: unrecognized_name instead of the default identity (RFC 6066 section 3);
    `resume_without_certificate`: sessions of clients that had none are good where one is requested;
    `rollback_detection`: the version inside an RSA premaster secret must be what the client offered (RFC 5246 section 7.4.7.1);
    `step_down`: answers the short RSA key of 512 or 1024 bits for export suites; None: no suite for which the identity's own
    key is too long."""

    client_auth: ClientAuth = "none"
    authorities: tuple[bytes, ...] = ()
    tickets: Tickets | None = None
    ticket_count: int = 2
    session_ids: bool = False
    session_lifetime: int = 7200
    prefer_own_order: bool = True
    refuse_unknown_names: bool = False
    resume_without_certificate: bool = True
    rollback_detection: bool = True
    step_down: Callable[[int], StepDownKey] | None = None
    encrypt_then_mac: bool = True
    context: bytes = field(default=b"", repr=False)  # mixed into sessions: a session of one context is no good in another

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_version == Version.ssl2 < self.max_version and any(
            identity.can_decrypt and not identity.shared_with_ssl2 for identity in self.identities
        ):
            raise ConfigurationError(
                "an RSA key that serves SSL 2.0 must serve nothing newer (DROWN), unless it is said to be shared",
                name="SEC_ERROR_INADEQUATE_KEY_USAGE",
            )

    def accepts_session_of(self, peer_chain: tuple[bytes, ...]) -> bool:
        """Whether a session in which the client has shown `peer_chain` is as well authenticated as is asked for now."""
        if self.client_auth == "none":
            return not peer_chain
        return bool(peer_chain) or (self.client_auth == "request" and self.resume_without_certificate)
