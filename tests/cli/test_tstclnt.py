"""`nss-pk11 tstclnt` with NSS's server, and beside NSS's tstclnt."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nss_pk11.cli.nsstools import tstclnt
from nss_pk11.cli.nsstools.headers import HeaderSkipper
from tests.cli.nss_programs import ANSWER, PASSWORD, REQUEST, Programs, Server
from tests.support.peers.base import free_port

TLS1_2, TLS1_3 = ("-V", "tls1.2:tls1.2"), ("-V", "tls1.3:tls1.3")

REFUSED = [
    "",
    "-%",
    "word",
    "-h x -p 0",
    "-h x -p 65536",
    "-h x -p port",
    "-h x -V foo",
    "-h x -V tls1.3:tls1.2",
    "-h x -4 -6",
    "-h x -I foo",
    "-h x -J foo",
    "-h x -x :",
    "-h x -c 1",
    "-h x -c :12",
    "-h x -F",
    "-h x -D -d y",
    "-h x -b -R y",
    "-h x -E",
    "-h x -a 1 -a 2 -a 3",
    "-Y",
    "-h no.such.host.invalid -D",
    "-h localhost -p PORT -d sql:/nowhere",
    "-h localhost -p PORT -D -c :0099",
    "-h localhost -p PORT -q -t 0",
    "-h 127.0.0.1 -p PORT -D",
]


@pytest.mark.parametrize("flags", REFUSED)
def test_what_is_refused(flags: str, theirs: Programs, capfd: pytest.CaptureFixture[str]) -> None:
    """In this process: it opens no database but an empty one, and closes that."""
    from nss_pk11.nss._settings import Settings

    arguments = flags.replace("PORT", str(free_port())).split()
    there = theirs.run("tstclnt", *arguments, status=1)
    assert tstclnt.main(arguments) == 1
    Settings.defaults = Settings()
    here = capfd.readouterr().err
    if there.error:  # ours may look at all flags before the host; what comes of no time at all is a matter of luck
        assert there.error in here or "Usage" in here or "-q" in arguments
    elif len(there.err.splitlines()) == 1:
        assert here == there.err


@pytest.mark.parametrize("flag", ["-P client", "-N x", "-X alt-server-hello", "-i 1", "-z 0xAA"])
def test_what_is_not_done_here(flag: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert tstclnt.main(["-h", "localhost", *flag.split()]) == 1
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_header_skipper() -> None:
    page = b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody\n\r\nmore"
    for size in range(1, len(page)):
        skipper = HeaderSkipper(skip=True)
        assert b"".join(skipper.rest(page[start : start + size]) for start in range(0, len(page), size)) == b"body\n\r\nmore"


@pytest.fixture(scope="module")
def server(theirs: Programs) -> Iterator[Server]:
    """NSS's, with a session cache and tickets."""
    with theirs.selfserv("-V", "tls1.0:", "-u", "-v") as server:
        yield server


# --- lines and exit statuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["tls1.0", "tls1.2", "tls1.3"])
def test_what_is_told(version: str, server: Server, ours: Programs, theirs: Programs) -> None:
    said = []
    for programs in (ours, theirs):
        done = programs.tstclnt(server.port, "-V", f"{version}:{version}", "-v", "-x", "label:8:context", "-S")
        lines = (done.err + done.out.decode()).splitlines()
        lines = [re.sub(r"([0-9a-f]{2}:){7}[0-9a-f]{2}", "SECRET", line) for line in lines]
        keep = r"tstclnt: (SSL v|Server A|exiting|using|handshake w)|     |(subject|issuer)|\d+ (cache|state)|Received|Exp"
        said.append(sorted(line for line in lines if re.match(keep, line)))
        assert b"HTTP/1.0 200" not in done.out
        assert REQUEST in done.out
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["-h", "127.0.0.1"], 254, "SSL_ERROR_BAD_CERT_DOMAIN"),
        (["-h", "127.0.0.1", "-O"], 254, "SSL_ERROR_BAD_CERT_DOMAIN"),
        (["-h", "127.0.0.1", "-o"], 0, ""),
        (["-h", "127.0.0.1", "-o", "-O"], 0, ""),
        (["-4"], 0, ""),
        (["-c", ":C02F", "-V", "tls1.3:tls1.3"], 254, "SSL_ERROR_SSL_DISABLED"),
        (["-c", ":1301"], 0, ""),
        (["-V", "tls1.0:tls1.2", "-c", "vy"], 0, ""),
        (["-f", "-m", "1"], 0, ""),
        (["-K", "-V", "tls1.2:tls1.2"], 254, "SSL_ERROR_INAPPROPRIATE_FALLBACK_ALERT"),
        (["-G", "-e", "-H", "-s", "-U", "-g", "-B", "-Z"], 0, ""),
        (["-A", "/nowhere"], 1, ""),
        (["-L", "1 connection", "-m", "0x"], 0, ""),
        (["-W", "/nowhere"], 0, ""),
    ],
    ids=str,
)
def test_statuses(arguments: list[str], status: int, error: str, server: Server, ours: Programs, theirs: Programs) -> None:
    for programs in (ours, theirs):
        done = programs.tstclnt(server.port, *arguments, status=status)
        assert done.error == error
        assert bool(done.out) == (status == 0)


