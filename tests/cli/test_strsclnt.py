"""`nss-pk11 strsclnt` with NSS's server, and beside NSS's strsclnt."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from nss_pk11.cli.nsstools import identity, strsclnt
from nss_pk11.cli.nsstools.stressing import Client
from nss_pk11.nss import _sidcaches
from nss_pk11.nss._settings import Settings
from nss_pk11.nss.pk11pub import PK11_SetPasswordFunc
from nss_pk11.nss.prio import PRFileDesc, PRNetAddr
from tests.cli.nss_programs import PASSWORD, Programs, Server
from tests.db.tools import Tools
from tests.support.meddler import Meddler
from tests.support.peers.base import free_port
from tests.support.require import require

if TYPE_CHECKING:
    from pk11_tokens import RunningSimulator, TokenControl

TLS1_2 = ("-V", "tls1.0:tls1.2")

REFUSED = [
    "",
    "-%",
    "one two",
    "-p 0 host",
    "-P 101 host",
    "-P 10 -N host",
    "-V foo host",
    "-J foo host",
    "-4 -6 host",
    "-d sql:/nowhere host",
]


@pytest.mark.parametrize("flags", REFUSED)
def test_what_is_refused(flags: str, theirs: Programs, capfd: pytest.CaptureFixture[str]) -> None:
    there = theirs.run("strsclnt", *flags.split(), status=1)
    assert strsclnt.main(flags.split()) == 1
    first = there.err.splitlines()[0]
    assert capfd.readouterr().err.splitlines()[0] == first or first.startswith("Usage")


@pytest.mark.parametrize("flags", ["-C 1", "-C xx1", "-C :12", "-C :zzzz", "-C :0000", "-C :0099", "-n nobody"])
def test_what_cannot_be_done(flags: str, ours: Programs, theirs: Programs) -> None:
    """Everything that is said of it, on both outputs."""
    here, there = (programs.strsclnt(free_port(), *flags.split(), status=1) for programs in (ours, theirs))
    assert here.err
    assert (here.out, here.err) == (there.out, there.err)


def test_a_host_that_is_not_there(ours: Programs, theirs: Programs) -> None:
    """The exit status tells, which with NSS's it does not."""
    for programs, status in ((ours, 1), (theirs, 0)):
        done = programs.strsclnt(free_port(), "-4", host="no.such.host.invalid", status=status)
        assert done.err.startswith("strsclnt: error looking up host: PR_DIRECTORY_LOOKUP_ERROR: ")
        assert b"strsclnt: 0 cache hits; 0 cache misses, 0 cache not reusable" in done.out


@pytest.fixture(scope="module")
def server(theirs: Programs) -> Iterator[Server]:
    """NSS's, which asks for certificates and does without."""
    with theirs.selfserv("-V", "tls1.0:", "-u", "-r") as server:
        yield server


