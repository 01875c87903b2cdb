"""A suite is there only while present tokens offer every mechanism that it needs: all suites, through the real slot manager
and a simulated token behind the C interface; some in handshakes with OpenSSL, while a server goes on."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from nss_pk11.errors import ConfigurationError
from nss_pk11.slots import SlotManager
from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.config import ClientConfig, Config, ServerConfig
from nss_pk11.tls.suites import BY_CODE, BY_NAME, FORTEZZA_SUITES, NULL, SSL2_SUITES, SUITES, Suite

from ..support.ours import OurServer, connect
from ..support.peers.base import TIMEOUT, Want
from ..support.peers.openssl import s_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pk11_tokens import RunningSimulator, TokenControl

    from nss_pk11.certs import Trust

    from ..support.peers.table import ServerPool
    from ..support.pki import PKI
    from .conftest import Keyring

EVERY = tuple(BY_CODE.values())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.02)


class Gates:
    """A slot manager with the internal module and one token, and what each of them offers."""

    def __init__(self, simulator: RunningSimulator) -> None:
        self.token: TokenControl = simulator["gated"]
        self.manager = SlotManager()
        self.internal = self.manager.mechanisms()
        self.manager.load(simulator.module)

    def withhold(self, mechanisms: frozenset[str]) -> None:
        """Take these away from the internal module, which never had some of them."""
        self.manager.withheld = mechanisms & self.internal

    def offer(self, mechanisms: frozenset[str]) -> None:
        """Have the token offer exactly these: it is pulled, and put in again."""
        self.pull()
        self.token.offer(*sorted(mechanisms))
        self.put_in()

    def pull(self) -> None:
        self.token.remove()
        self.manager.tokens()  # somebody looks

    def put_in(self) -> None:
        self.token.insert()
        self.manager.tokens()


@pytest.fixture(scope="module")
def gates() -> Iterator[Gates]:
    from pk11_tokens import start

    with start([{"label": "gated"}]) as simulator:
        gates = Gates(simulator)
        with gates.manager:
            yield gates


# --- the table -----------------------------------------------------------------------------------------------------------


def test_every_suite_needs_something() -> None:
    assert all(suite.mechanisms for suite in EVERY)
    assert all(suite.cipher.mechanism in suite.mechanisms for suite in EVERY if suite.cipher is not NULL)
    assert all("CKM_KEA_KEY_DERIVE" in suite.mechanisms for suite in FORTEZZA_SUITES)
    assert {*SUITES, *FORTEZZA_SUITES, *SSL2_SUITES} < set(EVERY)


@pytest.mark.parametrize("suite", EVERY, ids=lambda suite: suite.nss_name)
def test_a_suite_is_there_while_each_of_its_mechanisms_is(gates: Gates, suite: Suite) -> None:
    """The internal module offers none of them: gone where the token lacks exactly one, back where it has it again, or where the
    internal module has."""
    config = Config(min_version=suite.min_version, max_version=suite.max_version, suites=(suite,))
    object.__setattr__(config, "mechanisms", gates.manager.mechanisms)
    with contextlib.ExitStack() as stack:
        stack.callback(gates.withhold, frozenset())
        gates.withhold(suite.mechanisms)
        gates.offer(suite.mechanisms)
        assert config.usable_suites() == (suite,)
        for mechanism in sorted(suite.mechanisms):
            gates.offer(suite.mechanisms - {mechanism})
            assert config.usable_suites() == (), mechanism
            if mechanism in gates.internal:
                gates.withhold(suite.mechanisms - {mechanism})
                assert config.usable_suites() == (suite,), mechanism
                gates.withhold(suite.mechanisms)
                assert config.usable_suites() == (), mechanism
            gates.offer(suite.mechanisms)
            assert config.usable_suites() == (suite,), mechanism
        gates.pull()
        assert config.usable_suites() == ()
        gates.put_in()
        assert config.usable_suites() == (suite,)


@pytest.mark.parametrize("suite", EVERY, ids=lambda suite: suite.nss_name)
def test_without_any_token_all_but_fortezza_is_there(suite: Suite) -> None:
    """What no internal module can do, only a card brings."""
    with SlotManager() as manager:
        assert (suite.mechanisms <= manager.mechanisms()) == (suite not in FORTEZZA_SUITES)


def test_nothing_is_withheld_that_the_internal_module_does_not_know() -> None:
    with SlotManager() as manager:
        everything = manager.mechanisms()
        for name in ("CKM_RC44", "CKM_KEA_KEY_DERIVE"):
            with pytest.raises(ConfigurationError, match=f"the internal module has no mechanism {name}"):
                manager.withheld = {"CKM_RC4", name}  # type: ignore[assignment]
        assert (manager.withheld, manager.mechanisms()) == (frozenset(), everything)
        manager.withheld = frozenset({"CKM_RC4"})
        assert manager.mechanisms() == everything - {"CKM_RC4"}
        manager.withheld = frozenset()
        assert manager.mechanisms() == everything


def test_databases_are_of_the_internal_module(tmp_path: Path) -> None:
    with SlotManager() as manager:
        manager.withheld = frozenset({"CKM_RC4"})
        manager.open_database(tmp_path, read_only=False)
        assert "CKM_RC4" not in manager.mechanisms()
        manager.withheld = frozenset({"CKM_MD5_HMAC"})
        assert manager.mechanisms() >= {"CKM_RC4", "CKM_RSA_PKCS"}
        assert all("CKM_MD5_HMAC" not in token.mechanisms() for token in manager.tokens())


# --- handshakes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A suite that goes with a mechanism, and what is taken in its place."""

    suite: str
    mechanism: str
    instead: str

    def __str__(self) -> str:
        return f"{self.suite}-{self.mechanism}"

    @property
    def version(self) -> Version:
        return BY_NAME[self.suite].max_version

    @property
    def suites(self) -> tuple[Suite, ...]:
        return BY_NAME[self.suite], BY_NAME[self.instead]


