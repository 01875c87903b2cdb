"""Certificate revocation lists at hand (RFC 5280 section 5): does the newest good one of an issuer name this certificate?

As NSS uses them: nothing is fetched; a list that does not verify or that holds what is not understood is as good as none; an
old one still says what it says, and so does one by an issuer whose key usage does not mention lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from .facts import Facts
from .info import PARSE_ERRORS
from .rules import refusal
from .signatures import flaw

_KNOWN_CRITICAL = {ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER}


def check_revocation(certificate: Facts, issuer: Facts, lists: Iterable[bytes], now: datetime) -> None:
    """`lists`: CRLs, DER, said to be of this issuer.  Raises CertificateError (SEC_ERROR_REVOKED_CERTIFICATE)."""
    good = [found for found in (usable(der, issuer) for der in lists) if found is not None]
    if not good:
        return
    newest = max(good, key=lambda found: found.last_update_utc)
    entry = newest.get_revoked_certificate_by_serial_number(certificate.serial)
    if entry is not None and entry.revocation_date_utc <= now:
        detail = f"revoked on {entry.revocation_date_utc:%Y-%m-%d}"
        raise refusal(detail, "SEC_ERROR_REVOKED_CERTIFICATE", certificate.certificate)


@lru_cache(maxsize=32)
def usable(der: bytes, issuer: Facts) -> x509.CertificateRevocationList | None:
    """The CRL in `der`, if it is this issuer's, is signed by it, and holds nothing critical that is not understood."""
    try:
        found = x509.load_der_x509_crl(der)
        unknown = any(extension.critical and extension.oid not in _KNOWN_CRITICAL for extension in found.extensions)
        ours = found.issuer == issuer.certificate.subject
        return found if ours and not unknown and not flaw(found, issuer) else None
    except PARSE_ERRORS:
        return None
