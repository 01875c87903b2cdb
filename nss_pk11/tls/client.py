"""How a client opens: one ClientHello for all enabled versions; the server's answer decides which handshake goes on."""

from __future__ import annotations

from ipaddress import ip_address

from ..errors import ConfigurationError, IllegalParameter, UnsupportedVersion
from . import groups
from .codepoints import Group, H, V, Version, X
from .config import ClientConfig
from .link import Flow, Link, Steps
from .messages import extensions as ext
from .messages import ssl2
from .messages.hello import DOWNGRADE_TLS11, DOWNGRADE_TLS12, ClientHello, ServerHello
from .opening import Opening
from .ssl2.client import ClientHandshake as ClientHandshake2
from .ssl3 import renegotiation
from .ssl3.client import ClientHandshake as ClientHandshake12
from .suites import EMPTY_RENEGOTIATION_INFO_SCSV, FALLBACK_SCSV
from .tls13.client import ClientHandshake as ClientHandshake13
from .tls13.psk import PSK_DHE_KE, Offer
from .transcript import Transcript
from .waits import NO_RENEGOTIATION, SSL2_MESSAGE, Receive, Ssl2Message


def connect(link: Link, config: ClientConfig) -> Flow:
    """The whole life of a client connection."""
    config = config.at_start()
    opening = _open(link, config)
    raw = yield Receive(H.server_hello, SSL2_MESSAGE)
    if isinstance(raw, Ssl2Message):
        link.info.version = V.ssl2
        yield from ClientHandshake2(link, config, opening.session).run(raw)
        return
    server_hello = ServerHello.decode(raw)
    if X.supported_versions in server_hello.extensions:
        if config.max_version < V.tls1_3:
            raise IllegalParameter(
                "server selects a version by an extension that was not offered", name="SSL_ERROR_UNSUPPORTED_VERSION"
            )
        link.info.version = V.tls1_3
        link.records.version = V.tls1_2
        handshake = ClientHandshake13(link, config, opening).run(server_hello)
        del opening, server_hello  # a connection may be idle for long: nothing of its handshake stays behind
        connected = yield from handshake
        del handshake
        yield from connected.run()
    else:
        version = link.info.version = _check_old_version(config, server_hello)
        link.records.version = version
        while True:
            flow = ClientHandshake12(link, config, opening).run(server_hello)
            del opening, server_hello
            yield from flow
            del flow
            opening, server_hello, config = yield from _open_again(link, config)


def _check_old_version(config: ClientConfig, server_hello: ServerHello) -> Version:
    """A version we enabled, chosen by a server that could not do better (RFC 8446 section 4.1.3)."""
    version = server_hello.version
    if not V.ssl3 <= version <= V.tls1_2 or not config.enables(version):
        raise UnsupportedVersion(f"server chose version {version:#06x}, which is not enabled")
    sentinel = server_hello.random[-8:]
    if config.max_version > V.tls1_2 and sentinel in (DOWNGRADE_TLS12, DOWNGRADE_TLS11):
        raise IllegalParameter(
            "somebody downgraded the connection: the server knows TLS 1.3", name="SSL_ERROR_RX_MALFORMED_SERVER_HELLO"
        )
    if config.max_version == V.tls1_2 and version < V.tls1_2 and sentinel == DOWNGRADE_TLS11:
        raise IllegalParameter(
            "somebody downgraded the connection: the server knows TLS 1.2", name="SSL_ERROR_RX_MALFORMED_SERVER_HELLO"
        )
    return Version(version)


def _open_again(link: Link, config: ClientConfig) -> Steps[tuple[Opening, ServerHello, ClientConfig]]:
    """The next handshake's hellos, and the settings for it."""
    while True:
        config = yield from renegotiation.as_client(link, config)
        opening = _open(link, config)
        raw = yield Receive(H.server_hello, NO_RENEGOTIATION)
        if raw != renegotiation.NO_RENEGOTIATION_WARNING:
            return opening, ServerHello.decode(raw), config
        del opening
        link.stay()


