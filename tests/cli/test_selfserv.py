"""`nss-pk11 selfserv` with NSS's clients, and beside NSS's selfserv."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl as python_ssl
import time
from pathlib import Path

import pytest

from nss_pk11.cli.nsstools import selfserv
from tests.cli.nss_programs import ANSWER, PASSWORD, REQUEST, STOP, Programs, Server
from tests.support.peers.base import TIMEOUT, accepts, free_port

TLS1_2, TLS1_3 = ("-V", "tls1.2:tls1.2"), ("-V", "tls1.3:tls1.3")

# What cannot be: NSS's exit status, and the first line where scripts may look for it.
REFUSED = {
    "": 51,
    "-%": 5,
    "-n": 5,
    "word": 4,
    "-p 1": 6,
    "-n x": 7,
    "-n x -p 1 -M 2 -N": 14,
    "-T xx": 53,
    "-T good -n x -p 1": 52,
    "-V foo": 1,
    "-V tls1.2": 1,
    "-I foo": 5,
    "-J foo": 5,
    "-x :0": 5,
    "-h": 0,
    "-Y": 0,
    "-n x -p 1 -d sql:/nowhere": 8,
    "-n nobody -p PORT": 10,
    "-n localhost -p PORT -c :0099": 9,
    "-n localhost -p PORT -c :12": 9,
    "-n localhost -p PORT -c :XYZW": 9,
    "-n localhost -p PORT -c :0000": 9,
    "-n localhost -p PORT -c 1": 9,
    "-n x -p 65536": 7,
    "-": 51,
    "- -p 1": 6,
    "-p 1 -d sql:/nowhere" + " -S x" * 11: 8,
    "-p 1 -n x -d sql:/nowhere" + " -a x" * 10: 8,
    "-I , -n x -p 1": 5,
    "-I ,P256,,P384, -n x -p 1 -d sql:/nowhere": 8,
    "-J ,rsa_pss_rsae_sha256 -n x -p 1 -d sql:/nowhere": 8,
    "-x , -n x -p 1": 5,
    "-x a:12x,b -n x -p 1 -d sql:/nowhere": 8,
    "-x a:x -n x -p 1": 5,
    "-x 0Xz -n x -p 1": 5,
}


@pytest.mark.parametrize("flags", REFUSED)
def test_what_is_refused(flags: str, theirs: Programs, nss_database: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In this process: nothing of these lives on."""
    arguments = flags.replace("PORT", str(free_port())).split()
    if "-d" not in arguments and "-p" in arguments:
        arguments += ["-d", f"sql:{nss_database}", "-w", PASSWORD]
    there = theirs.run("selfserv", *arguments, status=REFUSED[flags])
    assert selfserv.main(arguments) == REFUSED[flags]
    here = capfd.readouterr().err
    if REFUSED[flags] not in (0, 51, 4) and "CipherPref" not in here:  # usages are told in other words
        assert here.splitlines()[0] == there.err.splitlines()[0]
    if nss_initialised():
        finish()


def nss_initialised() -> bool:
    from nss_pk11.nss.nss import NSS_IsInitialized

    return NSS_IsInitialized()


def finish() -> None:
    """As the end of a process would."""
    from nss_pk11.nss._settings import Settings
    from nss_pk11.nss.nss import NSS_Shutdown
    from nss_pk11.nss.pk11pub import PK11_SetPasswordFunc
    from nss_pk11.nss.ssl import SSL_ShutdownServerSessionIDCache

    SSL_ShutdownServerSessionIDCache()
    NSS_Shutdown()
    PK11_SetPasswordFunc(None)
    Settings.defaults = Settings()


@pytest.mark.parametrize("flag", ["-X publicname:x", "-j", "-z 0xAA", "-W 1", "-T ocsp"])
def test_what_is_not_done_here(flag: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert selfserv.main(flag.split()) == 3
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_binding_only(ours: Programs) -> None:
    port = free_port()  # not one of the kernel's choice, which others' connections may take
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True):
        done = ours.run("selfserv", "-b", "-p", str(port), status=3)
        assert "PR_Bind returned error -5982" in done.err
    assert selfserv.main(["-b", "-p", str(port)]) == 0


