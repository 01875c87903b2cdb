"""Handshakes of SSL sockets and what is known after them; the other end is Python's `ssl`, openssl or NSS's own tools."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl as python_ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import pk11pub, prio, ssl, sslproto
from nss_pk11.nss._settings import Settings
from nss_pk11.nss.prio import PRFileDesc
from tests.db.tools import Tools
from tests.support.peers.base import Process, free_port
from tests.support.require import require

from .ends import (
    HOST,
    TICKS,
    TLS1_2,
    TLS1_3,
    OurServer,
    PythonServer,
    client_context,
    connected,
    echo,
    listening,
    openssl_server,
    python_client,
    python_echo,
    read_all,
    run,
    server_context,
)

pytestmark = pytest.mark.usefixtures("ready")


class TestForcing:
    def test_a_peer_that_closes(self, error: Callable[[], str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = connected(server.getsockname()[1])
            server.accept()[0].close()
            with pytest.raises(NSPRError, match=r"PR_END_OF_FILE_ERROR|PR_CONNECT_RESET_ERROR"):
                ssl.SSL_ForceHandshake(fd)
            assert error() in ("PR_END_OF_FILE_ERROR", "PR_CONNECT_RESET_ERROR")
            prio.PR_Close(fd)

    def test_a_peer_that_reads_and_closes(self, error: Callable[[], str]) -> None:
        listener = listening()

        def force(fd: PRFileDesc) -> None:
            ssl.SSL_ForceHandshake(fd)

        with OurServer(listener, force) as server, socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(100) == b""
        assert server.results == ["PR_END_OF_FILE_ERROR"]
        prio.PR_Close(listener)

    def test_a_complete_handshake_is_not_done_again(self, files: Path) -> None:
        with PythonServer(server_context(files), python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_ForceHandshake(fd)
            ssl.SSL_ForceHandshake(fd)
            ssl.SSL_ForceHandshakeWithTimeout(fd, TICKS)
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            prio.PR_Close(fd)

    def test_what_is_no_ssl(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = connected(server.getsockname()[1])
            peer, _ = server.accept()
            peer.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            with pytest.raises(NSPRError, match="SSL_ERROR_RX_UNKNOWN_RECORD_TYPE"):
                ssl.SSL_ForceHandshake(fd)
            peer.close()
            prio.PR_Close(fd)

    def test_reset_begins_anew(self, files: Path) -> None:
        """One TCP connection, two SSL connections one after the other."""
        context = server_context(files, version=TLS1_2)

        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = connected(server.getsockname()[1])

            from .ends import Background

            def twice() -> list[bytes]:
                plain, _ = server.accept()
                first = context.wrap_socket(plain, server_side=True)
                data = [first.recv(10)]
                plain = first.unwrap()  # type: ignore[assignment]
                with context.wrap_socket(plain, server_side=True) as second:
                    data.append(second.recv(10))
                return data

            with Background(twice) as peer:
                prio.PR_Write(fd, b"first")
                layer = fd.layer
                with layer.lock:  # type: ignore[attr-defined]
                    layer.engine.close()  # type: ignore[attr-defined]
                assert prio.PR_Recv(fd, 1, 0, TICKS) == b""
                ssl.SSL_ResetHandshake(fd, False)
                assert ssl.SSL_SecurityStatus(fd).on == ssl.SSL_SECURITY_STATUS_OFF
                prio.PR_Write(fd, b"second")
            assert peer.result == [b"first", b"second"]
            prio.PR_Close(fd)


class TestSecurityStatus:
    @pytest.mark.parametrize(
        ("suite", "openssl", "expected"),
        [
            (0xC02F, "ECDHE-RSA-AES128-GCM-SHA256", ("AES-128-GCM", 128, 128, 1)),
            (0xC030, "ECDHE-RSA-AES256-GCM-SHA384", ("AES-256-GCM", 256, 256, 1)),
            (0xCCA8, "ECDHE-RSA-CHACHA20-POLY1305", ("ChaCha20-Poly1305", 256, 256, 1)),
            (0x002F, "AES128-SHA", ("AES-128", 128, 128, 1)),
            (0x0035, "AES256-SHA", ("AES-256", 256, 256, 1)),
        ],
    )
    def test_a_suite(self, files: Path, suite: int, openssl: str, expected: tuple[str, int, int, int]) -> None:
        context = server_context(files, version=TLS1_2)
        context.set_ciphers(f"{openssl}:@SECLEVEL=0")
        ssl.SSL_CipherPrefSetDefault(suite, True)
        with PythonServer(context, python_echo) as server:
            fd = connected(server.port)
            assert ssl.SSL_SecurityStatus(fd) == (0, None, 0, 0, None, None)
            prio.PR_Write(fd, b"x")
            status = ssl.SSL_SecurityStatus(fd)
            assert (status.cipher, status.keySize, status.secretKeySize, status.on) == expected
            assert (status.issuer, status.subject) == ("CN=ca", "CN=server")
            assert ssl.SSL_GetChannelInfo(fd).cipherSuite == suite
            prio.PR_Close(fd)

    def test_a_suite_without_encryption(self, files: Path) -> None:
        ssl.SSL_CipherPrefSetDefault(sslproto.SSL_RSA_WITH_NULL_SHA, True)
        listener = listening()
        context = client_context(files, TLS1_2)
        context.set_ciphers("NULL-SHA:@SECLEVEL=0")

        def status(fd: PRFileDesc) -> object:
            echo(fd)
            return ssl.SSL_SecurityStatus(fd)[:4]

        with OurServer(listener, status) as server, python_client(server.port, context) as sock:
            sock.sendall(b"x")
            assert sock.recv(10) == b"x"
        assert server.results == [(ssl.SSL_SECURITY_STATUS_OFF, "NULL", 0, 0)]
        prio.PR_Close(listener)

    def test_a_client_without_certificate(self, files: Path) -> None:
        listener = listening()

        def status(fd: PRFileDesc) -> object:
            ssl.SSL_ForceHandshake(fd)
            return ssl.SSL_SecurityStatus(fd)[4:], ssl.SSL_PeerCertificate(fd)

        with OurServer(listener, status) as server:
            python_client(server.port, client_context(files)).close()
        assert server.results == [(("no certificate", "no certificate"), None)]
        prio.PR_Close(listener)

    def test_names_as_nss_writes_them(self, ready: Tools, files: Path, tmp_path: Path) -> None:
        """What we say of a name with everything in it, and what certutil does."""
        from nss_pk11.nss.cert import CERT_DerNameToAscii, CERTCertificate

        parts = ('CN="a, b"', "OU=two  spaces", 'O="Test \\"GmbH\\" + Co"', "L=X", "ST=Y", "C=DE", "E=a@b.example", "UID=me")
        subject = ",".join((*parts, "OID.1.2.3.4=#13036F6464", "DC=example"))
        tools = Tools(tmp_path / "db", "")
        tools.directory.mkdir()
        tools.initialise()
        tools.run(
            "certutil", "-S", "-n", "named", "-s", subject, "-x", "-t", ",,", "-k", "ec", "-q", "nistp256", "-z", tools.noise
        )
        text = tools.run("certutil", "-L", "-n", "named")
        shown = re.search(r'Subject: (".*?")\n\s+Subject Public', text, re.DOTALL)
        assert shown is not None
        shown_name = re.sub(r"\n\s*", "", shown[1])[1:-1]
        named = CERTCertificate(tools.der("named"))
        assert named.subjectName == named.issuerName == CERT_DerNameToAscii(named.derSubject) == shown_name
        with pytest.raises(NSPRError, match="SEC_ERROR_BAD_DER"):
            CERT_DerNameToAscii(b"no name")


class TestWhatIsKnown:
    @pytest.mark.parametrize("version", [TLS1_2, TLS1_3])
    def test_a_client(self, files: Path, version: python_ssl.TLSVersion) -> None:
        context = server_context(files, version=version)
        context.set_alpn_protocols(["spdy/9", "http/1.1"])
        with PythonServer(context, python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_SetNextProtoNego(fd, b"\x08http/1.1\x02h2")
            assert ssl.SSL_GetChannelInfo(fd).protocolVersion == 0
            assert ssl.SSL_GetNextProto(fd).state == 0
            assert ssl.SSL_GetSessionID(fd) is None
            with pytest.raises(NSPRError, match="SSL_ERROR_NO_CERTIFICATE"):
                ssl.SSL_PeerCertificateChain(fd)
            with pytest.raises(NSPRError, match="SSL_ERROR_HANDSHAKE_NOT_COMPLETED"):
                ssl.SSL_ExportKeyingMaterial(fd, "x", False, b"", 16)
            assert ssl.SSL_GetPreliminaryChannelInfo(fd).valuesSet == 0
            ssl.SSL_ForceHandshake(fd)
            info = ssl.SSL_GetChannelInfo(fd)
            assert info.protocolVersion == version
            assert info.authKeyBits == 2048
            assert info.keaKeyBits in (255, 256)
            assert (info.keaType, info.authType) == (ssl.kt_ecdh, ssl.SSLAuthType.ssl_auth_rsa_sign)
            assert info.extendedMasterSecretUsed
            ssl.SSL_OptionSet(fd, ssl.SSL_SECURITY, False)
            assert ssl.SSL_GetChannelInfo(fd) == ssl.SSLChannelInfo()
            ssl.SSL_OptionSet(fd, ssl.SSL_SECURITY, True)
            assert not info.resumed
            assert info.creationTime <= info.lastAccessTime
            preliminary = ssl.SSL_GetPreliminaryChannelInfo(fd)
            assert (preliminary.protocolVersion, preliminary.cipherSuite) == (version, info.cipherSuite)
            assert preliminary.valuesSet == 3
            assert ssl.SSL_GetNextProto(fd) == (ssl.SSLNextProtoState.SSL_NEXT_PROTO_SELECTED, b"http/1.1")
            assert ssl.SSL_GetNegotiatedHostInfo(fd) == HOST
            server_cert = ssl.SSL_PeerCertificate(fd)
            assert server_cert is not None
            assert server_cert.subjectName == "CN=server"
            assert ssl.SSL_RevealCert(fd) == server_cert
            assert ssl.SSL_PeerCertificateChain(fd)[0] == server_cert
            assert ssl.SSL_PeerStapledOCSPResponses(fd) == []
            assert ssl.SSL_LocalCertificate(fd) is None
            assert len(ssl.SSL_GetSessionID(fd) or b"") in (0, 32)
            prio.PR_Write(fd, b"x")
            assert read_all(fd) == b"x"
            prio.PR_Close(fd)

    def test_a_server(self, files: Path) -> None:
        listener = listening()
        ssl.SSL_SetNextProtoNego(listener, b"\x08http/1.1")

        def look(fd: PRFileDesc) -> object:
            ssl.SSL_ForceHandshake(fd)
            own = ssl.SSL_LocalCertificate(fd)
            assert own is not None
            assert own.nickname == "server"
            return ssl.SSL_GetNegotiatedHostInfo(fd), ssl.SSL_GetNextProto(fd), ssl.SSL_GetChannelInfo(fd).authKeyBits

        context = client_context(files)
        context.set_alpn_protocols(["http/1.1"])
        with OurServer(listener, look) as server:
            python_client(server.port, context).close()
        negotiated = (ssl.SSLNextProtoState.SSL_NEXT_PROTO_NEGOTIATED, b"http/1.1")
        assert server.results == [(HOST, negotiated, 2048)]
        prio.PR_Close(listener)

    @pytest.mark.parametrize(
        ("ciphers", "kea", "auth"),
        [
            ("AES128-SHA", ssl.kt_rsa, ssl.SSLAuthType.ssl_auth_rsa_decrypt),
            ("DHE-RSA-AES128-SHA", ssl.kt_dh, ssl.SSLAuthType.ssl_auth_rsa_sign),
            ("ECDHE-RSA-AES128-SHA", ssl.kt_ecdh, ssl.SSLAuthType.ssl_auth_rsa_sign),
        ],
    )
    def test_how_keys_were_agreed_and_by_what_the_server_proved_itself(
        self, files: Path, ciphers: str, kea: int, auth: int
    ) -> None:
        ssl.SSL_CipherPrefSetDefault(sslproto.TLS_RSA_WITH_AES_128_CBC_SHA, True)
        ssl.SSL_CipherPrefSetDefault(sslproto.TLS_DHE_RSA_WITH_AES_128_CBC_SHA, True)
        listener = listening()

        def look(fd: PRFileDesc) -> object:
            ssl.SSL_ForceHandshake(fd)
            info = ssl.SSL_GetChannelInfo(fd)
            return info.keaType, info.authType

        context = client_context(files)
        context.maximum_version = python_ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        with OurServer(listener, look) as server:
            python_client(server.port, context).close()
        assert server.results == [(kea, auth)]
        prio.PR_Close(listener)

    def test_a_protocol_is_bytes(self) -> None:
        """Not text, though most look like it (RFC 7301 section 6; RFC 8701 reserves 0x8A8A)."""
        listener = listening()
        ssl.SSL_SetNextProtoNego(listener, b"\x02\x8a\x8a")

        def look(fd: PRFileDesc) -> object:
            ssl.SSL_ForceHandshake(fd)
            return ssl.SSL_GetNextProto(fd).buf

        with OurServer(listener, look) as server:
            target = ("-connect", f"127.0.0.1:{server.port}", "-alpn", os.fsdecode(b"\x8a\x8a"))
            run(require("openssl"), "s_client", *target, status=None)
        prio.PR_Close(listener)
        assert server.results == [b"\x8a\x8a"]

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_keying_material_is_the_peers(self, version: str) -> None:
        """RFC 5705 and RFC 8446 section 7.5, by openssl's own exporter."""
        listener = listening()

        def export(fd: PRFileDesc) -> str:
            ssl.SSL_ForceHandshake(fd)
            for label, length in (("", 16), ("x", 0)):
                with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
                    ssl.SSL_ExportKeyingMaterial(fd, label, False, b"", length)
            assert len(ssl.SSL_ExportKeyingMaterial(fd, b"EXPERIMENTAL x", True, b"context", 20)) == 20
            return ssl.SSL_ExportKeyingMaterial(fd, "EXPERIMENTAL nss-pk11", False, b"", 32).hex().upper()

        with OurServer(listener, export) as server:
            target = ("-connect", f"127.0.0.1:{server.port}", version)
            exporter = ("-keymatexport", "EXPERIMENTAL nss-pk11", "-keymatexportlen", "32")
            said = run(require("openssl"), "s_client", *target, *exporter, status=None)
        prio.PR_Close(listener)
        match = re.search(r"Keying material: ([0-9A-F]+)", said)
        assert match is not None
        assert server.results == [match[1]]

    def test_suites(self) -> None:
        modern = ssl.SSL_GetCipherSuiteInfo(0xC02B)
        assert modern.cipherSuiteName == "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
        assert (modern.symCipherName, modern.effectiveKeyBits, modern.macAlgorithmName) == ("AES-GCM", 128, "AEAD")
        triple = ssl.SSL_GetCipherSuiteInfo(sslproto.SSL_RSA_WITH_3DES_EDE_CBC_SHA)
        assert (triple.symKeyBits, triple.symKeySpace, triple.effectiveKeyBits) == (192, 156, 112)
        assert (triple.authAlgorithmName, triple.keaTypeName, triple.macBits, triple.isFIPS) == ("RSA", "RSA", 160, True)
        export = ssl.SSL_GetCipherSuiteInfo(sslproto.SSL_RSA_EXPORT_WITH_RC4_40_MD5)
        assert (export.symKeyBits, export.effectiveKeyBits, export.isExportable) == (128, 40, True)
        fips = ssl.SSL_GetCipherSuiteInfo(sslproto.SSL_RSA_FIPS_WITH_DES_CBC_SHA)
        assert (fips.isFIPS, fips.nonStandard, fips.symKeyBits, fips.effectiveKeyBits) == (True, True, 64, 56)
        signed = ssl.SSL_GetCipherSuiteInfo(0xC027)  # TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256
        assert (signed.authAlgorithm, signed.authType) == (ssl.SSLAuthType.ssl_auth_rsa, ssl.SSLAuthType.ssl_auth_rsa_sign)
        assert signed.isFIPS
        assert export.authType is ssl.SSLAuthType.ssl_auth_null
        assert not ssl.SSL_GetCipherSuiteInfo(0xCCA8).isFIPS  # ChaCha20
        assert not ssl.SSL_GetCipherSuiteInfo(sslproto.TLS_RSA_WITH_AES_128_CBC_SHA).isFIPS  # in 3.10
        skipjack = ssl.SSL_GetCipherSuiteInfo(sslproto.SSL_FORTEZZA_DMS_WITH_FORTEZZA_CBC_SHA)
        assert skipjack.symCipherName == "SKIPJACK"
        assert (skipjack.symKeyBits, skipjack.symKeySpace, skipjack.effectiveKeyBits) == (96, 80, 80)
        ssl2 = ssl.SSL_GetCipherSuiteInfo(sslproto.SSL_EN_DES_192_EDE3_CBC_WITH_MD5)
        assert (ssl2.cipherSuiteName, ssl2.symCipherName) == ("SSL_CK_DES_192_EDE3_CBC_WITH_MD5", "3DES")
        for code in ssl.SSL_ImplementedCiphers:
            assert ssl.SSL_GetCipherSuiteInfo(code).cipherSuite == code
        with pytest.raises(NSPRError, match="SEC_ERROR_INVALID_ARGS"):
            ssl.SSL_GetCipherSuiteInfo(0x1234)


