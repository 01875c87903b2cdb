"""TLS from NSS database directories: those of certutil and pk12util in our command, those of ours in selfserv and tstclnt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nss_pk11.tls.codepoints import Version
from tests.db.tools import Tools

from ..support import command
from ..support.peers.base import REQUEST, Want, run_client
from ..support.peers.nss import NSSServer, parse
from ..support.peers.table import CLIENTS
from ..support.pki import P12_PASSWORD
from ..support.require import require

if TYPE_CHECKING:
    from pathlib import Path

    from ..support.pki import PKI, Credential
    from ..support.softhsm import SoftHSM

PASSWORD = "database secret"
KINDS = pytest.mark.parametrize("kind", ["rsa", "p256", "p384"])


def roots(pki: PKI) -> list[str]:
    end = "-----END CERTIFICATE-----\n"
    return [f"{block}{end}" for block in pki.ca_file.read_text().split(end) if block.strip()]


def theirs(directory: Path, pki: PKI, credential: Credential) -> Tools:
    """A database that NSS's tools made and filled."""
    directory.mkdir()
    tools = Tools(directory, PASSWORD)
    tools.initialise()
    for number, pem in enumerate(roots(pki)):
        tools.certutil("-A", "-n", f"root{number}", "-t", "CT,,", "-a", "-i", tools.file("root.pem", pem))
    tools.import_(credential.p12_file.read_bytes(), P12_PASSWORD)
    return tools


def ours(directory: Path, pki: PKI, credential: Credential, softhsm: SoftHSM) -> Tools:
    """A database that our command made and filled."""
    directory.mkdir()
    tools = Tools(directory, PASSWORD)

    def db(name: str, *arguments: str | Path) -> None:
        done = command.run(softhsm, "db", name, *arguments, "-d", directory, "-f", tools.file("password", PASSWORD))
        assert done.returncode == 0, done.stderr

    db("create")
    for number, pem in enumerate(roots(pki)):
        db("import", tools.file("root.pem", pem), "--nickname", f"root{number}", "--trust", "CT,,")
    db("import", credential.p12_file, "--password", f"pass:{P12_PASSWORD}")
    return tools


def opened(tools: Tools) -> tuple[str | Path, ...]:
    return "-d", tools.directory, "-f", tools.file("password", PASSWORD)


def tstclnt(port: int, tools: Tools, credential: Credential | None, version: Version) -> tuple[bool, str]:
    """tstclnt run from a database, which also says whom to trust: whether it got a page, and what it said."""
    label = {Version.tls1_2: "tls1.2", Version.tls1_3: "tls1.3"}[version]
    options: list[str | Path] = [
        "-h",
        "127.0.0.1",
        "-4",
        "-a",
        "localhost",
        "-p",
        str(port),
        "-V",
        f"{label}:{label}",
        "-v",
        "-C",
    ]
    options += ["-n", credential.name, "-w", PASSWORD] if credential else []
    options += ["-A", tools.file("request", REQUEST)]
    status, output = run_client([require("tstclnt"), "-d", f"sql:{tools.directory}", *options], b"")
    return parse(status, output).ok, output


# --- theirs in our command -------------------------------------------------------------------------------------------


@KINDS
def test_a_directory_of_certutil_serves_https(softhsm: SoftHSM, pki: PKI, tmp_path: Path, kind: str, directory: Path) -> None:
    credential = pki.server(kind)
    tools = theirs(tmp_path / "db", pki, credential)
    with command.Serve(softhsm, *opened(tools), "--nickname", credential.name) as server:
        for version in (Version.tls1_2, Version.tls1_3):
            for peer in ("curl", "python", "openssl"):
                result = CLIENTS[peer](server.port, Want(version=version, ca=pki.ca_file), directory)
                assert result.ok, f"{result}\n{server.output}"
                assert b"200 OK" in result.answer
            ok, said = tstclnt(server.port, tools, None, version)
            assert ok, f"{said}\n{server.output}"
        assert 'token="NSS Certificate DB"' in server.output


def test_two_workers_and_a_key_that_certutil_made(softhsm: SoftHSM, tmp_path: Path, directory: Path) -> None:
    (tmp_path / "db").mkdir()
    tools = Tools(tmp_path / "db", PASSWORD)
    tools.initialise()
    tools.issue("localhost", "-k", "ec", "-q", "nistp256", "-8", "localhost", trust="CTu,,")
    pem = tools.file("ca.pem", tools.certutil("-L", "-n", "localhost", "-a"))
    with command.Serve(softhsm, *opened(tools), "--nickname", "NSS Certificate DB:localhost", "--workers", "2") as server:
        for _ in range(4):
            result = CLIENTS["python"](server.port, Want(ca=pem), directory)
            assert result.ok, f"{result}\n{server.output}"