CASES = (
    Case("TLS_AES_128_GCM_SHA256", "CKM_AES_GCM", "TLS_CHACHA20_POLY1305_SHA256"),
    Case("TLS_CHACHA20_POLY1305_SHA256", "CKM_CHACHA20_POLY1305", "TLS_AES_256_GCM_SHA384"),
    Case("ECDHE-RSA-AES128-SHA256", "CKM_SHA256_HMAC", "ECDHE-RSA-AES128-SHA"),
    Case("ECDHE-RSA-AES256-GCM-SHA384", "CKM_ECDH1_DERIVE", "AES256-GCM-SHA384"),
    Case("DHE-RSA-AES128-GCM-SHA256", "CKM_DH_PKCS_DERIVE", "ECDHE-RSA-AES128-GCM-SHA256"),
    Case("AES128-SHA", "CKM_RSA_PKCS", "ECDHE-RSA-AES128-SHA"),
    Case("AES128-CCM", "CKM_AES_CCM", "AES128-SHA"),
)
# With the last suite of a version goes the version.
OTHER_VERSIONS = (
    Case("TLS_CHACHA20_POLY1305_SHA256", "CKM_CHACHA20_POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"),
    Case("TLS_AES_128_GCM_SHA256", "CKM_AES_GCM", "AES128-SHA256"),
)
each_case = pytest.mark.parametrize("case", CASES, ids=str)


@dataclass
class Card:
    """A token that alone offers the mechanism of a case, and a manager that is told of its coming and going."""

    manager: SlotManager
    token: TokenControl
    mechanism: str

    def pull(self) -> None:
        self.token.remove()
        wait_until(lambda: self.mechanism not in self.manager.mechanisms())

    def put_in(self) -> None:
        self.token.insert()
        wait_until(lambda: self.mechanism in self.manager.mechanisms())


@contextlib.contextmanager
def card_for(case: Case, simulator: RunningSimulator) -> Iterator[Card]:
    token = simulator["gated"]
    token.offer(case.mechanism)
    with SlotManager() as manager:
        manager.withheld = frozenset({case.mechanism})
        manager.load(simulator.module)
        with manager.watch(lambda event: None, 0.05):
            yield Card(manager, token, case.mechanism)


def serving(case: Case, card: Card, keys: Keyring, *suites: Suite) -> ServerConfig:
    identities = (keys.identity("rsa"),)
    return ServerConfig(identities=identities, suites=suites, max_version=case.version, mechanisms=card.manager.mechanisms)


