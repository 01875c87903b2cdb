"""A client that trusts what an NSS database says, against a server of the standard library; what a server says it accepts."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nss_pk11.certs import Trust
from nss_pk11.certs.database import DatabaseTrust
from nss_pk11.certs.stores import MemoryStore
from nss_pk11.db.database import Database
from nss_pk11.errors import CertificateError, NSPRError
from nss_pk11.net.client import connect
from nss_pk11.tls.config import ClientConfig

from .issuing import CA, DAY, write
from .nss_world import Case, Shape, World
from .test_nss_tools import Database as Made

pytestmark = pytest.mark.skipif(shutil.which("certutil") is None, reason="needs libnss3-tools")

TODAY = datetime.now(UTC).replace(microsecond=0)
TIMES = {"start": TODAY - DAY, "end": TODAY + DAY}
# The common name is the host's, there is no alternative name, and the root is of version 1.
HOST = "legacy.example"
LEGACY = Case(
    "legacy",
    root=Shape(version1=True, trust="CT", **TIMES),
    inter=Shape((CA,), trust=None, **TIMES),
    leaf=Shape(subject=HOST, **TIMES),
)


@pytest.fixture(scope="module")
def world() -> World:
    return World(LEGACY)


@pytest.fixture
def database(tmp_path: Path, world: World) -> Iterator[Database]:
    made = Made(tmp_path)
    made.fill([world])
    with Database.open(made.location) as opened:
        yield opened


@contextmanager
def server(directory: Path, world: World) -> Iterator[int]:
    """The port of a server for one connection, which says "hello" and ends."""
    chain = write(directory / "chain.pem", *world.chain[:2])
    key = directory / "key.pem"
    key.write_bytes(world.chain[0].key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            accepted, _ = listener.accept()
            accepted.settimeout(20)
            try:
                with context.wrap_socket(accepted, server_side=True) as connection:
                    connection.sendall(b"hello")
            except OSError:  # the client did not like what it saw
                accepted.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(30)


def greeting(port: int, trust: DatabaseTrust | Trust, host: str) -> bytes:
    with connect("127.0.0.1", port, config=ClientConfig(server_name=host), trust=trust) as tls:
        return tls.recv(5)


def test_server_that_the_web_would_not_take(tmp_path: Path, world: World, database: Database) -> None:
    with server(tmp_path, world) as port:
        assert greeting(port, DatabaseTrust.of(database), HOST) == b"hello"


def test_the_same_server_by_today_s_rules(tmp_path: Path, world: World) -> None:
    with server(tmp_path, world) as port, pytest.raises(NSPRError):
        greeting(port, Trust.from_file(write(tmp_path / "root.pem", world.chain[-1])), HOST)


def test_another_host(tmp_path: Path, world: World, database: Database) -> None:
    with server(tmp_path, world) as port, pytest.raises(CertificateError) as caught:
        greeting(port, DatabaseTrust.of(database), "host.example")
    assert caught.value.name == "SSL_ERROR_BAD_CERT_DOMAIN"


def test_roots_that_the_database_does_not_know(tmp_path: Path, world: World) -> None:
    made = Made(tmp_path)
    now, chain = TODAY.timestamp(), [one.der for one in world.chain[:2]]
    with Database.open(made.location) as database:
        with pytest.raises(CertificateError) as caught:
            DatabaseTrust.of(database).verify_server(chain, HOST, now=now)
        assert caught.value.name == "SEC_ERROR_UNKNOWN_ISSUER"
        roots = MemoryStore({world.chain[-1].der: "C"})
        assert len(DatabaseTrust.of(database, roots).verify_server(chain, HOST, now=now)) == 3


def test_clients_and_the_authorities_they_are_told(world: World, database: Database) -> None:
    trust = DatabaseTrust.of(database)
    assert trust.authorities == (world.chain[-1].certificate.subject.public_bytes(),)
    chain = [one.der for one in world.chain[:2]]
    assert len(trust.verify_client(chain, now=TODAY.timestamp())) == 3


def test_user_who_takes_the_trust_from_a_root_overrules_the_root_module(tmp_path: Path, world: World, database: Database) -> None:
    """certutil writes a record without flags, and NSS asks the database first."""
    root, now, chain = world.chain[-1].der, TODAY.timestamp(), [one.der for one in world.chain[:2]]
    trust = DatabaseTrust.of(database, MemoryStore({root: "C"}))
    trust.verify_server(chain, HOST, now=now)
    [record] = database.certificates(der=root)
    done = subprocess.run(
        ["certutil", "-M", "-d", f"sql:{database.directory}", "-n", record.nickname, "-t", ",,"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(CertificateError) as caught:
        trust.verify_server(chain, HOST, now=now)
    assert caught.value.name == "SEC_ERROR_UNTRUSTED_ISSUER"