class TestRefusals:
    def test_no_protocol(self) -> None:
        ssl.SSL_OptionSetDefault(ssl.SSL_ENABLE_SSL3, False)
        ssl.SSL_OptionSetDefault(ssl.SSL_ENABLE_TLS, False)
        ssl.SSL_OptionSetDefault(ssl.SSL_ENABLE_SSL2, False)
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = connected(server.getsockname()[1])
            with pytest.raises(NSPRError, match="SSL_ERROR_SSL_DISABLED"):
                ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)

    def test_no_policy(self) -> None:
        Settings.defaults = Settings()
        with socket.create_server(("127.0.0.1", 0)) as server:
            fd = connected(server.getsockname()[1])
            with pytest.raises(NSPRError, match="SSL_ERROR_SSL_DISABLED"):
                prio.PR_Write(fd, b"x")
            prio.PR_Close(fd)

    def test_a_server_without_certificate(self, files: Path) -> None:
        listener = listening("")
        with OurServer(listener, echo) as server, pytest.raises(OSError, match=r".*"):
            python_client(server.port, client_context(files))
        assert server.results == ["SSL_ERROR_NO_CIPHERS_SUPPORTED"]
        prio.PR_Close(listener)

    def test_a_server_without_a_cache(self, files: Path) -> None:
        ssl.SSL_ShutdownServerSessionIDCache()
        listener = listening()
        with OurServer(listener, echo) as server, pytest.raises(OSError, match=r".*"):
            python_client(server.port, client_context(files))
        assert server.results == ["SSL_ERROR_SERVER_CACHE_NOT_CONFIGURED"]
        ssl.SSL_OptionSet(listener, ssl.SSL_NO_CACHE, True)
        with OurServer(listener, echo) as server, python_client(server.port, client_context(files)) as sock:
            sock.sendall(b"x")
            assert sock.recv(10) == b"x"
        assert server.results == [b"x"]
        prio.PR_Close(listener)

    def test_no_common_suite(self, files: Path) -> None:
        listener = listening("ec")
        context = client_context(files, TLS1_2)
        context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        with OurServer(listener, echo) as server, pytest.raises(python_ssl.SSLError, match="HANDSHAKE_FAILURE"):
            python_client(server.port, context)
        assert server.results == ["SSL_ERROR_NO_CYPHER_OVERLAP"]
        prio.PR_Close(listener)

    def test_the_peers_alert_is_the_error(self, files: Path) -> None:
        context = server_context(files, version=TLS1_2)
        context.set_ciphers("AES256-SHA256")
        with PythonServer(context, python_echo) as server:
            fd = connected(server.port)
            ssl.SSL_CipherPrefSet(fd, 0x003D, False)
            with pytest.raises(NSPRError, match="SSL_ERROR_HANDSHAKE_FAILURE_ALERT"):
                ssl.SSL_ForceHandshake(fd)
            prio.PR_Close(fd)
        assert "NO_SHARED_CIPHER" in str(server.results[0])

    def test_a_version_that_is_off(self, files: Path) -> None:
        listener = listening()
        ssl.SSL_VersionRangeSet(listener, (0x0304, 0x0304))
        with OurServer(listener, echo) as server, pytest.raises(python_ssl.SSLError, match="PROTOCOL_VERSION"):
            python_client(server.port, client_context(files, TLS1_2))
        assert server.results == ["SSL_ERROR_UNSUPPORTED_VERSION"]
        prio.PR_Close(listener)


