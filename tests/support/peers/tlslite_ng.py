"""tlslite-ng, pure Python, in this process: the one peer here that compresses certificates (RFC 8879) in both roles."""

from __future__ import annotations

import contextlib
import importlib
import socket
import threading
import warnings
from typing import TYPE_CHECKING, Any, Self

from nss_pk11.tls.codepoints import Version

from ..require import missing
from .base import HOST, REQUEST, TIMEOUT
from .commanded import SHORT_CONVERSATION, answers

if TYPE_CHECKING:
    from ..pki import Credential


def _library() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it tries asyncore
        try:
            return importlib.import_module("tlslite.api")
        except ImportError:
            missing("tlslite-ng")


def _settings(algorithm: str) -> Any:
    settings = _library().HandshakeSettings()
    settings.certificate_compression_send = settings.certificate_compression_receive = [algorithm]
    return settings


def compression_seen_by_client(port: int, algorithm: str) -> str:
    """Connect, taking certificates compressed by `algorithm` alone: by what the server's was compressed, "" for not."""
    with socket.create_connection((HOST, port), TIMEOUT) as plain:
        connection = _library().TLSConnection(plain)
        connection.handshakeClientCert(settings=_settings(algorithm), serverName="localhost")
        connection.write(REQUEST)
        assert connection.read(max=8, min=8) == b"HTTP/1.0"
        connection.close()
        return connection.server_cert_compression_algo or ""


class TLSLiteServer:
    """Answers one connection, its certificate compressed by `algorithm` if the client takes that; `used` says whether."""

    def __init__(self, credential: Credential, algorithm: str) -> None:
        self._settings = _settings(algorithm)
        self.used = ""
        self._listen(credential)

    def _listen(self, credential: Credential) -> None:
        api = _library()
        self._chain = api.X509CertChain()
        self._chain.parsePemList(credential.chain_file.read_text())
        self._key = api.parsePEMKey(credential.key_file.read_text(), private=True)
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="tlslite-server")
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            plain, _ = self._listener.accept()
            plain.settimeout(TIMEOUT)
            with plain:
                connection = _library().TLSConnection(plain)
                connection.handshakeServer(certChain=self._chain, privateKey=self._key, settings=self._settings)
                self._answer(connection)
                connection.close()

    def _answer(self, connection: Any) -> None:
        self.used = connection.server_cert_compression_algo or ""
        connection.read()
        connection.write(b"HTTP/1.0 200 OK\r\n\r\nhello")

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


# --- SSL 3.0 to TLS 1.2 ------------------------------------------------------------------------------------------------------


def _old_settings(version: Version, cipher: str, mac: str, key_exchange: str) -> Any:
    """Exactly one suite in one version; in tlslite-ng's own words."""
    settings = _library().HandshakeSettings()
    settings.minVersion = settings.maxVersion = divmod(version, 0x100)
    settings.cipherNames, settings.macNames, settings.keyExchangeNames = [cipher], [mac], [key_exchange]
    settings.minKeySize = 512
    settings.useEncryptThenMAC = settings.useExtendedMasterSecret = False
    return settings


def _negotiated(connection: Any) -> tuple[int, int]:
    """Version and suite."""
    major, minor = connection.version
    return major << 8 | minor, connection.session.cipherSuite


def old_tlslite_client(port: int, *limits: Any) -> tuple[int, int]:
    """One conversation (`commanded`); version and suite of it."""
    with socket.create_connection((HOST, port), TIMEOUT) as plain:
        connection = _library().TLSConnection(plain)
        connection.handshakeClientCert(settings=_old_settings(*limits))
        for line, answer in zip(SHORT_CONVERSATION, answers(SHORT_CONVERSATION), strict=True):
            connection.write(line)
            assert connection.read(max=len(answer), min=len(answer)) == answer
        negotiated = _negotiated(connection)
        connection.close()
        return negotiated


class OldTLSLiteServer(TLSLiteServer):
    """Answers one conversation; `negotiated`: version and suite, once it went well; `error`: why not."""

    def __init__(self, credential: Credential, *limits: Any) -> None:
        self._settings = _old_settings(*limits)
        self.negotiated: tuple[int, int] | None = None
        self.error: Exception | None = None
        self._listen(credential)

    def _run(self) -> None:
        try:
            super()._run()
        except Exception as error:
            self.error = error

    def _answer(self, connection: Any) -> None:
        for line, answer in zip(SHORT_CONVERSATION, answers(SHORT_CONVERSATION), strict=True):
            assert connection.read(max=len(line), min=len(line)) == line
            connection.write(answer)
        self.negotiated = _negotiated(connection)
