"""Is this certificate for this host?  As NSS's CERT_VerifyCertName answers: alternative names first, then the common name.

Modern callers use `Trust`, for which a common name is no host name (RFC 6125 section 6.4.4, RFC 9525).
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509

from ..errors import ConfigurationError
from .facts import Facts
from .rules import refusal

Address = IPv4Address | IPv6Address


def check_host(certificate: Facts, host: str) -> None:
    """`host`: a DNS name or an address.  Raises CertificateError (SSL_ERROR_BAD_CERT_DOMAIN), or ConfigurationError
    (SEC_ERROR_INVALID_ARGS) where there is no host to compare with."""
    if not host:
        raise ConfigurationError("no host name to compare the certificate with")
    if not matches_host(certificate, host):
        listed = ", ".join(_listed(certificate)) or "no host at all"
        raise refusal(f"is for {listed}, not for {host}", "SSL_ERROR_BAD_CERT_DOMAIN", certificate.certificate)


def matches_host(certificate: Facts, host: str) -> bool:
    """Alternative names of the host's kind decide where there are any; otherwise the common name does."""
    address = _address(host)
    if address is not None:
        addresses = [name.value for name in certificate.alternative_names if isinstance(name, x509.IPAddress)]
        if addresses:
            return any(_plain(listed) == _plain(address) for listed in addresses if isinstance(listed, Address))
        return (certificate.common_name or "").lower() == host.lower()
    patterns = [name.value for name in certificate.alternative_names if isinstance(name, x509.DNSName)]
    if not patterns and certificate.common_name is not None:
        patterns = [certificate.common_name]
    return any(matches_pattern(pattern, host) for pattern in patterns)


def matches_pattern(pattern: str, host: str) -> bool:
    """Equal but for case, or by one `*` at the end of the first of at least three labels, which may have a beginning of its own
    (`www*.example.com`); an internationalised label (xn--) is matched by a bare `*` alone (RFC 6125 section 6.4.3)."""
    pattern, host = pattern.lower(), host.lower()
    if pattern == host:
        return True
    first, _, rest = pattern.partition(".")
    middle, _, last = rest.partition(".")
    label, dot, parent = host.partition(".")
    if not (first.endswith("*") and pattern.count("*") == 1 and middle and last and dot):
        return False
    beginning = first[:-1]
    return rest == parent and label.startswith(beginning) and not (beginning and host.startswith("xn--"))


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    """An IPv4 address mapped into IPv6 is that IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _listed(certificate: Facts) -> list[str]:
    names = [str(name.value) for name in certificate.alternative_names if isinstance(name, x509.DNSName | x509.IPAddress)]
    return names or [name for name in [certificate.common_name] if name]
