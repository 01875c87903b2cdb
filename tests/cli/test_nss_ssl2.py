"""The programs with SSL 2.0, every suite by its letter, as server and as client; the other end is OpenSSL 1.0.2.

The one RSA key of the database serves SSL 2.0 and nothing else in each process, or else it is said to be shared: DROWN.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from tests.cli.nss_programs import ANSWER, PASSWORD, Programs
from tests.db.tools import Tools
from tests.support.peers import openssl_legacy
from tests.support.peers.commanded import Commanded
from tests.support.require import require

ONLY = ("-V", "ssl2:ssl2")
ALL = "ALL:COMPLEMENTOFALL"
# By letter: OpenSSL's number, and how `-v` tells it (cipher suites of NSS 3.10's sslinfo.c).
SUITES = {
    "A": (0x010080, "128-bit RC4"),
    "B": (0x020080, "40-bit RC4"),
    "C": (0x030080, "128-bit RC2"),
    "D": (0x040080, "40-bit RC2"),
    "E": (0x060040, "56-bit DES"),
    "F": (0x0700C0, "112-bit 3DES"),
}
EVERY_LETTER = "".join(SUITES)
LETTERS = pytest.mark.parametrize("letter", SUITES)


@pytest.fixture(scope="module")
def openssl() -> Iterator[Commanded]:
    with openssl_legacy.start() as child:
        yield child


@pytest.fixture(scope="module")
def tools(nss_database: Path) -> Tools:
    return Tools(nss_database, PASSWORD)


@pytest.fixture(scope="module")
def ca(tools: Tools) -> Path:
    """The database's CA, for OpenSSL."""
    return tools.file("ca.pem", load_der_x509_certificate(tools.der("ca")).public_bytes(Encoding.PEM))


