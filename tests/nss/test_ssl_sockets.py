"""SSL on NSPR sockets: importing, roles, data, the end; the other end is Python's `ssl`, openssl or curl."""

from __future__ import annotations

import socket
import ssl as python_ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import prinrval, prio, ssl
from nss_pk11.nss.prio import PRFileDesc
from tests.db.tools import Tools
from tests.support.require import require

from .ends import (
    HOST,
    TICKS,
    TLS1_2,
    TLS1_3,
    Background,
    OurServer,
    PythonServer,
    client_context,
    connected,
    echo,
    listening,
    port_of,
    python_client,
    python_echo,
    read_all,
    read_exactly,
    run,
    server_context,
)

pytestmark = pytest.mark.usefixtures("ready")


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
class TestTalking:
    def test_a_client(self, files: Path, version: python_ssl.TLSVersion) -> None:
        with PythonServer(server_context(files, version=version), python_echo) as server:
            fd = connected(server.port)
            assert prio.PR_Write(fd, b"hello") == 5
            assert read_all(fd) == b"hello"
            prio.PR_Close(fd)
        assert server.results == [b"hello"]

    def test_a_server(self, files: Path, version: python_ssl.TLSVersion) -> None:
        listener = listening()
        with (
            OurServer(listener, echo) as server,
            python_client(server.port, client_context(files, version)) as sock,
        ):
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
            assert sock.recv(100) == b""  # close_notify
        prio.PR_Close(listener)
        assert server.results == [b"hello"]

    def test_much_data_both_ways(self, files: Path, version: python_ssl.TLSVersion) -> None:
        data = bytes(range(256)) * 8000

        def swap(sock: python_ssl.SSLSocket) -> int:
            count = 0
            while count < len(data):
                more = len(sock.recv(65536))
                assert more, count
                count += more
            sock.sendall(data)
            return count

        with PythonServer(server_context(files, version=version), swap) as server:
            fd = connected(server.port)
            assert prio.PR_Writev(fd, [data[:1], data[1:]], TICKS) == len(data)
            assert read_exactly(fd, len(data)) == data
            prio.PR_Close(fd)
        assert server.results == [len(data)]


