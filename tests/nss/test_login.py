"""PK11_SetPasswordFunc and logging in, on certutil's databases and on SoftHSM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from nss_pk11.nss import nss, pk11pub, secmod
from nss_pk11.nss.pk11pub import PK11SlotInfo
from nss_pk11.nss.prerror import NSPRError
from nss_pk11.slots import Algorithm
from tests.db.tools import Tools
from tests.support.softhsm import PIN, SO_PIN, SoftHSM, TokenOnDisk

from .conftest import PASSWORD

Error = Callable[[], str]
_numbers = count(1)


class Answers:
    """A password function that gives its answers in turn and keeps what it was asked."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bool, object]] = []

    def __call__(self, slot: PK11SlotInfo, retry: bool, arg: object) -> str | None:
        self.asked.append((pk11pub.PK11_GetTokenName(slot), retry, arg))
        return self.answers.pop(0) if self.answers else None


@contextmanager
def soft_slot(softhsm: SoftHSM, label: str) -> Iterator[PK11SlotInfo]:
    nss.NSS_NoDB_Init()
    secmod.SECMOD_LoadUserModule(f'library="{softhsm.module_path}" name="soft"')
    yield pk11pub.PK11_FindSlotByName(label)


@pytest.fixture
def token(softhsm: SoftHSM) -> TokenOnDisk:
    return softhsm.create_token(f"nss login {next(_numbers)}")


def test_the_function_is_asked_until_it_is_right(tools: Tools) -> None:
    answers = Answers("wrong", "wrong as well", PASSWORD)
    pk11pub.PK11_SetPasswordFunc(answers)
    nss.NSS_Init(str(tools.directory))
    slot = pk11pub.PK11_GetInternalKeySlot()
    assert pk11pub.PK11_NeedLogin(slot)
    assert not pk11pub.PK11_IsLoggedIn(slot)
    pk11pub.PK11_Authenticate(slot, True, "my window")
    assert pk11pub.PK11_IsLoggedIn(slot)
    name = "NSS Certificate DB"
    assert answers.asked == [(name, False, "my window"), (name, True, "my window"), (name, True, "my window")]
    pk11pub.PK11_Authenticate(slot, True, "my window")
    assert len(answers.asked) == 3


@pytest.mark.parametrize("answers", [None, Answers(None), Answers("wrong", None)])
def test_nobody_knows_the_password(tools: Tools, answers: Answers | None, error: Error) -> None:
    pk11pub.PK11_SetPasswordFunc(answers)
    nss.NSS_Init(str(tools.directory))
    slot = pk11pub.PK11_GetInternalKeySlot()
    with pytest.raises(NSPRError):
        pk11pub.PK11_Authenticate(slot, True)
    assert error() == "SEC_ERROR_BAD_PASSWORD"
    assert not pk11pub.PK11_IsLoggedIn(slot)


def test_a_key_is_forgotten_at_logout(tools: Tools) -> None:
    answers = Answers(PASSWORD, PASSWORD)
    pk11pub.PK11_SetPasswordFunc(answers)
    nss.NSS_Init(str(tools.directory))
    key = pk11pub.PK11_FindKeyByAnyCert(pk11pub.PK11_FindCertFromNickname("server"), "first")
    key.key.sign(Algorithm.rsa_pkcs1_sha256, b"message")
    assert len(answers.asked) == 1
    pk11pub.PK11_LogoutAll()
    assert not pk11pub.PK11_IsLoggedIn(pk11pub.PK11_GetInternalKeySlot())
    key.key.sign(Algorithm.rsa_pkcs1_sha256, b"message")
    assert len(answers.asked) == 2
    pk11pub.PK11_Logout(pk11pub.PK11_GetInternalKeySlot())
    with pytest.raises(NSPRError):  # the function has no more answers
        key.key.sign(Algorithm.rsa_pkcs1_sha256, b"message")


