"""SSL 2 on SSL sockets, as client and as server; the other end is OpenSSL 1.0.2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import prio, ssl, sslproto
from nss_pk11.nss._settings import settings_of
from nss_pk11.nss.prio import PRFileDesc
from tests.support.peers import openssl_legacy
from tests.support.peers.commanded import CONVERSATION, Commanded, answers

from .ends import OurServer, connected, listening, read_exactly

pytestmark = pytest.mark.usefixtures("ready")

SSL2, TLS1_2 = sslproto.SSL_LIBRARY_VERSION_2, sslproto.SSL_LIBRARY_VERSION_TLS_1_2
# By OpenSSL's names: what SSL_SecurityStatus says, of 3.10 (sslcon.c, sslsecur.c).
STATUS = {
    "RC4-MD5": (1, "RC4", 128, 128),
    "RC2-CBC-MD5": (1, "RC2-CBC", 128, 128),
    "DES-CBC3-MD5": (1, "DES-EDE3-CBC", 168, 168),
    "DES-CBC-MD5": (2, "DES-CBC", 56, 56),
    "EXP-RC4-MD5": (2, "RC4-Export", 128, 40),
    "EXP-RC2-CBC-MD5": (2, "RC2-CBC-Export", 128, 40),
}
STATUSES = pytest.mark.parametrize(("cipher", "status"), STATUS.items(), ids=list(STATUS))


@pytest.fixture(scope="module")
def openssl() -> Iterator[Commanded]:
    with openssl_legacy.start() as child:
        yield child


@pytest.fixture(autouse=True)
def _shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of these tests' database serves everything, in one process."""
    monkeypatch.setenv("NSS_PK11_SHARE_KEYS_WITH_SSL2", "1")


def converse(fd: PRFileDesc) -> None:
    for line, answer in zip(CONVERSATION, answers(CONVERSATION), strict=True):
        prio.PR_Write(fd, line)
        assert read_exactly(fd, len(answer)) == answer


def answer(fd: PRFileDesc) -> tuple[object, ...]:
    for line in CONVERSATION:
        assert read_exactly(fd, len(line)) == line
        prio.PR_Write(fd, b"ECHO " + line)
    return tuple(ssl.SSL_SecurityStatus(fd)[:4])


def alone(files: Path) -> dict[str, str]:
    """The server's certificate without its issuers: OpenSSL takes none for SSL 2."""
    return {"certificate": str(files / "server.pem"), "key": str(files / "server.pem")}


@STATUSES
def test_a_client(openssl: Commanded, files: Path, cipher: str, status: tuple[object, ...]) -> None:
    with openssl.serve(protocol="ssl2", ciphers=cipher, count=2, **alone(files)) as far:
        for resumed in (False, True):
            fd = connected(far.port)
            ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_SSL2, True)
            converse(fd)
            assert tuple(ssl.SSL_SecurityStatus(fd)[:4]) == status
            assert len(ssl.SSL_GetSessionID(fd) or b"") == 16
            info = ssl.SSL_GetChannelInfo(fd)
            assert (info.protocolVersion, info.resumed) == (SSL2, resumed)
            prio.PR_Close(fd)
    assert [connection.error for connection in far.connections] == ["", ""]


@STATUSES
def test_a_server(openssl: Commanded, cipher: str, status: tuple[object, ...]) -> None:
    listener = listening()
    ssl.SSL_VersionRangeSet(listener, (SSL2, SSL2))
    with OurServer(listener, answer) as server:
        [done] = openssl.connect(server.port, protocol="ssl2", ciphers=cipher)
    assert done.ok, done
    assert server.results == [status]
    prio.PR_Close(listener)


def test_nobody_speaks_it_unasked(openssl: Commanded) -> None:
    listener = listening()
    with OurServer(listener, answer) as server:
        [done] = openssl.connect(server.port, protocol="ssl2", ciphers="ALL")
    assert not done.ok
    assert server.results == ["SSL_ERROR_RX_UNKNOWN_RECORD_TYPE"]
    prio.PR_Close(listener)


def test_the_newer_version_in_the_older_hello(openssl: Commanded, files: Path) -> None:
    with openssl.serve(protocol="ssl23", ciphers="ALL", **alone(files)) as far:
        fd = connected(far.port)
        ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_SSL2, True)
        converse(fd)
        assert ssl.SSL_GetChannelInfo(fd).protocolVersion == TLS1_2
        prio.PR_Close(fd)
    assert far.connections[0].ok


@pytest.mark.parametrize(("protocol", "good"), [("ssl2", True), ("ssl3", False), ("tls1", True), ("tls1_2", True)])
def test_ssl3_stays_off_beside_it(openssl: Commanded, files: Path, protocol: str, good: bool) -> None:
    listener = listening()
    ssl.SSL_OptionSet(listener, ssl.SSL_ENABLE_SSL2, True)
    ssl.SSL_OptionSet(listener, ssl.SSL_ENABLE_SSL3, False)
    with OurServer(listener, answer) as server:
        [done] = openssl.connect(server.port, protocol=protocol, ciphers="ALL")
    assert done.ok is good, done
    others = ",".join(sorted({"ssl2", "ssl3", "tls1", "tls1_1", "tls1_2"} - {protocol}))
    with openssl.serve(protocol="ssl23", off=others, ciphers="ALL", **alone(files)) as far:
        fd = connected(far.port, model=listener)
        if good:
            converse(fd)
        else:
            with pytest.raises(NSPRError, match="SSL_ERROR_UNSUPPORTED_VERSION"):
                converse(fd)
        prio.PR_Close(fd)
    assert far.connections[0].ok is good
    prio.PR_Close(listener)


def test_the_option_alone_enables_nothing() -> None:
    """Without policy for its suites nothing is different: TLS 1.3 is offered, SSL 3.0 is not."""
    fd = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    settings = settings_of(fd)
    settings.policies.update((code, ssl.SSL_NOT_ALLOWED) for code in settings.policies if sslproto.SSL_IS_SSL2_CIPHER(code))
    ssl.SSL_OptionSet(fd, ssl.SSL_ENABLE_SSL2, True)
    ssl.SSL_VersionRangeSet(fd, (TLS1_2, sslproto.SSL_LIBRARY_VERSION_TLS_1_3))
    config = settings.client_config()
    assert (config.min_version, config.max_version) == (TLS1_2, sslproto.SSL_LIBRARY_VERSION_TLS_1_3)
    prio.PR_Close(fd)


def test_a_range_that_begins_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NSS_PK11_SHARE_KEYS_WITH_SSL2")
    listener = listening()
    ssl.SSL_VersionRangeSet(listener, (SSL2, TLS1_2))
    assert ssl.SSL_OptionGet(listener, ssl.SSL_ENABLE_SSL2)
    assert ssl.SSL_OptionGet(listener, ssl.SSL_V2_COMPATIBLE_HELLO)
    assert ssl.SSL_VersionRangeGet(listener) == (sslproto.SSL_LIBRARY_VERSION_3_0, TLS1_2)
    with pytest.raises(NSPRError, match="SEC_ERROR_INADEQUATE_KEY_USAGE"):
        settings_of(listener).server_config(session_ids=True)
    prio.PR_Close(listener)
