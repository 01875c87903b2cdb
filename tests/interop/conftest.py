"""What the interoperability tests share: one PKI, a server's token and a client's, and our identities on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nss_pk11 import pins
from nss_pk11.certs import Trust
from nss_pk11.net.identity import key_of, load_identity
from nss_pk11.slots import SlotManager

from ..support.old_peers import PEERS, OldPeer
from ..support.old_pki import OldKeys, OldPKI, OldTrust
from ..support.peers.table import ServerPool
from ..support.pki import PKI, Credential
from .talking import Matrix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nss_pk11.tls.config import Identity

    from ..support.softhsm import SoftHSM, TokenOnDisk


@pytest.fixture(scope="package")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="package")
def pki(directory: Path) -> PKI:
    return PKI(directory / "pki")


@pytest.fixture(scope="package")
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
            pin = pins.value(self.token.pin)  # the manager's own provider would serve the first token only
            self._identities[credential.name] = load_identity(self.manager, uri, chain=credential.chain_file, pins=pin)
        return self._identities[credential.name]

    def operations(self, kind: str) -> int:
        """Signatures and decryptions the key has done so far."""
        return key_of(self.identity(kind)).operations


@pytest.fixture(scope="package")
def stranger(directory: Path) -> PKI:
    """A PKI that nobody trusts."""
    return PKI(directory / "stranger", "Stranger")


@pytest.fixture(scope="package")
def tokens(softhsm: SoftHSM) -> dict[str, TokenOnDisk]:
    """A server's, a client's, and one for the keys of old peers' days.  Made before the manager loads the module: SoftHSM never
    sees tokens that another process makes later."""
    return {label: softhsm.create_token(f"interop-{label}") for label in ("server", "client", "old")}


@pytest.fixture(scope="package")
def manager(tokens: dict[str, TokenOnDisk]) -> Iterator[SlotManager]:
    with SlotManager() as manager:
        manager.load(tokens["server"].hsm.module_path)
        yield manager


@pytest.fixture(scope="package")
def server_keys(tokens: dict[str, TokenOnDisk], pki: PKI, manager: SlotManager) -> Keyring:
    return Keyring(tokens["server"], pki, manager, "server")


@pytest.fixture(scope="package")
def client_keys(tokens: dict[str, TokenOnDisk], pki: PKI, manager: SlotManager) -> Keyring:
    """On a second token."""
    return Keyring(tokens["client"], pki, manager, "client")


@pytest.fixture(scope="module")
def foreign(directory: Path) -> Iterator[ServerPool]:
    pool = ServerPool(directory)
    yield pool
    pool.close()


# --- for SSL 3.0, TLS 1.0 and TLS 1.1 --------------------------------------------------------------------------------------


@pytest.fixture(scope="package")
def old_pki(directory: Path) -> OldPKI:
    return OldPKI(directory / "old-pki", "Old")


@pytest.fixture(scope="package")
def old_trust(old_pki: OldPKI) -> OldTrust:
    return OldTrust(old_pki)


@pytest.fixture(scope="package")
def old_keys(tokens: dict[str, TokenOnDisk], manager: SlotManager) -> OldKeys:
    return OldKeys(tokens["old"], manager)


@pytest.fixture(scope="package")
def old_peers(old_pki: OldPKI, directory: Path) -> Iterator[dict[str, OldPeer]]:
    """By their letter."""
    place = directory / "old-peers"  # their NSS databases are other than those of credentials that have the same name
    place.mkdir()
    peers = {peer.key: peer(old_pki, place) for peer in PEERS}
    yield peers
    for peer in peers.values():
        peer.close()


@pytest.fixture(scope="package")
def matrix() -> Matrix:
    return Matrix()
