"""SSL sockets whose keys are in SoftHSM: servers, clients, PINs that are asked for in a handshake, children by fork."""

from __future__ import annotations

import os
import ssl as python_ssl
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import cert, nss, pk11pub, prio, secmod, ssl
from nss_pk11.nss.prio import PRFileDesc
from tests.support.pki import PKI, Credential
from tests.support.require import require
from tests.support.softhsm import PIN, SoftHSM, TokenOnDisk

from .ends import (
    HOST,
    TICKS,
    TLS1_2,
    TLS1_3,
    OurServer,
    PythonServer,
    connected,
    echo,
    listening,
    loopback,
    port_of,
    python_client,
    python_echo,
    read_all,
    run,
    serve,
)

_numbers = count(1)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def token(softhsm: SoftHSM) -> TokenOnDisk:
    return softhsm.create_token(f"nss ssl {next(_numbers)}")


@pytest.fixture
def asked(softhsm: SoftHSM, token: TokenOnDisk, pki: PKI) -> list[object]:
    """NSS without a database, SoftHSM loaded; the arguments with which the password function was asked."""
    arguments: list[object] = []

    def password(slot: pk11pub.PK11SlotInfo, retry: bool, arg: object) -> str | None:
        assert pk11pub.PK11_GetTokenName(slot) == token.label
        arguments.append(arg)
        return None if retry else PIN

    pk11pub.PK11_SetPasswordFunc(password)
    nss.NSS_NoDB_Init()
    secmod.SECMOD_LoadUserModule(f"library={softhsm.module_path} name=soft")
    ssl.NSS_SetDomesticPolicy()
    ssl.SSL_ConfigServerSessionIDCache(0, 0, 0, None)
    return arguments


@pytest.fixture(autouse=True)
def undone(factory_settings: None) -> Iterator[None]:
    yield
    ssl.SSL_ClearSessionCache()
    ssl.SSL_ShutdownServerSessionIDCache()


def nickname(token: TokenOnDisk, credential: Credential) -> str:
    assert credential.token_key is not None
    return f"{token.label}:{credential.token_key.label}"


def trusting(pki: PKI, version: python_ssl.TLSVersion) -> python_ssl.SSLContext:
    context = python_ssl.create_default_context(cafile=str(pki.ca_file))
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_a_server(pki: PKI, token: TokenOnDisk, asked: list[object], kind: str, version: python_ssl.TLSVersion) -> None:
    credential = pki.for_token(token.generate_key(kind, "web"), names=(HOST,))
    listener = listening("")
    serve(listener, nickname(token, credential))
    with OurServer(listener, echo) as server, python_client(server.port, trusting(pki, version)) as sock:
        sock.sendall(b"x")
        assert sock.recv(10) == b"x"
    assert server.results == [b"x"]
    assert len(asked) == 1
    prio.PR_Close(listener)


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
def test_a_client(pki: PKI, token: TokenOnDisk, asked: list[object], version: python_ssl.TLSVersion) -> None:
    """The password function is asked in the handshake, with the socket's own argument."""
    credential = pki.for_token(token.generate_key("rsa", "me"), purpose="client")
    own = pki.server("p256", (HOST,))
    context = python_ssl.SSLContext(python_ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(own.chain_file, own.key_file)
    context.verify_mode = python_ssl.CERT_REQUIRED
    context.load_verify_locations(pki.ca_file)

    def who(sock: python_ssl.SSLSocket) -> str:
        names: Any = (sock.getpeercert() or {})["subject"]
        python_echo(sock)
        return str(dict(part[0] for part in names)["commonName"])

    with PythonServer(context, who) as server:
        fd = connected(server.port)
        ssl.SSL_AuthCertificateHook(fd, lambda *_: None, None)  # there is no database that trusts anybody
        ssl.SSL_SetPKCS11PinArg(fd, "window")
        ssl.SSL_GetClientAuthDataHook(fd, ssl.NSS_GetClientAuthData, nickname(token, credential))
        prio.PR_Write(fd, b"x")
        assert read_all(fd) == b"x"
        prio.PR_Close(fd)
    assert server.results == ["client rsa"]
    assert asked == ["window"]


def test_a_pin_that_nobody_gives(pki: PKI, token: TokenOnDisk, asked: list[object]) -> None:
    """The server hears internal_error from a server whose token is shut, and goes without a client's certificate."""
    credential = pki.for_token(token.generate_key("p256", "web"), names=(HOST,))
    listener = listening("")
    serve(listener, nickname(token, credential))
    pk11pub.PK11_LogoutAll()
    pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: None)
    with OurServer(listener, echo) as server, pytest.raises(python_ssl.SSLError, match="INTERNAL_ERROR"):
        python_client(server.port, trusting(pki, TLS1_3))
    assert server.results[0] in ("SEC_ERROR_USER_CANCELLED", "SEC_ERROR_BAD_PASSWORD", "SEC_ERROR_TOKEN_NOT_LOGGED_IN")
    prio.PR_Close(listener)


