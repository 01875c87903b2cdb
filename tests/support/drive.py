"""Drives engines in this process: answers their operations with software keys and shuttles bytes to whoever is the peer.

The peer is another engine, Python's `ssl` over memory BIOs, or a test that writes messages itself.  No sockets, no threads.
Keys are `cryptography`'s: what is tested here is the protocol; keys in tokens are tested where sockets are.
"""

from __future__ import annotations

import ssl
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from asn1crypto import pem
from asn1crypto.core import Integer, SequenceOf
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from nss_pk11.errors import AlertReceived, NSPRError
from nss_pk11.slots.internal.keys import SoftwareKey
from nss_pk11.tls.codepoints import Group, SignatureScheme, Version
from nss_pk11.tls.config import ClientConfig, Identity, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.events import Data, ForgetSession, NewSession, StoreSession
from nss_pk11.tls.session import Session
from nss_pk11.tls.signatures import allowed_in, fits, key_kind, md5_sha1
from nss_pk11.tls.waits import ChooseClientIdentity, Decrypt, DecryptSsl2, LookupSession, Operation, Sign, VerifyPeer

from .pki import Credential

_HASHES: dict[str, hashes.HashAlgorithm] = {
    name: getattr(hashes, name.upper())() for name in ("sha1", "sha256", "sha384", "sha512")
}

_PREFERRED = sorted(SignatureScheme, key=lambda scheme: scheme.name.endswith("sha1"))
_NEWEST_FIRST = sorted(Version, reverse=True)


def identity(credential: Credential, *, ocsp: bytes = b"", cost: float = 0.0) -> Identity:
    """An engine's identity of a credential with a key in a file; it can do whatever its kind of key can."""
    leaf, issuer = credential.certificate, credential.authority.certificate
    kind, key = key_kind(leaf), cast("Any", load_pem_private_key(credential.key_file.read_bytes(), None))
    names: list[str] = []
    for extension in leaf.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = extension.value.get_values_for_type(x509.DNSName)
    return Identity(
        chain=(leaf.public_bytes(Encoding.DER), issuer.public_bytes(Encoding.DER)),
        # As `net.identity`: a curve's own scheme only, whatever the version; SHA-1 last.
        schemes=tuple(s for s in _PREFERRED if fits(s, kind, next(v for v in _NEWEST_FIRST if allowed_in(s, v)))),
        key=key,
        can_decrypt=kind == "rsa",
        names=tuple(names),
        cost=cost,
        ocsp=ocsp,
        curve=Group[kind] if kind.startswith("secp") else None,
        issuers=(leaf.issuer.public_bytes(), issuer.issuer.public_bytes()),
        modulus_bits=key.key_size if kind.startswith("rsa") else 0,
    )


def sign(key: Any, scheme: SignatureScheme, message: bytes, prehashed: bool = False) -> bytes:
    family, _, name = scheme.name.rpartition("_")
    if scheme == SignatureScheme.rsa_pkcs1_md5_sha1:
        return bytes(key.sign(message if prehashed else md5_sha1(message), padding.PKCS1v15(), NoDigestInfo()))
    if family in ("dsa", "ecdsa") and name == "sha1":
        hash_ = Prehashed(_HASHES[name]) if prehashed else _HASHES[name]
        return bytes(key.sign(message, hash_ if family == "dsa" else ec.ECDSA(hash_)))
    assert not prehashed
    if family == "dsa":
        return bytes(key.sign(message, _HASHES[name]))
    if family.startswith("rsa_pss"):
        return bytes(key.sign(message, padding.PSS(padding.MGF1(_HASHES[name]), _HASHES[name].digest_size), _HASHES[name]))
    if family.startswith("rsa"):
        return bytes(key.sign(message, padding.PKCS1v15(), _HASHES[name]))
    if family.startswith("ecdsa"):
        return bytes(key.sign(message, ec.ECDSA(_HASHES[name])))
    return bytes(key.sign(message))


class Peer(Protocol):
    """One end of a connection."""

    def take(self, data: bytes) -> None:
        """Bytes from the other end."""

    def give(self) -> bytes:
        """Bytes for the other end, and forgets them."""