@pytest.mark.parametrize(
    ("flags", "status", "statistics"),
    [
        ((*TLS1_2,), 0, "19 cache hits; 1 cache misses, 0 cache not reusable"),
        ((*TLS1_2, "-t", "3", "-D", "-T", "-g", "-4"), 0, "19 cache hits; 1 cache misses, 0 cache not reusable"),
        ((*TLS1_2, "-u"), 0, "19 cache hits; 1 cache misses, 0 cache not reusable"),
        ((*TLS1_2, "-N"), 0, "0 cache hits; 20 cache misses, 0 cache not reusable"),
        ((*TLS1_2, "-P", "30", "-t", "1"), 1, "14 cache hits; 6 cache misses, 0 cache not reusable"),
        ((*TLS1_2, "-n", "client"), 0, "19 cache hits; 1 cache misses, 0 cache not reusable"),
        ((*TLS1_2, "-n", "none", "-C", "v", "-J", "rsa_pkcs1_sha256"), 0, "19 cache hits; 1 cache misses"),
        ((*TLS1_2, "-a", "other.example"), 1, "0 cache hits"),
        ((*TLS1_2, "-a", "other.example", "-o"), 0, "19 cache hits; 1 cache misses, 0 cache not reusable"),
        ((*TLS1_2, "-a", "other.example", "-o", "-o"), 0, "19 cache hits; 1 cache misses, 0 cache not reusable"),
        (("-V", "tls1.3:", "-N"), 1, "0 cache hits; 0 cache misses, 0 cache not reusable"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_statistics(
    flags: tuple[str, ...], status: int, statistics: str, server: Server, ours: Programs, theirs: Programs
) -> None:
    for programs in (ours, theirs):
        done = programs.strsclnt(server.port, "-c", "20", *flags, status=status)
        said = done.out.decode()
        assert f"strsclnt: {statistics}" in said
        assert re.search(r"^          (0|19) stateless resumes$", said, re.MULTILINE)
        assert ("NoReuse - 20 server certificates tested." in said) == ("-N" in flags)


def test_what_is_told(server: Server, ours: Programs, theirs: Programs) -> None:
    said = []
    for programs in (ours, theirs):
        done = programs.strsclnt(server.port, "-c", "2", "-v", "-n", "none", *TLS1_2)
        lines = (done.out.decode() + done.err).splitlines()
        said.append(sorted(lines))
    assert said[0] == said[1]
    assert "strsclnt: Launched thread in slot 1 " in said[0]
    assert "strsclnt: Thread in slot 0 returned 0" in said[0]


def test_full_duplex(ours: Programs, tmp_path: Path) -> None:
    """-f: everybody sends and reads at once; our server reads a file as one long request."""
    (tmp_path / "file").write_bytes(b"0123456789" * 500)
    with ours.selfserv("-v") as server:
        done = ours.strsclnt(server.port, "-c", "4", "-v", "-f", str(tmp_path / "file"), *TLS1_2)
        assert "PR_Send wrote 5116 bytes from bigBuf" in done.err
        assert done.err.count("bytes total. -----------------------") == 4


@pytest.mark.parametrize(("flags", "count"), [("-t 1", 2), ("-t 3", 4), ("-t 1 -N", 1), ("-t 1 -i", 5), ("-f /nowhere -t 1", 2)])
def test_failures(flags: str, count: int, ours: Programs, theirs: Programs) -> None:
    """The first one ends it once each thread has had a connection; -i goes on; the exit status tells.  A file that cannot be read
    is none."""
    with theirs.selfserv(nickname="bad") as server:
        for programs in (ours, theirs):
            none = ("-s", "-z") if programs.ours else ()  # without locks NSS's crashes now and then
            done = programs.strsclnt(server.port, "-c", "5", *flags.split(), *none, status=1)
            assert done.err.count("strsclnt: -- SSL: Server Certificate Invalid, err -8179") == count
            assert done.err.count("strsclnt: PR_Send returned error -8179, OS error 0: ") == count


# --- a token that is pulled and put back ----------------------------------------------------------------------------------------

CARD_PIN = "271828"


@pytest.fixture
def card(nss_database: Path, simulated_tokens: Callable[..., RunningSimulator]) -> TokenControl:
    """Has the database's client, its key and certificate under the name "me"."""
    tools = Tools(nss_database, PASSWORD)
    command = [
        require("openssl"),
        "pkcs12",
        "-in",
        tools.file("client.p12", tools.export("client", "out")),
        "-passin",
        "pass:out",
    ]
    pem = subprocess.run([*command, "-nodes", "-clcerts"], capture_output=True, check=True, timeout=60).stdout
    file = tools.file("client.pem", b"".join(re.findall(rb"-----BEGIN .*?-----END [A-Z ]+-----\n", pem, re.DOTALL)))
    key = {"label": "me", "id": "01", "file": str(file), "certificate": str(file)}
    return simulated_tokens([{"label": "card", "pin": CARD_PIN, "personality": "plain", "removable": True, "key": [key]}])["card"]


@pytest.fixture
def wallet(card: TokenControl, nss_database: Path, tmp_path: Path) -> list[str]:
    """Flags for a database that knows the card, and the passwords of both."""
    directory = tmp_path / "db"
    shutil.copytree(nss_database, directory)
    command = [require("modutil"), "-dbdir", f"sql:{directory}", "-force", "-add", "cards", "-libfile", card.simulator.module]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    (tmp_path / "passwords").write_text(f"NSS Certificate DB:{PASSWORD}\ncard:{CARD_PIN}\n")
    return ["-d", f"sql:{directory}", "-W", str(tmp_path / "passwords"), "-n", "card:me", "-q", *TLS1_2]


def test_a_certificate_on_a_card(wallet: list[str], card: TokenControl, ours: Programs, theirs: Programs) -> None:
    """-n: the card signs, of both programs, though the database has the same key and certificate."""
    with theirs.selfserv("-r", "-r", "-v") as server:
        for programs in (ours, theirs):
            before = card.status().calls.get("C_Sign", 0)
            done = programs.run("strsclnt", "-p", str(server.port), *wallet, "-N", "-c", "5", "localhost", status=0)
            assert "NoReuse - 5 server certificates tested." in done.out.decode()
            assert card.status().calls["C_Sign"] - before == 5
        assert server.end()[1].count("selfserv: Subject: CN=client\n") == 10
        for programs in (ours, theirs):
            done = programs.run("strsclnt", "-p", "1", *wallet, "-n", "card:you", "localhost", status=1)
            assert "strsclnt: Can't find certificate card:you" in done.err


def test_a_card_that_is_pulled_and_put_back(
    wallet: list[str], card: TokenControl, theirs: Programs, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Between two connections, and put back while the third waits for it; no handshake fails.  In this process, which so knows
    when it waits."""
    waited: list[float] = []

    class Patience(threading.Event):
        """Of who looks for the certificate again."""

        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            if len(waited) == 2:
                card.insert()
            return True

    def reach(client: Client, address: PRNetAddr) -> PRFileDesc:
        arrivals.append(card.status().present)
        if len(arrivals) == 3:
            card.remove()
        return connect(client, address)

    arrivals: list[bool] = []
    connect = Client._reach
    monkeypatch.setattr(Client, "_reach", reach)
    monkeypatch.setattr(_sidcaches, "_statistics", _sidcaches.SSL3Statistics())  # as in a process that begins
    monkeypatch.setattr(identity, "threading", SimpleNamespace(Event=Patience, Lock=threading.Lock))
    with theirs.selfserv("-r", "-r", "-v") as server:
        status = strsclnt.main(["-p", str(server.port), *wallet, "-N", "-c", "5", "-t", "1", "localhost"])
        PK11_SetPasswordFunc(None)
        Settings.defaults = Settings()
        assert server.end()[1].count("selfserv: Subject: CN=client\n") == 5
    assert (status, waited) == (0, [1, 1]), capfd.readouterr().err
    assert arrivals == [True] * 5
    assert card.status().calls["C_Sign"] == 5


ABORTS = """
import sys
from nss_pk11.cli.nsstools import identity, strsclnt
from nss_pk11.cli.nsstools.stressing import Client
identity.MOST_SECONDS = 2
sys.exit(strsclnt.main(sys.argv[1:]))
"""


def test_a_card_that_is_not_put_back(wallet: list[str], card: TokenControl, theirs: Programs) -> None:
    """Ends the program; NSS's waits for a minute."""

    def pull(hello: bytes) -> bytes:
        card.remove()
        return hello

    with theirs.selfserv("-r", "-r") as server, Meddler(server.port, pull) as between:
        flags = ["-p", str(between.port), *wallet, "-N", "-c", "1", "-4", "localhost"]
        done = subprocess.run([sys.executable, "-c", ABORTS, *flags], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout.endswith("\nToken pulled and not reinserted early enough : aborting.\n")
