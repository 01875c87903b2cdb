"""The lines in which NSS's programs tell what was negotiated, and what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...nss.cert import CERT_DestroyCertificate
from ...nss.prerror import NSPRError, PR_ErrorToString
from ...nss.ssl import (
    SSL_ExportKeyingMaterial,
    SSL_GetChannelInfo,
    SSL_GetCipherSuiteInfo,
    SSL_GetStatistics,
    SSLSignatureScheme,
)
from ...nss.sslproto import SSL_LIBRARY_VERSION_TLS_1_3

if TYPE_CHECKING:
    from ...nss.cert import CERTCertificate
    from ...nss.prio import PRFileDesc
    from .words import Exporter


def say(text: str) -> None:
    """A line for people: standard error, at once, and whole though several threads say theirs."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def warn(program: str, what: str, error: NSPRError) -> None:
    """As errWarn of NSS's programs."""
    say(f"{program}: {what} returned error {error.errno}, OS error 0: {PR_ErrorToString(error.errno)}")


def channel(program: str, fd: PRFileDesc, *, master_secret: bool = False, scheme: bool = False) -> None:
    """What was negotiated; with the extended master secret and the signature scheme, where a program tells these."""
    info = SSL_GetChannelInfo(fd)
    if not info.cipherSuite:
        return
    suite = SSL_GetCipherSuiteInfo(info.cipherSuite)
    margin = " " * (len(program) + 2)
    bound = info.extendedMasterSecretUsed or info.protocolVersion >= SSL_LIBRARY_VERSION_TLS_1_3  # which always does
    extended = f", Extended Master Secret: {'Yes' if bound else 'No'}" if master_secret else ""
    lines = [
        f"{program}: SSL version {info.protocolVersion >> 8}.{info.protocolVersion & 0xFF} using {suite.effectiveKeyBits}-bit"
        f" {suite.symCipherName} with {suite.macBits}-bit {suite.macAlgorithmName} MAC",
        f"{program}: Server Auth: {info.authKeyBits}-bit {suite.authAlgorithmName},"
        f" Key Exchange: {info.keaKeyBits}-bit {suite.keaTypeName}",
        f"{margin}Compression: {info.compressionMethodName}{extended}",
    ]
    if scheme:
        lines.append(f"{margin}Signature Scheme: {scheme_name(info.signatureScheme)}")
    say("\n".join(lines))


_SCHEMES = {scheme.value: scheme.name.removeprefix("ssl_sig_") for scheme in SSLSignatureScheme}


def scheme_name(scheme: int) -> str:
    """As SECU_SignatureSchemeName: the names of `-J`, "none" where nobody signed; RSA had no number before TLS 1.2."""
    return _SCHEMES.get(scheme, "RSA PKCS#1 SHA1+MD5")


def names(certificate: CERTCertificate | None, program: str = "") -> None:
    """Subject and issuer of a certificate, which is given back."""
    if certificate is None:
        return
    prefix = f"{program}: " if program else ""
    say(f"{prefix}subject DN: {certificate.subjectName}")
    say(f"{prefix}issuer  DN: {certificate.issuerName}")
    CERT_DestroyCertificate(certificate)


def cache_statistics(program: str = "") -> str:
    """A client's hits and misses of the session cache, two lines."""
    found = SSL_GetStatistics()
    prefix, margin = (f"{program}: ", " " * (len(program) + 2)) if program else ("", "")
    return (
        f"{prefix}{found.hsh_sid_cache_hits} cache hits; {found.hsh_sid_cache_misses} cache misses,"
        f" {found.hsh_sid_cache_not_ok} cache not reusable\n{margin}{found.hsh_sid_stateless_resumes} stateless resumes"
    )


def error_text(error: NSPRError) -> str:
    """`NAME: what it means`, as SECU_PrintError ends its lines."""
    return f"{error.name}: {PR_ErrorToString(error.errno)}"


def print_error(program: str, what: str, error: NSPRError) -> None:
    """As SECU_PrintError."""
    say(f"{program}: {what}: {error_text(error)}")


def complain(program: str, what: str, error: NSPRError) -> None:
    """As errWarn of NSS's selfserv."""
    say(f"{program}: {what} returned error {error.errno}:\n{PR_ErrorToString(error.errno)}")


# --- exporters ---------------------------------------------------------------------------------------------------------------


def export(fd: PRFileDesc, exporters: Iterable[Exporter], *, wrap: bool = True) -> None:
    """`-x`: what both ends know, on standard output.  Raises NSPRError."""
    for label, length, context in exporters:
        secret = SSL_ExportKeyingMaterial(fd, label, context is not None, context or b"", length)
        lines = ["Exported Keying Material:", f"    Label: {_raw(label)}"]
        if context is not None:
            lines += as_hex("Context", context, 1, wrap=wrap)
        lines += [f"    Length: {length}", *as_hex("Keying Material", secret, 1, wrap=wrap)]
        print("\n".join(lines), flush=True)


def _raw(data: bytes) -> str:
    return '"' + "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data) + '"'


LONGEST_HEX = 4  # bytes of text that are told in hexadecimal too


def as_hex(name: str, data: bytes, level: int, *, wrap: bool = True) -> list[str]:
    """Lines as SECU_PrintAsHex has them: 16 bytes each, or all in one behind the name; text as it is."""
    margin = "    " * level
    text = bool(data) and all(0x20 <= byte < 0x7F for byte in data)
    if text and len(data) > LONGEST_HEX:
        return [f"{margin}{name}:", f"{margin}    {data.decode()}"]
    rows = [data[start : start + 16].hex(":") for start in range(0, len(data), 16)] if wrap else [data.hex(":")]
    lines = [f"{margin}    {row}{':' if number < len(rows) - 1 else ''}" for number, row in enumerate(rows)]
    found = [f"{margin}{name}:", *lines] if wrap else [f"{margin}{name}:{rows[0]}"]
    return [*found, f"{margin}    {data.decode()}"] if text else found


# --- the end of a program ------------------------------------------------------------------------------------------------------


class Fatal(Exception):
    """A call without which the program cannot go on: `what` failed with `error`."""

    def __init__(self, what: str, error: NSPRError) -> None:
        super().__init__(what)
        self.what, self.error = what, error


@contextmanager
def step(what: str) -> Iterator[None]:
    """Whatever NSPRError ends it ends the program, which then names the step."""
    try:
        yield
    except NSPRError as error:
        raise Fatal(what, error) from None