def _greets_in_ssl2(link: Link, config: ClientConfig) -> bool:
    """Whether the ClientHello has the form of SSL 2.0: where TLS 1.3 is offered never (RFC 8446 appendix D.5), nor where a newer
    session is to be resumed, which it has no room for."""
    if not (config.v2_hello or config.min_version == V.ssl2) or config.max_version > V.tls1_2 or link.previous is not None:
        return False
    return config.session is None or config.session.version == V.ssl2 or not _resumable12(config, None)


def _open_in_ssl2(link: Link, config: ClientConfig) -> Opening:
    """Build and send a ClientHello in the form of SSL 2.0 (RFC 5246 appendix E.2), with a challenge as long as a random."""
    link.client_version = config.max_version
    link.info.client_random = config.random(32)
    kinds = tuple(suite.kind or suite.code for suite in config.usable_suites())
    if not kinds:
        raise ConfigurationError(
            "no enabled suite has all its mechanisms in present tokens", name="SSL_ERROR_NO_CIPHERS_SUPPORTED"
        )
    if config.max_version >= V.ssl3:
        kinds += (EMPTY_RENEGOTIATION_INFO_SCSV, *((FALLBACK_SCSV,) if config.fallback else ()))
    session = config.session if _resumable12(config, None) else None
    session_id = session.session_id if session is not None else b""
    greeting = ssl2.ClientHello(config.max_version, kinds, session_id, link.info.client_random)
    raw = greeting.encode()
    opening = Opening(greeting.newer(raw), Transcript(), session=session)
    opening.transcript.add(raw)
    link.records.hears_ssl2 = config.min_version == V.ssl2
    link.records.send_ssl2(raw)
    return opening


def _open(link: Link, config: ClientConfig) -> Opening:
    """Build and send the ClientHello; in a renegotiation it offers the version at hand (RFC 8446 section 4.1.2)."""
    if _greets_in_ssl2(link, config):
        return _open_in_ssl2(link, config)
    again = link.previous is not None
    newest = link.info.version or config.max_version
    tls13 = newest >= V.tls1_3
    tls12 = config.min_version <= V.tls1_2
    random = config.random(32)
    link.info.client_random = random
    link.info.server_name = _sni(config.server_name)
    session = config.session if tls12 and link.may_resume and _resumable12(config, link.info.version) else None
    if session is not None and session.version == V.ssl2:  # which this form of hello does not ask for
        session = None
    session_id = session.session_id if session else b""
    if not session_id and ((tls13 and config.middlebox_compatibility) or (session and session.ticket)):
        session_id = config.random(32)  # RFC 8446 appendix D.4; RFC 5077 section 3.4
    suites = _suites(config, link.info.version)
    if tls12 and not again:
        suites += (EMPTY_RENEGOTIATION_INFO_SCSV,)
    if config.fallback and not again:
        suites += (FALLBACK_SCSV,)
    opening = Opening(ClientHello(0, b"", b"", (), {}), Transcript(), session=session)
    extensions = _extensions(link, config, newest, session.ticket if session else b"")
    if tls13:
        for group in config.groups[: config.key_shares]:
            opening.shares[group] = groups.new_share(group)
        extensions[X.key_share] = ext.encode_key_shares((group, share.public) for group, share in opening.shares.items())
        opening.offer = Offer.of(config)
        if opening.offer is not None:
            extensions[X.pre_shared_key] = opening.offer.extension(config.clock())
    if again:
        extensions[X.renegotiation_info] = renegotiation.offer(link)
    else:  # the next ones repeat it, as there are servers that compare (and RSA's premaster secret holds it)
        link.client_version = min(newest, V.tls1_2)
        link.records.version = min(newest, V.tls1_0)  # what all servers take (RFC 5246 appendix E.1)
    hello = ClientHello(link.client_version, random, session_id, suites, extensions)
    raw = hello.encode()
    if opening.offer is not None:
        alone = Transcript()
        alone.use(opening.offer.suite.hash)
        raw = hello.raw = opening.offer.fill_binder(raw, alone)
    opening.hello = hello
    opening.transcript.add(raw)
    link.send(raw)
    link.flush()
    return opening


