"""NSS_Init and its kin on directories of certutil's, NSS_Shutdown while something is held, errors per thread."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nss_pk11.nss import cert, keyhi, nss, pk11pub, prerror, prinit, secmod
from nss_pk11.nss._state import Reference, state
from nss_pk11.nss.prerror import NSPRError
from tests.db.tools import FEW_ITERATIONS, Tools

from .conftest import PASSWORD

Error = Callable[[], str]


def test_nothing_works_before(error: Error) -> None:
    for function in (cert.CERT_GetDefaultCertDB, pk11pub.PK11_GetInternalKeySlot, nss.NSS_Shutdown):
        prerror.PR_SetError(0)
        with pytest.raises(NSPRError, match="NSS_Init"):
            function()
        assert error() == "SEC_ERROR_NOT_INITIALIZED"
    assert not nss.NSS_IsInitialized()


def test_what_certutil_made_is_found(tools: Tools) -> None:
    nss.NSS_Init(f"sql:{tools.directory}")
    assert nss.NSS_IsInitialized()
    for nickname in tools.listed():
        assert pk11pub.PK11_FindCertFromNickname(nickname).derCert == tools.der(nickname)
    assert set(cert.CERT_GetCertNicknames(None, 2)) == set(tools.listed())  # certutil issued all of them here
    assert pk11pub.PK11_IsReadOnly(pk11pub.PK11_GetInternalKeySlot())


def test_the_first_databases_stay(tools: Tools, tmp_path: Path) -> None:
    nss.NSS_Init(str(tools.directory))
    nss.NSS_Init(str(tmp_path / "another"))
    assert pk11pub.PK11_FindCertFromNickname("server").nickname == "server"


def test_reading_changes_nothing(tools: Tools, error: Error) -> None:
    before = {file.name: hashlib.sha256(file.read_bytes()).digest() for file in tools.directory.iterdir()}
    pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: PASSWORD)
    nss.NSS_Init(str(tools.directory))
    try_to_change(pk11pub.PK11_GetInternalKeySlot(), pk11pub.PK11_FindCertFromNickname("server"), error)
    nss.NSS_Shutdown()
    assert {file.name: hashlib.sha256(file.read_bytes()).digest() for file in tools.directory.iterdir()} == before


def try_to_change(slot: pk11pub.PK11SlotInfo, server: cert.CERTCertificate, error: Error) -> None:
    pk11pub.PK11_Authenticate(slot)
    attempts: list[Callable[[], object]] = [
        lambda: pk11pub.PK11_ImportCert(slot, server, None, "other"),
        lambda: cert.CERT_ChangeCertTrust(None, server, cert.CERT_DecodeTrustString("P,,")),
        lambda: cert.SEC_DeletePermCertificate(server),
        lambda: pk11pub.PK11_GenerateKeyPair(slot, pk11pub.CKM_RSA_PKCS_KEY_PAIR_GEN, pk11pub.PK11RSAGenParams(2048)),
        lambda: pk11pub.PK11_ChangePW(slot, PASSWORD, "other"),
        lambda: secmod.SECMOD_AddNewModule("soft", "/nowhere.so"),
    ]
    for attempt in attempts:
        with pytest.raises(NSPRError):
            attempt()
        assert error() == "SEC_ERROR_READ_ONLY"


def test_no_database_there(tmp_path: Path, error: Error) -> None:
    file = tmp_path / "file"
    file.touch()
    for directory in (tmp_path, tmp_path / "missing", file):
        with pytest.raises(NSPRError):
            nss.NSS_Init(str(directory))
        assert error() == "SEC_ERROR_BAD_DATABASE"
        assert not nss.NSS_IsInitialized()
    with pytest.raises(NSPRError, match="certutil"):
        nss.NSS_Init(f"dbm:{tmp_path}")
    assert error() == "SEC_ERROR_LEGACY_DATABASE"


def test_forced_open_it_goes_on_without(tmp_path: Path) -> None:
    flags = nss.NSS_INIT_READONLY | nss.NSS_INIT_FORCEOPEN | nss.NSS_INIT_NOROOTINIT
    nss.NSS_Initialize(str(tmp_path / "missing"), "", "", nss.SECMOD_DB, flags)
    assert nss.NSS_IsInitialized()
    assert pk11pub.PK11_ListCerts(0) == []


def test_prefixes(tools: Tools) -> None:
    for name in ("cert9.db", "key4.db"):
        (tools.directory / name).rename(tools.directory / f"my-{name}")
    nss.NSS_Initialize(str(tools.directory), "my-", "my-", nss.SECMOD_DB, nss.NSS_INIT_READONLY | nss.NSS_INIT_NOROOTINIT)
    assert pk11pub.PK11_FindCertFromNickname("ca").derCert
    assert not secmod.SECMOD_HasRootCerts()


def test_without_databases(error: Error) -> None:
    nss.NSS_NoDB_Init()
    assert pk11pub.PK11_GetInternalKeySlot() == pk11pub.PK11_GetInternalSlot()
    assert [module.internal for module in secmod.SECMOD_GetDefaultModuleList()] == [True]
    with pytest.raises(NSPRError):
        pk11pub.PK11_FindCertFromNickname("server")
    assert error() == "SEC_ERROR_UNKNOWN_CERT"


def test_a_directory_made_here_is_certutils(tmp_path: Path) -> None:
    tools = Tools(tmp_path / "db", PASSWORD, environment=FEW_ITERATIONS)
    tools.directory.mkdir()
    nss.NSS_InitReadWrite(str(tools.directory))
    slot = pk11pub.PK11_GetInternalKeySlot()
    assert pk11pub.PK11_NeedUserInit(slot)
    pk11pub.PK11_InitPin(slot, None, PASSWORD)
    assert pk11pub.PK11_IsLoggedIn(slot)
    assert pk11pub.PK11_NeedLogin(slot)
    assert not pk11pub.PK11_NeedUserInit(slot)
    del slot
    nss.NSS_Shutdown()
    tools.issue("me", "-k", "ec", "-q", "nistp256")
    assert tools.listed() == {"me": "u,u,u"}


def test_busy_while_something_is_held(tools: Tools, error: Error) -> None:
    nss.NSS_Init(str(tools.directory))
    held = pk11pub.PK11_FindCertFromNickname("server")
    with pytest.raises(NSPRError, match="server"):
        nss.NSS_Shutdown()
    assert error() == "SEC_ERROR_BUSY"
    assert nss.NSS_IsInitialized()
    assert pk11pub.PK11_FindCertFromNickname("server") == held  # all is as it was
    cert.CERT_DupCertificate(held)
    cert.CERT_DestroyCertificate(held)
    with pytest.raises(NSPRError):
        nss.NSS_Shutdown()
    cert.CERT_DestroyCertificate(held)
    nss.NSS_Shutdown()
    assert not nss.NSS_IsInitialized()
    with pytest.raises(NSPRError, match="freed before"):
        cert.CERT_DestroyCertificate(held)


def test_what_python_forgot_is_not_held(tools: Tools) -> None:
    nss.NSS_Init(str(tools.directory))
    circle: list[object] = [pk11pub.PK11_GetInternalKeySlot(), pk11pub.PK11_FindCertFromNickname("ca")]
    circle.append(circle)
    del circle
    nss.NSS_Shutdown()


def test_keys_slots_and_modules_are_held(opened: Tools) -> None:
    for hold in (
        lambda: pk11pub.PK11_FindKeyByAnyCert(pk11pub.PK11_FindCertFromNickname("server")),
        pk11pub.PK11_GetInternalSlot,
        secmod.SECMOD_GetInternalModule,
    ):
        held = hold()
        with pytest.raises(NSPRError):
            nss.NSS_Shutdown()
        del held
    nss.NSS_Shutdown()


def test_threads_hold_things_while_another_looks_at_what_is_held() -> None:
    """Every verification looks for temporary certificates among them."""
    many = [Reference() for _ in range(2000)]
    over = threading.Event()

    def hold() -> None:
        while not over.is_set():
            Reference()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        for _ in range(200):
            assert set(many) <= set(state.live())
    finally:
        over.set()
        thread.join()


def test_what_was_duplicated_is_freed_as_often(opened: Tools) -> None:
    server = pk11pub.PK11_FindCertFromNickname("server")
    public = cert.CERT_ExtractPublicKey(server)
    held = (pk11pub.PK11_FindKeyByAnyCert(server), pk11pub.PK11_GetInternalSlot(), secmod.SECMOD_GetInternalModule())
    key, slot, module = held
    assert (keyhi.SECKEY_CopyPrivateKey(key), pk11pub.PK11_ReferenceSlot(slot), secmod.SECMOD_ReferenceModule(module)) == held
    cert.CERT_DestroyCertificate(server)
    keyhi.SECKEY_DestroyPublicKey(public)
    for _ in range(2):
        with pytest.raises(NSPRError):
            nss.NSS_Shutdown()
        keyhi.SECKEY_DestroyPrivateKey(key)
        pk11pub.PK11_FreeSlot(slot)
        secmod.SECMOD_DestroyModule(module)
    nss.NSS_Shutdown()


def test_it_may_begin_again(tools: Tools) -> None:
    for _ in range(3):
        nss.NSS_Init(str(tools.directory))
        assert pk11pub.PK11_FindCertFromNickname("server").derCert
        nss.NSS_Shutdown()


def test_each_thread_has_its_own_error(error: Error) -> None:
    with pytest.raises(NSPRError):
        pk11pub.PK11_GetInternalSlot()
    others: list[str] = []
    thread = threading.Thread(target=lambda: others.append(error()))
    thread.start()
    thread.join()
    assert others == [""]
    nss.NSS_NoDB_Init()
    assert error() == "SEC_ERROR_NOT_INITIALIZED"  # success does not clear it


def test_errors_by_number() -> None:
    assert prerror.PR_ErrorToName(-8053) == "SEC_ERROR_BUSY"
    assert "referenced" in prerror.PR_ErrorToString(-8053)
    assert prerror.PR_ErrorToName(1) is None
    prerror.PR_SetError(-8053)
    assert (prerror.PR_GetError(), prerror.PR_GetErrorText()) == (-8053, "")


def test_nspr(error: Error) -> None:
    prinit.PR_Init(prinit.PR_USER_THREAD, prinit.PR_PRIORITY_NORMAL, 1)
    assert prinit.PR_Initialized()
    nss.NSS_NoDB_Init()
    with pytest.raises(NSPRError, match="NSS_Shutdown"):
        prinit.PR_Cleanup()
    assert error() == "PR_INVALID_STATE_ERROR"
    nss.NSS_Shutdown()
    prinit.PR_Cleanup()
    assert not prinit.PR_Initialized()


@pytest.mark.parametrize(
    ("version", "good"),
    [("3", True), ("3.10", True), ("3.12.4", True), ("3.999", False), ("4.0", False), ("x", False)],
)
def test_versions(version: str, good: bool) -> None:
    assert nss.NSS_VersionCheck(version) is good
    assert nss.NSS_GetVersion()[0].isdigit()


@pytest.mark.parametrize("name", ["cert9.db", "key4.db"])
def test_a_damaged_database(tools: Tools, name: str, error: Error) -> None:
    (tools.directory / name).write_bytes(b"nonsense" * 1000)
    with pytest.raises(NSPRError):
        nss.NSS_Init(str(tools.directory))
    assert error() == "SEC_ERROR_BAD_DATABASE"
    assert not nss.NSS_IsInitialized()


def test_a_certificate_that_is_none_hinders_nobody(tools: Tools, error: Error) -> None:
    with contextlib.closing(sqlite3.connect(tools.directory / "cert9.db")) as database, database:
        changed = database.execute("update nssPublic set a11 = x'30820102' where a3 = ?", (b"unknown",)).rowcount
    assert changed == 1
    nss.NSS_Init(str(tools.directory))
    found = [item.nickname for item in pk11pub.PK11_ListCerts(0) if ":" not in item.nickname]
    assert sorted(found) == ["ca", "server", "stranger"]
    server = pk11pub.PK11_FindCertFromNickname("server")
    assert cert.CERT_FindCertByName(None, server.derSubject) == server
    cert.CERT_VerifyCertNow(None, server, True, cert.SECCertUsage.certUsageSSLServer)
    with pytest.raises(NSPRError):
        pk11pub.PK11_FindCertFromNickname("unknown")
    assert error() == "SEC_ERROR_UNKNOWN_CERT"


def test_threads_begin_at_once(tools: Tools) -> None:
    ready = threading.Barrier(4)
    found: list[str] = []

    def begin() -> None:
        ready.wait()
        nss.NSS_Init(str(tools.directory))
        found.append(pk11pub.PK11_FindCertFromNickname("server").nickname)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["server"] * 4
