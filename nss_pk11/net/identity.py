"""From a key and its certificate to what the engine can negotiate with.

The one table that pairs TLS's signature schemes with what a token's key can do lives here, since only this room knows
both.  Touches slots and certs; no sockets.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING
from urllib.parse import quote

from .. import certs
from ..certs.info import subject_name
from ..errors import CertificateError, ConfigurationError, DecryptError, NotFound
from ..slots import Algorithm
from ..slots.group import KeyGroup
from ..tls.codepoints import Group, SignatureScheme, Version
from ..tls.config import Identity
from ..tls.signatures import allowed_in, fits, key_kind, load_leaf, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cryptography import x509

    from ..pins import PinProvider
    from ..slots import PrivateKey, SlotManager

log = logging.getLogger(__name__)
S = SignatureScheme


# Which of a key's algorithms makes which scheme's signatures.
ALGORITHMS: dict[SignatureScheme, Algorithm] = {
    S.ecdsa_secp256r1_sha256: Algorithm.ecdsa_sha256,
    S.ecdsa_secp384r1_sha384: Algorithm.ecdsa_sha384,
    S.ecdsa_secp521r1_sha512: Algorithm.ecdsa_sha512,
    S.ed25519: Algorithm.ed25519,
    S.ed448: Algorithm.ed448,
    S.rsa_pss_rsae_sha256: Algorithm.rsa_pss_sha256,
    S.rsa_pss_rsae_sha384: Algorithm.rsa_pss_sha384,
    S.rsa_pss_rsae_sha512: Algorithm.rsa_pss_sha512,
    S.rsa_pss_pss_sha256: Algorithm.rsa_pss_sha256,
    S.rsa_pss_pss_sha384: Algorithm.rsa_pss_sha384,
    S.rsa_pss_pss_sha512: Algorithm.rsa_pss_sha512,
    S.rsa_pkcs1_sha256: Algorithm.rsa_pkcs1_sha256,
    S.rsa_pkcs1_sha384: Algorithm.rsa_pkcs1_sha384,
    S.rsa_pkcs1_sha512: Algorithm.rsa_pkcs1_sha512,
    S.mldsa44: Algorithm.mldsa44,
    S.mldsa65: Algorithm.mldsa65,
    S.mldsa87: Algorithm.mldsa87,
    S.dsa_sha256: Algorithm.dsa_sha256,
    S.dsa_sha384: Algorithm.dsa_sha384,
    S.dsa_sha512: Algorithm.dsa_sha512,
    S.rsa_pkcs1_sha1: Algorithm.rsa_pkcs1_sha1,
    S.ecdsa_sha1: Algorithm.ecdsa_sha1,
    S.dsa_sha1: Algorithm.dsa_sha1,
    S.rsa_pkcs1_md5_sha1: Algorithm.rsa_pkcs1_md5_sha1,
}

# The smallest modulus that holds a PSS message whose salt is as long as the digest (RFC 8017 section 9.1.1), bits.
_PSS_BITS = {"sha256": 8 * 66, "sha384": 8 * 98, "sha512": 8 * 130}

_VERSIONS = (Version.tls1_3, Version.tls1_2, Version.tls1_1)

_CURVES = {"secp256r1": Group.secp256r1, "secp384r1": Group.secp384r1, "secp521r1": Group.secp521r1}


def load_identity(
    manager: SlotManager,
    source: str | Path,
    *,
    chain: str | Path | Sequence[str | Path] | None = None,
    pins: PinProvider | None = None,
    ocsp: bytes = b"",
    allow_expired: bool = False,
) -> Identity:
    """The identity behind `source`: a pkcs11: URI of a private key, or the path of a PEM or PKCS #12 file.

    Where several tokens hold the key pair that a URI names, the identity's key is the group of them (`slots.group`).
    `chain`: a PEM file, leaf first; of several the one that is the key's.  Without one the certificate is the one beside the key,
    on the token or in the file.
    `pins` answers for this key instead of the manager's provider.  `ocsp`: a DER response to staple.

    Raises NotFound, Ambiguous, PinError or TokenError for the key; CertificateError for a certificate that is missing
    (SEC_ERROR_NO_KEY), not the key's, expired or not yet valid (unless `allow_expired`); ConfigurationError for one that
    no TLS signature scheme fits.
    """
    key, found = _find_key(manager, str(source), pins)
    given = _given_chain(key, chain) or tuple(found)
    return make_identity(key, given or _chain_on_token(manager, key, pins), ocsp=ocsp, allow_expired=allow_expired)


def _given_chain(key: PrivateKey, files: str | Path | Sequence[str | Path] | None) -> tuple[bytes, ...]:
    """The only one, whosever it is; of several the key's own, () for none."""
    if files is None:
        return ()
    if isinstance(files, str | PathLike):
        return certs.load_pem_chain(files)
    chains = [certs.load_pem_chain(file) for file in files]
    if len(chains) == 1:
        return chains[0]
    return next((chain for chain in chains if certs.matches_key(chain[0], key.public_key)), ())