@each_case
def test_our_server_takes_another_suite_while_the_token_is_out(
    simulated_tokens: Callable[..., RunningSimulator], server_keys: Keyring, pki: PKI, case: Case
) -> None:
    with (
        card_for(case, simulated_tokens([{"label": "gated"}])) as card,
        OurServer(serving(case, card, server_keys, *case.suites)) as server,
    ):

        def negotiated() -> str:
            result = s_client(server.port, Want(version=case.version, ca=pki.ca_file, all_suites=case.version == Version.tls1_3))
            assert result.ok, f"{[seen.error for seen in server.seen]}\n{result}"
            return result.suite

        first, second = (suite.name for suite in case.suites)
        assert negotiated() == first
        for _ in range(2):
            card.pull()
            assert negotiated() == second
            card.put_in()
            assert negotiated() == first


@each_case
def test_our_client_offers_another_suite_while_the_token_is_out(
    simulated_tokens: Callable[..., RunningSimulator], foreign: ServerPool, pki: PKI, trust: Trust, case: Case
) -> None:
    server = foreign("openssl", Want(version=case.version, credential=pki.server("rsa"), all_suites=True))
    with card_for(case, simulated_tokens([{"label": "gated"}])) as card:
        offering: dict[str, object] = {
            "server_name": "localhost",
            "max_version": case.version,
            "mechanisms": card.manager.mechanisms,
        }
        both = ClientConfig(suites=case.suites, **offering)  # type: ignore[arg-type]
        alone = ClientConfig(suites=case.suites[:1], **offering)  # type: ignore[arg-type]

        def negotiated(config: ClientConfig) -> str:
            seen = connect(server.port, config, trust=trust)
            assert seen.error is None, f"{seen.error}\n{server.output}"
            return seen.suite

        assert negotiated(alone) == case.suites[0].name
        card.pull()
        assert negotiated(both) == case.suites[1].name
        error = connect(server.port, alone, trust=trust).error
        assert error is not None
        assert error.name == "SSL_ERROR_NO_CIPHERS_SUPPORTED"
        card.put_in()
        assert negotiated(alone) == case.suites[0].name


@pytest.mark.parametrize("case", OTHER_VERSIONS, ids=str)
def test_with_the_last_suite_of_a_version_goes_the_version(
    simulated_tokens: Callable[..., RunningSimulator],
    server_keys: Keyring,
    foreign: ServerPool,
    pki: PKI,
    trust: Trust,
    case: Case,
) -> None:
    """Both ways: nobody offers or takes TLS 1.3 and then has no suite for it."""
    theirs = foreign("openssl", Want(credential=pki.server("rsa"), all_suites=True))
    with (
        card_for(case, simulated_tokens([{"label": "gated"}])) as card,
        OurServer(serving(case, card, server_keys, *case.suites)) as server,
    ):
        config = ClientConfig(server_name="localhost", suites=case.suites, mechanisms=card.manager.mechanisms)

        def negotiated() -> list[tuple[str, str]]:
            result, seen = s_client(server.port, Want(ca=pki.ca_file)), connect(theirs.port, config, trust=trust)
            assert result.ok, result
            assert seen.error is None, theirs.output
            return [(result.version, result.suite), (seen.version, seen.suite)]

        first, second = case.suites
        assert negotiated() == 2 * [("TLSv1.3", first.name)]
        card.pull()
        assert negotiated() == 2 * [("TLSv1.2", second.name)]
        card.put_in()
        assert negotiated() == 2 * [("TLSv1.3", first.name)]


@each_case
def test_a_server_with_no_suite_left_says_so(
    simulated_tokens: Callable[..., RunningSimulator], server_keys: Keyring, pki: PKI, case: Case
) -> None:
    with (
        card_for(case, simulated_tokens([{"label": "gated"}])) as card,
        OurServer(serving(case, card, server_keys, *case.suites[:1])) as server,
    ):
        want = Want(version=case.version, ca=pki.ca_file, all_suites=case.version == Version.tls1_3)
        card.pull()
        before = server.mark()
        result = s_client(server.port, want)
        assert not result.ok
        assert "alert handshake failure" in result.alert, result
        error = server.next(before).error
        assert error is not None
        assert error.name == "SSL_ERROR_NO_CYPHER_OVERLAP"
        card.put_in()
        assert s_client(server.port, want).ok
