"""Full handshakes by Python's own `ssl`, many at once, in a process of its own: the load of a server under test.

Run as a program: `python load.py PORT COUNT THREADS CA_FILE [VERSION]` prints a line of JSON: {"done": N, "failures": {text: N}}.
Imports nothing of this package, so that it starts quickly.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
from collections import Counter
from itertools import count

TIMEOUT = 30.0  # seconds for one handshake


def handshake(port: int, context: ssl.SSLContext, name: str = "localhost") -> None:
    """One full handshake, a byte there and back, and a goodbye.  Raises OSError (ssl.SSLError is one)."""
    with (
        socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock,
        context.wrap_socket(sock, server_hostname=name) as tls,
    ):
        tls.sendall(b"x")
        if tls.recv(1) != b"x":
            raise ConnectionError("no echo")
        tls.unwrap().close()


def run(port: int, handshakes: int, threads: int, context: ssl.SSLContext) -> tuple[int, Counter[str]]:
    """How many succeeded, and why the others failed."""
    numbers, failures, done = count(1), Counter[str](), [0] * threads

    def work(thread: int) -> None:
        while next(numbers) <= handshakes:
            try:
                handshake(port, context)
            except OSError as error:
                failures[f"{type(error).__name__}: {error}"] += 1
            else:
                done[thread] += 1

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(done), failures


def main() -> None:
    port, handshakes, threads, ca_file, *version = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca_file)
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version[0]]
    done, failures = run(int(port), int(handshakes), int(threads), context)
    print(json.dumps({"done": done, "failures": failures}))


if __name__ == "__main__":
    main()
