"""Verification as NSS does it, for its API and its databases: CERT_VerifyCertificate, CERT_VerifyCertName, SSL_AuthCertificate.

Whom to trust is what a database's trust records say (`TrustStore`), letter by letter as certutil prints them.  Accepts what
the Web PKI no longer does (SHA-1, RSA-1024, DSA, common names, version 1 roots); whoever has no NSS database uses `Trust`.

Beyond NSS: where the issuer that it would choose leads nowhere, the next is tried, within a budget, because a peer chooses
how many there are.  What is wrong with the first path, NSS's own, is what a refusal says.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from itertools import islice
from typing import Protocol

from ..errors import CertificateError
from . import ocsp as stapling
from .constraints import check_names, comparisons, constrained_names
from .crls import check_revocation
from .facts import ANY_CA, CertType, Facts, KeyUse, authority_name, facts, serves
from .host_names import check_host, matches_host, matches_pattern
from .info import reading
from .rules import refusal
from .signatures import check_signature

__all__ = ["Budget", "TrustStore", "Usage", "check_host", "matches_host", "matches_pattern", "verify", "verify_peer"]

SLOP = timedelta(days=1)  # how long before its time a certificate is good already: clocks differ (CERT_GetSlopTime)
MAX_DEPTH = 20  # certificates below the anchor (CERT_MAX_CERT_CHAIN)


class Usage(Enum):
    """What a certificate is to be good for.  The value: the trust letter that makes a CA an anchor for it."""

    SERVER = ("certUsageSSLServer", "C")
    CLIENT = ("certUsageSSLClient", "T")
    CA = ("certUsageSSLCA", "C")

    @property
    def anchor_letter(self) -> str:
        return self.value[1]


class TrustStore(Protocol):
    """Certificates, trust and CRLs of a database, of root modules, or of both."""

    def find_by_subject(self, subject: bytes) -> Iterable[bytes]:
        """Certificates, DER, with this subject, DER, octet by octet."""

    def trust(self, der: bytes) -> Container[str] | None:
        """The letters of the SSL column of `certutil -L` for a certificate, None if there is no trust record: `C` issues
        servers' certificates, `T` clients', `c` may issue, `P` trusted peer, `p` distrusted."""

    def crls(self, issuer: bytes) -> Iterable[bytes]:
        """CRLs, DER, of an issuer's name, DER."""


@dataclass
class Budget:
    """What one verification may cost; a peer decides how many certificates there are to look at, and how they are entangled."""

    certificates: int = 100  # that the peer may send
    candidates: int = 400  # possible issuers weighed
    signatures: int = 64  # checked
    comparisons: int = 100_000  # of names with name constraints

    def spend(self, what: str, certificate: Facts, amount: int = 1) -> None:
        """Raises SearchLimit, with the error of that name (SEC_ERROR_OUT_OF_SEARCH_LIMITS)."""
        left = getattr(self, what) - amount
        setattr(self, what, left)
        if left < 0:
            detail = f"too many {what} in search of an issuer that is trusted"
            raise SearchLimit(refusal(detail, "SEC_ERROR_OUT_OF_SEARCH_LIMITS", certificate.certificate))


class SearchLimit(Exception):
    """Ends the search at once, whatever else there might be to try; holds the error to raise."""


@reading()
def verify(chain: Sequence[bytes], store: TrustStore, usage: Usage, *, now: float, budget: Budget | None = None) -> list[bytes]:
    """The path, DER, from `chain[0]` to what is trusted; a trusted peer is a path of one.

    `chain`: the certificate and whatever others its owner sent, DER, in any order; `now`: seconds since 1970.
    Raises CertificateError with the NSS name of what is wrong.
    """
    if not chain:
        raise CertificateError("the peer sent no certificate", name="SSL_ERROR_NO_CERTIFICATE")
    search = Search(store, usage, datetime.fromtimestamp(now, UTC), budget or Budget())
    try:
        return [found.der for found in search.run(facts(chain[0]), chain[1:])]
    except SearchLimit as limit:
        raise limit.args[0] from None


@reading()
def verify_peer(
    chain: Sequence[bytes],
    store: TrustStore,
    usage: Usage,
    *,
    now: float,
    host: str | None = None,
    ocsp: bytes | None = None,
) -> list[bytes]:
    """What SSL_AuthCertificate does: `verify`, then a stapled response (b"": none was sent; None: none could be), then `host`
    (None on a server, which looks for no name; "" is a mistake: SSL_ERROR_BAD_CERT_DOMAIN).  Raises CertificateError."""
    path = verify(chain, store, usage, now=now)
    leaf = facts(path[0])
    if ocsp is not None and len(path) > 1:
        stapling.check(ocsp, leaf.certificate, facts(path[1]).certificate, datetime.fromtimestamp(now, UTC))
    if host == "":
        raise refusal("there is no host name to compare it with", "SSL_ERROR_BAD_CERT_DOMAIN", leaf.certificate)
    if host is not None:
        check_host(leaf, host)
    return path