# --- answers -----------------------------------------------------------------------------------------------------------------


def say(port: int, *parts: bytes, shut: bool = True) -> bytes:
    """What openssl gets for some bytes."""
    context = python_ssl.SSLContext(python_ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, python_ssl.CERT_NONE
    context.maximum_version = python_ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain, context.wrap_socket(plain) as sock:
        for part in parts:
            sock.sendall(part)
        if shut:
            sock.unwrap().shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b"")) if not shut else b""


def test_answers(ours: Programs, theirs: Programs, tmp_path: Path) -> None:
    """To requests of all kinds, from files, and to stop; then statistics and the end, all as NSS's."""
    page = tmp_path / "page.txt"
    page.write_bytes(b"0123456789" * 5000)
    requests = (
        [REQUEST],
        [b"GET ", b"/x HTTP/1.0\n", b"\n"],
        [b"POST / HTTP/1.0\r\n\r\n", b"posted\r\n"],
        [REQUEST + b"more"],
        [f"GET {page} HTTP/1.0\r\n\r\n".encode()],
        [f"GET file://{page} HTTP/1.0\r\n\r\n".encode()],
        [b"GET /nowhere/at/all HTTP/1.0\r\n\r\n"],
        [STOP],
    )
    answers = []
    for programs in (ours, theirs):
        with programs.selfserv() as server:
            answers.append([say(server.port, *parts, shut=False) for parts in requests])
            assert server.process.wait() == 0
            said = server.process.output.splitlines()
            assert re.match(r"selfserv: \d+ cache hits; \d+ cache misses, 0 cache not reusable", said[-3])
            assert said[-2:] == ["          0 stateless resumes, 0 ticket parse failures", "selfserv: normal termination"]
    assert answers[0] == answers[1]
    assert answers[0][0] == ANSWER + REQUEST + b"EOF\r\n\r\n\r\n"
    assert answers[0][4] == ANSWER + page.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals(number: signal.Signals, ours: Programs, tmp_path: Path) -> None:
    """SIGUSR1 ends it well, others as they end any program; -i tells whom to send them to."""
    with ours.selfserv("-i", tmp_path / "pid") as server:
        os.kill(int((tmp_path / "pid").read_text()), number)
        assert server.process.wait() == (0 if number == signal.SIGUSR1 else -number)


def test_blocks_and_logs(ours: Programs, theirs: Programs) -> None:
    """With blocks the bytes of a second, with none the connections."""
    for programs in (ours, theirs):
        with programs.selfserv("-g", "4", "-L", "1", "-D", "-m", "-t", "3", "-Q") as server:
            assert len(theirs.tstclnt(server.port).out) == len(ANSWER + REQUEST) + 5 * 16384
            server.process.wait_for(r"^Conn\.--------App Data\n(?:.*\n)*(?:    |   \d)       0\.\d\d\d MB/s$")
        with programs.selfserv("-L", "1", "-t", "3") as server:
            server.process.wait_for(r"^\d+\.\d\d ops/second, 3 threads$")


# --- handshakes --------------------------------------------------------------------------------------------------------------


def talks(server: Server, client: Programs, *arguments: str, status: int = 0) -> bool:
    """Whether it got an answer."""
    return client.tstclnt(server.port, *arguments, status=status).out.startswith(ANSWER)