def test_one_password_is_tried(tools: Tools, error: Error) -> None:
    nss.NSS_Init(str(tools.directory))
    slot = pk11pub.PK11_GetInternalKeySlot()
    pk11pub.PK11_CheckUserPassword(slot, PASSWORD)
    assert pk11pub.PK11_IsLoggedIn(slot)
    for wrong in ("another", "", None):
        with pytest.raises(NSPRError):
            pk11pub.PK11_CheckUserPassword(slot, wrong)
        assert error() == "SEC_ERROR_BAD_PASSWORD"
        assert not pk11pub.PK11_IsLoggedIn(slot)


def test_certutil_wants_the_new_password(opened: Tools, error: Error) -> None:
    slot = pk11pub.PK11_GetInternalKeySlot()
    before = opened.keys()
    with pytest.raises(NSPRError):
        pk11pub.PK11_ChangePW(slot, "not the old", "new")
    assert error() == "SEC_ERROR_BAD_PASSWORD"
    pk11pub.PK11_ChangePW(slot, PASSWORD, "new")
    opened.password = "new"
    assert opened.keys() == before
    opened.change_password("newer")
    pk11pub.PK11_CheckUserPassword(slot, "newer")


def test_the_empty_password_needs_no_login(opened: Tools, error: Error) -> None:
    slot = pk11pub.PK11_GetInternalKeySlot()
    pk11pub.PK11_ChangePW(slot, PASSWORD, None)
    assert not pk11pub.PK11_NeedLogin(slot)
    pk11pub.PK11_CheckUserPassword(slot, "")
    with pytest.raises(NSPRError):
        pk11pub.PK11_CheckUserPassword(slot, "something")
    assert error() == "SEC_ERROR_BAD_PASSWORD"
    opened.password = ""
    assert len(opened.keys()) == 4


def test_a_first_password_is_set_once(opened: Tools, error: Error) -> None:
    with pytest.raises(NSPRError):
        pk11pub.PK11_InitPin(pk11pub.PK11_GetInternalKeySlot(), None, "new")
    assert error() == "SEC_ERROR_BAD_PASSWORD"
    assert opened.keys()


def test_a_card(softhsm: SoftHSM, token: TokenOnDisk, error: Error) -> None:
    answers = Answers("9999", PIN)
    pk11pub.PK11_SetPasswordFunc(answers)
    with soft_slot(softhsm, token.label) as slot:
        assert pk11pub.PK11_NeedLogin(slot)
        assert not pk11pub.PK11_IsFriendly(slot)
        pk11pub.PK11_Authenticate(slot, True, 7)
        assert answers.asked == [(token.label, False, 7), (token.label, True, 7)]
        pk11pub.PK11_Logout(slot)
        assert not pk11pub.PK11_IsLoggedIn(slot)
        pk11pub.PK11_ChangePW(slot, PIN, "new PIN")
        with pytest.raises(NSPRError):
            pk11pub.PK11_CheckUserPassword(slot, PIN)
        assert error() == "SEC_ERROR_BAD_PASSWORD"
        pk11pub.PK11_CheckUserPassword(slot, "new PIN")
        pk11pub.PK11_InitPin(slot, SO_PIN, PIN)  # the security officer can set it anew
        assert pk11pub.PK11_IsLoggedIn(slot)
        pk11pub.PK11_CheckUserPassword(slot, PIN)


def test_a_password_that_a_card_refused_is_not_sent_again(softhsm: SoftHSM, token: TokenOnDisk) -> None:
    answers = Answers("9999", "9999", "9999", "9999")
    pk11pub.PK11_SetPasswordFunc(answers)
    with soft_slot(softhsm, token.label) as slot:
        with pytest.raises(NSPRError):
            pk11pub.PK11_Authenticate(slot)
        assert "CKF_USER_PIN_COUNT_LOW" in slot.token.flags  # one try was lost
        assert len(answers.asked) == 3