def test_curl_fetches_a_page(files: Path) -> None:
    def page(fd: PRFileDesc) -> bytes:
        request = prio.PR_Recv(fd, 4096, 0, TICKS)
        prio.PR_Write(fd, b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
        return request[:4]

    listener = listening()
    with OurServer(listener, page) as server:
        target = f"{HOST}:{server.port}:127.0.0.1"
        output = run(
            require("curl"), "-sS", "--noproxy", "*", "--cacert", files / "ca.pem", "--resolve", target,
            f"https://{HOST}:{server.port}/",
        )  # fmt: skip
    prio.PR_Close(listener)
    assert output == "hello\n"
    assert server.results == [b"GET "]


class TestImporting:
    def test_the_descriptor_is_the_same(self) -> None:
        plain = prio.PR_NewTCPSocket()
        assert ssl.SSL_ImportFD(None, plain) is plain
        prio.PR_Close(plain)

    def test_a_model_without_ssl(self, error: Callable[[], str]) -> None:
        model, plain = prio.PR_NewTCPSocket(), prio.PR_NewTCPSocket()
        with pytest.raises(NSPRError):
            ssl.SSL_ImportFD(model, plain)
        assert error() == "PR_BAD_DESCRIPTOR_ERROR"
        for fd in (model, plain):
            prio.PR_Close(fd)

    def test_no_socket(self, error: Callable[[], str]) -> None:
        closed = prio.PR_NewTCPSocket()
        prio.PR_Close(closed)
        for fd in (closed, None):
            with pytest.raises(NSPRError, match="PR_BAD_DESCRIPTOR_ERROR"):
                ssl.SSL_ImportFD(None, fd)  # type: ignore[arg-type]
            assert error() == "PR_BAD_DESCRIPTOR_ERROR"

    def test_ssl_twice(self) -> None:
        fd = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
        with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
            ssl.SSL_ImportFD(None, fd)
        prio.PR_Close(fd)

    def test_a_model_gives_everything(self) -> None:
        model = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
        suite, argument = 0xC02F, object()
        ssl.SSL_OptionSet(model, ssl.SSL_NO_CACHE, True)
        ssl.SSL_CipherPrefSet(model, suite, False)
        ssl.SSL_SetPKCS11PinArg(model, argument)
        ssl.SSL_SetURL(model, HOST)
        ssl.SSL_SetSockPeerID(model, "peer:1")
        ssl.SSL_AuthCertificateHook(model, lambda *_: None, argument)
        fd = ssl.SSL_ImportFD(model, prio.PR_NewTCPSocket())
        assert ssl.SSL_OptionGet(fd, ssl.SSL_NO_CACHE)
        assert not ssl.SSL_CipherPrefGet(fd, suite)
        assert ssl.SSL_RevealPinArg(fd) is argument
        assert ssl.SSL_RevealURL(fd) == HOST
        assert fd.settings is not None
        assert fd.settings.peer_id == "peer:1"
        assert fd.settings.auth_certificate == model.settings.auth_certificate  # type: ignore[union-attr]
        ssl.SSL_OptionSet(model, ssl.SSL_NO_CACHE, False)
        ssl.SSL_CipherPrefSet(model, suite, True)
        assert ssl.SSL_OptionGet(fd, ssl.SSL_NO_CACHE)
        assert not ssl.SSL_CipherPrefGet(fd, suite)
        for each in (model, fd):
            prio.PR_Close(each)

    def test_an_accepted_socket_has_what_the_listener_has(self, files: Path) -> None:
        listener, argument = listening(), object()
        ssl.SSL_OptionSet(listener, ssl.SSL_NO_CACHE, True)
        ssl.SSL_SetPKCS11PinArg(listener, argument)
        told: list[object] = []
        ssl.SSL_HandshakeCallback(listener, lambda fd, data: told.append((fd, data)), "data")

        def look(fd: PRFileDesc) -> tuple[object, ...]:
            assert ssl.SSL_RevealPinArg(fd) is argument
            ssl.SSL_ForceHandshake(fd)
            assert told == [(fd, "data")]
            return ssl.SSL_OptionGet(fd, ssl.SSL_NO_CACHE), ssl.SSL_LocalCertificate(fd).nickname  # type: ignore[union-attr]

        with OurServer(listener, look) as server:
            python_client(server.port, client_context(files)).close()
        prio.PR_Close(listener)
        assert server.results == [(1, "server")]
        told.clear()

    def test_functions_want_ssl(self, error: Callable[[], str]) -> None:
        fd = prio.PR_NewTCPSocket()
        calls: list[Callable[[], object]] = [
            lambda: ssl.SSL_ResetHandshake(fd, True),
            lambda: ssl.SSL_ForceHandshake(fd),
            lambda: ssl.SSL_ForceHandshakeWithTimeout(fd, 1),
            lambda: ssl.SSL_ReHandshake(fd, True),
            lambda: ssl.SSL_ReHandshakeWithTimeout(fd, True, 1),
            lambda: ssl.SSL_RedoHandshake(fd),
            lambda: ssl.SSL_SecurityStatus(fd),
            lambda: ssl.SSL_GetSessionID(fd),
            lambda: ssl.SSL_InvalidateSession(fd),
            lambda: ssl.SSL_PeerCertificate(fd),
            lambda: ssl.SSL_RevealCert(fd),
            lambda: ssl.SSL_PeerCertificateChain(fd),
            lambda: ssl.SSL_PeerStapledOCSPResponses(fd),
            lambda: ssl.SSL_LocalCertificate(fd),
            lambda: ssl.SSL_RevealURL(fd),
            lambda: ssl.SSL_RevealPinArg(fd),
            lambda: ssl.SSL_GetChannelInfo(fd),
            lambda: ssl.SSL_GetPreliminaryChannelInfo(fd),
            lambda: ssl.SSL_GetNextProto(fd),
            lambda: ssl.SSL_GetNegotiatedHostInfo(fd),
            lambda: ssl.SSL_ExportKeyingMaterial(fd, "label", False, b"", 16),
            lambda: ssl.SSL_KeyUpdate(fd, False),
            lambda: ssl.SSL_SendCertificateRequest(fd),
            lambda: ssl.SSL_AuthCertificateComplete(fd, 0),
            lambda: ssl.SSL_ClientCertCallbackComplete(fd, 0, None, None),
        ]
        for call in calls:
            with pytest.raises(NSPRError):
                call()
            assert error() == "PR_BAD_DESCRIPTOR_ERROR"
        assert ssl.SSL_DataPending(fd) == 0
        prio.PR_Close(fd)


class TestRoles:
    def test_a_socket_that_nobody_gave_a_role(self) -> None:
        one, other = prio.PR_NewTCPSocketPair()
        ssl.SSL_ImportFD(None, one)
        with pytest.raises(NSPRError, match="PR_NOT_CONNECTED_ERROR"):
            prio.PR_Read(one, 1)
        prio.PR_Close(one)
        prio.PR_Close(other)

    def test_a_connected_socket_gets_its_role_by_reset(self, files: Path) -> None:
        with PythonServer(server_context(files), python_echo) as server:
            plain = socket.create_connection(("127.0.0.1", server.port))
            fd = ssl.SSL_ImportFD(None, prio.PR_ImportTCPSocket(plain))
            ssl.SSL_SetURL(fd, HOST)
            ssl.SSL_ResetHandshake(fd, False)
            prio.PR_Write(fd, b"hello")
            assert read_all(fd) == b"hello"
            prio.PR_Close(fd)

    def test_a_server_on_a_connected_socket(self, files: Path) -> None:
        plain = prio.PR_NewTCPSocket()
        prio.PR_Bind(plain, prio.PRNetAddr(ip="127.0.0.1"))
        prio.PR_Listen(plain, 1)
        model = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
        from .ends import serve

        serve(model)

        def accept() -> bytes:
            fd, _ = prio.PR_Accept(plain, TICKS)
            ssl.SSL_ImportFD(model, fd)
            ssl.SSL_ResetHandshake(fd, True)
            data = echo(fd)
            prio.PR_Close(fd)
            return data

        with Background(accept) as server, python_client(port_of(plain), client_context(files)) as sock:
            sock.sendall(b"hello")
            assert sock.recv(10) == b"hello"
        assert server.result == b"hello"
        prio.PR_Close(plain)
        prio.PR_Close(model)

    def test_who_accepts_may_be_the_client(self, files: Path) -> None:
        listener = listening("")
        ssl.SSL_OptionSet(listener, ssl.SSL_HANDSHAKE_AS_CLIENT, True)
        ssl.SSL_SetURL(listener, HOST)
        context = server_context(files)

        def client(fd: PRFileDesc) -> bytes:
            prio.PR_Write(fd, b"hello")
            return read_all(fd)

        with OurServer(listener, client) as ours:
            plain = socket.create_connection(("127.0.0.1", ours.port))
            with context.wrap_socket(plain, server_side=True) as sock:
                python_echo(sock)
        assert ours.results == [b"hello"]
        prio.PR_Close(listener)

    def test_who_connects_may_be_the_server(self, files: Path) -> None:
        from .ends import loopback, serve

        with socket.create_server(("127.0.0.1", 0)) as listener:
            fd = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
            serve(fd)
            ssl.SSL_OptionSet(fd, ssl.SSL_HANDSHAKE_AS_SERVER, True)
            prio.PR_Connect(fd, loopback(listener.getsockname()[1]), TICKS)
            with Background(lambda: echo(fd)) as ours:
                plain, _ = listener.accept()
                with client_context(files).wrap_socket(plain, server_hostname=HOST) as sock:
                    sock.sendall(b"hello")
                    assert sock.recv(10) == b"hello"
        assert ours.result == b"hello"
        prio.PR_Close(fd)


class TestWithoutSecurity:
    def test_plain_bytes(self) -> None:
        ssl.SSL_OptionSetDefault(ssl.SSL_SECURITY, False)
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = connected(server.getsockname()[1])
            peer, _ = server.accept()
            prio.PR_Write(fd, b"in the clear")
            assert peer.recv(100) == b"in the clear"
            peer.sendall(b"too")
            assert prio.PR_Recv(fd, 2, prio.PR_MSG_PEEK, TICKS) == b"to"
            assert prio.PR_Available(fd) == 3
            assert prio.PR_Read(fd, 100) == b"too"
            peer.close()

            ssl.SSL_ResetHandshake(fd, True)
            ssl.SSL_ForceHandshake(fd)
            ssl.SSL_ReHandshake(fd, True)
            assert ssl.SSL_SecurityStatus(fd) == (ssl.SSL_SECURITY_STATUS_OFF, None, 0, 0, None, None)
            assert ssl.SSL_DataPending(fd) == 0
            assert ssl.SSL_PeerCertificate(fd) is None
            assert ssl.SSL_LocalCertificate(fd) is None
            assert ssl.SSL_GetSessionID(fd) is None
            prio.PR_Shutdown(fd, prio.PR_SHUTDOWN_SEND)
            prio.PR_Close(fd)


class TestData:
    def test_peeking_and_pending(self, files: Path) -> None:
        def say(sock: python_ssl.SSLSocket) -> bytes:
            sock.sendall(b"hello, world")
            return sock.recv(100)

        with PythonServer(server_context(files), say) as server:
            fd = connected(server.port)
            assert ssl.SSL_DataPending(fd) == 0
            assert prio.PR_Recv(fd, 5, prio.PR_MSG_PEEK, TICKS) == b"hello"
            assert ssl.SSL_DataPending(fd) == prio.PR_Available(fd) == 12
            assert prio.PR_Read(fd, 7) == b"hello, "
            assert ssl.SSL_DataPending(fd) == 5
            assert prio.PR_Read(fd, 0) == b""
            assert prio.PR_Read(fd, 100) == b"world"
            prio.PR_Write(fd, b"")
            prio.PR_Write(fd, b"bye")
            prio.PR_Close(fd)
        assert server.results == [b"bye"]

    def test_a_timeout_leaves_the_connection_sound(self, files: Path) -> None:
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_ForceHandshake(fd)
            with pytest.raises(NSPRError, match="PR_IO_TIMEOUT_ERROR"):
                prio.PR_Recv(fd, 1, 0, prinrval.PR_MillisecondsToInterval(30))
            prio.PR_Write(fd, b"hello")
            assert read_all(fd) == b"hello"
            prio.PR_Close(fd)

    def test_a_handshake_with_nobody_times_out(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            fd = connected(silent.getsockname()[1])
            with pytest.raises(NSPRError, match="PR_IO_TIMEOUT_ERROR"):
                prio.PR_Recv(fd, 1, 0, prinrval.PR_MillisecondsToInterval(30))
            with pytest.raises(NSPRError, match="PR_IO_TIMEOUT_ERROR"):
                ssl.SSL_ForceHandshakeWithTimeout(fd, prinrval.PR_MillisecondsToInterval(30))
            prio.PR_Close(fd)

    def test_data_before_an_error_is_not_lost(self, files: Path) -> None:
        def break_off(sock: python_ssl.SSLSocket) -> None:
            sock.sendall(b"good")
            raw = socket.socket(fileno=sock.detach())
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that does not authenticate
            with suppress(OSError):
                raw.recv(1000)
            raw.close()

        with PythonServer(server_context(files), break_off) as server:
            fd = connected(server.port)
            assert read_exactly(fd, 4) == b"good"
            for _ in range(2):
                with pytest.raises(NSPRError, match="SSL_ERROR_BAD_MAC_READ"):
                    prio.PR_Read(fd, 100)
            with pytest.raises(NSPRError, match="SSL_ERROR_BAD_MAC_READ"):
                prio.PR_Write(fd, b"x")
            prio.PR_Close(fd)


class TestEnd:
    def test_close_says_goodbye(self, files: Path) -> None:
        with PythonServer(server_context(files), lambda sock: sock.recv(100)) as server:
            fd = connected(server.port)
            ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
        assert server.results == [b""]  # an end without close_notify would be an error

    def test_close_answers_no_goodbye(self, files: Path) -> None:
        """As NSS: who has received close_notify sends none."""

        def end(sock: python_ssl.SSLSocket) -> bytes:
            """Says goodbye without waiting for one; what comes after it on the wire."""
            sock.setblocking(False)
            with pytest.raises(python_ssl.SSLWantReadError):
                sock.unwrap()
            with socket.socket(fileno=sock.detach()) as plain:
                plain.settimeout(10)
                return plain.recv(100)

        with PythonServer(server_context(files, version=TLS1_2), end) as server:
            fd = connected(server.port)
            assert read_all(fd) == b""
            prio.PR_Close(fd)
        assert server.results == [b""]

    def test_close_before_the_handshake_says_nothing(self, files: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = connected(server.getsockname()[1])
            peer, _ = server.accept()
            prio.PR_Close(fd)
            assert peer.recv(100) == b""
            peer.close()

    def test_shutting_down_one_direction(self, files: Path) -> None:
        over = threading.Event()

        def ask_and_answer(sock: python_ssl.SSLSocket) -> bytes:
            data = b"".join(iter(lambda: sock.recv(100), b""))
            sock.sendall(b"answer")
            assert over.wait(10)
            return data

        with PythonServer(server_context(files, version=TLS1_3), ask_and_answer) as server:
            fd = connected(server.port)
            prio.PR_Write(fd, b"question")
            prio.PR_Shutdown(fd, prio.PR_SHUTDOWN_SEND)
            with pytest.raises(NSPRError, match="PR_SOCKET_SHUTDOWN_ERROR"):
                prio.PR_Write(fd, b"more")
            assert read_exactly(fd, 6) == b"answer"
            prio.PR_Shutdown(fd, prio.PR_SHUTDOWN_RCV)
            with pytest.raises(NSPRError, match="PR_SOCKET_SHUTDOWN_ERROR"):
                prio.PR_Read(fd, 1)
            over.set()
            prio.PR_Close(fd)
        assert server.results == [b"question"]

    def test_an_end_without_goodbye_is_an_end(self, files: Path) -> None:
        def vanish(sock: python_ssl.SSLSocket) -> None:
            sock.sendall(b"last words")
            sock.shutdown(socket.SHUT_RDWR)

        with PythonServer(server_context(files), vanish) as server:
            fd = connected(server.port)
            assert read_all(fd) == b"last words"
            prio.PR_Close(fd)

    def test_a_closed_socket(self, files: Path) -> None:
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
            for call in (lambda: prio.PR_Close(fd), lambda: prio.PR_Read(fd, 1), lambda: prio.PR_Write(fd, b"x")):
                with pytest.raises(NSPRError, match=r"PR_BAD_DESCRIPTOR_ERROR|PR_SOCKET_SHUTDOWN_ERROR"):
                    call()

    def test_a_closed_socket_holds_nothing(self, files: Path, ready: Tools) -> None:
        from nss_pk11.nss._state import state

        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_ForceHandshake(fd)
            assert ssl.SSL_PeerCertificate(fd) is not None
            prio.PR_Close(fd)
            ssl.SSL_ClearSessionCache()
            assert state.held() == []
