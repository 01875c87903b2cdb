"""What a server makes of the extensions that mean the same in every version: server_name, ALPN, record and fragment limits."""

from __future__ import annotations

from ..errors import IllegalParameter
from . import selection
from .codepoints import V, X
from .config import ServerConfig
from .events import ConnectionInfo
from .messages import extensions as ext
from .messages.hello import ClientHello


def answer_client(hello: ClientHello, config: ServerConfig, info: ConnectionInfo) -> ext.Extensions:
    """The answers, for EncryptedExtensions or ServerHello; what was agreed goes into `info`.

    Raises NoApplicationProtocol where ALPN finds nothing in common, IllegalParameter for a limit that is none.
    """
    extensions, answers = hello.extensions, ext.Extensions()
    # TLS 1.3 counts the content type in record_size_limit, TLS 1.2 does not (RFC 8449 section 4).
    inner_type = info.version == V.tls1_3
    if X.server_name in extensions:
        info.server_name = ext.decode_server_name(extensions[X.server_name])
        answers[X.server_name] = b""
    if X.application_layer_protocol_negotiation in extensions:
        offered = ext.decode_alpn(extensions[X.application_layer_protocol_negotiation])
        if config.alpn:
            info.alpn = selection.choose_protocol(config.alpn, offered)
            answers[X.application_layer_protocol_negotiation] = ext.encode_alpn((info.alpn,))
    if X.record_size_limit in extensions:
        limit = ext.decode_u16(extensions[X.record_size_limit])
        if limit < 64:
            raise IllegalParameter(f"record_size_limit {limit} (RFC 8449 section 4)", name="SSL_ERROR_RX_MALFORMED_CLIENT_HELLO")
        info.record_size_limit = min(limit - inner_type, 16384)
        answers[X.record_size_limit] = (config.record_size_limit + inner_type).to_bytes(2, "big")
    elif X.max_fragment_length in extensions:
        code = ext.decode_u8(extensions[X.max_fragment_length])
        if code not in ext.MAX_FRAGMENT_LENGTHS:
            raise IllegalParameter(f"max_fragment_length {code}", name="SSL_ERROR_RX_MALFORMED_CLIENT_HELLO")
        info.record_size_limit = ext.MAX_FRAGMENT_LENGTHS[code]
        answers[X.max_fragment_length] = extensions[X.max_fragment_length]
    return answers
