"""A card reader that a test holds in its hand: a pcscd of its own with the vpcd driver, and cards put in and pulled out.

Nothing of it is shared with the pcscd of the machine.  pcscd is started as systemd would start it, with a listening socket
that it inherits (sd_listen_fds(3)): ours lies in a directory of our own, and hosts find it by PCSCLITE_CSOCK_NAME, see
`Reader.environment`.  So neither root nor a namespace is needed.  vpcd listens for its two slots on two neighbouring TCP ports;
its other way, connecting to the card, breaks pcscd when the card is pulled (FD_SET of -1 in Debian's 3.3).  As they cannot be
picked by the system, free ones are sought, and others where somebody was faster.

Touches: a temporary directory, one child process, one thread while a card is in.  Knows nothing of what cards do.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from .card import PivCard

_HOST = "127.0.0.1"
_DRIVERS = "pcsc/drivers/serial/libifdvpcd.so"
_PATIENCE = 10.0  # seconds
_ON, _ATR = 1, 4  # of vpcd's control messages, each of one byte; the others are off (0) and reset (2)

# sd_listen_fds(3): the sockets begin at descriptor 3, and LISTEN_PID is the process they are for.
_ACTIVATE = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" "$@" 3<&0 </dev/null'


def find_driver() -> Path | None:
    """vpcd's driver, or None where it is not installed."""
    return next((path for lib in ("/usr/lib", "/usr/lib64", "/usr/local/lib") if (path := Path(lib, _DRIVERS)).exists()), None)


def find_daemon() -> str | None:
    """pcscd, which does not lie on everybody's path."""
    return shutil.which("pcscd", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


class Reader:
    """An empty reader; `insert` and `remove` cards.  A context manager: its end is pcscd's end.

    Raises RuntimeError where pcscd or vpcd is absent or does not come up.
    """

    def __init__(self, name: str = "Virtual reader") -> None:
        daemon, driver = find_daemon(), find_driver()
        if daemon is None or driver is None:
            raise RuntimeError("pcscd and vsmartcard-vpcd have to be installed")
        self.name = name
        self.card: PivCard | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="pk11-pcsc-"))
        self.socket_path = self._directory / "pcscd.comm"
        self.log_path = self._directory / "pcscd.log"
        self._removals = 0
        self._connection: socket.socket | None = None
        self._thread: threading.Thread | None = None
        try:
            self._start(daemon, driver)
        except BaseException:
            shutil.rmtree(self._directory)
            raise

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to see this reader and no other: the present environment, with PCSCLITE_CSOCK_NAME."""
        return {**os.environ, "PCSCLITE_CSOCK_NAME": str(self.socket_path)}

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def insert(self, card: PivCard) -> None:
        """Push the card in; returns when pcscd has seen it and given it power, within half a second."""
        if self._connection is not None:
            raise RuntimeError("there is a card in the reader")
        self._wait_until_seen_empty()
        card.reset()
        self.card = card
        self._connection = socket.create_connection((_HOST, self._port), _PATIENCE)
        self._connection.settimeout(None)
        powered = threading.Event()
        self._thread = threading.Thread(target=_carry, args=(self._connection, card, powered), name="virtual card")
        self._thread.start()
        if not powered.wait(_PATIENCE):
            raise RuntimeError(f"pcscd does not see the card:\n{self.log}")

    def remove(self) -> None:
        """Pull the card out, whatever it does.  pcscd finds out within half a second, or when it is next used."""
        if self._connection is None or self._thread is None:
            raise RuntimeError("there is no card in the reader")
        with contextlib.suppress(OSError):  # pcscd may have ended
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()
        self._connection = self._thread = self.card = None
        self._removals += 1

    def close(self) -> None:
        if self._connection is not None:
            self.remove()
        self._end_daemon()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self, daemon: str, driver: Path) -> None:
        for _ in range(5):  # somebody may take a port in between
            self._port = _free_ports()
            self._start_daemon(daemon, driver)
            if self._wait_until_accepting():
                return
            self._end_daemon()
        raise RuntimeError(f"pcscd does not come up:\n{self.log}")

    def _start_daemon(self, daemon: str, driver: Path) -> None:
        configuration = self._directory / "reader.conf.d"
        configuration.mkdir(exist_ok=True)
        settings = {"FRIENDLYNAME": f'"{self.name}"', "DEVICENAME": f"/dev/null:{self._port}", "LIBPATH": driver}
        lines = [f"{key} {value}\n" for key, value in (*settings.items(), ("CHANNELID", self._port))]
        (configuration / "vpcd").write_text("".join(lines))
        self.socket_path.unlink(missing_ok=True)
        command = ["sh", "-c", _ACTIVATE, daemon, "--foreground", "--info", "--config", str(configuration)]
        with socket.socket(socket.AF_UNIX) as listener, self.log_path.open("wb") as log:
            listener.bind(str(self.socket_path))
            listener.listen()
            self._daemon = subprocess.Popen(command, stdin=listener.fileno(), stdout=log, stderr=log)

    def _wait_until_accepting(self) -> bool:
        """Until vpcd has both its ports; looks at the kernel's table, as a connection would be a card."""
        wanted = {f"{port:04X}" for port in (self._port, self._port + 1)}
        deadline = time.monotonic() + _PATIENCE
        while self._daemon.poll() is None and time.monotonic() < deadline:
            if wanted <= _listening():
                return "Address already in use" not in self.log
            time.sleep(0.01)
        return False

    def _wait_until_seen_empty(self) -> None:
        """Nobody is so fast that pcscd, which looks every 0.4 s, misses that the card was out; only its log tells."""
        deadline = time.monotonic() + _PATIENCE
        while self.log.count("Card Removed From") < self._removals:
            if time.monotonic() > deadline:
                raise RuntimeError(f"pcscd does not see that the card is gone:\n{self.log}")
            time.sleep(0.01)

    def _end_daemon(self) -> None:
        self._daemon.terminate()
        try:
            self._daemon.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()


def _carry(connection: socket.socket, card: PivCard, powered: threading.Event) -> None:
    """vpcd's protocol until the connection ends: messages with a length of two bytes before them; one of a single byte is
    for the slot (power, reset, answer-to-reset), the others are command APDUs."""
    with contextlib.suppress(OSError, EOFError):
        while True:
            message = _receive(connection, int.from_bytes(_receive(connection, 2)))
            if len(message) > 1:
                answer = card.exchange(message)
            elif message == bytes([_ATR]):
                answer = card.atr
            else:
                card.reset()
                if message == bytes([_ON]):
                    powered.set()
                continue
            connection.sendall(len(answer).to_bytes(2) + answer)


def _receive(connection: socket.socket, length: int) -> bytes:
    """Exactly `length` bytes; raises EOFError where the connection ends before.

    vpcd sends a message's length and the message apart, the second only once the first is acknowledged (Nagle's algorithm):
    without TCP_QUICKACK, which holds for a while only (tcp(7)), every command takes 40 ms.
    """
    found = b""
    while len(found) < length:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        part = connection.recv(length - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def _free_ports() -> int:
    """The first of two neighbouring ports that nobody holds now, below the ephemeral range."""
    for _ in range(100):
        first = random.randint(18000, 32000)
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("", first))
            other.bind(("", first + 1))
            return first
    raise RuntimeError("no free ports")


def _listening() -> set[str]:
    """Local ports of TCP sockets in state LISTEN, as the kernel writes them: four hexadecimal digits (proc(5))."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1].rpartition(":")[2] for row in rows if row[3] == "0A"}
