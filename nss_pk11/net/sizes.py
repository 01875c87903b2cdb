"""How much is read, encrypted and sent at once.

As much as possible, since system calls are what bulk data costs; but whatever holds a chunk, its ciphertext or its plaintext
stays below 128 KB.  Above that glibc maps fresh pages for every buffer (M_MMAP_THRESHOLD), which costs more than AES does.
"""

from __future__ import annotations

RECORD = 16384  # bytes of plaintext
SEND_SIZE = 16 * RECORD
READ_SIZE = 110 * 1024  # and what an earlier read left of one record comes on top
