"""What the flags of NSS's programs say: suites, versions, groups, schemes, exporters.  Pure functions of text."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from getopt import GetoptError, gnu_getopt
from typing import Literal, NamedTuple, TypeVar

from ...nss.ssl import SSLNamedGroup, SSLSignatureScheme, SSLVersionRange

T = TypeVar("T")


class BadFlags(Exception):
    """What a user typed is none of what the program takes; its text is the program's own lines, or empty for the usage.

    `status`: the exit status; `usage`: show the usage below the text."""

    def __init__(self, text: str = "", status: int = 1, *, usage: bool = True) -> None:
        super().__init__(text)
        self.status, self.usage = status, usage


def flags(arguments: list[str], letters: str) -> Iterator[tuple[str, str]]:
    """Each flag and its value, as PL_GetNextOpt has them, in order; ("", word) for words that are no flag's, and nothing
    for a dash alone."""
    try:
        found, words = gnu_getopt(arguments, letters)
    except GetoptError as error:
        raise BadFlags("") from error
    yield from ((flag[1:], value) for flag, value in found)
    yield from (("", word) for word in words if word != "-")


class Fields(NamedTuple):
    """Flags that do no more than set a field of a program's settings, each with the field's name: to True, to the text or number
    that comes with the flag, or to one more than it was."""

    switches: Mapping[str, str]
    texts: Mapping[str, str]
    numbers: Mapping[str, str]
    counts: Mapping[str, str]

    def take(self, settings: object, flag: str, value: str) -> bool:
        """Whether `flag` is one of them."""
        if flag in self.switches:
            setattr(settings, self.switches[flag], True)
        elif flag in self.texts:
            setattr(settings, self.texts[flag], value)
        elif flag in self.numbers:
            setattr(settings, self.numbers[flag], number(value))
        elif flag in self.counts:
            setattr(settings, self.counts[flag], getattr(settings, self.counts[flag]) + 1)
        else:
            return False
        return True


def number(text: str) -> int:
    """A number as atoi reads it: what `text` begins with, 0 where that is none."""
    found = re.match(r"\s*([+-]?[0-9]+)", text)
    return int(found[1]) if found else 0


def port(text: str) -> int:
    """A port; what does not fit into 16 bits is cut, as in C."""
    return number(text) & 0xFFFF


def only_family(families: set[str], wanted: str, complaint: str = "") -> set[str]:
    """-4 or -6, not both.  Raises BadFlags."""
    if wanted not in families:
        raise BadFlags(complaint)
    return {wanted}


# --- suites ------------------------------------------------------------------------------------------------------------------

# Letters of old scripts: A to F are SSL 2.0's, a to z SSL 3.0's (selfserv.c, strsclnt.c).
SSL2_LETTERS = {"A": 0xFF01, "B": 0xFF02, "C": 0xFF03, "D": 0xFF04, "E": 0xFF06, "F": 0xFF07}
SSL3_LETTERS = {
    "a": 0x001D, "b": 0x001E, "c": 0x0004, "d": 0x000A, "e": 0x0009, "f": 0x0003, "g": 0x0006, "h": 0x001C, "i": 0x0001,
    "j": 0xFEFF, "k": 0xFEFE, "l": 0x0062, "m": 0x0064, "n": 0x0005, "o": 0x0066, "p": 0x0016, "q": 0x0013, "r": 0x0015,
    "s": 0x0012, "t": 0x0032, "u": 0x0033, "v": 0x002F, "w": 0x0038, "x": 0x0039, "y": 0x0035, "z": 0x0002,
}  # fmt: skip
_LETTERS = SSL2_LETTERS | SSL3_LETTERS


class BadSuite(Exception):
    """No suite: `what` was typed, which is none for the reason `kind`."""

    def __init__(self, kind: Literal["letter", "short", "digit", "zero"], what: str) -> None:
        super().__init__(what)
        self.kind, self.what = kind, what


# As `-Y` lists them; those of SSL 2.0 as NSS 3.10 did.
_LETTERS_PAGE = """\
A    SSL2 RC4 128 WITH MD5
B    SSL2 RC4 128 EXPORT40 WITH MD5
C    SSL2 RC2 128 CBC WITH MD5
D    SSL2 RC2 128 CBC EXPORT40 WITH MD5
E    SSL2 DES 64 CBC WITH MD5
F    SSL2 DES 192 EDE3 CBC WITH MD5

c    SSL3 RSA WITH RC4 128 MD5
d    SSL3 RSA WITH 3DES EDE CBC SHA
e    SSL3 RSA WITH DES CBC SHA
f    SSL3 RSA EXPORT WITH RC4 40 MD5
g    SSL3 RSA EXPORT WITH RC2 CBC 40 MD5
i    SSL3 RSA WITH NULL MD5
j    SSL3 RSA FIPS WITH 3DES EDE CBC SHA
k    SSL3 RSA FIPS WITH DES CBC SHA
l    SSL3 RSA EXPORT WITH DES CBC SHA\t(new)
m    SSL3 RSA EXPORT WITH RC4 56 SHA\t(new)
n    SSL3 RSA WITH RC4 128 SHA
o    SSL3 DHE DSS WITH RC4 128 SHA
p    SSL3 DHE RSA WITH 3DES EDE CBC SHA
q    SSL3 DHE DSS WITH 3DES EDE CBC SHA
r    SSL3 DHE RSA WITH DES CBC SHA
s    SSL3 DHE DSS WITH DES CBC SHA
t    SSL3 DHE DSS WITH AES 128 CBC SHA
u    SSL3 DHE RSA WITH AES 128 CBC SHA
v    SSL3 RSA WITH AES 128 CBC SHA
w    SSL3 DHE DSS WITH AES 256 CBC SHA
x    SSL3 DHE RSA WITH AES 256 CBC SHA
y    SSL3 RSA WITH AES 256 CBC SHA
z    SSL3 RSA WITH NULL SHA