@dataclass
class Driver:
    """An engine with everything it asks for.  Errors are kept in `error`, as they end the connection and not the test.

    `cache`: server sessions by id; `refuse`: what VerifyPeer fails with; `operations`, `received`, `sessions`: what was seen;
    `chunk`: how many bytes at a time the engine gets, 0 for all; `signer`: makes signatures.
    """

    engine: Engine
    cache: dict[bytes, bytes] = field(default_factory=dict)
    refuse: NSPRError | None = None
    chunk: int = 0
    operations: list[Operation] = field(default_factory=list)
    events: list[object] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    sessions: list[Session] = field(default_factory=list)
    error: NSPRError | None = None
    signer: Callable[[Any, SignatureScheme, bytes, bool], bytes] = sign

    def __post_init__(self) -> None:
        self.engine.start()

    def take(self, data: bytes) -> None:
        step = self.chunk or len(data)
        for start in range(0, len(data), step or 1):
            if self.error is None:
                self._guard(self.engine.receive_data, data[start : start + step])
                self._settle()

    def give(self) -> bytes:
        return bytes(self.engine.data_to_send())

    def _guard(self, step: Any, *arguments: Any) -> None:
        try:
            step(*arguments)
        except NSPRError as error:
            self.error = error

    def _settle(self) -> None:
        """Answer operations until none is pending."""
        while events := self.engine.events():
            for event in events:
                self.events.append(event)
                if isinstance(event, Operation):
                    self.operations.append(event)
                    self._answer(event)
                elif isinstance(event, Data):
                    self.received += event.data
                elif isinstance(event, NewSession):
                    self.sessions.append(event.session)
                elif isinstance(event, StoreSession):
                    self.cache[event.session_id] = event.state
                elif isinstance(event, ForgetSession):
                    self.cache.pop(event.session_id, None)

    def _answer(self, operation: Operation) -> None:
        if isinstance(operation, VerifyPeer) and self.refuse is not None:
            self._guard(self.engine.fail, operation, self.refuse)
        else:
            self._guard(self.engine.complete, operation, self._result(operation))

    def _result(self, operation: Operation) -> object:
        if isinstance(operation, Sign):
            return self.signer(operation.identity.key, operation.scheme, operation.message, operation.prehashed)
        if isinstance(operation, Decrypt):
            key: Any = operation.identity.key
            if isinstance(key, SoftwareKey):
                return key.decrypt(operation.ciphertext)
            if isinstance(operation, DecryptSsl2) and operation.raw:
                private = key.private_numbers()
                block = pow(int.from_bytes(operation.ciphertext, "big"), private.d, private.public_numbers.n)
                return block.to_bytes(key.key_size // 8, "big")
            try:
                return key.decrypt(operation.ciphertext, padding.PKCS1v15())
            except ValueError:
                return None
        if isinstance(operation, LookupSession):
            return self.cache.get(operation.session_id)
        if isinstance(operation, ChooseClientIdentity):
            return operation.identities[0]
        assert isinstance(operation, VerifyPeer)
        return None

    @property
    def alert(self) -> int | None:
        """The fatal alert the other end sent, if that is what ended the connection."""
        return self.error.alert if isinstance(self.error, AlertReceived) else None


def server(*credentials: Credential, ocsp: bytes = b"", **settings: Any) -> Driver:
    """Our server; `settings` are ServerConfig's."""
    identities = tuple(identity(credential, ocsp=ocsp) for credential in credentials)
    return Driver(Engine.server(ServerConfig(**{"identities": identities} | settings)))


def client(**settings: Any) -> Driver:
    """Our client of "localhost"; `settings` are ClientConfig's."""
    return Driver(Engine.client(ClientConfig(**{"server_name": "localhost"} | settings)))


class Stdlib:
    """Python's `ssl` (the system's OpenSSL) over memory BIOs."""

    def __init__(self, context: ssl.SSLContext, *, server: bool, name: str | None = None, session: Any = None) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self._in, self._out, server_side=server, server_hostname=name, session=session)
        self.received = bytearray()
        self.complete = False
        self.error: ssl.SSLError | None = None
        if not server:
            self.take(b"")

    def take(self, data: bytes) -> None:
        self._in.write(data)
        try:
            if not self.complete:
                self.ssl.do_handshake()
                self.complete = True
            while chunk := self.ssl.read(65536):
                self.received += chunk
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.error = error

    def give(self) -> bytes:
        return self._out.read()

    def send(self, data: bytes) -> None:
        self.ssl.write(data)


def exchange(a: Peer, b: Peer) -> None:
    """Shuttle bytes both ways until both are silent."""
    while True:
        to_b, to_a = a.give(), b.give()
        if not to_b and not to_a:
            return
        if to_b:
            b.take(to_b)
        if to_a:
            a.take(to_a)


def server_context(
    credential: Credential,
    *,
    ciphers: str = "ALL:@SECLEVEL=0",
    tls13: bool = False,
    version: Version | None = None,
    dh: tuple[int, int] | None = None,
) -> ssl.SSLContext:
    """OpenSSL as a server.  `version`: the only one, else TLS 1.2 and, with `tls13`, TLS 1.3; `dh`: prime and generator of its
    Diffie-Hellman group; without one it has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _limit(context, ciphers, tls13, version)
    if dh is not None:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(pem.armor("DH PARAMETERS", SequenceOf(dh, spec=Integer).dump()))
            file.flush()
            context.load_dh_params(file.name)
    context.load_cert_chain(credential.chain_file, credential.key_file)
    return context


def client_context(
    ca_file: Path,
    *,
    ciphers: str = "ALL:@SECLEVEL=0",
    tls13: bool = False,
    version: Version | None = None,
    credential: Credential | None = None,
) -> ssl.SSLContext:
    """OpenSSL as a client; `version` as for a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca_file)
    _limit(context, ciphers, tls13, version)  # first, as it decides which keys are long enough
    if credential is not None:
        context.load_cert_chain(credential.chain_file, credential.key_file)
    return context


def _limit(context: ssl.SSLContext, ciphers: str, tls13: bool, version: Version | None) -> None:
    context.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of versions before TLS 1.2
        context.minimum_version = ssl.TLSVersion(version or Version.tls1_2)
        context.maximum_version = ssl.TLSVersion(version or (Version.tls1_3 if tls13 else Version.tls1_2))