@pytest.mark.parametrize("version", ["tls1.0", "tls1.1", "tls1.2", "tls1.3"])
def test_what_is_told(version: str, ours: Programs, theirs: Programs) -> None:
    """With -v, line for line as NSS's, but for what TLS 1.3 numbers at random."""
    said = []
    for programs in (ours, theirs):
        with programs.selfserv("-v", "-V", "tls1.0:", "-x", "label:8:context", "-I", "P256", "-G", "-H", "1") as server:
            theirs.tstclnt(server.port, "-V", f"{version}:{version}")
            _, output = server.end()
        lines = [re.sub(r"\b([0-9a-f]{2}:){7}[0-9a-f]{2}$", "SECRET", line) for line in output.splitlines()]
        said.append(sorted(line for line in lines if re.match(r"selfserv: (SSL v|Server A|sub|iss)|     |Exported", line)))
    assert said[0] == said[1]
    assert f"selfserv: SSL version 3.{int(version[-1]) + 1} using 128-bit AES-GCM" in "".join(said[0]) or version < "tls1.2"
    assert "        SECRET" in said[0]


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3], ids=["tls1.2", "tls1.3"])
@pytest.mark.parametrize("requests", [1, 2, 3, 4])
def test_client_certificates(requests: int, version: tuple[str, str], ours: Programs, theirs: Programs) -> None:
    """-r: asked for or required, in the first handshake or another; NSS's client fares the same with both servers."""
    fates = []
    for programs in (ours, theirs):
        post = ("-E",) if requests > 2 and version == TLS1_3 else ()
        with programs.selfserv(*["-r"] * requests, *post, "-v") as server:
            with_certificate = theirs.tstclnt(server.port, *version, "-n", "client", *post, status=None)
            without = theirs.tstclnt(server.port, *version, "-n", "nobody", status=None)
            _, output = server.end()
        names = "selfserv: Subject: CN=client" in output and "selfserv: -- SSL3: Certificate Validated." in output
        fates.append((with_certificate.status, bool(with_certificate.out), without.status, bool(without.out), names))
    assert fates[0] == fates[1]
    assert fates[0][1]
    assert fates[0][4]


def test_bad_client_certificates(ours: Programs, theirs: Programs) -> None:
    with ours.selfserv("-r", "-r", "-v") as server:
        assert not talks(server, theirs, *TLS1_2, "-n", "bad", status=254)
        assert "-- SSL3: Certificate Invalid, err -8179" in server.end()[1]
    with ours.selfserv("-r", "-r", "-o") as server:
        assert talks(server, theirs, *TLS1_2, "-n", "bad")


@pytest.mark.parametrize("version", [TLS1_2, TLS1_3], ids=["tls1.2", "tls1.3"])
def test_names(version: tuple[str, str], ours: Programs, theirs: Programs) -> None:
    """-a: a certificate for each; -k: the exit status says whether it was asked for."""
    with ours.selfserv("-a", "other.example", "-v") as server:
        other = theirs.tstclnt(server.port, *version, "-a", "other.example")
        assert "subject DN: CN=other.example" in other.err
        assert "subject DN: CN=localhost" in theirs.tstclnt(server.port, *version).err
        refused = theirs.tstclnt(server.port, *version, "-a", "nobody.example", status=254)
        assert refused.error == "SSL_ERROR_UNRECOGNIZED_NAME_ALERT"
        assert "Negotiated server name: other.example" in server.end()[1]
    for name, status in (("localhost", 0), ("other.example", 1)):
        with ours.selfserv("-k", name, "-a", "other.example") as server:
            theirs.tstclnt(server.port, *version)
            assert server.end()[0] == status