:WXYZ  Use cipher with hex code { 0xWX , 0xYZ } in TLS
"""


def letters_page(margin: str, *, tls_names: bool = False) -> str:
    """What `-Y` says of `-c`.  `tls_names`: the DHE suites as TLS_DHE_…, which is how selfserv writes them."""
    page = re.sub("SSL3 DHE .*", _tls_name, _LETTERS_PAGE) if tls_names else _LETTERS_PAGE
    return f"-c ciphers{margin}Letter(s) chosen from the following list\n{page}"


def _tls_name(found: re.Match[str]) -> str:
    return found[0].replace("SSL3", "TLS").replace(" ", "_")


def suites(text: str) -> list[int]:
    """Suites as `-c` names them: `:XXXX` for a number in hexadecimal, or letters.  Raises BadSuite."""
    found = []
    while text:
        if text[0] == ":":
            found.append(_number(text[:5]))
            text = text[5:]
        elif text[0] in _LETTERS:
            found.append(_LETTERS[text[0]])
            text = text[1:]
        else:
            raise BadSuite("letter", text[0])
    return found


def _number(word: str) -> int:
    if len(word) < 5:
        raise BadSuite("short", word)
    if not all(digit in string.hexdigits for digit in word[1:]):
        raise BadSuite("digit", word)
    value = int(word[1:], 16)
    if not value:
        raise BadSuite("zero", word)
    return value


# --- versions ----------------------------------------------------------------------------------------------------------------

VERSIONS = {"ssl2": 0x0002, "ssl3": 0x0300, "tls1.0": 0x0301, "tls1.1": 0x0302, "tls1.2": 0x0303, "tls1.3": 0x0304}


def version_range(text: str, supported: SSLVersionRange) -> SSLVersionRange:
    """`-V min:max`; a side left out is what is supported.  Raises BadFlags."""
    oldest, colon, newest = text.partition(":")
    try:
        found = SSLVersionRange(
            VERSIONS[oldest] if oldest else supported.min, VERSIONS[newest] if newest else supported.max
        )  # fmt: skip
    except KeyError:
        raise BadFlags("Bad version specified.") from None
    if not colon or found.min > found.max:
        raise BadFlags("Bad version specified.")
    return found


# --- groups and schemes --------------------------------------------------------------------------------------------------------

GROUPS = {
    "P256": SSLNamedGroup.ssl_grp_ec_secp256r1,
    "P384": SSLNamedGroup.ssl_grp_ec_secp384r1,
    "P521": SSLNamedGroup.ssl_grp_ec_secp521r1,
    "x25519": SSLNamedGroup.ssl_grp_ec_curve25519,
    "FF2048": SSLNamedGroup.ssl_grp_ffdhe_2048,
    "FF3072": SSLNamedGroup.ssl_grp_ffdhe_3072,
    "FF4096": SSLNamedGroup.ssl_grp_ffdhe_4096,
    "FF6144": SSLNamedGroup.ssl_grp_ffdhe_6144,
    "FF8192": SSLNamedGroup.ssl_grp_ffdhe_8192,
    "mlkem768x25519": SSLNamedGroup.ssl_grp_kem_mlkem768x25519,
}
SCHEMES = {scheme.name.removeprefix("ssl_sig_"): scheme for scheme in SSLSignatureScheme if scheme.value}


def groups(text: str) -> list[SSLNamedGroup]:
    """`-I P256,x25519`.  Raises BadFlags."""
    return _listed(text, GROUPS, "Bad group specified.")


def schemes(text: str) -> list[SSLSignatureScheme]:
    """`-J rsa_pss_rsae_sha256,…`.  Raises BadFlags."""
    return _listed(text, SCHEMES, "Bad signature scheme specified.")


def _listed(text: str, known: dict[str, T], refusal: str) -> list[T]:
    try:
        found = [known[word] for word in _parts(text)]
    except KeyError:
        raise BadFlags(refusal) from None
    if not found:
        raise BadFlags(refusal)
    return found


def _parts(text: str) -> list[str]:
    """Of a list with commas, as strtok finds them: none is empty."""
    return list(filter(None, text.split(",")))


# --- exporters -----------------------------------------------------------------------------------------------------------------

EXPORTER_BYTES = 20  # where the length is left out


class Exporter(NamedTuple):
    """`context`: None for none, which is not an empty one; `length`: bytes."""

    label: bytes
    length: int
    context: bytes | None


def exporters(text: str) -> list[Exporter]:
    """`-x LABEL[:LENGTH[:CONTEXT]],…`.  Raises BadFlags."""
    found = [_exporter(*word.split(":", 2)) for word in _parts(text)]
    if not found:
        raise BadFlags("Bad exporter specified.")
    return found


def _exporter(label: str, length: str = "", context: str | None = None) -> Exporter:
    try:
        size = number(length) if length else EXPORTER_BYTES
        if size <= 0 or not label:
            raise ValueError
        return Exporter(_bytes(label), size, None if context is None else _bytes(context))
    except ValueError:
        raise BadFlags("Bad exporter specified.") from None


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:]) if text[:2].lower() == "0x" else text.encode()
