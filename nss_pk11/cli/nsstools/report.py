"""The lines in which NSS's programs tell what was negotiated, and what went wrong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ...nss.cert import CERT_DestroyCertificate
from ...nss.prerror import NSPRError, PR_ErrorToString
from ...nss.ssl import (
    SSL_GetChannelInfo,
    SSL_GetCipherSuiteInfo,
    SSL_GetStatistics,
    SSLNamedGroup,
    SSLSignatureScheme,
)

if TYPE_CHECKING:
    from ...nss.cert import CERTCertificate
    from ...nss.prio import PRFileDesc


def say(text: str) -> None:
    """A line for people: standard error, at once, and whole though several threads say theirs."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def warn(program: str, what: str, error: NSPRError) -> None:
    """As errWarn of NSS's programs."""
    say(f"{program}: {what} returned error {error.errno}, OS error 0: {PR_ErrorToString(error.errno)}")


def channel(program: str, fd: PRFileDesc, *, more: bool = False) -> None:
    """What was negotiated; `more`: as tstclnt and selfserv tell it."""
    info = SSL_GetChannelInfo(fd)
    if not info.cipherSuite:
        return
    suite = SSL_GetCipherSuiteInfo(info.cipherSuite)
    fips = " FIPS" if suite.isFIPS else ""
    say(
        f"{program}: SSL version {info.protocolVersion >> 8}.{info.protocolVersion & 0xFF} using {suite.effectiveKeyBits}-bit"
        f" {suite.symCipherName} with {suite.macBits}-bit {suite.macAlgorithmName} MAC{fips}"
    )
    margin = " " * (len(program) + 2)
    say(
        f"{program}: Server Auth: {info.authKeyBits}-bit {suite.authAlgorithmName},"
        f" Key Exchange: {info.keaKeyBits}-bit {suite.keaTypeName}"
    )
    if more:
        extended = "Yes" if info.extendedMasterSecretUsed else "No"
        say(f"{margin}Compression: {info.compressionMethodName}, Extended Master Secret: {extended}")
    else:
        say(f"{margin}Key Exchange Group:{group_name(info.keaGroup)}")
        say(f"{margin}Compression: {info.compressionMethodName}")
    say(f"{margin}Signature Scheme: {scheme_name(info.signatureScheme)}")


def group_name(group: int) -> str:
    """As SECU_NamedGroupToGroupName: the names of `-I`."""
    from .words import GROUPS

    return next((name for name, value in GROUPS.items() if value == group), SSLNamedGroup(group).name if group else "none")


def scheme_name(scheme: int) -> str:
    """As SECU_SignatureSchemeName: the names of `-J`; "none" where nobody signed."""
    return SSLSignatureScheme(scheme).name.removeprefix("ssl_sig_") if scheme else "none"


def names(certificate: CERTCertificate | None, program: str = "") -> None:
    """Subject and issuer of a certificate, which is given back."""
    if certificate is None:
        return
    prefix = f"{program}: " if program else ""
    say(f"{prefix}subject DN: {certificate.subjectName}")
    say(f"{prefix}issuer  DN: {certificate.issuerName}")
    CERT_DestroyCertificate(certificate)


def cache_statistics(program: str = "", *, server: bool = False) -> str:
    """Hits and misses of the session cache, two lines."""
    found, side = SSL_GetStatistics(), "hch" if server else "hsh"
    hits, misses, refused, stateless = (
        getattr(found, f"{side}_sid_{what}") for what in ("cache_hits", "cache_misses", "cache_not_ok", "stateless_resumes")
    )
    prefix, margin = (f"{program}: ", " " * (len(program) + 2)) if program else ("", "")
    return (
        f"{prefix}{hits} cache hits; {misses} cache misses, {refused} cache not reusable\n{margin}{stateless} stateless resumes"
    )
