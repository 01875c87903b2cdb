"""SSL_AuthCertificate judges certificates, NSS_GetClientAuthData finds one, NSS_CmpCertChainWCANames compares names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import cert, pk11pub, prerror, prio, ssl
from nss_pk11.nss._layers import PRFileDesc
from tests.certs.issuing import CA, make
from tests.db.tools import Tools
from tests.nss import ends
from tests.nss.conftest import PASSWORD
from tests.nss.kinds import refused


@pytest.fixture
def fd(ready: Tools) -> Iterator[PRFileDesc]:
    """An SSL socket that is not connected, with the database opened."""
    made = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    yield made
    prio.PR_Close(made)


# --- SSL_AuthCertificate ---------------------------------------------------------------------------------------------


def judged(files: Path, name: str, url: str, usage: bool = False, handle: object = None) -> str:
    """What SSL_AuthCertificate says of a server with this certificate: "" or the error's name."""
    said: list[str] = []

    def judge(arg: object, fd: PRFileDesc, checksig: bool, isServer: bool) -> None:
        assert (arg, checksig, isServer) == ("argument", True, False)
        prerror.PR_SetError(0)
        with suppress(NSPRError):
            ssl.SSL_AuthCertificate(cert.CERT_GetDefaultCertDB(), fd, checksig, usage)
        said.append(prerror.PR_ErrorToName(prerror.PR_GetError()) or "")

    with ends.PythonServer(ends.server_context(files, name), ends.python_echo) as server:
        fd = ends.connected(server.port, url)
        ssl.SSL_AuthCertificateHook(fd, judge, "argument")
        prio.PR_Send(fd, b"hello", 0, ends.TICKS)
        assert ends.read_all(fd) == b"hello"
        prio.PR_Close(fd)
    return said[0]


def test_a_certificate_of_a_trusted_ca_for_this_host(ready: Tools, files: Path) -> None:
    assert judged(files, "server", "host.example") == ""
    assert judged(files, "ec", "HOST.example") == ""


@pytest.mark.parametrize("url", ["other.example", ""])
def test_a_certificate_for_another_host_or_no_host_set(url: str, ready: Tools, files: Path) -> None:
    assert judged(files, "server", url) == "SSL_ERROR_BAD_CERT_DOMAIN"


def test_a_certificate_of_nobody_known(ready: Tools, files: Path) -> None:
    assert judged(files, "unknown", "host.example") in ("SEC_ERROR_UNTRUSTED_ISSUER", "SEC_ERROR_UNKNOWN_ISSUER")


def test_as_a_server_it_asks_for_no_name(ready: Tools, files: Path) -> None:
    assert judged(files, "server", "other.example", usage=True) == ""


def test_nobody_has_shown_a_certificate(fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.SSL_AuthCertificate, None, fd, True, False) == "SSL_ERROR_NO_CERTIFICATE"


def test_a_plain_descriptor_has_no_peer(ready: Tools, error: Callable[[], str]) -> None:
    plain = prio.PR_NewTCPSocket()
    assert refused(error, ssl.SSL_AuthCertificate, None, plain, True, False) == "PR_BAD_DESCRIPTOR_ERROR"
    assert refused(error, ssl.NSS_GetClientAuthData, "client", plain, []) == "PR_BAD_DESCRIPTOR_ERROR"
    prio.PR_Close(plain)


# --- NSS_CmpCertChainWCANames ----------------------------------------------------------------------------------------


def name_of(nickname: str) -> bytes:
    return pk11pub.PK11_FindCertFromNickname(nickname).derSubject


def test_an_issuer_is_among_the_names(ready: Tools) -> None:
    client = pk11pub.PK11_FindCertFromNickname("client")
    ssl.NSS_CmpCertChainWCANames(client, [name_of("stranger"), name_of("ca")])


def test_a_name_without_its_outer_header_is_known_too(ready: Tools) -> None:
    client, name = pk11pub.PK11_FindCertFromNickname("client"), name_of("ca")
    assert name[0] == 0x30
    assert name[1] < 0x80
    ssl.NSS_CmpCertChainWCANames(client, [name[2:]])


@pytest.mark.parametrize("names", [[], ["stranger"], ["client"]])
def test_no_issuer_is_among_the_names(names: list[str], ready: Tools, error: Callable[[], str]) -> None:
    client = pk11pub.PK11_FindCertFromNickname("client")
    found = [name_of(name) for name in names]
    assert refused(error, ssl.NSS_CmpCertChainWCANames, client, found) == "SEC_ERROR_UNKNOWN_ISSUER"


def test_the_issuers_issuer_counts(opened: Tools, error: Callable[[], str]) -> None:
    root = make("root", None, CA)
    middle = make("middle", root, CA)
    leaf = cert.CERT_NewTempCertificate(None, make("leaf", middle).der)
    root_name = cert.CERT_NewTempCertificate(None, root.der).derSubject
    assert refused(error, ssl.NSS_CmpCertChainWCANames, leaf, [root_name]) == "SEC_ERROR_UNKNOWN_ISSUER"
    pk11pub.PK11_ImportDERCert(pk11pub.PK11_GetInternalKeySlot(), middle.der, None, "middle")
    ssl.NSS_CmpCertChainWCANames(leaf, [root_name])


# --- NSS_GetClientAuthData -------------------------------------------------------------------------------------------


def test_by_nickname(fd: PRFileDesc) -> None:
    found, key = ssl.NSS_GetClientAuthData("client", fd, [])
    assert found.nickname == "client"
    assert key.keyType == "rsa"


def test_a_nickname_is_meant_whatever_the_server_asks_for(fd: PRFileDesc) -> None:
    assert ssl.NSS_GetClientAuthData("client", fd, [name_of("stranger")])[0].nickname == "client"


def test_a_nickname_that_is_nobodys(fd: PRFileDesc, error: Callable[[], str]) -> None:
    assert refused(error, ssl.NSS_GetClientAuthData, "nobody", fd, []) == "SEC_ERROR_UNKNOWN_CERT"


@pytest.mark.parametrize("issuer", ["ca", "stranger"])
def test_without_a_nickname_one_under_the_servers_cas(issuer: str, fd: PRFileDesc) -> None:
    found, key = ssl.NSS_GetClientAuthData(None, fd, [name_of(issuer)])
    assert found.derIssuer == name_of(issuer)
    assert key == pk11pub.PK11_FindKeyByAnyCert(found)


def test_without_a_nickname_none_may_be_found(fd: PRFileDesc, error: Callable[[], str]) -> None:
    nobody = name_of("client")
    assert refused(error, ssl.NSS_GetClientAuthData, None, fd, [nobody]) == "SSL_ERROR_NO_CERTIFICATE"


def test_a_server_that_names_no_cas_takes_any(fd: PRFileDesc) -> None:
    assert ssl.NSS_GetClientAuthData(None, fd, [])[1] is not None


def test_the_password_function_gets_the_sockets_argument(fd: PRFileDesc) -> None:
    asked: list[Any] = []
    pk11pub.PK11_LogoutAll()
    pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: (asked.append(arg), PASSWORD)[1])
    ssl.SSL_SetPKCS11PinArg(fd, "of this socket")
    ssl.NSS_GetClientAuthData("client", fd, [])
    assert asked == ["of this socket"]
