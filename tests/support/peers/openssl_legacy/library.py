"""OpenSSL 1.0.2e, which the wheel `nassl` links statically into its module for old protocols, reached through ctypes.

The module's Python face can do little of it, and nothing as a server.  But its symbol table was left in: every function and
table of libssl is found there by name.  What is taken for granted of addresses, structures and constants is that of this one
build; `Library` refuses another.  Used in the child process of `__main__` alone, since it writes to the library's own tables.
"""

from __future__ import annotations

import ctypes
import importlib.util
import struct
from ctypes import CFUNCTYPE, c_char_p, c_int, c_long, c_uint, c_ulong, c_void_p
from pathlib import Path
from typing import Any

RELEASE = b"OpenSSL 1.0.2e"
MODULE = "nassl._nassl_legacy"
ENTRY = f"PyInit_{MODULE.rpartition('.')[2]}"  # the one symbol that the dynamic linker knows

InfoCallback = CFUNCTYPE(None, c_void_p, c_int, c_int)
TemporaryRSACallback = CFUNCTYPE(c_void_p, c_void_p, c_int, c_int)

# Function -> its result, its arguments.
_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "BIO_new_file": (c_void_p, c_char_p, c_char_p),
    "BIO_free": (c_int, c_void_p),
    "BN_new": (c_void_p,),
    "BN_set_word": (c_int, c_void_p, c_ulong),
    "DH_free": (None, c_void_p),
    "EC_KEY_free": (None, c_void_p),
    "EC_KEY_new_by_curve_name": (c_void_p, c_int),
    "ERR_clear_error": (None,),
    "ERR_error_string_n": (None, c_ulong, c_char_p, ctypes.c_size_t),
    "ERR_get_error": (c_ulong,),
    "PEM_read_bio_DHparams": (c_void_p, c_void_p, c_void_p, c_void_p, c_void_p),
    "RSA_generate_key_ex": (c_int, c_void_p, c_int, c_void_p, c_void_p),
    "RSA_new": (c_void_p,),
    "SSL_CIPHER_get_id": (c_ulong, c_void_p),
    "SSL_CTX_ctrl": (c_long, c_void_p, c_int, c_long, c_void_p),
    "SSL_CTX_free": (None, c_void_p),
    "SSL_CTX_load_verify_locations": (c_int, c_void_p, c_char_p, c_char_p),
    "SSL_CTX_new": (c_void_p, c_void_p),
    "SSL_CTX_set_cipher_list": (c_int, c_void_p, c_char_p),
    "SSL_CTX_set_client_CA_list": (None, c_void_p, c_void_p),
    "SSL_CTX_set_info_callback": (None, c_void_p, InfoCallback),
    "SSL_CTX_set_session_id_context": (c_int, c_void_p, c_char_p, c_uint),
    "SSL_CTX_set_tmp_rsa_callback": (None, c_void_p, TemporaryRSACallback),
    "SSL_CTX_set_verify": (None, c_void_p, c_int, c_void_p),
    "SSL_CTX_use_PrivateKey_file": (c_int, c_void_p, c_char_p, c_int),
    "SSL_CTX_use_certificate_chain_file": (c_int, c_void_p, c_char_p),
    "SSL_SESSION_free": (None, c_void_p),
    "SSL_accept": (c_int, c_void_p),
    "SSL_connect": (c_int, c_void_p),
    "SSL_ctrl": (c_long, c_void_p, c_int, c_long, c_void_p),
    "SSL_do_handshake": (c_int, c_void_p),
    "SSL_free": (None, c_void_p),
    "SSL_get1_session": (c_void_p, c_void_p),
    "SSL_get_current_cipher": (c_void_p, c_void_p),
    "SSL_get_peer_certificate": (c_void_p, c_void_p),
    "SSL_get_version": (c_char_p, c_void_p),
    "SSL_library_init": (c_int,),
    "SSL_load_client_CA_file": (c_void_p, c_char_p),
    "SSL_load_error_strings": (None,),
    "SSL_new": (c_void_p, c_void_p),
    "SSL_read": (c_int, c_void_p, c_char_p, c_int),
    "SSL_renegotiate": (c_int, c_void_p),
    "SSL_set_fd": (c_int, c_void_p, c_int),
    "SSL_set_session": (c_int, c_void_p, c_void_p),
    "SSL_set_state": (None, c_void_p, c_int),
    "SSL_shutdown": (c_int, c_void_p),
    "SSL_write": (c_int, c_void_p, c_char_p, c_int),
    "X509_free": (None, c_void_p),
    "X509_NAME_oneline": (c_char_p, c_void_p, c_char_p, c_int),
    "X509_get_subject_name": (c_void_p, c_void_p),
}


def symbols(data: bytes) -> dict[str, tuple[int, int]]:
    """Name -> address and size, of all symbols of a 64-bit little-endian ELF file (System V ABI, chapter 4)."""
    start, size, count = struct.unpack_from("<Q", data, 0x28)[0], *struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + size * number) for number in range(count)]
    found: dict[str, tuple[int, int]] = {}
    for _, kind, _, _, offset, length, link, _, _, entry in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        names = data[sections[link][4] :][: sections[link][5]]
        for name, _, _, section, value, extent in struct.iter_unpack("<IBBHQQ", data[offset : offset + length]):
            if section:  # defined here
                found.setdefault(names[name : names.index(b"\0", name)].decode("ascii", "replace"), (value, extent))
        assert entry == 24
    return found


class Library:
    """The library's functions, as attributes.  Raises ImportError where the wheel is missing or another."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec(MODULE)
        if spec is None or spec.origin is None:
            raise ImportError(f"no module {MODULE}")
        self._symbols = symbols(Path(spec.origin).read_bytes())
        entry = getattr(ctypes.CDLL(spec.origin), ENTRY)
        self._base = (ctypes.cast(entry, c_void_p).value or 0) - self._symbols[ENTRY][0]
        release = ctypes.string_at(self.address("ssl3_version_str"))
        if RELEASE not in release:
            raise ImportError(f"{MODULE} is {release!r}, not {RELEASE!r}")
        self.SSL_library_init()
        self.SSL_load_error_strings()

    def address(self, name: str) -> int:
        return self._base + self._symbols[name][0]

    def size(self, name: str) -> int:
        return self._symbols[name][1]

    def method(self, name: str) -> int:
        """An SSL_METHOD, as "SSLv3_client"."""
        found: int = CFUNCTYPE(c_void_p)(self.address(f"{name}_method"))()
        return found

    def __getattr__(self, name: str) -> Any:
        function = CFUNCTYPE(*_PROTOTYPES[name])(self.address(name))
        setattr(self, name, function)
        return function

    def errors(self) -> str:
        """What has gone wrong in this thread, and forgets it."""
        texts = []
        while code := self.ERR_get_error():
            text = ctypes.create_string_buffer(200)
            self.ERR_error_string_n(code, text, len(text))
            texts.append(text.value.decode())
        return "; ".join(texts)
