"""Two FORTEZZA cards, a server's and a client's, each in a library of its own, and handshakes between them.

Both ends are ours, as nobody else is left who speaks it: what lies beneath is held against published values where the cards'
tests and the messages' are.  The cards are reached by the C ABI of PKCS #11 alone, as real ones would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nss_pk11.certs import Trust
from nss_pk11.errors import NSPRError
from nss_pk11.net.blocking import TLSSocket
from nss_pk11.net.executor import KeyExecutor, Unverified
from nss_pk11.net.identity import load_identity
from nss_pk11.slots import SlotManager
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, ServerConfig
from nss_pk11.tls.engine import Engine
from nss_pk11.tls.suites import BY_NAME, FORTEZZA_SUITES, Suite

from ..peers import Task, socket_pair

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator

    from nss_pk11.tls.config import Identity
    from nss_pk11.tls.events import ConnectionInfo
    from nss_pk11.tls.session import Session
    from nss_pk11.tls.waits import Operation

    from ...support.pki import PKI

PIN = "123456"
CBC = BY_NAME["SSL_FORTEZZA_DMS_WITH_FORTEZZA_CBC_SHA"]
RC4 = BY_NAME["SSL_FORTEZZA_DMS_WITH_RC4_128_SHA"]


def issuer(pki: PKI) -> Path:
    """Who issues the cards' certificates, with its key, as simulated tokens want it."""
    authority = pki.authorities["rsa"][0]
    path = pki.directory / "fortezza-issuer.pem"
    key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(key + authority.certificate.public_bytes(Encoding.PEM))
    return path


def card(pki: PKI, name: str, *, kind: str = "kea") -> dict[str, Any]:
    """A card with a KEA key and a DSA key."""
    kinds = {"kea": kind, "dsa": "dsa1024"}
    keys = [{"label": label, "kind": of, "issued": [name], "issuer": str(issuer(pki))} for label, of in kinds.items()]
    return {"personality": "FORTEZZA card", "label": f"card of {name}", "pin": PIN, "key": keys}


class Holder:
    """Somebody with a card: a server called localhost, or a client."""

    def __init__(self, simulator: RunningSimulator, name: str) -> None:
        self.simulator, self.token = simulator, simulator[f"card of {name}"]
        self.manager = SlotManager()
        self.manager.load(simulator.module)
        self.kea, self.dsa = (self.identity(label) for label in ("kea", "dsa"))

    def identity(self, label: str) -> Identity:
        return load_identity(self.manager, f"{self.token.uri(label)}&pin-value={PIN}")

    def close(self) -> None:
        self.manager.close()


@dataclass
class Outcome:
    """What came of a handshake, as each end sees it; `session`: for the client to resume."""

    server: ConnectionInfo
    client: ConnectionInfo
    session: Session | None


def config(kind: type[Any], *identities: Identity, suite: Suite = CBC, version: Version = Version.ssl3, **more: Any) -> Any:
    values = {"min_version": version, "max_version": version, "suites": (suite,), "identities": identities} | more
    return kind(**values)


def shake_hands(
    trust: Trust,
    server: ServerConfig,
    client: ClientConfig,
    *,
    sessions: Any = None,
    data: bytes = b"data" * 3,
) -> Outcome:
    """Over a pair of sockets, with data both ways.  Raises what the client raises, else what the server does."""
    ours, theirs = socket_pair()
    kept: list[Session] = []

    def serve() -> ConnectionInfo:
        with (
            KeyExecutor(trust=trust, sessions=sessions) as executor,
            TLSSocket(theirs, Engine.server(server), executor) as tls,
        ):
            got = b""
            while len(got) < len(data):
                got += tls.recv()
            tls.sendall(got[::-1])
            tls.recv()
            return tls.info

    task = Task(serve)
    try:
        with (
            KeyExecutor(trust=trust) as executor,
            TLSSocket(ours, Engine.client(client), executor, on_session=kept.append) as tls,
        ):
            tls.sendall(data)
            got = b""
            while len(got) < len(data):
                got += tls.recv()
            assert got == data[::-1]
            info = tls.info
    except BaseException:
        task.join()
        raise
    return Outcome(task.wait(), info, kept[-1] if kept else None)


class Pair:
    """Both engines in this thread: the test stands between them.  `sent`: what went over the wire, and whether it was the
    client's; `more`: settings of the server."""

    def __init__(self, server: Holder, client: Holder, suite: Suite = CBC, version: Version = Version.ssl3, **more: Any) -> None:
        self.executor = KeyExecutor(trust=Unverified())
        self.sent: list[tuple[bool, bytes]] = []
        both: dict[str, Any] = {"suite": suite, "version": version, "renegotiation": "secure"}
        self.server = Engine.server(config(ServerConfig, server.kea, **both, **more))
        self.client = Engine.client(config(ClientConfig, client.kea, client.dsa, server_name="localhost", **both))
        self.client.start()

    def pass_on(self, engine: Engine) -> None:
        """What the other has sent."""
        other = self.server if engine is self.client else self.client
        data = other.data_to_send()
        if data:
            self.sent.append((other is self.client, data))
            engine.receive_data(data)

    def run(self, engine: Engine, until: type[Operation] | None = None) -> Operation | None:
        """Answers what the engine asks, but operations of `until`."""
        while (operation := engine.pending) is not None:
            if until is not None and isinstance(operation, until):
                return operation
            engine.events()
            try:
                result = self.executor.run(operation)
            except NSPRError as error:
                engine.fail(operation, error)
            else:
                engine.complete(operation, result)
        return None

    def until(self, kind: type[Operation]) -> tuple[Engine, Operation]:
        """Whoever is first asked for such an operation."""
        for _ in range(4):
            for engine in (self.client, self.server):
                self.pass_on(engine)
                operation = self.run(engine, kind)
                if operation is not None:
                    return engine, operation
        raise AssertionError("nobody asked")

    def finish(self) -> None:
        for _ in range(4):
            for engine in (self.server, self.client):
                self.pass_on(engine)
                self.run(engine)


def operations(holder: Holder) -> list[tuple[str, str]]:
    """What the card was asked to do, but for records and its housekeeping."""
    wanted = (
        "C_DeriveKey",
        "C_GenerateKey",
        "C_WrapKey",
        "C_UnwrapKey",
        "C_EncryptInit",
        "C_DecryptInit",
        "C_SignInit",
        "C_SetOperationState",
    )
    calls = [call for call in holder.simulator.calls() if call["function"] in wanted]
    assert {call["result"] for call in calls} <= {"CKR_OK"}
    return [(call["function"], call["arguments"]["mechanism"]) for call in calls]


ALL = [(version, suite) for version in (Version.ssl3, Version.tls1_0) for suite in FORTEZZA_SUITES]