class TestOldVersions:
    """With openssl, which has TLS 1.0 and 1.1, and with NSS's tools."""

    @pytest.mark.parametrize(("flag", "version"), [("-tls1", 0x0301), ("-tls1_1", 0x0302), ("-tls1_2", 0x0303)])
    def test_a_server(self, flag: str, version: int) -> None:
        listener = listening()

        def look(fd: PRFileDesc) -> object:
            echo(fd)
            return ssl.SSL_GetChannelInfo(fd).protocolVersion

        with OurServer(listener, look) as server:
            target = ("-connect", f"127.0.0.1:{server.port}", flag, "-cipher", "DEFAULT:@SECLEVEL=0")
            run(require("openssl"), "s_client", *target, "-quiet", input=b"x\n", status=None)
        assert server.results == [version]
        prio.PR_Close(listener)

    @pytest.mark.parametrize(("flag", "version"), [("-tls1", 0x0301), ("-tls1_1", 0x0302), ("-tls1_2", 0x0303)])
    def test_a_client(self, files: Path, flag: str, version: int) -> None:
        with openssl_server(files, flag, "-cipher", "DEFAULT:@SECLEVEL=0", "-www") as port:
            fd = connected(port)
            prio.PR_Write(fd, b"GET / HTTP/1.0\r\n\r\n")
            assert b" 200 " in read_all(fd)
            assert ssl.SSL_GetChannelInfo(fd).protocolVersion == version
            prio.PR_Close(fd)

    def test_an_option_switches_them_off(self) -> None:
        listener = listening()
        ssl.SSL_OptionSet(listener, ssl.SSL_ENABLE_TLS, False)
        with OurServer(listener, echo) as server:
            target = ("-connect", f"127.0.0.1:{server.port}", "-tls1", "-cipher", "DEFAULT:@SECLEVEL=0")
            run(require("openssl"), "s_client", *target, status=None)
        assert server.results == ["SSL_ERROR_NO_CYPHER_OVERLAP"]  # SSL 3.0 is left, which the client has no suite for
        prio.PR_Close(listener)

    @pytest.mark.parametrize("version", ["tls1.0", "tls1.1"])
    def test_tstclnt(self, ready: Tools, version: str) -> None:
        listener = listening()

        def answer(fd: PRFileDesc) -> str | None:
            prio.PR_Recv(fd, 100, 0, TICKS)
            prio.PR_Write(fd, b"HTTP/1.0 200 OK\r\n\r\nfrom us\n")
            return ssl.SSL_SecurityStatus(fd).cipher

        request = ready.file("request", "GET / HTTP/1.0\r\n\r\n")
        with OurServer(listener, answer) as server:
            said = run(
                require("tstclnt"), "-d", f"sql:{ready.directory}", "-h", "127.0.0.1", "-p", str(server.port), "-a", HOST,
                "-A", request, "-V", f"{version}:{version}",
            )  # fmt: skip
        prio.PR_Close(listener)
        assert "from us" in said
        assert str(server.results[0]).startswith("AES-")


