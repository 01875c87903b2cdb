"""What ./demo shows once everything is installed: token, key, certificate, server, and two clients.

Uses the `nss-pk11` command as anyone would, and prints each command it runs.  Keeps its state in .demo/, so that a second run
finds token, key and certificate there and makes none of them again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STATE = Path(".demo")
CERTIFICATE, KEY_FILE = STATE / "localhost.pem", STATE / "localhost-key.pem"
SERVER = STATE / "server.json"  # process id and address of a running server
LOG = STATE / "server.log"
TOKEN, KEY = "nss-pk11 demo", "localhost"
KEY_URI = f"pkcs11:token={TOKEN.replace(' ', '%20')};object={KEY};type=private"
NAMES = ["--name", "localhost", "--name", "127.0.0.1", "--days", "3650"]

COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def say(text: str) -> None:
    print(paint("32", "==>"), text, flush=True)


def show(command: list[str]) -> None:
    print(paint("2", "    $ " + shlex.join(command)), flush=True)


def run(*command: str, input: str = "") -> str:
    """Shows and runs `command`; its standard output.  Ends the demo with what it said when it fails."""
    show(list(command))
    done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=60)
    if done.returncode:
        sys.exit(paint("31", f"==> {command[0]} failed ({done.returncode}):\n{done.stdout}{done.stderr}"))
    return done.stdout


# --- token, key, certificate -----------------------------------------------------------------------------------------


def private_file(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def prepare_state() -> None:
    STATE.mkdir(mode=0o700, exist_ok=True)
    (STATE / "tokens").mkdir(exist_ok=True)
    (STATE / "softhsm2.conf").write_text(f"directories.tokendir = {STATE.resolve()}/tokens\nlog.level = ERROR\n")
    for name in ("pin", "so-pin"):
        if not (STATE / name).exists():
            private_file(STATE / name, f"{secrets.randbelow(10**8):08}\n")
    os.environ["SOFTHSM2_CONF"] = str(STATE.resolve() / "softhsm2.conf")


def token_identity(module: str) -> list[str]:
    """Options for `serve`: a key generated inside a SoftHSM token, which this makes where it is not there yet."""
    token = ["--module", module, "--pin", f"file:{STATE}/pin"]
    if CERTIFICATE.exists() and not KEY_FILE.exists() and any((STATE / "tokens").iterdir()):
        say("token, key and certificate are there from an earlier run")
    else:
        start_afresh()
        say("a new token")
        run("nss-pk11", "token", "init", *token, "--so-pin", f"file:{STATE}/so-pin", "--label", TOKEN)
        say("a key pair, generated inside it")
        run("nss-pk11", "key", "generate", *token, "--token", TOKEN, "--type", "p256", "--label", KEY)
        say("a certificate for it, signed by itself, kept beside it on the token")
        run("nss-pk11", "cert", "self-signed", KEY_URI, *token, *NAMES, "--import", "--out", str(CERTIFICATE))
    return ["--identity", KEY_URI, *token]


def file_identity() -> list[str]:
    """Options for `serve` where no token can be had: a key in a file, used through the internal software token."""
    if CERTIFICATE.exists() and KEY_FILE.exists():
        say("key and certificate are there from an earlier run")
    else:
        start_afresh()
        say("a key pair in a file")
        run("nss-pk11", "key", "generate", "--type", "p256", "--out", str(KEY_FILE))
        say("a certificate for it, signed by itself")
        run("nss-pk11", "cert", "self-signed", str(KEY_FILE), *NAMES, "--out", str(CERTIFICATE))
    return ["--identity", str(KEY_FILE), "--chain", str(CERTIFICATE)]


def start_afresh() -> None:
    """Without what an interrupted run, or one of the other kind, left."""
    shutil.rmtree(STATE / "tokens")
    (STATE / "tokens").mkdir(mode=0o700)
    for path in (CERTIFICATE, KEY_FILE):
        path.unlink(missing_ok=True)


# --- the server ------------------------------------------------------------------------------------------------------


def running() -> dict[str, Any] | None:
    """The server that an earlier `--keep` left, if it still lives."""
    try:
        server: dict[str, Any] = json.loads(SERVER.read_text())
        command_line = Path(f"/proc/{server['pid']}/cmdline").read_bytes()
    except (OSError, ValueError, KeyError):
        return None
    return server if b"nss-pk11" in command_line else None


def start(identity: list[str]) -> dict[str, Any]:
    command = ["nss-pk11", "serve", "--listen", "127.0.0.1:0", *identity, "--www"]
    show(command)
    with LOG.open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        port = wait_until_ready(process)
    except BaseException:
        process.kill()
        raise
    server = {"pid": process.pid, "url": f"https://localhost:{port}/"}
    SERVER.write_text(json.dumps(server))
    return server


def wait_until_ready(process: subprocess.Popen[bytes]) -> str:
    """The port that the server says it listens on."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        ready = re.search(r"^listening on .*:(\d+)$", LOG.read_text(), re.MULTILINE)
        if ready:
            return ready[1]
        time.sleep(0.05)
    sys.exit(paint("31", f"==> the server did not start:\n{LOG.read_text()}"))


