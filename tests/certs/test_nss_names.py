"""Host names as CERT_VerifyCertName compares them; the judge is that function itself, in libnss3."""

from __future__ import annotations

import ctypes.util
import json
import subprocess
import sys

import pytest
from cryptography import x509

from nss_pk11.certs.facts import facts
from nss_pk11.certs.host_names import matches_host, matches_pattern
from nss_pk11.certs.nss import check_host
from nss_pk11.errors import CertificateError, ConfigurationError

from .issuing import Made, alternative, make

MAIL = x509.SubjectAlternativeName([x509.RFC822Name("me@host.example")])

# common name, alternative names, host, whether they match
CASES: list[tuple[str, tuple[str, ...] | None, str, bool]] = [
    ("other", ("host.example",), "host.example", True),
    ("other", ("host.example",), "HOST.Example", True),
    ("host.example", ("other.example",), "host.example", False),
    ("host.example", None, "host.example", True),
    ("HOST.example", None, "host.EXAMPLE", True),
    ("other.example", None, "host.example", False),
    ("host.example", ("192.0.2.1",), "host.example", True),
    ("192.0.2.1", ("host.example",), "192.0.2.1", True),
    ("192.0.2.1", None, "192.0.2.1", True),
    ("192.0.2.1", ("192.0.2.2",), "192.0.2.1", False),
    ("other", ("192.0.2.1",), "192.0.2.1", True),
    ("other", ("192.0.2.1",), "::ffff:192.0.2.1", True),
    ("other", ("::ffff:192.0.2.1",), "192.0.2.1", True),
    ("other", ("2001:db8::1",), "2001:db8:0:0::1", True),
    ("other", ("2001:db8::1",), "2001:db8::2", False),
    ("2001:db8::1", None, "2001:DB8::1", True),
    ("2001:db8::1", None, "2001:db8:0::1", False),
    ("other", ("*.example.com",), "www.example.com", True),
    ("other", ("*.EXAMPLE.com",), "www.example.COM", True),
    ("other", ("*.example.com",), "a.www.example.com", False),
    ("other", ("*.example.com",), "example.com", False),
    ("other", ("*.com",), "example.com", False),
    ("other", ("*",), "host", False),
    ("other", ("*.*.com",), "www.example.com", False),
    ("other", ("www.*.com",), "www.example.com", False),
    ("other", ("www*.example.com",), "www2.example.com", True),
    ("other", ("www*.example.com",), "www.example.com", True),
    ("other", ("*www.example.com",), "awww.example.com", False),
    ("other", ("w*w.example.com",), "www.example.com", False),
    ("other", ("xn--a*.example.com",), "xn--abc.example.com", False),
    ("other", ("*.example.com",), "xn--abc.example.com", True),
    ("other", ("*.example.com.",), "www.example.com.", True),
    ("other", ("*..com",), "www..com", False),
    ("other", ("host.example",), "host.example.", False),
    ("*.example.com", None, "www.example.com", True),
    ("*.example.com", None, "192.0.2.1", False),
    ("h[a-z]st.example", None, "host.example", False),
    ("(host|other).example", None, "host.example", False),
    ("?ost.example", None, "host.example", False),
]

# In a process of its own: a mistake in calling C must not take the tests with it.
JUDGE = """
import ctypes, json, sys
library = ctypes.CDLL(sys.argv[1])  # loads libnss3, whose functions are found through it
class Item(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("data", ctypes.c_char_p), ("length", ctypes.c_uint)]
library.CERT_DecodeCertFromPackage.restype = ctypes.c_void_p
library.CERT_DecodeCertFromPackage.argtypes = [ctypes.c_char_p, ctypes.c_int]
library.CERT_VerifyCertName.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
assert library.NSS_NoDB_Init(None) == 0
for der, host in json.load(sys.stdin):
    der = bytes.fromhex(der)
    certificate = library.CERT_DecodeCertFromPackage(der, len(der))
    assert certificate
    failed = library.CERT_VerifyCertName(certificate, host.encode())
    print(library.PORT_GetError() if failed else 0)
"""


def made(common_name: str, names: tuple[str, ...] | None) -> Made:
    return make(common_name, None, *([] if names is None else [alternative(*names)]))


@pytest.mark.parametrize(("common_name", "names", "host", "expected"), CASES)
def test_host(common_name: str, names: tuple[str, ...] | None, host: str, expected: bool) -> None:
    assert matches_host(facts(made(common_name, names).der), host) is expected


def test_alternative_names_of_other_kinds_leave_the_common_name_to_decide() -> None:
    assert matches_host(facts(make("host.example", None, MAIL).der), "host.example")


def test_libnss3_says_the_same() -> None:
    library = ctypes.util.find_library("smime3")
    if library is None:
        pytest.skip("needs libsmime3")
    questions = [(made(common_name, names).der.hex(), host) for common_name, names, host, _ in CASES]
    judge = subprocess.run(
        [sys.executable, "-c", JUDGE, library], input=json.dumps(questions), capture_output=True, text=True, timeout=60
    )
    assert judge.returncode == 0, judge.stderr
    answers = [int(line) == 0 for line in judge.stdout.split()]
    assert answers == [expected for *_, expected in CASES]


def test_refusal_says_what_the_certificate_is_for() -> None:
    with pytest.raises(CertificateError, match=r"is for host\.example, not for other\.example") as caught:
        check_host(facts(made("x", ("host.example",)).der), "other.example")
    assert caught.value.name == "SSL_ERROR_BAD_CERT_DOMAIN"


def test_no_host_is_an_argument_that_is_missing() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_host(facts(made("x", None).der), "")
    assert caught.value.name == "SEC_ERROR_INVALID_ARGS"


def test_pattern_of_the_host_itself() -> None:
    assert matches_pattern("*", "*")