class TestWithNSS:
    """The same functions on the other side, in C."""

    def test_tstclnt(self, ready: Tools) -> None:
        listener = listening()

        def answer(fd: PRFileDesc) -> bytes:
            data = prio.PR_Recv(fd, 100, 0, TICKS)
            prio.PR_Write(fd, b"HTTP/1.0 200 OK\r\n\r\nfrom us\n")
            return data

        request = ready.file("request", "GET / HTTP/1.0\r\n\r\n")
        with OurServer(listener, answer) as server:
            said = run(
                require("tstclnt"), "-d", f"sql:{ready.directory}", "-h", "127.0.0.1", "-p", str(server.port), "-a", HOST,
                "-A", request, "-v",
            )  # fmt: skip
        prio.PR_Close(listener)
        assert server.results == [b"GET / HTTP/1.0\r\n\r\n"]
        assert "from us" in said

    def test_selfserv(self, ready: Tools) -> None:
        port, password = free_port(), ready.file("pw", f"{ready.password}\n")
        command = [
            require("selfserv"), "-d", f"sql:{ready.directory}", "-n", "server", "-p", str(port), "-f", password, "-v",
        ]  # fmt: skip
        with Process(command) as process:
            process.wait_for("About to call accept")
            fd = connected(port)
            prio.PR_Write(fd, b"GET / HTTP/1.0\r\n\r\n")
            assert b"HTTP/1.0 200 OK" in read_all(fd)
            assert ssl.SSL_SecurityStatus(fd).subject == "CN=server"
            prio.PR_Close(fd)