def _sni(name: str) -> str:
    """The host name to send; addresses are not sent (RFC 6066 section 3)."""
    try:
        ip_address(name)
    except ValueError:
        return name.rstrip(".")
    return ""


def _suites(config: ClientConfig, version: Version | None) -> tuple[int, ...]:
    """To offer; `version`: the only one that will do, None for any that is enabled."""
    usable = tuple(suite for suite in config.usable_suites() if not suite.kind)
    if version is not None:
        usable = tuple(suite for suite in usable if suite.min_version <= version <= suite.max_version)
    if not usable:
        why = f"fits {version.label}" if version is not None else "has all its mechanisms in present tokens"
        raise ConfigurationError(f"no enabled suite {why}", name="SSL_ERROR_NO_CIPHERS_SUPPORTED")
    return tuple(suite.code for suite in usable)


def _resumable12(config: ClientConfig, version: Version | None) -> bool:
    session = config.session
    return (
        session is not None
        and version in (None, session.version)
        and session.version <= V.tls1_2
        and config.enables(session.version)
        and any(suite.code == session.suite for suite in config.usable_suites())
        and (config.tickets or not session.ticket)
        and (config.extended_master_secret or not session.extended_master_secret)
        and session.server_name == config.server_name
        and session.fresh(config.clock())
    )


def _extensions(link: Link, config: ClientConfig, newest: Version, ticket: bytes) -> ext.Extensions:
    """Everything but key_share and pre_shared_key, which come last; nothing for SSL 3.0.  `newest`: the best version offered."""
    found: ext.Extensions = {}
    if newest == V.ssl3:
        return found
    tls13 = newest >= V.tls1_3
    if link.info.server_name:
        found[X.server_name] = ext.encode_server_name(link.info.server_name)
    offered_groups = config.groups if tls13 else tuple(group for group in config.groups if group != Group.X25519MLKEM768)
    found[X.supported_groups] = ext.encode_u16_list(offered_groups)
    if newest >= V.tls1_2:
        found[X.signature_algorithms] = ext.encode_u16_list(config.schemes)
    if config.alpn and link.previous is None:  # NSS refuses it in a renegotiation
        found[X.application_layer_protocol_negotiation] = ext.encode_alpn(config.alpn)
    if config.request_ocsp:
        found[X.status_request] = ext.OCSP_REQUEST
    if config.record_size_limit < 16384 or not config.max_fragment_length:
        found[X.record_size_limit] = (config.record_size_limit + tls13).to_bytes(2, "big")
    if config.max_fragment_length:
        code = {size: code for code, size in ext.MAX_FRAGMENT_LENGTHS.items()}[config.max_fragment_length]
        found[X.max_fragment_length] = bytes((code,))
    if config.min_version <= V.tls1_2:
        found[X.ec_point_formats] = ext.encode_u8_list((0,))
        if config.extended_master_secret:
            found[X.extended_master_secret] = b""
        if config.encrypt_then_mac:
            found[X.encrypt_then_mac] = b""
        if config.tickets:
            found[X.session_ticket] = ticket
    if tls13:
        oldest = max(config.min_version, V.tls1_0)  # who speaks SSL 3.0 only does not read this
        versions = [version for version in reversed(Version) if oldest <= version <= config.max_version]
        found[X.supported_versions] = ext.encode_versions(versions)
        found[X.psk_key_exchange_modes] = ext.encode_u8_list((PSK_DHE_KE,))
        if config.certificate_compression:
            found[X.compress_certificate] = ext.encode_versions(config.certificate_compression)
        if config.post_handshake_auth and config.identities:
            found[X.post_handshake_auth] = b""
    return found
