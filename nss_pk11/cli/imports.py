"""What a file brings into an NSS database: certificates, a private key, PKCS #12, a CRL; PEM or DER, told apart by its content.

Touches the file, the database's token and the PIN providers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CertificateError, PinCancelled

if TYPE_CHECKING:
    from ..db import Trust
    from ..pins import PinProvider
    from ..slots import DatabaseToken

_PEM_NAMES = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)


def import_file(
    token: DatabaseToken,
    file: Path,
    pin: PinProvider | None,
    file_password: PinProvider | None,
    nickname: str | None,
    trust: Trust | None,
) -> Iterator[str]:
    """A sentence for each thing that came in.  `nickname` and `trust` are of the first certificate.

    Raises ConfigurationError, CertificateError, PinError, DatabaseError, OSError.
    """
    data = file.read_bytes()
    names = set(_PEM_NAMES.findall(data))
    if b"X509 CRL" in names or (not names and _is_crl(data)):
        yield _import_crl(token, data, pem=b"X509 CRL" in names)
    elif not names and _is_pkcs12(data):
        yield from _import_pkcs12(token, file, data, pin, file_password, nickname, trust)
    elif any(name.endswith(b"PRIVATE KEY") for name in names) or (not names and not _is_certificate(data)):
        yield from _import_key(token, file, pin, file_password, nickname, trust)
    else:
        from .. import certs

        yield from _import_certificates(token, certs.load_pem_chain(file), pin, nickname, trust)


def _import_certificates(
    token: DatabaseToken, chain: tuple[bytes, ...], pin: PinProvider | None, nickname: str | None, trust: Trust | None
) -> Iterator[str]:
    if trust is not None:
        token.login(pin)  # the flags are authenticated by the password
    for i, der in enumerate(chain):
        name = nickname if nickname and i == 0 else _free_name(token, der)
        record = token.database.add_certificate(der, name, trust if i == 0 else None)
        yield f"imported certificate {record.nickname!r}"


def _import_key(
    token: DatabaseToken,
    file: Path,
    pin: PinProvider | None,
    file_password: PinProvider | None,
    nickname: str | None,
    trust: Trust | None,
) -> Iterator[str]:
    from .. import pins
    from ..slots.internal import read

    key, chain = read(str(file), file_password or pins.terminal())
    token.login(pin)
    with token.database.writing():
        token.database.add_key(key, nickname or "")  # type: ignore[arg-type]  # what cryptography's loaders return
        yield f"imported a private key{f' {nickname!r}' if nickname else ''}"
        yield from _import_certificates(token, tuple(chain), pin, nickname, trust)


def _import_pkcs12(
    token: DatabaseToken,
    file: Path,
    data: bytes,
    pin: PinProvider | None,
    file_password: PinProvider | None,
    nickname: str | None,
    trust: Trust | None,
) -> Iterator[str]:
    from .. import pins
    from ..db import pkcs12

    password = (file_password or pins.terminal())(pins.PinRequest(token=str(file), slot="file"))
    if password is None:
        raise PinCancelled(f"nobody gave the password of {file}")
    token.login(pin)
    imported = pkcs12.import_(token.database, data, password)
    for key in imported.keys:
        yield f"imported a private key {key.nickname!r}" if key.nickname else "imported a private key"
    for i, record in enumerate(imported.certificates):
        name = (nickname if i == 0 else None) or record.nickname or _free_name(token, record.der)
        if name != record.nickname:
            record = token.database.set_nickname(record, name)
        if trust is not None and i == 0:
            token.database.set_trust(record.der, trust)
        yield f"imported certificate {record.nickname!r}"


def _import_crl(token: DatabaseToken, data: bytes, *, pem: bool) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        crl = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
    except ValueError as error:
        raise CertificateError(f"the CRL cannot be read: {error}", name="SEC_ERROR_CRL_INVALID") from None
    token.database.add_crl(crl.public_bytes(Encoding.DER))
    return f"imported the CRL of {crl.issuer.rfc4514_string()}"


def _free_name(token: DatabaseToken, der: bytes) -> str:
    """The nickname that the certificate has, else its subject's common name, numbered where another subject has that."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    kept = token.database.certificates(der=der)
    if kept and kept[0].nickname:
        return kept[0].nickname
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else certificate.subject.rfc4514_string() or "certificate"
    subject = certificate.subject.public_bytes()
    same = {one.nickname for one in token.database.certificates(subject=subject)}
    taken = {one.nickname for one in token.database.certificates()} - same
    number = 1
    while (candidate := name if number == 1 else f"{name} #{number}") in taken:
        number += 1
    return candidate


# --- what it is ------------------------------------------------------------------------------------------------------


def _is_crl(data: bytes) -> bool:
    from cryptography import x509

    return _is_read(x509.load_der_x509_crl, data)


def _is_certificate(data: bytes) -> bool:
    from cryptography import x509

    return _is_read(x509.load_der_x509_certificate, data)


def _is_read(load: Callable[[bytes], object], data: bytes) -> bool:
    try:
        load(data)
    except ValueError:
        return False
    return True


def _is_pkcs12(data: bytes) -> bool:
    """PFX begins with version 3 (RFC 7292 section 4)."""
    from asn1crypto.pkcs12 import Pfx

    try:
        return bool(Pfx.load(data)["version"].native == "v3")
    except ValueError:
        return False