def test_strangers(ours: Programs, theirs: Programs) -> None:
    """A server of a CA nobody trusts, one that is not there, none at all."""
    with theirs.selfserv(nickname="bad") as server:
        for programs in (ours, theirs):
            assert programs.tstclnt(server.port, status=254).error == "SEC_ERROR_UNKNOWN_ISSUER"
            assert "Bad server certificate: -8179" in programs.tstclnt(server.port, "-o").err
    for programs in (ours, theirs):
        assert programs.tstclnt(server.port, status=1).error == "PR_CONNECT_REFUSED_ERROR"


def test_numbers_are_those_of_c(theirs: Programs, ours: Programs) -> None:
    """A port of 17 bits is that of its last 16, and letters after it are nothing."""
    with theirs.selfserv() as server:
        for port in (str(server.port + 65536), f"{server.port}/tcp", f" {server.port}"):
            for programs in (ours, theirs):
                arguments = ("-h", "localhost", "-p", port, "-d", f"sql:{ours.directory}", "-A", ours.request)
                assert programs.run("tstclnt", *arguments, status=0).out.startswith(ANSWER)


def test_a_request_that_is_none(server: Server, ours: Programs, theirs: Programs, tmp_path: Path) -> None:
    """-A: a directory."""
    for programs in (ours, theirs):
        assert programs.tstclnt(server.port, "-A", tmp_path, status=1).out == b""


def test_two_families(ours: Programs, theirs: Programs) -> None:
    """Of which there can be one: the usage, and nothing before it."""
    for programs in (ours, theirs):
        assert programs.run("tstclnt", "-h", "x", "-4", "-6", status=1).err.startswith("Usage:")


def test_ping(server: Server, ours: Programs) -> None:
    assert ours.run("tstclnt", "-h", "localhost", "-p", str(server.port), "-q", "-t", "5", status=0).err == ""


# --- what it does --------------------------------------------------------------------------------------------------------------


