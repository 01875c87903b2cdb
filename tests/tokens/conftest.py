"""Simulated tokens as a host sees them: fixtures, and a host that calls the module by ctypes."""

from __future__ import annotations

import ctypes
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pk11_tokens import RunningSimulator, Simulator, TokenControl
from pk11_tokens.abi import ATTRIBUTE, CKA, CKM, CKO, CKU, MECHANISM, ULONG

from .client import Client
from .cryptoki import PIN, SLOT, Module

Start = Callable[..., RunningSimulator]

KEY = {"label": "www", "kind": "p256"}
CARD = {"label": "card", "key": [KEY]}
DATA = sha256(b"what is signed").digest()
LONGEST = 8192  # of signatures
DEADLINE = 30.0  # seconds: bounds what hangs


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


class Refused(Exception):
    """What the token answered instead of CKR_OK."""


def refused(result: str) -> AbstractContextManager[object]:
    """The token answers this CKR in here."""
    return pytest.raises(Refused, match=f"^{result}$")


def expect_ok(result: str) -> None:
    if result != "CKR_OK":
        raise Refused(result)


class Host:
    """This process as a host of one simulator's tokens.  Whatever is refused raises Refused."""

    def __init__(self, simulator: Simulator) -> None:
        self.module = Module(simulator.module)
        expect_ok(self.module.C_Initialize(None))

    def log_in(self, pin: bytes | None = PIN, slot: int = SLOT) -> int:
        """A new session; logged in."""
        session = self.module.open(slot=slot)
        try:
            expect_ok(self.module.login(session, pin))
        except Refused:
            self.module.C_CloseSession(session)
            raise
        return session

    def find(self, session: int, label: str = "www", kind: CKO = CKO.PRIVATE_KEY) -> int:
        """The handle of an object."""
        values = {CKA.CLASS: ULONG.pack(kind), CKA.LABEL: label.encode()}
        buffers = [ctypes.create_string_buffer(value, len(value)) for value in values.values()]
        template = b"".join(
            ATTRIBUTE.pack(name, ctypes.addressof(buffer), len(buffer)) for name, buffer in zip(values, buffers, strict=True)
        )
        expect_ok(self.module.C_FindObjectsInit(session, template, len(values)))
        found, count = ctypes.c_ulong(), ctypes.c_ulong()
        try:
            expect_ok(self.module.C_FindObjects(session, ctypes.byref(found), 1, ctypes.byref(count)))
        finally:
            self.module.C_FindObjectsFinal(session)
        assert count.value == 1, label
        return found.value

    def sign(
        self,
        session: int,
        key: int,
        data: bytes = DATA,
        mechanism: CKM = CKM.ECDSA,
        *,
        parameter: bytes = b"",
        pin: bytes | None = None,
    ) -> bytes:
        """C_SignInit and C_Sign; between them the PIN, for a key that wants it each time."""
        buffer = ctypes.create_string_buffer(parameter, len(parameter)) if parameter else None
        address = ctypes.addressof(buffer) if buffer else 0
        expect_ok(self.module.C_SignInit(session, MECHANISM.pack(mechanism, address, len(parameter)), key))
        if pin is not None:
            expect_ok(self.module.login(session, pin, CKU.CONTEXT_SPECIFIC))
        room, length = ctypes.create_string_buffer(LONGEST), ctypes.c_ulong(LONGEST)
        expect_ok(self.module.C_Sign(session, data, len(data), room, ctypes.byref(length)))
        return room.raw[: length.value]


class Signing:
    """A session of a host with a key in it."""

    def __init__(self, host: Host, session: int, label: str = "www") -> None:
        self.host, self.session = host, session
        self.key = host.find(session, label)

    def __call__(self) -> bytes:
        return self.host.sign(self.session, self.key)


def verify(token: TokenControl, signature: bytes, label: str = "www") -> None:
    """Raises InvalidSignature for an ECDSA signature on DATA that is not by this P-256 key."""
    key = load_der_public_key(token.public_key_der(label))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    half = len(signature) // 2
    numbers = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    key.verify(utils.encode_dss_signature(*numbers), DATA, ec.ECDSA(utils.Prehashed(SHA256())))


@pytest.fixture
def simulator(simulated_tokens: Start) -> RunningSimulator:
    """One plain token, `card`, with a P-256 key `www`."""
    return simulated_tokens([CARD])


@pytest.fixture
def card(simulator: RunningSimulator) -> TokenControl:
    return simulator["card"]


@pytest.fixture
def host(simulator: RunningSimulator) -> Host:
    return Host(simulator)


@pytest.fixture
def sign(host: Host) -> Signing:
    """Signs with `www` in a session of its own."""
    return Signing(host, host.log_in())


@pytest.fixture
def temporary_directory(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A temporary directory of its own for this test and its processes, short enough for sockets; empty at the end."""
    tmp_path_factory.getbasetemp()  # which is elsewhere
    directory = tempfile.mkdtemp(prefix="t", dir="/tmp")
    monkeypatch.setenv("TMPDIR", directory)
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield directory
    assert os.listdir(directory) == []
    os.rmdir(directory)


@pytest.fixture
def module(simulator: RunningSimulator) -> Iterator[Module]:
    """The module of a file's own `simulator`, initialised."""
    with Module(simulator.module) as initialised:
        yield initialised


@pytest.fixture
def client(module: Module) -> Client:
    """A host of it with an open session, logged in."""
    return Client(module).login()