def test_a_forked_server_goes_on(pki: PKI, token: TokenOnDisk, asked: list[object], tmp_path: Path) -> None:
    """The child has the listener, its certificate, its key in the token and the cache; PKCS #11 begins anew in it by itself."""
    credential = pki.for_token(token.generate_key("rsa", "web"), names=(HOST,))
    ssl.SSL_ShutdownServerSessionIDCache()
    ssl.SSL_ConfigMPServerSIDCache(0, 0, 0, None)
    listener = listening("")
    serve(listener, nickname(token, credential))

    def serve_one() -> None:
        fd, _ = prio.PR_Accept(listener, TICKS)
        echo(fd)
        prio.PR_Close(fd)

    said = []
    for arguments in (("-sess_out", tmp_path / "session"), ("-sess_in", tmp_path / "session"), ()):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                ssl.SSL_InheritMPServerSIDCache(None)
                serve_one()
                status = 0
            finally:
                os._exit(status)
        target = ("-connect", f"127.0.0.1:{port_of(listener)}", "-tls1_2", "-no_ticket", "-CAfile", pki.ca_file)
        said.append(run(require("openssl"), "s_client", *target, "-verify_return_error", *arguments, input=b"x\n"))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ["\nReused, TLSv1.2" in text for text in said] == [False, True, False]
    prio.PR_Close(listener)


def test_a_certificate_without_key(pki: PKI, token: TokenOnDisk, asked: list[object]) -> None:
    fd = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    stranger = cert.CERT_DecodeCertFromPackage(pki.server("p256", (HOST,)).chain_file.read_bytes())
    with pytest.raises(NSPRError, match="SEC_ERROR_NO_KEY"):
        pk11pub.PK11_FindKeyByAnyCert(stranger)
    with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
        ssl.SSL_ConfigSecureServer(fd, stranger, None, ssl.NSS_FindCertKEAType(stranger))
    prio.PR_Close(fd)


def test_many_at_once(pki: PKI, token: TokenOnDisk, asked: list[object]) -> None:
    """Eight threads of a server sign with one key of a token."""
    from .ends import Background

    credential = pki.for_token(token.generate_key("rsa", "web"), names=(HOST,))
    listener = listening("")
    serve(listener, nickname(token, credential))
    context = trusting(pki, TLS1_3)

    def accept() -> bytes:
        fd, _ = prio.PR_Accept(listener, TICKS)
        data = echo(fd)
        prio.PR_Close(fd)
        return data

    def ask() -> bytes:
        with python_client(port_of(listener), context) as sock:
            sock.sendall(b"x")
            return sock.recv(10)

    ends = [Background(each) for each in [accept] * 8 + [ask] * 8]
    for end in ends:
        end.__enter__()
    for end in ends:
        end.__exit__(None, None, None)
    assert [end.result for end in ends] == [b"x"] * 16
    prio.PR_Close(listener)


def test_a_listener_is_no_connection(token: TokenOnDisk, asked: list[object]) -> None:
    fd: PRFileDesc = listening("")
    with pytest.raises(NSPRError, match="PR_NOT_CONNECTED_ERROR"):
        prio.PR_Read(fd, 1)
    other = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    with pytest.raises(NSPRError, match="PR_CONNECT_REFUSED_ERROR"):
        prio.PR_Connect(other, loopback(1), TICKS)
    with pytest.raises(NSPRError, match="PR_NOT_CONNECTED_ERROR"):
        prio.PR_Write(other, b"x")
    for each in (fd, other):
        prio.PR_Close(each)