def join_identities(identities: Iterable[Identity]) -> tuple[Identity, ...]:
    """Identities with the same certificate are one, whose key is the group of their keys: tokens that stand in for each other."""
    joined: dict[bytes, list[Identity]] = {}
    for identity in identities:
        joined.setdefault(identity.chain[0], []).append(identity)
    return tuple(_join(same) for same in joined.values())


def _join(same: list[Identity]) -> Identity:
    first = same[0]
    keys = [key for identity in same for key in _keys(key_of(identity))]
    own = {key.uri: key for key in keys}  # one named twice is one
    if len(own) == 1:
        return first
    return replace(
        first,
        key=KeyGroup(list(own.values())),
        schemes=tuple(scheme for scheme in first.schemes if all(scheme in identity.schemes for identity in same)),
        can_decrypt=all(identity.can_decrypt for identity in same),
        can_decrypt_raw=all(identity.can_decrypt_raw for identity in same),
        cost=min(identity.cost for identity in same),
    )


def _keys(key: PrivateKey) -> list[PrivateKey]:
    return [member.key for member in key.members] if isinstance(key, KeyGroup) else [key]


def make_identity(key: PrivateKey, chain: tuple[bytes, ...], *, ocsp: bytes = b"", allow_expired: bool = False) -> Identity:
    """An Identity of a key that is already at hand and its `chain` (DER, leaf first).  Raises as `load_identity`."""
    leaf, chain = load_leaf(chain), certs.without_root(chain)
    subject = leaf.subject.rfc4514_string() or "without a subject"
    kind = key_kind(leaf)
    schemes = tuple(
        scheme for scheme, algorithm in ALGORITHMS.items() if algorithm in key.algorithms and _fits(scheme, kind, key)
    )
    if not _belongs(leaf, chain[0], key, schemes):
        raise CertificateError(
            f"certificate {subject} does not belong to the key {_name(key)}", name="SEC_ERROR_NO_KEY", subject=subject
        )
    if not allow_expired:
        _check_dates(leaf, subject)
    can_decrypt = key.can_decrypt and kind == "rsa"
    exchanges = kind == "kea" and key.kind == "kea"
    if not schemes and not can_decrypt and not exchanges:
        raise ConfigurationError(
            f"key {_name(key)} can make no signature that TLS knows: its token offers {_offers(key)}",
            name="SEC_ERROR_UNSUPPORTED_KEYALG",
        )
    identity = Identity(
        chain=chain,
        schemes=schemes,
        key=key,
        can_decrypt=can_decrypt,
        can_decrypt_raw=can_decrypt and key.can_decrypt_raw,
        names=tuple(certs.names(chain[0])),
        cost=key.latency * 1e6,
        ocsp=ocsp,
        curve=_CURVES.get(kind),
        issuers=certs.issuer_names(chain),
        modulus_bits=key.bits if kind.startswith("rsa") else 0,
        kea=exchanges,
    )
    if limits := limitations(identity):
        log.warning("%s", limits)
    return identity


def limitations(identity: Identity) -> str:
    """What an identity cannot do that its owner might expect, one sentence, or ""."""
    if any(allowed_in(scheme, Version.tls1_3) for scheme in identity.schemes):
        return ""
    name = _name(key_of(identity))
    if identity.kea:
        return f"key {name} is a KEA key: it serves SSL 3.0 and TLS 1.0 only, with FORTEZZA suites"
    if not identity.modulus_bits:
        return f"key {name} is a DSA key, which TLS 1.3 does not know: it serves TLS 1.2 and older only, with DHE_DSS suites"
    only = "PKCS#1 v1.5 signatures and RSA key exchange" if identity.schemes else "RSA key exchange"
    return f"key {name} cannot sign RSA-PSS, which TLS 1.3 needs: it serves TLS 1.2 only, with {only}"


