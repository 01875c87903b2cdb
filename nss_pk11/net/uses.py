"""What is told of every use of a private key: to metrics, to the audit log, to whoever else observes an executor.

Plain data; nothing here touches a token or a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..slots import PrivateKey


@dataclass(frozen=True, slots=True)
class KeyUse:
    """One attempt to sign or decrypt with one key on one token.

    `time`: when it ended, seconds since 1970.  `purpose`: "sign", "decrypt" or "agree" (KEA).  `mechanism`: CKM_ name, "" for a
    software key without one.  `result`: "CKR_OK", the CKR_ name the token answered, or the NSS error's name where no token did.
    `queue_seconds`: waited for a thread; `token_seconds`: at work, waiting for a session of the token included.  `peer`: its
    socket address, () where none is known.
    """

    time: float
    key: PrivateKey
    purpose: str
    mechanism: str
    result: str
    queue_seconds: float
    token_seconds: float
    peer: tuple[object, ...] | str = ()


Observer = Callable[[KeyUse], None]  # called in the thread that used the key; must be quick and must not raise
