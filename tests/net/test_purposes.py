"""An RSA key serves SSL 2.0 or does something else (DROWN), whichever handle it is used through."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import Any

import pytest

from nss_pk11.errors import ConfigurationError
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.identity import load_identity
from nss_pk11.net.purposes import PURPOSES, Purposes
from nss_pk11.net.server import Server
from nss_pk11.net.stepdown import step_down
from nss_pk11.slots import SlotManager
from nss_pk11.tls.codepoints import SignatureScheme, Version
from nss_pk11.tls.config import Identity, ServerConfig
from nss_pk11.tls.suites import SSL2_SUITES
from nss_pk11.tls.waits import Decrypt, DecryptSsl2, Sign

from ..support.pki import PKI

SSL2: dict[str, Any] = {"suites": SSL2_SUITES, "min_version": Version.ssl2, "max_version": Version.ssl2}
REFUSED = pytest.raises(ConfigurationError, match="SEC_ERROR_INADEQUATE_KEY_USAGE")


@pytest.fixture
def pki(tmp_path: Any) -> PKI:
    """Keys that no other test has."""
    return PKI(tmp_path / "pki")


def load(pki: PKI, kind: str = "rsa") -> Identity:
    """Anew each time: other objects, the same key."""
    credential = pki.server(kind)
    with SlotManager() as manager:
        return load_identity(manager, str(credential.key_file), chain=credential.chain_file)


def test_one_or_the_other(pki: PKI) -> None:
    for first in (True, False):
        purposes = Purposes()
        purposes.claim(load(pki), ssl2=first)
        purposes.claim(load(pki), ssl2=first)
        with REFUSED:
            purposes.claim(load(pki), ssl2=not first)
        purposes.claim(replace(load(pki), shared_with_ssl2=True), ssl2=not first)
        purposes.claim(load(pki), ssl2=first)


def test_keys_that_cannot_meet_in_both(pki: PKI) -> None:
    purposes = Purposes()
    for ssl2 in (True, False):
        purposes.claim(load(pki, "p256"), ssl2=ssl2)
        purposes.claim(step_down(512).identity, ssl2=ssl2)


@pytest.mark.parametrize("ssl2_first", [True, False])
def test_operations(pki: PKI, ssl2_first: bool) -> None:
    """Of any executor of the process."""
    ciphertext, scheme = bytes(255) + b"\1", SignatureScheme.rsa_pkcs1_sha256
    with KeyExecutor() as one, KeyExecutor() as other:
        own = load(pki)
        mine: list[Any] = [DecryptSsl2(own, ciphertext)]
        others: list[Any] = [Decrypt(own, ciphertext), Sign(own, scheme, b"message")]
        allowed, refused = (mine, others) if ssl2_first else (others, mine)
        for operation in allowed:
            one.run(operation)
            other.run(operation)
        for operation in refused:
            for executor in (one, other):
                with REFUSED:
                    executor.run(operation)
                with REFUSED:
                    executor.run_if_quick(operation)
        for operation in allowed:
            one.run(operation)


def test_servers_before_their_first_client(pki: PKI) -> None:
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(KeyExecutor())

        def start(**settings: Any) -> None:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            server = Server(ServerConfig(**settings), executor, [listener])
            server.stop()
            server.run()

        start(identities=(load(pki),))
        with REFUSED:
            start(identities=(load(pki),), **SSL2)
        start(identities=(replace(load(pki), shared_with_ssl2=True),), **SSL2)
        start(identities=(load(pki, "p256"),))


def test_there_is_one_for_the_process(pki: PKI) -> None:
    own = load(pki)
    PURPOSES.claim(own, ssl2=True)
    with KeyExecutor() as executor, REFUSED:
        executor.run(Sign(own, SignatureScheme.rsa_pkcs1_sha256, b"message"))