class TestKeys:
    def test_an_ec_key(self, files: Path) -> None:
        listener = listening("ec")
        with OurServer(listener, echo) as server, python_client(server.port, client_context(files)) as sock:
            sock.sendall(b"x")
            assert sock.recv(10) == b"x"
            der = sock.getpeercert(True)
        assert der is not None
        assert hashlib.sha256(der).digest() == hashlib.sha256(pk11pub.PK11_FindCertFromNickname("ec").derCert).digest()
        prio.PR_Close(listener)

    def test_two_certificates(self, files: Path) -> None:
        """The client's suites decide which."""
        from .ends import serve

        listener = listening("ec")
        serve(listener, "server")
        for ciphers, subject in (("ECDHE-ECDSA-AES128-GCM-SHA256", "ec"), ("ECDHE-RSA-AES128-GCM-SHA256", "server")):
            context = client_context(files, TLS1_2)
            context.set_ciphers(ciphers)
            with OurServer(listener, echo) as server, python_client(server.port, context) as sock:
                sock.sendall(b"x")
                assert sock.recv(10) == b"x"
                assert dict(item[0] for item in (sock.getpeercert() or {})["subject"]) == {"commonName": subject}  # type: ignore[union-attr,misc]
            assert server.results == [b"x"]
        prio.PR_Close(listener)
