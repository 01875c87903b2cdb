"""Forks while its threads sign with a key on a token; the children sign with it too.  Run by a test, as a process of its own.

Its arguments: the key's URI and its PIN.  Says the children's exit statuses as JSON; one that hangs is killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading

from nss_pk11 import pins
from nss_pk11.slots import Algorithm, PrivateKey, SlotManager, forks

CHILDREN = 3
SIGNERS = 2  # threads: while one is inside the library another waits for its lock
WAIT = 15.0  # seconds


def child(key: PrivateKey) -> int:
    """The exit status of a child that signs."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            key.sign(Algorithm.ecdsa_sha256, b"message")
            status = 0
        finally:
            os._exit(status)
    handle = os.pidfd_open(pid)
    if not select.select([handle], [], [], WAIT)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(uri: str, pin: str) -> list[int]:
    forks.PATIENCE = 0.0  # a fork waits for no call: the lock is held
    over, signing = threading.Event(), threading.Barrier(SIGNERS + 1)

    def sign() -> None:
        key.sign(Algorithm.ecdsa_sha256, b"message")
        signing.wait(WAIT)
        while not over.is_set():
            key.sign(Algorithm.ecdsa_sha256, b"message")

    with SlotManager(pins.value(pin)) as manager:
        manager.load(os.environ["NSS_PK11_MODULE"])
        key = manager.find_key(uri)
        signers = [threading.Thread(target=sign) for _ in range(SIGNERS)]
        for signer in signers:
            signer.start()
        try:
            signing.wait(WAIT)
            statuses = [child(key) for _ in range(CHILDREN)]
        finally:
            over.set()
            for signer in signers:
                signer.join()
    return statuses


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
