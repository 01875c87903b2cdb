"""Where sessions live between connections: ticket keys, the server's caches, the client's caches.

States and sessions are opaque here; the engine writes and reads them.  May import `errors`; no I/O but the memory and the locks
that processes share (`shared_memory`), and no clock but the one given.
"""

from __future__ import annotations

from .caches import ClientCache, ServerCache
from .nss_client import NssClientCache
from .shared import SharedServerCache
from .tickets import TicketKeys

__all__ = ["ClientCache", "NssClientCache", "ServerCache", "SharedServerCache", "TicketKeys"]