def test_suites_groups_and_schemes(ours: Programs, theirs: Programs) -> None:
    with ours.selfserv("-c", ":C02Fv:1301", "-I", "P384", "-J", "rsa_pss_rsae_sha384", "-e", "ec") as server:
        told = theirs.tstclnt(server.port, *TLS1_3, "-v").err
        assert "Key Exchange: 384-bit" in told
        assert "Signature Scheme: rsa_pss_rsae_sha384" in told
        assert "128-bit AES with 160-bit SHA1" in theirs.tstclnt(server.port, "-V", "tls1.0:tls1.1", "-v").err
        theirs.tstclnt(server.port, *TLS1_2, "-c", "y", status=254)
    with ours.selfserv("-e", "ec", "-H", "0", "-R") as server:
        assert "-bit ECDSA" in theirs.tstclnt(server.port, *TLS1_2, "-c", ":C02B", "-v").err
        assert "-bit RSA" in theirs.tstclnt(server.port, *TLS1_2, "-c", ":C02F", "-v").err
        theirs.tstclnt(server.port, *TLS1_2, "-c", ":009E", status=254)
    with ours.selfserv("-V", "tls1.3:", "-Z", "-U", "1", "-u") as server:
        theirs.tstclnt(server.port, *TLS1_2, status=254)
        assert talks(server, theirs, *TLS1_3, "-Z", "-L", "2", "-u")
        output = server.end()[1]
        assert "0-RTT data is not accepted here" in output
        assert "-U" in output


@pytest.mark.parametrize(("flag", "hits", "stateless"), [("-D", 3, 0), ("-u", 3, 3), ("-N", 0, 0)])
def test_sessions(flag: str, hits: int, stateless: int, ours: Programs, theirs: Programs) -> None:
    with ours.selfserv(flag, "-C", "500") as server:
        told = theirs.tstclnt(server.port, *TLS1_2, *([flag] if flag == "-u" else []), "-L", "4").err
        assert re.findall(r"^(\d) cache hits", told, re.MULTILINE)[-1] == str(hits)
        assert re.findall(r"^(\d) stateless", told, re.MULTILINE)[-1] == str(stateless)


STAPLED = {"none": 2, "good": 0, "revoked": 3, "unknown": 2, "failure": 2, "badsig": 2, "corrupted": 2}


@pytest.mark.parametrize("mode", STAPLED)
def test_stapling(mode: str, ours: Programs, theirs: Programs) -> None:
    """What NSS's client makes of the response."""
    with ours.selfserv("-T", mode, "-A", "ca") as server:
        told = theirs.tstclnt(server.port, "-T").err
        assert f"Received {int(mode != 'none')} Cert Status items" in told
        theirs.tstclnt(server.port, "-T", "-F", "-O", status=STAPLED[mode])


def test_several_processes(ours: Programs, theirs: Programs) -> None:
    """They share the cache: of many connections the first alone has a full handshake.  One signal ends them all."""
    with ours.selfserv("-M", "3") as server:
        done = theirs.strsclnt(server.port, "-c", "40", "-t", "4", *TLS1_2)
        assert b"39 cache hits; 1 cache misses" in done.out
        status, output = server.end()
        assert status == 0
        assert "SIG_USER: Parent got sig_user, killing children (3).\n" in output
        assert re.findall(r"^Child \d exited with exit code 109$", output, re.MULTILINE) == [
            f"Child {number} exited with exit code 109" for number in (3, 2, 1)
        ]
    deadline = time.monotonic() + TIMEOUT
    while accepts(server.port):
        assert time.monotonic() < deadline


def test_a_parent_that_is_ended_leaves_no_children(ours: Programs) -> None:
    with ours.selfserv("-M", "2") as server:
        server.process.signal(signal.SIGTERM)
        assert server.process.wait() == -signal.SIGTERM
        deadline = time.monotonic() + TIMEOUT
        while accepts(server.port):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_password_and_prefix(ours: Programs, nss_database: Path, tmp_path: Path) -> None:
    """-f: a file with a password; -P: a prefix of the databases' files; a wrong password finds no key."""
    import shutil

    for source, target in (("cert9.db", "my-cert9.db"), ("key4.db", "my-key4.db")):
        shutil.copy(nss_database / source, tmp_path / target)
    (tmp_path / "password").write_text("NSS Certificate DB:wrong\n")
    wanted = ("-n", "localhost", "-p", str(free_port()), "-d", f"sql:{tmp_path}", "-P", "my-", "-f", tmp_path / "password")
    assert "Can't find Private Key for cert localhost" in ours.run("selfserv", *wanted, status=11).err