@dataclass
class Search:
    """One verification: certUsage, time, and the peer's other certificates by subject."""

    store: TrustStore
    usage: Usage
    now: datetime
    budget: Budget
    sent: dict[bytes, list[Facts]] = field(default_factory=dict)
    known_letters: dict[Facts, Container[str]] = field(default_factory=dict)

    def run(self, leaf: Facts, others: Sequence[bytes]) -> list[Facts]:
        """The path.  Raises CertificateError or SearchLimit."""
        if self.check_leaf(leaf):
            return [leaf]
        for der in dict.fromkeys(others):
            self.budget.spend("certificates", leaf)
            other = _readable(der)
            if other is not None:
                self.sent.setdefault(other.subject, []).append(other)
        return self.extend([leaf])

    def letters(self, certificate: Facts) -> Container[str]:
        """What the store says of a certificate, asked once in a verification."""
        if certificate not in self.known_letters:
            self.known_letters[certificate] = self.store.trust(certificate.der) or ""
        return self.known_letters[certificate]

    # --- the certificate itself ---

    def check_leaf(self, leaf: Facts) -> bool:
        """Dates, key usage, type, trust, in this order; whether it is trusted by itself.  Raises CertificateError."""
        self.check_dates(leaf, "SEC_ERROR_EXPIRED_CERTIFICATE")
        if not self.may_do(leaf):
            detail = "its key usage does not allow this use"
            raise refusal(detail, "SEC_ERROR_INADEQUATE_KEY_USAGE", leaf.certificate)
        if _NEEDED_TYPE[self.usage] not in self.types(leaf):
            detail = f"is not for {_PURPOSE[self.usage]}, by its extended key usage or type"
            raise refusal(detail, "SEC_ERROR_INADEQUATE_CERT_TYPE", leaf.certificate)
        letters = self.letters(leaf)
        if self.usage is not Usage.CA and "P" in letters:
            return True
        if _distrusted(letters) or (self.usage is not Usage.CA and "p" in letters):
            raise refusal("is marked as not trusted", "SEC_ERROR_UNTRUSTED_CERT", leaf.certificate)
        return False

    def may_do(self, leaf: Facts) -> bool:
        if self.usage is Usage.SERVER:
            return serves(leaf)
        return (KeyUse.DIGITAL_SIGNATURE if self.usage is Usage.CLIENT else KeyUse.KEY_CERT_SIGN) in leaf.key_use

    def types(self, certificate: Facts) -> CertType:
        """What it says that it is for; where it says nothing, trust as a CA's makes it one."""
        silent = not certificate.purposeful and _may_be_ca(self.letters(certificate))
        return certificate.types | (CertType.SSL_CA if silent else 0)

    def check_dates(self, certificate: Facts, name: str) -> None:
        start, end = certificate.validity
        if self.now < start - SLOP:
            raise refusal(f"not valid before {start:%Y-%m-%d %H:%M:%S} UTC", name, certificate.certificate)
        if self.now > end:
            raise refusal(f"expired on {end:%Y-%m-%d %H:%M:%S} UTC", name, certificate.certificate)

    # --- the path ---

    def extend(self, path: list[Facts]) -> list[Facts]:
        """The whole path that begins with `path`.  Raises what is wrong with the first that could be found."""
        last = path[-1]
        if last.unknown_critical:
            detail = f"critical extension {last.unknown_critical} is not understood"
            raise refusal(detail, "SEC_ERROR_UNKNOWN_CRITICAL_EXTENSION", last.certificate)
        if last.contradictory:
            raise refusal("names two signature algorithms", "SEC_ERROR_ALGORITHM_MISMATCH", last.certificate)
        cause: CertificateError | None = None
        for issuer in self.issuers(path):
            try:
                if self.check_issuer(path, issuer):
                    return path if issuer == last else [*path, issuer]
                return self.extend([*path, issuer])
            except CertificateError as error:
                cause = cause or error
        detail = f"no certificate of its issuer is known ({last.certificate.issuer.rfc4514_string()})"
        raise cause or refusal(detail, "SEC_ERROR_UNKNOWN_ISSUER", last.certificate)

    def issuers(self, path: list[Facts]) -> list[Facts]:
        """Who may have issued the last of `path`, by name, key identifier and being a CA's: those fit for the usage first, then
        the currently valid, the trusted, the newer, as NSS would choose."""
        last = path[-1]
        if last.is_root:
            return [last]
        if len(path) > MAX_DEPTH:
            return []
        found = [candidate for candidate in self.candidates(last) if candidate not in path and self.ca_types(candidate)]
        matches = {candidate: _identifies(last, candidate) for candidate in found}
        certain = [candidate for candidate in found if matches[candidate]]
        return sorted(certain or [one for one in found if matches[one] is None], key=self.preference, reverse=True)

    def candidates(self, last: Facts) -> Iterator[Facts]:
        known = self.store.find_by_subject(last.issuer)
        stored = (_readable(der) for der in islice(known, self.budget.candidates + 1))
        for candidate in dict.fromkeys([*stored, *self.sent.get(last.issuer, ())]):
            self.budget.spend("candidates", last)
            if candidate is not None and candidate.subject == last.issuer:
                yield candidate

    def ca_types(self, candidate: Facts) -> CertType:
        """What kinds of CA it may be, before it is looked at closely."""
        tls = candidate.is_ca or candidate.is_old_root or _may_be_ca(self.letters(candidate))
        return (candidate.types | (CertType.SSL_CA if tls else 0)) & ANY_CA

    def preference(self, candidate: Facts) -> tuple[bool, bool, bool, datetime, datetime]:
        fits = KeyUse.KEY_CERT_SIGN in candidate.key_use and CertType.SSL_CA in self.ca_types(candidate)
        start, end = candidate.validity
        valid = start - SLOP <= self.now <= end
        return fits, valid, self.usage.anchor_letter in self.letters(candidate), start, end

    def check_issuer(self, path: list[Facts], issuer: Facts) -> bool:
        """Whether `issuer` is trusted, so that the path is complete.  Raises CertificateError where it is not fit to be the
        issuer of the last of `path`; the order of the checks is NSS's."""
        self.check_dates(issuer, "SEC_ERROR_EXPIRED_ISSUER_CERTIFICATE")
        self.budget.spend("signatures", path[-1])
        check_signature(path[-1], issuer)
        self.check_constraints(path, issuer)
        check_revocation(path[-1], issuer, self.store.crls(issuer.subject), self.now)
        letters = self.letters(issuer)
        if self.usage.anchor_letter in letters:
            return True
        if _distrusted(letters):
            raise refusal("is marked as not trusted", "SEC_ERROR_UNTRUSTED_ISSUER", issuer.certificate)
        if not _may_be_ca(letters):
            self.check_authority(issuer)
        if issuer.is_root:
            raise refusal("is not marked as trusted", "SEC_ERROR_UNTRUSTED_ISSUER", issuer.certificate)
        return False

    def check_constraints(self, path: list[Facts], issuer: Facts) -> None:
        """Basic and name constraints of `issuer` on what is below (RFC 5280 section 6.1.4 k to n, section 6.1.3 b and c)."""
        below = [certificate for certificate in path[1:] if not certificate.self_issued]
        constraints = issuer.basic_constraints
        if constraints is not None and not constraints.ca:
            raise refusal("issued a certificate but is not a CA's", "SEC_ERROR_CA_CERT_INVALID", issuer.certificate)
        if constraints is not None and constraints.path_length is not None and len(below) > constraints.path_length:
            detail = f"allows {constraints.path_length} CAs below it, the chain has {len(below)}"
            raise refusal(detail, "SEC_ERROR_PATH_LEN_CONSTRAINT_INVALID", issuer.certificate)
        if issuer.name_constraints is not None:
            names = constrained_names(path[0], server=self.usage is Usage.SERVER)
            for certificate in below:
                names += constrained_names(certificate, server=False)
            self.budget.spend("comparisons", issuer, comparisons(issuer, names))
            check_names(issuer, names)

    def check_authority(self, issuer: Facts) -> None:
        """That nobody but itself says that it is a CA's must be enough, and for TLS."""
        is_ca = issuer.is_ca
        if not is_ca or issuer.types & ANY_CA:
            is_ca = CertType.SSL_CA in issuer.types
        if not is_ca:
            raise refusal("issued a certificate but is not a CA's for TLS", "SEC_ERROR_CA_CERT_INVALID", issuer.certificate)
        if KeyUse.KEY_CERT_SIGN not in issuer.key_use:
            detail = "its key usage does not allow it to issue certificates"
            raise refusal(detail, "SEC_ERROR_INADEQUATE_KEY_USAGE", issuer.certificate)


