"""Choosing: a version, a suite, an identity, a protocol.  Pure functions of what both sides offer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..errors import HandshakeFailure, NoApplicationProtocol
from .codepoints import SignatureScheme, Version
from .config import Config, Identity
from .signatures import allowed_in

SOUND_MODULUS = 2048  # bits


def matches(name: str, pattern: str) -> bool:
    """Whether a dNSName pattern covers `name` (RFC 6125 section 6.4.3: a wildcard is the whole left-most label)."""
    if pattern.startswith("*."):
        head, _, tail = name.partition(".")
        return bool(head) and tail == pattern[2:]
    return name == pattern


def usable_scheme(identity: Identity, schemes: Collection[int], version: Version) -> SignatureScheme | None:
    """The identity's own favourite among what the peer can verify, or None."""
    return next((scheme for scheme in identity.schemes if scheme in schemes and allowed_in(scheme, version)), None)


def rank(identity: Identity) -> tuple[int, float]:
    """Of two identities that do, the one with the smaller rank: the cheaper, but an RSA key that is too short as a last resort.

    It is short below 2048 bits (RFC 9325 section 4.5), which makes it cheap; of such keys the longest is best.
    """
    bits = identity.modulus_bits
    return (SOUND_MODULUS - bits if 0 < bits < SOUND_MODULUS else 0), identity.cost


def choose_identity(
    identities: Sequence[Identity],
    server_name: str,
    schemes: Collection[int],
    version: Version,
    authorities: Collection[bytes] = (),
) -> tuple[Identity, SignatureScheme]:
    """The identity the client can verify: named for `server_name` first, under a CA it knows second, the best
    by `rank` third.

    Raises HandshakeFailure where none has a scheme in common with the client.
    """
    candidates = []
    for order, identity in enumerate(identities):
        scheme = usable_scheme(identity, schemes, version)
        if scheme is not None:
            named = any(matches(server_name, pattern) for pattern in identity.names) if server_name else True
            known = not authorities or any(issuer in authorities for issuer in identity.issuers)
            candidates.append(((not named, not known, rank(identity), order), identity, scheme))
    if not candidates:
        reason = "no identity can sign by a scheme the peer can verify" if identities else "no identity is configured"
        raise HandshakeFailure(
            reason, name="SSL_ERROR_UNSUPPORTED_SIGNATURE_ALGORITHM" if identities else "SSL_ERROR_NO_CERTIFICATE"
        )
    if len(candidates) > 1:
        candidates.sort(key=lambda candidate: candidate[0])
    return candidates[0][1], candidates[0][2]


def choose_protocol(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """ALPN: our order decides (RFC 7301 section 3.2).  Raises NoApplicationProtocol where nothing matches."""
    for protocol in ours:
        if protocol in theirs:
            return protocol
    raise NoApplicationProtocol(f"client offers {', '.join(map(repr, theirs))}; none is enabled")


def knows(config: Config, server_name: str) -> bool:
    """Whether any identity is named for `server_name`."""
    return any(matches(server_name, pattern) for identity in config.identities for pattern in identity.names)
