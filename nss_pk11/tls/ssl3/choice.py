"""What a client offers below TLS 1.3, checked, and what a server chooses from it: suite, identity, scheme and group at once.

They hang together: a suite needs an identity whose key its key exchange can use, which the client can verify, and often a
group in common.  Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...errors import HandshakeFailure, IllegalParameter, InsufficientSecurity
from .. import selection
from ..codepoints import Group, SignatureScheme, V, Version, X
from ..config import Identity, ServerConfig
from ..groups import FINITE_FIELDS, TLS12_CURVES
from ..messages import extensions as ext
from ..messages import tls12
from ..messages.hello import ClientHello
from ..signatures import permitted
from ..suites import Suite

_FFDHE_CODES = range(0x0100, 0x0200)  # reserved for finite fields, known or not (RFC 7919 section 2)


@dataclass(frozen=True)
class Offer:
    """`groups`: None where the client names none; `ticket`: None where it has no use for tickets."""

    suites: tuple[int, ...]
    groups: tuple[int, ...] | None
    schemes: tuple[int, ...]
    extended_master_secret: bool
    encrypt_then_mac: bool
    point_formats: bool
    ticket: bytes | None
    wants_ocsp: bool

    @classmethod
    def of(cls, hello: ClientHello, config: ServerConfig, version: Version) -> Offer:
        """Raises DecodeError, IllegalParameter or HandshakeFailure for what no client may send (RFC 5246 section 7.4.1)."""
        extensions = hello.extensions
        if 0 not in hello.compression:
            raise IllegalParameter("client does not offer to leave data uncompressed", name="SSL_ERROR_RX_MALFORMED_CLIENT_HELLO")
        for kind in (X.extended_master_secret, X.encrypt_then_mac):
            ext.require_empty(extensions.get(kind, b""))
        if X.ec_point_formats in extensions and 0 not in ext.decode_u8_list(extensions[X.ec_point_formats]):
            raise IllegalParameter("client does not take uncompressed points (RFC 8422 section 5.1.2)")
        return cls(
            suites=hello.suites,
            groups=ext.decode_u16_list(extensions[X.supported_groups]) if X.supported_groups in extensions else None,
            schemes=_schemes(extensions.get(X.signature_algorithms), version),
            extended_master_secret=X.extended_master_secret in extensions and config.extended_master_secret,
            encrypt_then_mac=X.encrypt_then_mac in extensions and config.encrypt_then_mac,
            point_formats=X.ec_point_formats in extensions,
            ticket=extensions.get(X.session_ticket),
            wants_ocsp=X.status_request in extensions and ext.decode_status_request(extensions[X.status_request]),
        )


# What a client takes that says nothing (RFC 5246 section 7.4.1.4.1): SHA-1, which nobody enables but on purpose.
_UNSAID = SignatureScheme.rsa_pkcs1_sha1, SignatureScheme.dsa_sha1, SignatureScheme.ecdsa_sha1


def _schemes(body: bytes | None, version: Version) -> tuple[int, ...]:
    """What a client says holds for TLS 1.2."""
    if version < V.tls1_2:
        return permitted((), version)
    return _UNSAID if body is None else ext.decode_u16_list(body)


@dataclass(frozen=True)
class Choice:
    """`scheme`: None where the identity only decrypts; `group`: None for RSA key exchange."""

    suite: Suite
    identity: Identity
    scheme: SignatureScheme | None
    group: Group | None


# Scheme -> the suites it belongs to.
SIGNS_AS: dict[int, str] = {
    scheme: next((kind for kind in ("rsa", "dsa") if scheme.name.startswith(kind)), "ecdsa") for scheme in SignatureScheme
}

# ClientCertificateType -> the same.
CERTIFICATE_TYPES = {tls12.RSA_SIGN: "rsa", tls12.DSS_SIGN: "dsa", tls12.ECDSA_SIGN: "ecdsa"}

# Key exchange -> what the identity must do, and the kind of group it needs.
_NEEDS: dict[str, tuple[str, str]] = {
    "ecdhe_ecdsa": ("ecdsa", "curve"),
    "ecdhe_rsa": ("rsa", "curve"),
    "dhe_rsa": ("rsa", "finite field"),
    "dhe_dss": ("dsa", "finite field"),
    "rsa": ("decrypt", ""),
    "fortezza": ("kea", ""),
    "rsa_export": ("", ""),  # to decrypt with a short key, its own, or to sign one
}


def usable_suites(config: ServerConfig, offer: Offer, version: Version) -> list[Suite]:
    """Suites both sides enable for `version`, best first."""
    ours = [suite for suite in config.usable_suites() if suite.min_version <= version <= suite.max_version]
    if config.prefer_own_order:
        return [suite for suite in ours if suite.code in offer.suites]
    by_code = {suite.code: suite for suite in ours}
    return [by_code[code] for code in offer.suites if code in by_code]


def choose(config: ServerConfig, offer: Offer, server_name: str, version: Version) -> Choice:
    """The best suite that an identity and a group can be found for.

    An identity named for `server_name` comes before a better suite; between suites that differ in their signature alone the
    identity decides that is cheapest to sign with.  Raises HandshakeFailure where nothing fits, InsufficientSecurity where only
    the client's finite fields stand in the way (RFC 7919 section 4).
    """
    question = (version, server_name, config.usable_suites(), offer.suites, offer.groups, offer.schemes)
    return config.remember(question, lambda: _choose(config, offer, server_name, version))


def _choose(config: ServerConfig, offer: Offer, server_name: str, version: Version) -> Choice:
    suites = usable_suites(config, offer, version)
    groups = {"curve": _choose_curve(config, offer), "finite field": _choose_finite_field(config, offer), "": None}
    named = [i for i in config.identities if any(selection.matches(server_name, pattern) for pattern in i.names)]
    for identities in (named, config.identities) if server_name and named else (config.identities,):
        authenticators = _authenticators(config, identities, offer, server_name, version)
        found = [
            Choice(suite, *proof, groups[kind])
            for suite in suites
            for kind, proof in ((_NEEDS[suite.key_exchange][1], _proof(config, suite, identities, authenticators)),)
            if proof is not None and (not kind or groups[kind] is not None)
        ]
        if found:
            return _cheapest(found) if config.prefer_own_order else found[0]
    wanted = any(_NEEDS[suite.key_exchange][1] == "finite field" for suite in suites) and _names_finite_field(offer)
    if wanted and not groups["finite field"]:
        raise InsufficientSecurity("client takes none of our Diffie-Hellman groups", name="SSL_ERROR_NO_CYPHER_OVERLAP")
    raise HandshakeFailure(
        "no cipher suite in common that our certificates and groups allow" if suites else "no cipher suite in common"
    )


def _cheapest(found: Sequence[Choice]) -> Choice:
    """Of those that differ from the first in their signature alone.  A short key is no bargain."""

    def all_else(choice: Choice) -> tuple[object, ...]:
        return choice.suite.cipher, choice.suite.mac, choice.suite.hash, _NEEDS[choice.suite.key_exchange][1]

    equal = [choice for choice in found if all_else(choice) == all_else(found[0])]
    return min(equal, key=lambda choice: selection.rank(choice.identity))


def _choose_curve(config: ServerConfig, offer: Offer) -> Group | None:
    """A client that names no groups is taken to know P-256 (RFC 8422 section 4 leaves the choice to the server)."""
    theirs: Iterable[int] = offer.groups if offer.groups is not None else (Group.secp256r1,)
    return _first_common(config, [group for group in theirs if group in TLS12_CURVES])


def _choose_finite_field(config: ServerConfig, offer: Offer) -> Group | None:
    """RFC 7919 section 4: one the client names; ffdhe2048 for a client that names none at all, if that may be."""
    if not _names_finite_field(offer):
        return Group.ffdhe2048 if Group.ffdhe2048 in config.groups and not config.named_dh_groups_only else None
    return _first_common(config, [group for group in offer.groups or () if group in FINITE_FIELDS])


def _names_finite_field(offer: Offer) -> bool:
    return any(group in _FFDHE_CODES for group in offer.groups or ())


def _first_common(config: ServerConfig, theirs: Sequence[int]) -> Group | None:
    if config.prefer_own_order:
        return next((group for group in config.groups if group in theirs), None)
    return next((Group(group) for group in theirs if group in config.groups), None)


Proof = tuple[Identity, SignatureScheme | None]


def _proof(config: ServerConfig, suite: Suite, identities: Sequence[Identity], authenticators: dict[str, Proof]) -> Proof | None:
    """How the server proves itself in `suite`, if it can; in an export suite rather by signing a short key than by having one."""
    if not suite.export:
        return authenticators.get(_NEEDS[suite.key_exchange][0])
    signing = authenticators.get("rsa")
    if signing is not None and signing[0].modulus_bits > suite.rsa_limit and config.step_down is not None:
        return signing
    short = [i for i in identities if i.can_decrypt and 0 < i.modulus_bits <= suite.rsa_limit]
    return (min(short, key=selection.rank), None) if short else None


def _authenticators(
    config: ServerConfig, identities: Sequence[Identity], offer: Offer, server_name: str, version: Version
) -> dict[str, Proof]:
    """For each way of authentication ("rsa", "dsa", "ecdsa", "decrypt", "kea") that is possible, the identity and its scheme.

    An EC certificate's curve must be one the client names (RFC 8422 section 5.1).
    """
    found: dict[str, Proof] = {}
    ours = permitted(config.schemes, version)
    for way in ("rsa", "dsa", "ecdsa"):
        schemes = [scheme for scheme in offer.schemes if scheme in ours and SIGNS_AS[scheme] == way]
        fitting = [i for i in identities if i.curve is None or offer.groups is None or i.curve in offer.groups]
        if schemes and any(selection.usable_scheme(identity, schemes, version) for identity in fitting):
            found[way] = selection.choose_identity(fitting, server_name, schemes, version)
    decrypting = [identity for identity in identities if identity.can_decrypt]
    if decrypting:
        found["decrypt"] = min(decrypting, key=selection.rank), None
    exchanging = next((identity for identity in identities if identity.kea), None)
    if exchanging is not None:
        found["kea"] = exchanging, None
    return found
