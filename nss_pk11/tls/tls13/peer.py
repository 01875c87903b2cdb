"""The peer's certificate in TLS 1.3: asking, receiving, checking, and answering such a request (RFC 8446 sections 4.3.2, 4.4).

Used in the handshake and after it, by both sides.
"""

from __future__ import annotations

from ...errors import DecodeError, IllegalParameter, MissingExtension, UnsupportedExtension
from .. import selection, signatures
from ..codepoints import CertificateCompression, H, SignatureScheme, V, X
from ..config import Config, Identity, ServerConfig
from ..link import Link, Steps
from ..messages import certificate as certificates
from ..messages import extensions as ext
from ..transcript import Transcript
from ..waits import ChooseClientIdentity, Receive, Sign, VerifyPeer

CERTIFICATE_TYPES = (H.certificate, H.compressed_certificate)


def request_extensions(config: ServerConfig) -> ext.Extensions:
    """Of a CertificateRequest."""
    extensions: ext.Extensions = {X.signature_algorithms: ext.encode_u16_list(config.schemes)}
    if config.authorities:
        extensions[X.certificate_authorities] = ext.encode_authorities(config.authorities)
    if config.certificate_compression:
        extensions[X.compress_certificate] = ext.encode_versions(config.certificate_compression)
    return extensions


def receive_certificate(
    link: Link, transcript: Transcript, context: bytes, by_server: bool, first: bytes | None = None, server_name: str = ""
) -> Steps[tuple[tuple[bytes, ...], SignatureScheme | None]]:
    """Certificate and CertificateVerify; the chain ((), None where a client declines) and the scheme it signed by.

    `first`: the Certificate message, where it has been received already.
    """
    config = link.config
    offered = config.certificate_compression
    types = CERTIFICATE_TYPES if offered else CERTIFICATE_TYPES[:1]
    raw = first if first is not None else (yield Receive(*types))
    transcript.add(raw)
    if raw[0] == H.compressed_certificate:
        raw = certificates.decompress_certificate(raw, offered)
    answered, chain, leaf_extensions = certificates.decode_certificate13(raw)
    if answered != context:
        raise IllegalParameter("certificate answers another request", name="SSL_ERROR_RX_MALFORMED_CERTIFICATE")
    if not chain:
        if by_server:
            raise DecodeError("server sent no certificate", name="SSL_ERROR_RX_MALFORMED_CERTIFICATE")
        return (), None
    ocsp = _stapled(leaf_extensions, allowed=by_server)
    leaf = signatures.load_leaf(chain)
    yield VerifyPeer(chain, server_name, ocsp, "server" if by_server else "client")
    link.info.ocsp = ocsp
    signed = signatures.to_be_signed(by_server, transcript.digest())
    raw = yield Receive(H.certificate_verify)
    scheme, signature = certificates.decode_verify(raw)
    signatures.verify(scheme, config.schemes, leaf, V.tls1_3, signature, signed)
    transcript.add(raw)
    return chain, SignatureScheme(scheme)


def _stapled(extensions: ext.Extensions, allowed: bool) -> bytes:
    """The stapled OCSP response, b"" for none.  Nothing else was asked for."""
    for kind in extensions:
        if kind != X.status_request or not allowed:
            raise UnsupportedExtension(f"extension {kind} in a Certificate was not asked for")
    body = extensions.get(X.status_request)
    return ext.decode_status(body) if body is not None else b""


def answer_request(link: Link, raw: bytes, transcript: Transcript, config: Config) -> Steps[tuple[list[bytes], Identity | None]]:
    """Our Certificate (and CertificateVerify) for the CertificateRequest `raw`; the messages are added to the transcript."""
    context, extensions = certificates.decode_request13(raw)
    if X.signature_algorithms not in extensions:
        raise MissingExtension(
            "CertificateRequest lacks signature_algorithms", name="SSL_ERROR_MISSING_SIGNATURE_ALGORITHMS_EXTENSION"
        )
    schemes = config.common_schemes(ext.decode_u16_list(extensions[X.signature_algorithms]))
    authorities: tuple[bytes, ...] = ()
    if X.certificate_authorities in extensions:
        authorities = ext.decode_authorities(extensions[X.certificate_authorities])
    fitting = tuple(identity for identity in config.identities if selection.usable_scheme(identity, schemes, V.tls1_3))
    identity: Identity | None = None
    if fitting:
        identity = yield ChooseClientIdentity(fitting, authorities, schemes)
    scheme = selection.usable_scheme(identity, schemes, V.tls1_3) if identity else None
    if identity is None or scheme is None:
        message = certificates.encode_certificate13((), context)
        transcript.add(message)
        return [message], None
    message = certificates.encode_certificate13(identity.chain, context)
    offered = ext.decode_versions(extensions[X.compress_certificate]) if X.compress_certificate in extensions else ()
    algorithm = next((algorithm for algorithm in link.config.certificate_compression if algorithm in offered), None)
    if algorithm is not None:
        message = certificates.compress_certificate(CertificateCompression(algorithm), message)
    transcript.add(message)
    signature = yield Sign(identity, scheme, signatures.to_be_signed(False, transcript.digest()))
    verify = certificates.encode_verify(scheme, signature)
    transcript.add(verify)
    link.info.identity, link.info.client_signature_scheme = identity, scheme
    return [message, verify], identity