def stop(server: dict[str, Any]) -> None:
    os.kill(server["pid"], signal.SIGTERM)
    SERVER.unlink(missing_ok=True)


# --- the clients -----------------------------------------------------------------------------------------------------


def fetch_with_curl(url: str) -> dict[str, Any]:
    """What the status page says of a connection by curl."""
    say("curl fetches a page and verifies the certificate")
    status: dict[str, Any] = json.loads(run("curl", "-sS", "--fail", "--cacert", str(CERTIFICATE), f"{url}status.json"))
    return status


def fetch_with_our_client(url: str) -> dict[str, Any]:
    say("our own client fetches it too (the request comes from a pipe)")
    address = url.removeprefix("https://").rstrip("/")
    request = "GET /status.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    response = run("nss-pk11", "connect", address, "--ca", str(CERTIFICATE), "--brief", input=request)
    status: dict[str, Any] = json.loads(response[response.index("\n{") :])
    return status


def report(visits: dict[str, dict[str, Any]]) -> None:
    """What each client negotiated, and where the key is that signed for all of them."""
    rows = {
        "version": "version",
        "suite": "suite",
        "group": "key exchange",
        "signature_scheme": "signature",
    }
    print()
    print(paint("1", f"  {'':14}" + "".join(f"{name:28}" for name in visits).rstrip()))
    for name, label in rows.items():
        print(f"  {label:14}" + "".join(f"{visit['connection'][name]!s:28}" for visit in visits.values()).rstrip())
    key = list(visits.values())[-1]["key"]
    yes = {True: "yes", False: "no"}
    sealed = key["CKA_SENSITIVE"] and not key["CKA_EXTRACTABLE"]
    print()
    print(paint("1", "  signed by"))
    for label, text in (
        ("key", f"{key['key'] or 'without a label'}, {key['kind']}"),
        ("named", key["uri"] or str(KEY_FILE)),
        ("token", " ".join(filter(None, (key["token"], key["token_model"], key["token_serial"])))),
        ("slot", f"{key['slot']} (id {key['slot_id']})"),
        ("module", key["module"] or "the internal software token"),
        ("sensitive", f"CKA_SENSITIVE {yes[key['CKA_SENSITIVE']]}, CKA_EXTRACTABLE {yes[key['CKA_EXTRACTABLE']]}"),
        ("so", "it cannot leave the token" if sealed else "it can be copied: a key in a file is for trying things out"),
        ("signatures", f"{key['signatures']} since the server started, one for each full handshake"),
    ):
        print(f"  {label:14}{text}")
    print()


def visit(server: dict[str, Any], *, keep: bool) -> None:
    visits = {}
    if shutil.which("curl"):
        visits["curl"] = fetch_with_curl(server["url"])
    visits["nss-pk11 connect"] = fetch_with_our_client(server["url"])
    report(visits)
    if keep:
        say(f"it goes on running at {paint('1', server['url'])} (process {server['pid']}); try")
        show(["curl", "--cacert", str(CERTIFICATE), server["url"]])
        print("    and end it with ./demo --stop")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--module", default="")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--stop", action="store_true")
    options = parser.parse_args()
    server = running()
    if options.stop:
        say("the server is stopped" if server else "no server is running")
        if server:
            stop(server)
        return
    prepare_state()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    ours = server is None
    if server is None:
        identity = token_identity(options.module) if options.module else file_identity()
        say("an HTTPS server with that key")
        server = start(identity)
    else:
        say(f"a server is running already, at {server['url']}")
    try:
        visit(server, keep=options.keep)
    except BaseException:
        options.keep = False
        raise
    finally:
        if ours and not options.keep:
            stop(server)


if __name__ == "__main__":
    main()
