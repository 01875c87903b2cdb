"""Whom to trust: a set of root certificates, and the verdict on a peer's chain.

The verdict is the library's (`cryptography.x509.verification`), under a policy that follows RFC 5280 where the Web PKI
profile asks for more than private CAs give: key identifiers, keyUsage on CAs, alternative names on clients.
"""

from __future__ import annotations

import ipaddress
import ssl
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from os import PathLike

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy, PolicyBuilder, Store, Subject, VerificationError

from ..errors import CertificateError, ConfigurationError
from . import ocsp as stapling
from .files import der, read_certificates
from .info import parse, reading, subject_name
from .rules import Wanted, allows, beyond_the_library, check_leaf, check_path, find_paths, no_path, refusal

_SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class Trust:
    """Trusted certificates, read when first needed.  Thread-safe: nothing changes after that."""

    def __init__(self, load: Callable[[], Sequence[x509.Certificate]], *, pins: bool) -> None:
        """`pins`: a leaf that is itself among the trusted certificates is accepted, as with openssl and curl."""
        self._load, self._pins = load, pins

    @classmethod
    def system(cls) -> Trust:
        """The operating system's roots.  A missing bundle shows at first use, as ConfigurationError."""
        return cls(_read_system_bundle, pins=False)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Trust:
        """The certificates in a PEM or DER file: roots, intermediates, or a peer's own self-signed certificate.

        Raises ConfigurationError (unreadable) or CertificateError (no or broken certificate), at once.
        """
        certificates = read_certificates(path)
        return cls(lambda: certificates, pins=True)

    @cached_property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        return tuple(self._load())

    @cached_property
    def authorities(self) -> tuple[bytes, ...]:
        """Subject names, DER, each once, for certificate_authorities (RFC 8446 section 4.2.4)."""
        return tuple(dict.fromkeys(subject_name(der(certificate)) for certificate in self.certificates))

    @cached_property
    def _store(self) -> Store:
        return Store(list(self.certificates))

    @cached_property
    def _trusted(self) -> frozenset[bytes]:
        return frozenset(der(certificate) for certificate in self.certificates)

    @reading()
    def verify_server(self, chain: Sequence[bytes], server_name: str, *, now: float, ocsp: bytes | None = b"") -> list[bytes]:
        """The path, DER, leaf first, from a server's chain to a trusted certificate.

        `server_name`: DNS name or address; `now`: seconds since 1970; `ocsp`: a stapled response, b"" if the
        server sent none, None where none could be sent (a resumed session).
        Raises CertificateError with the NSS name of what is wrong.
        """
        subject = _subject(server_name)
        wanted = Wanted(ExtendedKeyUsageOID.SERVER_AUTH, str(subject.value), datetime.fromtimestamp(now, UTC))
        path = self._verify(
            chain, wanted, lambda policy, leaf, others: policy.build_server_verifier(subject).verify(leaf, others)
        )
        if len(path) > 1 and ocsp is not None:
            stapling.check(ocsp, path[0], path[1], wanted.now)
        return [der(certificate) for certificate in path]

    @reading()
    def verify_client(self, chain: Sequence[bytes], *, now: float) -> list[bytes]:
        """The same for a client's chain: no name to match, and none required.  Raises CertificateError."""
        wanted = Wanted(ExtendedKeyUsageOID.CLIENT_AUTH, None, datetime.fromtimestamp(now, UTC))
        path = self._verify(chain, wanted, lambda policy, leaf, others: policy.build_client_verifier().verify(leaf, others).chain)
        return [der(certificate) for certificate in path]

    def _verify(
        self,
        chain: Sequence[bytes],
        wanted: Wanted,
        verify: Callable[[PolicyBuilder, x509.Certificate, list[x509.Certificate]], list[x509.Certificate]],
    ) -> list[x509.Certificate]:
        if not chain:
            raise CertificateError("the peer sent no certificate", name="SSL_ERROR_NO_CERTIFICATE")
        leaf, *others = (parse(item) for item in chain)
        if self._pins and chain[0] in self._trusted:
            check_leaf(leaf, wanted)
            return [leaf]
        ca_policy, leaf_policy = _SERVER_POLICIES if wanted.server_name is not None else _CLIENT_POLICIES
        policy = PolicyBuilder().store(self._store).time(wanted.now)
        try:
            return verify(policy.extension_policies(ca_policy=ca_policy, ee_policy=leaf_policy), leaf, others)
        except VerificationError as refused:
            return self._second_opinion(leaf, others, wanted, refused)

    def _second_opinion(
        self, leaf: x509.Certificate, others: list[x509.Certificate], wanted: Wanted, refused: VerificationError
    ) -> list[x509.Certificate]:
        """The path the library refused only for what it does not know; otherwise raises what was wrong (`rules`)."""
        check_leaf(leaf, wanted)
        cause: CertificateError | None = None
        for path in find_paths(leaf, others, self.certificates):
            try:
                check_path(path, wanted)
            except CertificateError as error:
                cause = cause or error
                continue
            if beyond_the_library(path):
                return path
            cause = cause or refusal(str(refused), "SSL_ERROR_BAD_CERTIFICATE", leaf)
        raise (cause or no_path(leaf, others, self.certificates)) from refused


