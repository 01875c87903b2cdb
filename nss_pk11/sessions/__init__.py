"""Where sessions live between connections: ticket keys, the server's cache, the client's cache.

States and sessions are opaque here; the engine writes and reads them.  May import `errors`; no I/O, and no clock but the one
given.
"""

from __future__ import annotations

from .caches import ClientCache, ServerCache
from .tickets import TicketKeys

__all__ = ["ClientCache", "ServerCache", "TicketKeys"]