_NEEDED_TYPE = {Usage.SERVER: CertType.SSL_SERVER, Usage.CLIENT: CertType.SSL_CLIENT, Usage.CA: CertType.SSL_CA}
_PURPOSE = {Usage.SERVER: "TLS servers", Usage.CLIENT: "TLS clients", Usage.CA: "CAs of TLS peers"}


def _distrusted(letters: Container[str]) -> bool:
    return "p" in letters and "P" not in letters and "C" not in letters


def _may_be_ca(letters: Container[str]) -> bool:
    return any(letter in letters for letter in "cCT")


def _readable(der: bytes) -> Facts | None:
    """The facts, None where the certificate is broken: nobody's fault that there is such a one beside the path."""
    try:
        found = facts(der)
        found.read()
        return found
    except CertificateError:
        return None


def _identifies(certificate: Facts, candidate: Facts) -> bool | None:
    """Whether the authority key identifier speaks of `candidate`; None where it says neither yes nor no."""
    key = certificate.authority_key
    if key is None:
        return None
    answer: bool | None = None
    if key.key_identifier is not None and candidate.key_identifier is not None:
        if key.key_identifier != candidate.key_identifier:
            return False
        answer = True
    name = authority_name(key)
    if name is not None:
        same = candidate.certificate.issuer == name and candidate.serial == key.authority_cert_serial_number
        answer = True if same else None
    return answer
