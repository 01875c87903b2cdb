"""A shell script written for NSS's programs, in the manner of its ssl.sh, with these and with ours in their place."""

from __future__ import annotations

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nss_pk11.cli import nsstools
from tests.cli.nss_programs import PASSWORD, Programs
from tests.support.peers.base import free_port

SCRIPT = r"""
start() { # flags of the server
    selfserv -D -p $PORT -d $DB -n localhost -w "$PASSWORD" -i pid "$@" > server.out 2>&1 &
    tstclnt -p $PORT -h localhost -q -d $DB < /dev/null || { echo "no server"; cat server.out; exit 1; }
}
stop() {
    kill -USR1 $(cat pid)
    wait $!
    selfserv -b -p $PORT || echo "the port is taken"
    grep -oE "[0-9]+ cache hits|normal termination" server.out | tail -2
}
client() { # what is expected, what it is called, flags of the client
    tstclnt -p $PORT -h localhost -f -d $DB -w "$PASSWORD" -A request "${@:3}" > client.out 2> client.err
    ret=$?
    [ $ret -eq $1 ] && echo "$2: $ret, passed" || echo "$2: $ret instead of $1, FAILED"
    grep -c "HTTP/1.0 200 OK" client.out
    grep -oE "^(subject|issuer)  ?DN: .*" client.err
}

start -V tls1.0:
for suite in c d n :C013; do
    client 0 "TLS 1.2, suite $suite" -V tls1.0:tls1.2 -c $suite
done
for version in tls1.0 tls1.3; do
    client 0 "$version" -V $version:$version
done
client 254 "no suite" -V tls1.2:tls1.2 -c i
client 254 "wrong host" -h 127.0.0.1
client 0 "wrong host, overlooked" -h 127.0.0.1 -o
stop

start -r -r
client 0 "client certificate" -V tls1.2:tls1.2 -n client
client 254 "no client certificate" -O -V tls1.2:tls1.2 -n nobody
stop

start -T revoked -A ca
client 3 "revoked status" -T -F -O
stop

start -a other.example -u
client 0 "name" -V tls1.2:tls1.2 -a other.example
client 254 "unknown name" -V tls1.2:tls1.2 -a nobody.example
client 0 "tickets" -V tls1.2:tls1.2 -u -L 3
strsclnt -q -p $PORT -d $DB -w "$PASSWORD" -c 30 -V tls1.0:tls1.2 localhost > stress.out 2>&1
echo "stress: $?"
grep "cache hits" stress.out | tail -1
stop

tstclnt -p $PORT -h localhost -d $DB < /dev/null 2> client.err
echo "refused: $?"
grep -o "PR_CONNECT_REFUSED_ERROR" client.err
"""


def run(programs: Programs, directory: Path, found: Path) -> list[str]:
    """What the script says with programs of `directory` on the path."""
    found.mkdir()
    (found / "request").write_bytes(programs.request.read_bytes())
    environment = os.environ | {
        "PATH": f"{directory}:{os.environ['PATH']}",
        "PORT": str(free_port()),
        "DB": f"sql:{programs.directory}",
        "PASSWORD": PASSWORD,
    }
    done = subprocess.run(
        ["bash", "-c", SCRIPT], cwd=found, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=140
    )
    return (done.stdout + done.stderr).splitlines()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_script_runs_with_either(ours: Programs, theirs: Programs, tmp_path: Path) -> None:
    mine, real = tmp_path / "ours", tmp_path / "theirs"
    for directory, programs in ((mine, ours), (real, theirs)):
        directory.mkdir()
        for name in ("selfserv", "tstclnt", "strsclnt"):
            wrapper = directory / name
            wrapper.write_text(f'#!/bin/sh\nexec {" ".join(programs.command(name))} "$@"\n')
            wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    said = run(ours, mine, tmp_path / "a")
    assert said == run(theirs, real, tmp_path / "b")
    assert not [line for line in said if "FAILED" in line]
    assert sum("passed" in line for line in said) == 15


PROGRAMS = Path(nsstools.__file__).parent


@pytest.mark.parametrize("file", sorted(PROGRAMS.glob("*.py")), ids=lambda file: file.stem)
def test_they_know_public_names_alone(file: Path) -> None:
    """Of NSS's functions, of the standard library, of click, and of each other."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            roots = {alias.name.split(".")[0] for alias in node.names}
            assert roots <= sys.stdlib_module_names | {"click"}, roots
        elif isinstance(node, ast.ImportFrom):
            words = (node.module or "").split(".")
            if node.level:
                assert node.level == 1 or (node.level, words[0], len(words)) == (3, "nss", 2), ast.unparse(node)
            else:
                assert words[0] in sys.stdlib_module_names, ast.unparse(node)
            assert not [
                word for word in (*words, *(alias.name for alias in node.names)) if word.startswith("_") and word != "__future__"
            ]
