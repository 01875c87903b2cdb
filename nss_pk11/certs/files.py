"""Certificates from files: PEM with any number of blocks, or one DER certificate; chains put in order."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import CertificateError, ConfigurationError
from .info import PARSE_ERRORS, parse, reading
from .rules import issued

_LABELS = rb"(?:X509 |TRUSTED )?CERTIFICATE"
_BEGIN = re.compile(rb"-----BEGIN " + _LABELS + rb"-----")
_BLOCK = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----.*?-----END (?:X509 )?CERTIFICATE-----", re.DOTALL)


def read(path: str | PathLike[str]) -> bytes:
    """The bytes of a file.  Raises ConfigurationError that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", name="PR_FILE_NOT_FOUND_ERROR") from error


def read_certificates(path: str | PathLike[str], *, skip_broken: bool = False) -> list[x509.Certificate]:
    """Every certificate in a PEM or DER file, in its order, each once; other PEM blocks (a key, say) are passed over.

    `skip_broken`: leave out what does not parse, for bundles that nobody here can mend.

    Raises ConfigurationError where the file cannot be read, CertificateError where it holds no certificate or a broken
    one; both name the file.
    """
    data = read(path)
    begun, blocks = len(_BEGIN.findall(data)), _BLOCK.findall(data)
    if not begun:
        blocks = [data] if data.startswith(b"\x30") else []
    elif len(blocks) < begun:
        raise CertificateError(f"{path}: a PEM certificate has no end, or is of a kind not understood", name="SEC_ERROR_BAD_DER")
    if not blocks:
        raise CertificateError(f"{path}: no certificate in it, neither PEM nor DER", name="SEC_ERROR_BAD_DER")
    found: dict[x509.Certificate, x509.Name] = {}
    for number, block in enumerate(blocks, 1):
        load = x509.load_pem_x509_certificate if begun else x509.load_der_x509_certificate
        try:
            certificate = load(block.replace(b"X509 CERTIFICATE", b"CERTIFICATE") if begun else block)
            found[certificate] = certificate.subject  # decoded when first read: a broken name shows here
        except PARSE_ERRORS as error:
            if not skip_broken:
                raise CertificateError(f"{path}: certificate {number} does not parse", name="SEC_ERROR_BAD_DER") from error
    return list(found)


@reading()
def load_pem_chain(path: str | PathLike[str]) -> tuple[bytes, ...]:
    """The chain in a PEM or DER file, DER: leaf first, each next one the issuer of the one before, duplicates dropped.

    Raises ConfigurationError (unreadable file) or CertificateError (no or broken certificate); both name the file.
    """
    return tuple(der(certificate) for certificate in _ordered(read_certificates(path)))


@reading()
def order(chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """`chain` (DER, any order) as `load_pem_chain` would give it.  Raises CertificateError where one does not parse."""
    return tuple(der(certificate) for certificate in _ordered(list(dict.fromkeys(parse(item) for item in chain))))


@reading()
def without_root(chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """`chain` as it goes on the wire: the peer has the root already, so self-issued ones are left out (RFC 8446 section 4.4.2),
    but never the leaf."""

    def is_root(item: bytes) -> bool:
        certificate = parse(item)
        return certificate.subject == certificate.issuer

    return chain[:1] + tuple(item for item in chain[1:] if not is_root(item))


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _ordered(certificates: list[x509.Certificate]) -> list[x509.Certificate]:
    """Leaf first.  The leaf issued none of the others and is not self-signed where there is a choice; what links to nothing
    stays last."""
    left = list(certificates)
    ends = [end for end in left if not any(issued(other, end) for other in left if other is not end)] or left
    chain = [min(ends, key=lambda end: end.subject == end.issuer)]
    left.remove(chain[0])
    while found := next((candidate for candidate in left if issued(chain[-1], candidate)), None):
        chain.append(found)
        left.remove(found)
    return chain + left
