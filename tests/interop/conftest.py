"""What the interoperability tests share: one PKI, a server's token and a client's, and our identities on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nss_pk11 import pins
from nss_pk11.certs import Trust
from nss_pk11.net.identity import load_identity
from nss_pk11.slots import SlotManager

from ..support.peers.table import ServerPool
from ..support.pki import PKI, Credential
from ..support.softhsm import PIN, SoftHSM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nss_pk11.tls.config import Identity

    from ..support.softhsm import TokenOnDisk


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="session")
def pki(directory: Path) -> PKI:
    return PKI(directory / "pki")


@pytest.fixture(scope="session")
def trust(pki: PKI) -> Trust:
    return Trust.from_file(pki.ca_file)


@dataclass
class Keyring:
    """Identities whose keys were made inside a SoftHSM token, each made when first asked for."""

    token: TokenOnDisk
    pki: PKI
    manager: SlotManager
    purpose: str

    def __post_init__(self) -> None:
        self._credentials: dict[str, Credential] = {}
        self._identities: dict[str, Identity] = {}

    def credential(self, kind: str, names: tuple[str, ...] = ("localhost", "127.0.0.1")) -> Credential:
        """Key and certificate of one kind; servers with other `names` get a key of their own."""
        label = kind if names[0] == "localhost" else f"{kind}-{names[0].replace('*', 'any')}"
        if label not in self._credentials:
            key = self.token.generate_key(kind, label)
            self._credentials[label] = self.pki.for_token(key, purpose=self.purpose, names=names)
        return self._credentials[label]

    def identity(self, kind: str, names: tuple[str, ...] = ("localhost", "127.0.0.1")) -> Identity:
        credential = self.credential(kind, names)
        if credential.name not in self._identities:
            assert credential.token_key
            uri = credential.token_key.uri
            self._identities[credential.name] = load_identity(self.manager, uri, chain=credential.chain_file)
        return self._identities[credential.name]


@pytest.fixture(scope="session")
def manager(softhsm: SoftHSM) -> Iterator[SlotManager]:
    with SlotManager(pins.value(PIN)) as manager:
        yield manager


@pytest.fixture(scope="session")
def server_keys(softhsm: SoftHSM, pki: PKI, manager: SlotManager) -> Keyring:
    token = softhsm.create_token("interop-server")
    manager.load(softhsm.module_path)
    return Keyring(token, pki, manager, "server")


@pytest.fixture(scope="session")
def client_keys(softhsm: SoftHSM, pki: PKI, manager: SlotManager) -> Keyring:
    """On a second token."""
    token = softhsm.create_token("interop-client")
    manager.load(softhsm.module_path)
    return Keyring(token, pki, manager, "client")


@pytest.fixture(scope="module")
def foreign(directory: Path) -> Iterator[ServerPool]:
    pool = ServerPool(directory)
    yield pool
    pool.close()
