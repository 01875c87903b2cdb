"""Keying material and channel bindings of a finished handshake (RFC 8446 section 7.5, RFC 5705, RFC 5929, RFC 9266)."""

from __future__ import annotations

import hashlib

from cryptography.x509 import load_der_x509_certificate

from ..errors import ConfigurationError
from .codepoints import V
from .events import ConnectionInfo
from .link import Agreed
from .signatures import UNREADABLE
from .ssl3 import prf
from .tls13 import schedule

_TLS_EXPORTER = b"EXPORTER-Channel-Binding"  # RFC 9266 section 4.2


def export(agreed: Agreed, label: bytes, context: bytes | None, length: int) -> bytes:
    """`length` bytes.  Before TLS 1.3 an absent context differs from an empty one (RFC 5705 section 4)."""
    info = agreed.info
    assert info.suite is not None
    if info.version == V.tls1_3:
        return schedule.export(info.suite.hash, agreed.exporter_secret, label, context or b"", length)
    if info.version in (V.ssl2, V.ssl3):
        raise ConfigurationError("SSL has no exporters", name="SSL_ERROR_FEATURE_NOT_SUPPORTED_FOR_VERSION")
    assert info.version is not None
    seed = agreed.randoms if context is None else agreed.randoms + len(context).to_bytes(2, "big") + context
    return prf.prf(info.suite.hash_in(info.version), agreed.exporter_secret, label, seed, length)


def channel_binding(agreed: Agreed, is_server: bool, kind: str) -> bytes:
    """Raises ConfigurationError for a kind that is unknown, or undefined for this connection."""
    info = agreed.info
    if kind == "tls-exporter":
        if info.version != V.tls1_3 and not info.extended_master_secret:
            raise ConfigurationError("tls-exporter needs TLS 1.3 or the extended master secret (RFC 9266 section 4.2)")
        return export(agreed, _TLS_EXPORTER, b"", 32)
    if kind == "tls-unique":
        if info.version == V.tls1_3:
            raise ConfigurationError("tls-unique is not defined for TLS 1.3 (RFC 9266)")
        if info.version == V.ssl2:
            raise ConfigurationError("tls-unique is not defined for SSL 2.0 (RFC 5929)")
        if info.resumed and not info.extended_master_secret:  # two connections could be made to share it
            raise ConfigurationError("tls-unique of a resumed session needs the extended master secret (RFC 7627 section 5.4)")
        # The first Finished of the last handshake (RFC 5929 section 3.1).
        return agreed.server_finished if info.resumed else agreed.client_finished
    if kind == "tls-server-end-point":
        return _server_end_point(info, is_server)
    raise ConfigurationError(f"unknown channel binding {kind!r}")


def _server_end_point(info: ConnectionInfo, is_server: bool) -> bytes:
    """The hash of the server's certificate; MD5 and SHA-1 count as SHA-256 (RFC 5929 section 4.1)."""
    identity = info.identity if is_server else None
    chain = identity.chain if identity is not None else info.peer_chain
    if not chain or (is_server and identity is None):
        raise ConfigurationError("tls-server-end-point: this connection used no server certificate")
    try:
        algorithm = load_der_x509_certificate(chain[0]).signature_hash_algorithm
    except UNREADABLE:
        raise ConfigurationError("tls-server-end-point: the server's certificate is signed in an unknown way") from None
    name = algorithm.name if algorithm is not None and algorithm.name not in ("md5", "sha1") else "sha256"
    return hashlib.new(name, chain[0]).digest()
