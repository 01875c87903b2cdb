"""The key executor: in place or in threads, deadlines, checks."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.errors import CertificateError, InternalError, TokenError, WrongSignature
from nss_pk11.net.executor import REMEMBERED_KEYS, VERIFIED_FOR, KeyExecutor, NotQuick, Unverified, choose_identity
from nss_pk11.net.identity import key_of
from nss_pk11.sessions import ServerCache
from nss_pk11.tls.codepoints import SignatureScheme
from nss_pk11.tls.waits import ChooseClientIdentity, LookupSession, Sign, VerifyPeer

from .peers import TIMEOUT, KeyWith

if TYPE_CHECKING:
    from nss_pk11.tls.config import Identity

    from ..support.pki import PKI

SCHEME = SignatureScheme.ecdsa_secp256r1_sha256


def signing(identity: Identity, **replaced: Any) -> Sign:
    return Sign(replace(identity, key=KeyWith(key_of(identity), **replaced)), SCHEME, b"message")


class Answers:
    """Collects what `submit` answers."""

    def __init__(self) -> None:
        self.all: list[tuple[object, BaseException | None]] = []
        self._more = threading.Condition()

    def __call__(self, result: object, error: BaseException | None) -> None:
        with self._more:
            self.all.append((result, error))
            self._more.notify_all()

    def wait(self, count: int) -> list[tuple[object, BaseException | None]]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.all) >= count, TIMEOUT)
            return self.all


def test_quick_keys_run_in_place_and_slow_ones_do_not(identity: Identity) -> None:
    with KeyExecutor() as executor:
        assert executor.run_if_quick(signing(identity, latency=0.0005))
        with pytest.raises(NotQuick):
            executor.run_if_quick(signing(identity, latency=0.03))
        assert executor.run_if_quick(LookupSession(b"id")) is None


def test_one_slow_operation_does_not_make_a_quick_key_slow(identity: Identity) -> None:
    operation = signing(identity, latency=0.03)
    with KeyExecutor() as executor:
        with pytest.raises(NotQuick):
            executor.run_if_quick(operation)
        executor.run(operation)  # by SoftHSM, well under 2 ms
        assert executor.run_if_quick(operation)


def test_signatures_of_one_token_run_side_by_side(identity: Identity) -> None:
    together = threading.Barrier(4)

    def sign(algorithm: object, message: bytes, *, prehashed: bool, patient: bool) -> bytes:
        together.wait(TIMEOUT)
        return b"signature"

    answers = Answers()
    with KeyExecutor() as executor:
        for _ in range(4):
            executor.submit(signing(identity, sign=sign), answers, TIMEOUT)
        assert answers.wait(4) == [(b"signature", None)] * 4


def test_operation_that_waited_too_long_is_not_run(identity: Identity) -> None:
    answers = Answers()
    with KeyExecutor() as executor:
        executor.submit(signing(identity), answers, -1.0)
        [(result, error)] = answers.wait(1)
    assert result is None
    assert isinstance(error, TokenError)


def test_error_of_a_token_is_the_answer(identity: Identity) -> None:
    def sign(algorithm: object, message: bytes, *, prehashed: bool, patient: bool) -> bytes:
        raise InternalError("the token is on fire")

    answers = Answers()
    with KeyExecutor() as executor:
        executor.submit(signing(identity, sign=sign), answers, TIMEOUT)
        [(_, error)] = answers.wait(1)
    assert isinstance(error, InternalError)


def test_close_leaves_no_threads(identity: Identity) -> None:
    answers = Answers()
    before = threading.active_count()
    with KeyExecutor() as executor:
        executor.submit(signing(identity), answers, TIMEOUT)
        answers.wait(1)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_wrong_signature_is_not_released(identity: Identity) -> None:
    key = key_of(identity)
    wrong = signing(identity, sign=lambda algorithm, message, **_: key.sign(algorithm, b"another message"))
    with KeyExecutor(check_signatures=True) as careful, KeyExecutor(check_signatures=False) as trusting:
        assert careful.run(signing(identity))
        with pytest.raises(WrongSignature, match="does not verify") as refused:
            careful.run(wrong)
        assert trusting.run(wrong)
    assert refused.value.name == "SEC_ERROR_BAD_SIGNATURE"


class CountingTrust(Unverified):
    def __init__(self) -> None:
        self.asked = 0
        self.refuse = False

    def verify_server(self, chain: tuple[bytes, ...], server_name: str, *, now: float, ocsp: bytes | None = b"") -> object:
        self.asked += 1
        if self.refuse:
            raise CertificateError("no", name="SEC_ERROR_UNKNOWN_ISSUER")
        return chain


def test_verified_chain_stays_verified_for_a_while(identity: Identity) -> None:
    trust, now = CountingTrust(), [1000.0]
    with KeyExecutor(trust=trust, clock=lambda: now[0]) as executor:

        def verify(name: str = "localhost", purpose: str = "server") -> None:
            executor.run(VerifyPeer(identity.chain, name, b"", purpose))

        verify()
        verify()
        assert trust.asked == 1
        verify("example.org")
        assert trust.asked == 2
        now[0] += VERIFIED_FOR
        verify()
        assert trust.asked == 3
        now[0] -= 10 * VERIFIED_FOR  # a clock that was set back
        verify()
        assert trust.asked == 4


def test_refused_chain_is_asked_again() -> None:
    trust = CountingTrust()
    trust.refuse = True
    with KeyExecutor(trust=trust) as executor:
        for _ in range(2):
            with pytest.raises(CertificateError):
                executor.run(VerifyPeer((b"der",), "localhost", b"", "server"))
    assert trust.asked == 2


def test_without_trust_nothing_is_accepted(identity: Identity) -> None:
    with KeyExecutor() as executor, pytest.raises(CertificateError):
        executor.run(VerifyPeer(identity.chain, "localhost", b"", "server"))


def test_sessions(identity: Identity) -> None:
    with KeyExecutor(sessions=ServerCache()) as executor:
        executor.store(b"id", b"state")
        assert executor.run(LookupSession(b"id")) == b"state"
        executor.forget(b"id")
        assert executor.run(LookupSession(b"id")) is None


def test_choice_of_a_client_identity(identity: Identity, pki: PKI) -> None:
    cheap = replace(identity, cost=1.0, issuers=(b"another CA",))
    both = (replace(identity, cost=100.0), cheap)

    def choose(authorities: tuple[bytes, ...], identities: tuple[Identity, ...] = both) -> Identity | None:
        return choose_identity(ChooseClientIdentity(identities, authorities, ()))

    assert choose(()) is cheap
    assert choose((identity.issuers[0],)) is both[0]
    assert choose((b"unknown CA",)) is cheap
    assert choose((), ()) is None


def test_keys_that_are_looked_up_anew_for_every_use_do_not_add_up(identity: Identity) -> None:
    key = key_of(identity)
    with KeyExecutor() as executor:
        first = weakref.ref(executor.group(KeyWith(key)))  # type: ignore[arg-type]
        for _ in range(REMEMBERED_KEYS):
            executor.group(KeyWith(key))  # type: ignore[arg-type]
        assert len(executor.groups) == REMEMBERED_KEYS
        gc.collect()
        assert first() is None