def _subject(server_name: str) -> Subject:
    if not server_name:
        raise CertificateError("no server name to check the certificate against", name="SSL_ERROR_BAD_CERT_DOMAIN")
    try:
        return x509.IPAddress(ipaddress.ip_address(server_name))
    except ValueError:
        pass
    try:
        return x509.DNSName(server_name.rstrip("."))
    except ValueError as error:
        detail = f"server name {server_name!r} is neither an address nor a DNS name in ASCII"
        raise ConfigurationError(detail, name="SSL_ERROR_BAD_CERT_DOMAIN") from error


def _read_system_bundle() -> list[x509.Certificate]:
    places = [ssl.get_default_verify_paths().cafile, *_SYSTEM_BUNDLES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's, about old roots with serial number 0: not the user's to mend
        for place in filter(None, places):
            try:
                return read_certificates(place, skip_broken=True)
            except ConfigurationError:
                continue
    raise ConfigurationError("this system has no bundle of root certificates; name a file of your own")


# --- policy ---------------------------------------------------------------------------------------------------------


def _require_ca(policy: Policy, certificate: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("not a CA")


def _allow_signing(policy: Policy, certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("keyUsage without keyCertSign")


def _allow_purpose(policy: Policy, certificate: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    if not allows(usage, policy.extended_key_usage):
        raise ValueError("extKeyUsage does not allow this")


def _common(policy: ExtensionPolicy) -> ExtensionPolicy:
    """RFC 5280 section 6 uses neither key identifiers nor criticality of what it understands to refuse a path."""
    anyhow = Criticality.AGNOSTIC
    policy = policy.may_be_present(x509.AuthorityKeyIdentifier, anyhow, None)
    return policy.may_be_present(x509.ExtendedKeyUsage, anyhow, _allow_purpose)


def _ca_policy() -> ExtensionPolicy:
    anyhow = Criticality.AGNOSTIC
    policy = _common(ExtensionPolicy.webpki_defaults_ca())
    policy = policy.require_present(x509.BasicConstraints, anyhow, _require_ca)
    policy = policy.may_be_present(x509.KeyUsage, anyhow, _allow_signing)
    return policy.may_be_present(x509.SubjectKeyIdentifier, anyhow, None)


def _leaf_policy() -> ExtensionPolicy:
    return _common(ExtensionPolicy.webpki_defaults_ee())


# The library matches the name itself, however the extension that holds it is marked.
_SERVER_POLICIES = (_ca_policy(), _leaf_policy().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None))
_CLIENT_POLICIES = (_ca_policy(), _leaf_policy().may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None))
