"""Directories that certutil made, and NSS shut down after each test, with nothing held."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nss_pk11.nss import nss, pk11pub
from nss_pk11.nss._state import state
from tests.db.tools import FEW_ITERATIONS, Tools

PASSWORD = "secret of the database"


@pytest.fixture(autouse=True)
def shut_down() -> Iterator[None]:
    yield
    pk11pub.PK11_SetPasswordFunc(None)
    try:
        if nss.NSS_IsInitialized():
            nss.NSS_Shutdown()
    finally:
        if state.initialised:
            state.end()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server's certificate of it with the host's name and an address, another CA nobody trusts and a server of that."""
    tools = Tools(tmp_path_factory.mktemp("nss") / "db", PASSWORD, environment=FEW_ITERATIONS)
    tools.directory.mkdir()
    tools.initialise()
    tools.issue("ca", "-k", "ec", "-q", "nistp256", "--keyUsage", "certSigning,crlSigning", trust="CT,C,C")
    tools.issue("server", "-k", "rsa", "-g", "2048", "-8", "host.example", "-7", "admin@host.example", issuer="ca", trust=",,")
    tools.issue("stranger", "-k", "ec", "-q", "nistp256", "--keyUsage", "certSigning,crlSigning", trust=",,")
    tools.issue("unknown", "-k", "ec", "-q", "nistp384", issuer="stranger", trust=",,")
    return tools.directory


@pytest.fixture
def tools(template: Path, tmp_path: Path) -> Tools:
    """A copy of it, and NSS's tools on it."""
    shutil.copytree(template, tmp_path / "db")
    return Tools(tmp_path / "db", PASSWORD, environment=FEW_ITERATIONS)


@pytest.fixture
def opened(tools: Tools) -> Tools:
    """The copy, opened for changes; the password function knows the password."""
    pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: None if retry else PASSWORD)
    nss.NSS_InitReadWrite(f"sql:{tools.directory}")
    return tools


@pytest.fixture
def error() -> Callable[[], str]:
    """The name of this thread's last error."""
    from nss_pk11.nss.prerror import PR_ErrorToName, PR_GetError

    return lambda: PR_ErrorToName(PR_GetError()) or ""


@pytest.fixture(scope="session")
def material(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """The same and more: clients' certificates, an EC server's; all of them in PEM files beside the database."""
    from tests.nss.ends import write_pem

    home = tmp_path_factory.mktemp("ssl")
    shutil.copytree(template, home / "db")
    tools = Tools(home / "db", PASSWORD, environment=FEW_ITERATIONS)
    tools.issue("client", "-k", "rsa", "-g", "2048", issuer="ca", trust=",,")
    tools.issue("ec", "-k", "ec", "-q", "nistp256", "-8", "host.example", issuer="ca", trust=",,")
    (home / "ca.pem").write_text(tools.certutil("-L", "-n", "ca", "-a"))
    for name in ("server", "client", "ec", "unknown"):
        write_pem(tools, name, home)
    return tools


@pytest.fixture
def files(material: Tools) -> Path:
    """The PEM files: ca.pem, server.pem, client.pem, ec.pem, unknown.pem."""
    return material.directory.parent


@pytest.fixture
def factory_settings() -> Iterator[None]:
    """What is set for the process as NSS has it from the factory; undone afterwards."""
    from nss_pk11.nss._settings import Settings

    before, Settings.defaults = Settings.defaults, Settings()
    yield
    Settings.defaults = before


@pytest.fixture
def ready(material: Tools, factory_settings: None) -> Iterator[Tools]:
    """NSS opened on that database, every suite allowed, a server cache; all of it undone afterwards."""
    from nss_pk11.nss import ssl

    pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: None if retry else PASSWORD)
    nss.NSS_Init(f"sql:{material.directory}")
    ssl.NSS_SetDomesticPolicy()
    ssl.SSL_ConfigServerSessionIDCache(0, 0, 0, None)
    yield material
    ssl.SSL_ClearSessionCache()
    ssl.SSL_ShutdownServerSessionIDCache()


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """A CA and servers' certificates for keys of every kind."""
    tools = Tools(tmp_path_factory.mktemp("kinds") / "db", PASSWORD, environment=FEW_ITERATIONS)
    tools.directory.mkdir()
    tools.initialise()
    tools.issue("ca", "-k", "ec", "-q", "nistp256", "--keyUsage", "certSigning,crlSigning", trust="CT,C,C")
    served = {"issuer": "ca", "trust": ",,"}
    tools.issue("rsa", "-k", "rsa", "-g", "2048", "-8", "host.example", **served)
    tools.issue("other", "-k", "rsa", "-g", "2048", "-8", "other.example", **served)
    tools.issue("signs", "-k", "rsa", "-g", "2048", "--keyUsage", "digitalSignature", **served)
    tools.issue("decrypts", "-k", "rsa", "-g", "2048", "--keyUsage", "keyEncipherment", **served)
    tools.issue("agrees", "-k", "rsa", "-g", "2048", "--keyUsage", "keyAgreement", **served)
    tools.issue("pss", "-k", "rsa", "-g", "2048", "--pss", **served)
    tools.issue("dsa", "-k", "dsa", "-g", "1024", **served)
    tools.issue("p256", "-k", "ec", "-q", "nistp256", **served)
    tools.issue("p384", "-k", "ec", "-q", "nistp384", **served)
    return tools


@pytest.fixture
def kinds(shop: Tools, factory_settings: None) -> Tools:
    """NSS opened on that database, every suite allowed; undone afterwards."""
    from nss_pk11.nss import ssl

    pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: None if retry else PASSWORD)
    nss.NSS_Init(f"sql:{shop.directory}")
    ssl.NSS_SetDomesticPolicy()
    return shop
