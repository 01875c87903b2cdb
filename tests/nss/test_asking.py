"""When a password is asked for again, and logins that an application keeps for clients of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from nss_pk11.net.executor import KeyExecutor, NotQuick
from nss_pk11.net.identity import make_identity
from nss_pk11.nss import nss, pk11pub
from nss_pk11.nss._asking import asking
from nss_pk11.nss.keyhi import SECKEYPrivateKey
from nss_pk11.nss.pk11pub import PK11SlotInfo
from nss_pk11.nss.prerror import NSPRError
from nss_pk11.slots import Algorithm
from nss_pk11.tls.codepoints import SignatureScheme
from nss_pk11.tls.waits import Sign
from tests.db.tools import Tools
from tests.support.softhsm import PIN, SoftHSM, TokenOnDisk

from .conftest import PASSWORD
from .test_login import Answers, soft_slot

Error = Callable[[], str]
EVERY_USE, ONCE, TIMEOUT = -1, 0, 1
_numbers = count(1)


class Clock:
    """Minutes that pass when the test says so."""

    def __init__(self) -> None:
        self.minutes = 1000.0

    def __call__(self) -> float:
        return 60 * self.minutes


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asking, "clock", clock)
    return clock


@pytest.fixture(autouse=True)
def no_functions_stay() -> Iterator[None]:
    yield
    pk11pub.PK11_SetVerifyPasswordFunc(None)
    pk11pub.PK11_SetIsLoggedInFunc(None)


@pytest.fixture
def answers(tools: Tools) -> Answers:
    """NSS_Init with a password function that knows the password."""
    answers = Answers(*[PASSWORD] * 9)
    pk11pub.PK11_SetPasswordFunc(answers)
    nss.NSS_Init(str(tools.directory))
    return answers


def server_key(wincx: object = None) -> SECKEYPrivateKey:
    return pk11pub.PK11_FindKeyByAnyCert(pk11pub.PK11_FindCertFromNickname("server"), wincx)


def sign(key: SECKEYPrivateKey) -> bytes:
    return key.key.sign(Algorithm.rsa_pkcs1_sha256, b"message")


def test_once_is_how_it_begins(answers: Answers, clock: Clock) -> None:
    slot = pk11pub.PK11_GetInternalKeySlot()
    assert pk11pub.PK11_GetSlotPWValues(slot) == (ONCE, 0)
    key = server_key()
    for _ in range(3):
        assert sign(key)
        clock.minutes += 1e6
    assert pk11pub.PK11_IsLoggedIn(slot)
    assert len(answers.asked) == 1


def test_every_use_asks(answers: Answers) -> None:
    slot = pk11pub.PK11_GetInternalKeySlot()
    pk11pub.PK11_SetSlotPWValues(slot, EVERY_USE, 0)
    key = server_key("window")
    assert len(answers.asked) == 1  # to find it
    assert sign(key)
    assert sign(key)
    assert key.key.decrypt(bytes(256)) is not None
    assert [arg for _, _, arg in answers.asked] == ["window"] * 4
    answers.answers = []
    with pytest.raises(NSPRError):
        sign(key)
    assert not pk11pub.PK11_IsLoggedIn(slot)


def test_idle_minutes(answers: Answers, clock: Clock) -> None:
    slot = pk11pub.PK11_GetInternalKeySlot()
    pk11pub.PK11_SetSlotPWValues(slot, TIMEOUT, 5)
    key = server_key()
    for _ in range(4):  # in use, it is never idle
        clock.minutes += 4
        assert sign(key)
    assert len(answers.asked) == 1
    clock.minutes += 5.5
    assert sign(key)
    assert len(answers.asked) == 2
    clock.minutes += 5.5
    assert not pk11pub.PK11_IsLoggedIn(slot)
    pk11pub.PK11_Authenticate(slot)
    assert len(answers.asked) == 3


def test_a_card_follows_the_database_until_it_has_values_of_its_own(softhsm: SoftHSM, clock: Clock) -> None:
    token: TokenOnDisk = softhsm.create_token(f"nss asking {next(_numbers)}")
    made = token.generate_key("p256")
    answers = Answers(*[PIN] * 9)
    pk11pub.PK11_SetPasswordFunc(answers)
    with soft_slot(softhsm, token.label) as slot:
        pk11pub.PK11_SetSlotPWValues(pk11pub.PK11_GetInternalKeySlot(), TIMEOUT, 30)
        assert pk11pub.PK11_GetSlotPWValues(slot) == (TIMEOUT, 30)
        pk11pub.PK11_SetSlotPWValues(slot, EVERY_USE, 0)
        assert pk11pub.PK11_GetSlotPWValues(slot) == (EVERY_USE, 0)
        (key,) = pk11pub.PK11_ListPrivKeysInSlot(slot, made.label)
        for asked in (2, 3):
            assert key.key.sign(Algorithm.ecdsa_sha256, b"message")
            assert len(answers.asked) == asked
        pk11pub.PK11_SetSlotPWValues(slot, TIMEOUT, 1)
        assert key.key.sign(Algorithm.ecdsa_sha256, b"message")
        clock.minutes += 2
        assert key.key.sign(Algorithm.ecdsa_sha256, b"message")
        assert len(answers.asked) == 4


def test_values_are_kept_in_the_module_list(opened: Tools) -> None:
    pk11pub.PK11_SetSlotPWValues(pk11pub.PK11_GetInternalKeySlot(), TIMEOUT, 7)
    nss.NSS_Shutdown()
    assert opened.keys()  # NSS takes the list as it is now
    nss.NSS_Init(str(opened.directory))
    assert pk11pub.PK11_GetSlotPWValues(pk11pub.PK11_GetInternalKeySlot()) == (TIMEOUT, 7)
    pk11pub.PK11_SetSlotPWValues(pk11pub.PK11_GetInternalKeySlot(), ONCE, 0)  # not open for changes: for now only
    nss.NSS_Shutdown()
    nss.NSS_Init(str(opened.directory))
    assert pk11pub.PK11_GetSlotPWValues(pk11pub.PK11_GetInternalKeySlot()) == (TIMEOUT, 7)


@pytest.mark.parametrize(("askpw", "minutes"), [(2, 0), (-2, 0), (TIMEOUT, -1)])
def test_values_that_mean_nothing(answers: Answers, error: Error, askpw: int, minutes: int) -> None:
    with pytest.raises(NSPRError):
        pk11pub.PK11_SetSlotPWValues(pk11pub.PK11_GetInternalKeySlot(), askpw, minutes)
    assert error() == "SEC_ERROR_INVALID_ARGS"


def test_clients_of_a_server_have_logins_of_their_own(answers: Answers, error: Error) -> None:
    """One token, logged in once; each client shows the server that it may use it."""
    inside, verified = {"anna"}, []

    def verify(slot: PK11SlotInfo, client: object) -> bool:
        verified.append((pk11pub.PK11_GetTokenName(slot), client))
        if client == "bert":
            inside.add("bert")
        return client == "bert"

    slot = pk11pub.PK11_GetInternalKeySlot()
    pk11pub.PK11_SetIsLoggedInFunc(lambda slot, client: client in inside)
    pk11pub.PK11_SetVerifyPasswordFunc(verify)
    assert not pk11pub.PK11_IsLoggedIn(slot, "anna")  # as nobody is
    pk11pub.PK11_Authenticate(slot, True, "anna")
    assert (len(answers.asked), verified) == (1, [])
    assert pk11pub.PK11_IsLoggedIn(slot, "anna")
    assert pk11pub.PK11_IsLoggedIn(slot)
    assert not pk11pub.PK11_IsLoggedIn(slot, "bert")
    pk11pub.PK11_Authenticate(slot, True, "bert")
    assert pk11pub.PK11_IsLoggedIn(slot, "bert")
    with pytest.raises(NSPRError):
        pk11pub.PK11_Authenticate(slot, True, "carl")
    assert error() == "SEC_ERROR_BAD_PASSWORD"
    assert verified == [("NSS Certificate DB", "bert"), ("NSS Certificate DB", "carl")]
    key = server_key("anna")
    assert sign(key)
    inside.remove("anna")
    with pytest.raises(NSPRError):
        sign(key)
    assert len(answers.asked) == 1


def test_a_key_in_tls_asks_at_every_use(answers: Answers) -> None:
    """By the executor of handshakes, in whichever thread that runs it."""
    slot = pk11pub.PK11_GetInternalKeySlot()
    pk11pub.PK11_SetSlotPWValues(slot, EVERY_USE, 0)
    server = pk11pub.PK11_FindCertFromNickname("server")
    identity = make_identity(pk11pub.PK11_FindKeyByAnyCert(server, "window").key, (server.derCert,))
    operation = Sign(identity, SignatureScheme.rsa_pkcs1_md5_sha1, bytes(36), prehashed=True)
    with KeyExecutor(check_signatures=True) as executor:
        with pytest.raises(NotQuick):
            executor.run_if_quick(operation)
        before = len(answers.asked)
        for _ in range(2):
            assert executor.run(operation)
    assert [arg for _, _, arg in answers.asked[before:]] == ["window"] * 2