@pytest.fixture(scope="module")
def identity(tools: Tools) -> dict[str, Path]:
    """The database's server, for OpenSSL: its certificate without the issuer, of which OpenSSL takes none for SSL 2.0."""
    bundle = tools.file("localhost.p12", tools.export("localhost", "out"))
    command = [require("openssl"), "pkcs12", "-in", bundle, "-passin", "pass:out", "-nodes", "-clcerts"]
    file = tools.file("localhost.pem", subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return {"certificate": file, "key": file}


def negotiated(said: str) -> list[str]:
    """What a program with `-v` tells of each connection's protection."""
    return re.findall(r"^\w+: (SSL version .*)$", said, re.MULTILINE)


# --- every suite ---------------------------------------------------------------------------------------------------------------


@LETTERS
def test_selfserv(letter: str, ours: Programs, openssl: Commanded, ca: Path) -> None:
    """A client that has all suites gets that of the letter, and then resumes the session."""
    number, what = SUITES[letter]
    with ours.selfserv(*ONLY, "-c", letter, "-v") as server:
        words = {"protocol": "ssl2", "ciphers": ALL, "verify": 1, "ca": ca, "resume": 1, "count": 2, "http": 1}
        done = openssl.connect(server.port, **words)
        status, said = server.end()
    assert [connection.error for connection in done] == ["", ""]
    assert [(connection.suite, connection.resumed) for connection in done] == [(number, False), (number, True)]
    assert "localhost" in done[0].peer
    assert status == 0
    assert negotiated(said) == [f"SSL version 0.2 using {what} with 128-bit MD5 MAC"] * 2
    assert said.count("selfserv: Server Auth: 2048-bit RSA, Key Exchange: 2048-bit RSA\n") == 2
    assert "selfserv: 1 cache hits; 1 cache misses, 0 cache not reusable" in said


@LETTERS
def test_tstclnt(letter: str, ours: Programs, openssl: Commanded, identity: dict[str, Path]) -> None:
    """The same as a client, which also judges the certificate."""
    number, what = SUITES[letter]
    with openssl.serve(protocol="ssl2", ciphers=ALL, count=2, http=1, **identity) as far:
        done = ours.tstclnt(far.port, *ONLY, "-c", letter, "-v", "-L", "2")
    assert [connection.error for connection in far.connections] == ["", ""]
    assert [(connection.suite, connection.resumed) for connection in far.connections] == [(number, False), (number, True)]
    assert done.out == b"HTTP/1.0 200 OK\r\n\r\n" * 2
    assert negotiated(done.err) == [f"SSL version 0.2 using {what} with 128-bit MD5 MAC"] * 2
    assert done.err.count("tstclnt: Server Auth: 2048-bit RSA, Key Exchange: 2048-bit RSA\n") == 2
    assert done.err.count("subject DN: CN=localhost\n") == 2
    assert re.findall(r"^\d cache hits; \d cache misses", done.err, re.MULTILINE)[-1] == "1 cache hits; 1 cache misses"


def test_tstclnt_judges_the_certificate(ours: Programs, openssl: Commanded, identity: dict[str, Path]) -> None:
    with openssl.serve(protocol="ssl2", ciphers=ALL, http=1, **identity) as far:
        done = ours.tstclnt(far.port, *ONLY, "-h", "127.0.0.1", status=254)
    assert done.error == "SSL_ERROR_BAD_CERT_DOMAIN"
    assert not far.connections[0].ok


def test_strsclnt(ours: Programs, openssl: Commanded, identity: dict[str, Path]) -> None:
    with openssl.serve(protocol="ssl2", ciphers=ALL, count=6, http=1, **identity) as far:
        done = ours.strsclnt(far.port, *ONLY, "-C", EVERY_LETTER, "-c", "6", "-t", "1", "-4")
    assert [connection.resumed for connection in far.connections] == [False] + [True] * 5
    assert b"strsclnt: 5 cache hits; 1 cache misses, 0 cache not reusable" in done.out


@pytest.mark.parametrize("requests", [1, 2])
def test_selfserv_asks_for_certificates(requests: int, ours: Programs, openssl: Commanded, ca: Path) -> None:
    """-r, of a client that has none: of -r -r it is refused."""
    with ours.selfserv(*ONLY, "-c", EVERY_LETTER, *["-r"] * requests) as server:
        [done] = openssl.connect(server.port, protocol="ssl2", ciphers=ALL, ca=ca, http=1)
        _, said = server.end()
    assert done.ok is (requests == 1)
    assert ("returned error -12285" in said) is (requests == 2)  # SSL_ERROR_NO_CERTIFICATE


@pytest.mark.parametrize("program", ["selfserv", "tstclnt"])
def test_letters_are_listed(program: str, ours: Programs, theirs: Programs) -> None:
    """By -Y: those of NSS's program as it lists them, and before them those of SSL 2.0."""
    here, there = (re.findall(r"^[A-Za-z]    .*$", programs.run(program, "-Y").err, re.MULTILINE) for programs in (ours, theirs))
    assert [line for line in here if line in there] == there
    assert "".join(line[0] for line in here if line[0].isupper()) == EVERY_LETTER
    assert all("SSL2" in line for line in here[:6])


# --- without it ----------------------------------------------------------------------------------------------------------------


def test_tstclnt_without_ssl2(ours: Programs, openssl: Commanded, identity: dict[str, Path]) -> None:
    """-2: neither the version nor its hello, whatever -V says; where nothing else is left, that is told and nothing is sent."""
    with openssl.serve(protocol="ssl2", ciphers=ALL, http=1, **identity) as far:
        done = ours.tstclnt(far.port, *ONLY, "-2", status=254)
    assert done.error == "SSL_ERROR_SSL_DISABLED"
    assert not far.connections[0].ok
    with openssl.serve(protocol="ssl2", ciphers=ALL, http=1, **identity) as far:
        done = ours.tstclnt(far.port, "-V", "ssl2:", "-2", "-c", EVERY_LETTER, status=254)
    assert done.error == "SSL_ERROR_SSL_DISABLED"
    assert not far.connections[0].ok
    with openssl.serve(protocol="ssl2", ciphers=ALL, http=1, **identity) as far:
        ours.tstclnt(far.port, "-V", "ssl2:", "-2", status=254)  # its hello is none that this server knows
    assert not far.connections[0].ok


def test_tstclnt_speaks_newer_versions(ours: Programs, theirs: Programs, openssl: Commanded, identity: dict[str, Path]) -> None:
    """With SSL 2.0 it offers TLS 1.2 in that hello, which NSS's server does not take; with -2 it offers TLS 1.3 in its own."""
    with openssl.serve(protocol="ssl23", http=1, **identity) as far:
        done = ours.tstclnt(far.port, "-V", "ssl2:", "-v")
    assert [line.split(" using")[0] for line in negotiated(done.err)] == ["SSL version 3.3"]
    assert far.connections[0].ok
    with theirs.selfserv() as server:
        done = ours.tstclnt(server.port, "-V", "ssl2:", "-2", "-v")
    assert [line.split(" using")[0] for line in negotiated(done.err)] == ["SSL version 3.4"]
    assert done.out.startswith(ANSWER)


def test_nobody_speaks_it_unasked(ours: Programs, openssl: Commanded, identity: dict[str, Path]) -> None:
    with ours.selfserv() as server:
        [done] = openssl.connect(server.port, protocol="ssl2", ciphers=ALL, http=1)
        assert not done.ok
    with openssl.serve(protocol="ssl2", ciphers=ALL, http=1, **identity) as far:
        ours.tstclnt(far.port, status=254)
    assert not far.connections[0].ok
    with openssl.serve(protocol="ssl2", ciphers=ALL, http=1, **identity) as far:
        assert ours.tstclnt(far.port, "-c", EVERY_LETTER, status=254).error == "SSL_ERROR_SSL_DISABLED"
    assert not far.connections[0].ok


# --- one key for old and new ---------------------------------------------------------------------------------------------------


def test_a_key_that_would_serve_both(
    ours: Programs, theirs: Programs, openssl: Commanded, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An RSA key does not serve SSL 2.0 and newer versions (DROWN), unless the environment says that it may."""
    words = {"protocol": "ssl2", "ciphers": ALL, "verify": 1, "ca": ca, "http": 1}
    for shared in (False, True):
        monkeypatch.setenv("NSS_PK11_SHARE_KEYS_WITH_SSL2", "1" if shared else "")
        with ours.selfserv("-V", "ssl2:") as server:
            [done] = openssl.connect(server.port, **words)
            newer = theirs.tstclnt(server.port, "-V", "tls1.2:tls1.2", status=0 if shared else None)
            _, said = server.end()
        assert done.ok is shared
        assert newer.out.startswith(ANSWER) is shared
        assert ("returned error -8102" in said) is (not shared)  # SEC_ERROR_INADEQUATE_KEY_USAGE
