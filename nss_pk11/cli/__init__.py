"""The `nss-pk11` command: looks at tokens, makes keys and certificates on them, serves and connects.

May use `net` and everything below it; nothing imports this package.  `main` is the console script.
"""

from .main import main

__all__ = ["main"]
