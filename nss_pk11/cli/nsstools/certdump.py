"""`tstclnt -C`: certificates for people to read, as SECU_PrintCertificate has them."""

from __future__ import annotations

from ...nss.prio import PRFileDesc


def dump_chain(fd: PRFileDesc, detail: int) -> None:
    """What the server sent; `detail`: how often -C was given."""
