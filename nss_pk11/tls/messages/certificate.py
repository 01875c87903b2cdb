"""Certificate, CertificateVerify and their kin (RFC 8446 section 4.4, RFC 5246 section 7.4.2, RFC 8879)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ...errors import DecodeError, IllegalParameter, TLSError
from ..codec import Reader, Writer
from ..codepoints import CertificateCompression, H, X
from .extensions import Extensions, decode_block, encode_block, encode_status
from .hello import message

MAX_CHAIN = 1 << 17  # bytes; what a handshake message may be at most


@lru_cache(64)  # a server sends the same few again and again
def encode_certificate13(chain: tuple[bytes, ...], context: bytes = b"", ocsp: bytes = b"") -> bytes:
    """A TLS 1.3 Certificate; the OCSP response goes with the leaf (RFC 8446 section 4.4.2.1)."""
    w = Writer().vector(1, context)
    with w.block(3):
        for index, certificate in enumerate(chain):
            w.vector(3, certificate)
            w.raw(encode_block({X.status_request: encode_status(ocsp)} if ocsp and not index else {}))
    return message(H.certificate, w.bytes())


def decode_certificate13(raw: bytes) -> tuple[bytes, tuple[bytes, ...], Extensions]:
    """Request context, chain (DER, leaf first) and the leaf's extensions."""
    r = Reader(raw, 4)
    context, block = r.vector(1), r.block(3)
    r.end()
    chain: list[bytes] = []
    leaf: Extensions = {}
    while block:
        chain.append(block.vector(3, least=1))
        extensions = decode_block(block)
        if len(chain) == 1:
            leaf = extensions
    return context, tuple(chain), leaf


def encode_certificate12(chain: tuple[bytes, ...]) -> bytes:
    w = Writer()
    with w.block(3):
        for certificate in chain:
            w.vector(3, certificate)
    return message(H.certificate, w.bytes())


def decode_certificate12(raw: bytes) -> tuple[bytes, ...]:
    r = Reader(raw, 4)
    block, chain = r.block(3), []
    r.end()
    while block:
        chain.append(block.vector(3, least=1))
    return tuple(chain)


def encode_signature(scheme: int | None, signature: bytes) -> bytes:
    """What ends a ServerKeyExchange, too.  `scheme`: None before TLS 1.2, where it has no number (RFC 4346 section 4.7)."""
    w = Writer()
    if scheme is not None:
        w.u16(scheme)
    return w.vector(2, signature).bytes()


def decode_signature(reader: Reader, unnamed: int | None = None) -> tuple[int, bytes]:
    """Scheme and signature; `unnamed`: the scheme where it has no number."""
    scheme, signature = reader.u16() if unnamed is None else unnamed, reader.vector(2)
    reader.end()
    return scheme, signature


def encode_verify(scheme: int | None, signature: bytes) -> bytes:
    """CertificateVerify of all versions."""
    return message(H.certificate_verify, encode_signature(scheme, signature))


def decode_verify(raw: bytes, unnamed: int | None = None) -> tuple[int, bytes]:
    return decode_signature(Reader(raw, 4), unnamed)


def encode_request13(context: bytes, extensions: Extensions) -> bytes:
    """A TLS 1.3 CertificateRequest (RFC 8446 section 4.3.2)."""
    return message(H.certificate_request, Writer().vector(1, context).raw(encode_block(extensions)).bytes())


def decode_request13(raw: bytes) -> tuple[bytes, Extensions]:
    r = Reader(raw, 4)
    context, extensions = r.vector(1), decode_block(r)
    r.end()
    return context, extensions


# --- compression (RFC 8879) ----------------------------------------------------------------------------------------------


def _brotli() -> tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]]:
    import brotli

    def decompress(data: bytes, limit: int) -> bytes:
        decoder: Any = brotli.Decompressor()
        return bytes(decoder.process(data, output_buffer_limit=limit + 1))

    return brotli.compress, decompress


def _zstd() -> tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]]:
    import zstandard

    def decompress(data: bytes, limit: int) -> bytes:
        return zstandard.ZstdDecompressor(max_window_size=1 << 20).decompressobj().decompress(data)[: limit + 1]

    return zstandard.ZstdCompressor().compress, decompress


def _zlib() -> tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes]]:
    return zlib.compress, lambda data, limit: zlib.decompressobj().decompress(data, limit + 1)


_COMPRESSIONS = {CertificateCompression.zlib: _zlib, CertificateCompression.brotli: _brotli, CertificateCompression.zstd: _zstd}


def available_compressions() -> tuple[CertificateCompression, ...]:
    """The algorithms this installation has (brotli and zstd are extras)."""
    found = []
    for algorithm, load in _COMPRESSIONS.items():
        try:
            load()
        except ImportError:
            continue
        found.append(algorithm)
    return tuple(found)


@lru_cache(64)
def compress_certificate(algorithm: CertificateCompression, raw: bytes) -> bytes:
    """A CompressedCertificate of the Certificate message `raw`."""
    compress, _ = _COMPRESSIONS[algorithm]()
    body = raw[4:]
    packed = compress(body)
    return message(H.compressed_certificate, Writer().u16(algorithm).u24(len(body)).vector(3, packed).bytes())


def decompress_certificate(raw: bytes, offered: tuple[CertificateCompression, ...]) -> bytes:
    """The Certificate message inside.  Never unpacks more than it says it holds (RFC 8879 section 4)."""
    r = Reader(raw, 4)
    algorithm, length, packed = r.u16(), r.u24(), r.vector(3, least=1)
    r.end()
    if algorithm not in offered:
        raise IllegalParameter(
            f"certificate compressed by algorithm {algorithm}, which was not offered",
            name="SEC_ERROR_CERTIFICATE_COMPRESSION_ALGORITHM_NOT_SUPPORTED",
        )
    if length > MAX_CHAIN:
        raise IllegalParameter(f"compressed certificate claims {length} bytes", name="SSL_ERROR_RX_MALFORMED_CERTIFICATE")
    _, decompress = _COMPRESSIONS[CertificateCompression(algorithm)]()
    try:
        body = decompress(packed, length)
    except TLSError:
        raise
    except Exception:  # each library has errors of its own
        raise DecodeError("compressed certificate does not decompress", name="SSL_ERROR_DECOMPRESSION_FAILURE") from None
    if len(body) != length:
        raise DecodeError(f"compressed certificate holds not {length} bytes", name="SSL_ERROR_DECOMPRESSION_FAILURE")
    return message(H.certificate, body)
