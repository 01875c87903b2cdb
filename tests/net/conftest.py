"""What the driver's tests share: a PKI, and identities whose keys were made inside SoftHSM tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nss_pk11 import pins
from nss_pk11.certs import Trust
from nss_pk11.net.identity import load_identity
from nss_pk11.slots import SlotManager

from ..support.pki import PKI
from ..support.softhsm import PIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nss_pk11.tls.config import Identity

    from ..support.pki import Credential
    from ..support.softhsm import SoftHSM, TokenOnDisk


@pytest.fixture(scope="package")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("net-pki"))


@pytest.fixture(scope="package")
def trust(pki: PKI) -> Trust:
    return Trust.from_file(pki.ca_file)


@pytest.fixture(scope="package")
def token(softhsm: SoftHSM) -> TokenOnDisk:
    return softhsm.create_token("net")


@pytest.fixture(scope="package")
def credential(token: TokenOnDisk, pki: PKI) -> Credential:
    """A P-256 key made inside the token, and its certificate in a file."""
    return pki.for_token(token.generate_key("p256", "www"))


@pytest.fixture(scope="package")
def manager(softhsm: SoftHSM, credential: Credential) -> Iterator[SlotManager]:
    with SlotManager(pins.value(PIN)) as manager:
        manager.load(softhsm.module_path)
        yield manager


@pytest.fixture(scope="package")
def identity(manager: SlotManager, credential: Credential) -> Identity:
    assert credential.token_key
    return load_identity(manager, credential.token_key.uri, chain=credential.chain_file)
