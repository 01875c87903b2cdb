"""Foreign stacks that still speak SSL 3.0, TLS 1.0 and 1.1, each as client and as server: what they can and how they are driven.

A cell is a suite in a version.  Whoever connects or serves makes sure that data went both ways.  What a stack lacks is
written at the stack with its reason and nowhere else; the matrix grows from it.
"""

from __future__ import annotations

from .base import CELLS, OLD, OLD_SUITES, Cell, Far, OldPeer, converse, read_line
from .children import JSSE, Conversing, OpenSSL102
from .tools import NSS, GnuTLS, SystemOpenSSL, TLSLite

__all__ = [
    "CELLS", "JSSE", "NSS", "OLD", "OLD_SUITES", "PEERS", "Cell", "Conversing", "Far", "GnuTLS", "OldPeer", "OpenSSL102",
    "SystemOpenSSL", "TLSLite", "converse", "read_line",
]  # fmt: skip

PEERS: tuple[type[OldPeer], ...] = (OpenSSL102, JSSE, NSS, GnuTLS, TLSLite, SystemOpenSSL)