def test_a_wrong_password(softhsm: SoftHSM, pki: PKI, tmp_path: Path) -> None:
    credential = pki.server("p256")
    tools = theirs(tmp_path / "db", pki, credential)
    wrong = ("-d", tools.directory, "-f", tools.file("wrong", "wrong"))
    done = command.run(softhsm, "serve", "--listen", "127.0.0.1:0", *wrong, "--nickname", credential.name)
    assert (done.returncode, done.stdout) == (4, "")
    assert "SEC_ERROR_BAD_PASSWORD" in done.stderr
    assert "wrong\n" not in done.stderr.replace("the PIN is wrong\n", "")


def test_both_sides_have_databases_and_nothing_else(softhsm: SoftHSM, pki: PKI, tmp_path: Path) -> None:
    """One side's key and roots lie in a directory of certutil, the other's in one of ours."""
    host, client = pki.server("p256"), pki.client("rsa")
    serving = theirs(tmp_path / "server", pki, host)
    asking = ours(tmp_path / "client", pki, client, softhsm)
    with command.Serve(softhsm, *opened(serving), "--nickname", host.name, "--client-auth", "require") as server:
        for version in (Version.tls1_2, Version.tls1_3):
            ok, said = tstclnt(server.port, asking, client, version)
            assert ok, f"{said}\n{server.output}"
        report = command.connect(softhsm, server.port, *opened(asking), "--nickname", client.name)
        assert report["verified"] is True
        assert report["client_key"]["token"] == "NSS Certificate DB"


def test_who_is_not_trusted_is_refused(softhsm: SoftHSM, pki: PKI, tmp_path: Path) -> None:
    """The server's database trusts no client, then the client's no server either."""
    host, client = pki.server("p256"), pki.client("rsa")
    serving = theirs(tmp_path / "server", pki, host)
    asking = ours(tmp_path / "client", pki, client, softhsm)
    names = [f"root{number}" for number in range(len(roots(pki)))]
    for name in names:
        serving.certutil("-M", "-n", name, "-t", "C,,")
    with command.Serve(softhsm, *opened(serving), "--nickname", host.name, "--client-auth", "require") as server:
        identity = (*opened(asking), "--nickname", client.name)
        command.connect(softhsm, server.port, *identity, status=6)
        assert "SEC_ERROR_UNTRUSTED_ISSUER" in server.output
        for name in names:
            asking.certutil("-M", "-n", name, "-t", ",,")
        refused = command.connect(softhsm, server.port, *identity, status=5)
        assert refused["error"]["name"] == "SEC_ERROR_UNTRUSTED_ISSUER"


# --- ours in selfserv ------------------------------------------------------------------------------------------------


class FromDirectory(NSSServer):
    """selfserv, run from a directory that is there already."""

    def __init__(self, want: Want, tools: Tools) -> None:
        self._tools = tools
        super().__init__(replace(want, extra=("-w", PASSWORD)), tools.scratch)

    def command(self, port: int) -> list[str | Path]:
        command = super().command(port)
        command[command.index("-d") + 1] = f"sql:{self._tools.directory}"
        return command


@KINDS
def test_a_directory_of_ours_runs_selfserv(softhsm: SoftHSM, pki: PKI, tmp_path: Path, kind: str, directory: Path) -> None:
    credential = pki.server(kind)
    tools = ours(tmp_path / "db", pki, credential, softhsm)
    with FromDirectory(Want(credential=credential), tools) as server:
        for version in (Version.tls1_2, Version.tls1_3):
            for peer in ("curl", "python"):
                result = CLIENTS[peer](server.port, Want(version=version, ca=pki.ca_file), directory)
                assert result.ok, f"{result}\n{server.output}"
            ok, said = tstclnt(server.port, tools, None, version)
            assert ok, f"{said}\n{server.output}"


def test_selfserv_asks_our_client_for_a_certificate(softhsm: SoftHSM, pki: PKI, tmp_path: Path) -> None:
    host, client = pki.server("p256"), pki.client("p256")
    tools = ours(tmp_path / "server", pki, host, softhsm)
    asking = theirs(tmp_path / "client", pki, client)
    with FromDirectory(Want(credential=host, client_auth="require"), tools) as server:
        report = command.connect(softhsm, server.port, *opened(asking), "--nickname", client.name, "--ca", pki.ca_file)
        assert report["client_key"]["key"] == client.name