def _fits(scheme: SignatureScheme, kind: str, key: PrivateKey) -> bool:
    """TLS 1.3 ties each ECDSA scheme to one curve (RFC 8446 section 4.2.3); we keep to that in TLS 1.2 too."""
    if kind.startswith("rsa") and key.bits < _PSS_BITS.get(ALGORITHMS[scheme].hash, 0) and "pss" in scheme.name:
        return False
    return fits(scheme, kind, _newest_with(scheme))


def _newest_with(scheme: SignatureScheme) -> Version:
    """The newest version that knows a scheme."""
    return next(version for version in _VERSIONS if allowed_in(scheme, version))


def _belongs(leaf: x509.Certificate, der: bytes, key: PrivateKey, schemes: tuple[SignatureScheme, ...]) -> bool:
    """Whether the certificate is the key's.  A token that shows no public key is asked for a signature."""
    try:
        return certs.matches_key(der, key.public_key)
    except NotFound:
        pass
    for scheme in schemes[:1]:
        with suppress(DecryptError):
            check_signature(scheme, leaf, key.sign(ALGORITHMS[scheme], _PROBE), _PROBE)
            return True
    return False


_PROBE = b"nss-pk11: does this certificate belong to this key?"


def check_signature(
    scheme: SignatureScheme, certificate: x509.Certificate, signature: bytes, message: bytes, prehashed: bool = False
) -> None:
    """Raises DecryptError if the signature is not one by the certificate's key.  `prehashed`: see `waits.Sign`."""
    verify(scheme, (scheme,), certificate, _newest_with(scheme), signature, message, prehashed)


def key_of(identity: Identity) -> PrivateKey:
    """The token's or software's key behind an identity."""
    key: PrivateKey = identity.key  # type: ignore[assignment]
    return key


def _find_key(manager: SlotManager, source: str, pins: PinProvider | None) -> tuple[PrivateKey, list[bytes]]:
    if source.startswith("pkcs11:"):
        return manager.find_key_group(source, pins), []
    return manager.load_key_file(source, pins)


def _chain_on_token(manager: SlotManager, key: PrivateKey, pins: PinProvider | None) -> tuple[bytes, ...]:
    """The key's certificate and whatever issuers of it lie beside it."""
    leaf = manager.certificate_for(key)
    if leaf is None:
        remedy = "import it into the token, or give" if key.token.module else "give"
        raise CertificateError(
            f"no certificate lies beside the key {_name(key)}: {remedy} its chain in a PEM file",
            name="SSL_ERROR_NO_CERTIFICATE",
        )
    chain, beside = [leaf], _issuers_beside(manager, key, pins)
    while (issuer := beside.pop(certs.issuer_names((chain[-1],))[0], None)) is not None:
        chain.append(issuer)
    return tuple(chain)


def _issuers_beside(manager: SlotManager, key: PrivateKey, pins: PinProvider | None) -> dict[bytes, bytes]:
    """Certificates on the key's token by subject (DER)."""
    if not key.token.label:
        return {}
    try:
        found = manager.find_certificates(f"pkcs11:token={quote(key.token.label, safe='')}", pins)
    except NotFound:
        return {}
    return {subject_name(certificate.der): certificate.der for certificate in found}


def _check_dates(leaf: x509.Certificate, subject: str) -> None:
    now = time.time()
    if now > leaf.not_valid_after_utc.timestamp():
        fault = f"expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    elif now < leaf.not_valid_before_utc.timestamp():
        fault = f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    else:
        return
    raise CertificateError(f"certificate {subject} {fault}", name="SEC_ERROR_EXPIRED_CERTIFICATE", subject=subject)


def _name(key: PrivateKey) -> str:
    where = f" on token {key.token.label!r}" if key.token.module else ""
    return f"{key.label or key.uri or key.kind!r}{where}"


def _offers(key: PrivateKey) -> str:
    return ", ".join(sorted(key.algorithms)) or "no signature at all"