def test_standard_input_and_output(server: Server, ours: Programs) -> None:
    """A pipe that stays open: the answer comes before it ends."""
    command = [*ours.command("tstclnt"), "-h", "localhost", "-p", str(server.port), "-d", f"sql:{ours.directory}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(REQUEST)
        process.stdin.flush()
        assert process.stdout.read(len(ANSWER)) == ANSWER
        process.stdin.close()
        assert process.stdout.read() == REQUEST + b"EOF\r\n\r\n\r\n"
        assert process.wait(20) == 0


def test_the_handshake_alone(server: Server, ours: Programs) -> None:
    """-Q ends after it, with standard input open; -L begins again, and resumes."""
    done = ours.tstclnt(server.port, "-Q", "-L", "3", *TLS1_2, "-u", "-A", "/dev/null")
    assert done.out == b""
    assert re.findall(r"^(\d) cache hits; (\d) cache misses", done.err, re.MULTILINE) == [("0", "1"), ("1", "1"), ("2", "1")]
    assert "2 stateless resumes" in done.err


def test_renegotiations(server: Server, ours: Programs) -> None:
    done = ours.tstclnt(server.port, "-r", "1", *TLS1_2, "-a", "localhost", "-a", "localhost")
    assert done.err.count("subject DN: CN=localhost") == 2
    assert done.out.startswith(ANSWER)


@pytest.mark.parametrize("detail", [1, 2, 3])
def test_chains(detail: int, server: Server, ours: Programs, theirs: Programs) -> None:
    """-C: as NSS's program tells it, but for empty lines."""
    shown = []
    for programs in (ours, theirs):
        err = programs.tstclnt(server.port, *["-C"] * detail, "-Q").err
        chain = err[err.index("====") : err.rindex("====")]
        shown.append([line.rstrip() for line in chain.splitlines() if line.strip()])
    assert shown[0] == shown[1]
    assert ("-----BEGIN CERTIFICATE-----" in shown[0]) == (detail == 3)


@pytest.mark.parametrize("mode", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("version", [TLS1_2, TLS1_3], ids=["tls1.2", "tls1.3"])
def test_client_certificates(version: tuple[str, str], mode: str, ours: Programs, theirs: Programs) -> None:
    flags = ("-O", "-v", "-v") if mode == "synchronous" else ()
    with theirs.selfserv("-r", "-r", "-v") as server:
        done = ours.tstclnt(server.port, *version, *flags, "-n", "client")
        assert done.out.startswith(ANSWER)
        assert ("CA[1]: CN=ca" in done.err and "sent cert: CN=client" in done.err) == bool(flags)
        nobody = ours.tstclnt(server.port, *version, *flags, "-n", "nobody", status=None)
        assert nobody.out == b""
        assert ("send no cert" if flags else "Failed to load a suitable client certificate") in nobody.err
        assert "selfserv: subject DN: CN=client" in server.end()[1]


def test_post_handshake_authentication(ours: Programs, theirs: Programs) -> None:
    with theirs.selfserv("-r", "-r", "-r", "-r", "-E", "-v") as server:
        assert ours.tstclnt(server.port, *TLS1_3, "-E", "-n", "client").out.startswith(ANSWER)
        assert "selfserv: Subject: CN=client" in server.end()[1]


@pytest.mark.parametrize(("mode", "status"), [("none", 2), ("good", 0), ("revoked", 3), ("unknown", 2), ("corrupted", 2)])
def test_fresh_revocation_information(mode: str, status: int, ours: Programs, theirs: Programs) -> None:
    """-F, with our server: NSS's signs its responses with SHA-1, which count for nothing here."""
    with ours.selfserv("-T", mode, "-A", "ca") as server:
        for programs in (ours, theirs):
            programs.tstclnt(server.port, "-T", "-F", "-O", status=status)
        assert ours.tstclnt(server.port, "-T", "-F", "-O", "-M", "2", status=2).out == b""
        assert f"Received {int(mode != 'none')} Cert Status items" in ours.tstclnt(server.port, "-T").err
        if mode == "good":  # its CA is a root: there is no issuer between
            ours.tstclnt(server.port, "-T", "-F", "-F", "-O", status=0)


def test_without_a_database(server: Server, ours: Programs) -> None:
    done = ours.tstclnt(server.port, "-D", "-b", status=254, database=False)
    assert done.error == "SEC_ERROR_UNKNOWN_ISSUER"
    assert ours.tstclnt(server.port, "-D", "-o", database=False).out.startswith(ANSWER)


def test_a_server_that_talks_first_and_nonsense(ours: Programs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = [*ours.command("tstclnt"), "-4", "-h", "localhost", "-p", str(port), "-D"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail.example ESMTP\r\n")
                out, err = process.communicate(timeout=20)
            assert process.returncode == 1
            assert out == b""
            assert b"read from socket failed: SSL_ERROR_" in err


def test_password(ours: Programs, theirs: Programs, tmp_path: Path) -> None:
    """-W with the token's line; a wrong password has no certificate to send."""
    (tmp_path / "good").write_text(f"other:wrong\nNSS Certificate DB:{PASSWORD}\n")
    (tmp_path / "wrong").write_text("wrong\n")
    with theirs.selfserv("-r", "-r") as server:
        ours.tstclnt(server.port, *TLS1_2, "-n", "client", "-W", tmp_path / "good")
        done = ours.tstclnt(server.port, *TLS1_2, "-n", "client", "-W", tmp_path / "wrong", status=None)
        assert done.out == b""
        assert "Incorrect password/PIN entered." in done.err
