"""Make `fixtures/nss-old/`: an NSS database in the form of NSS before 3.60, which certutil still reads but no longer writes.

    python tools/old_database.py fixtures/nss-old

`certutil` (3.87 here) makes a database of two keys and their certificates; then each private attribute and the password's check
value are decrypted and encrypted again as NSS did it then: PKCS #12 PBE with SHA-1 and triple DES, one iteration
(RFC 7292 appendix C), the password of the PBE being SHA-1(global salt || password), and no MAC over
private attributes.  At the end `certutil -K` and `pk12util -o` have to read the keys, or nothing is left behind.

The encryption is written out here once more, apart from the package's, so that the two can be compared.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from asn1crypto import core
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from nss_pk11.db import crypto

PASSWORD = "an old password"
PRIVATE = ("a11", "a123", "a124", "a125", "a126", "a127", "a128")


class Algorithm(core.Sequence):
    _fields = [("algorithm", core.ObjectIdentifier), ("parameters", core.Any)]  # noqa: RUF012


class Parameters(core.Sequence):
    _fields = [("salt", core.OctetString), ("iterations", core.Integer)]  # noqa: RUF012


class Encrypted(core.Sequence):
    _fields = [("algorithm", Algorithm), ("value", core.OctetString)]  # noqa: RUF012


def derive(password: bytes, salt: bytes, purpose: int, length: int) -> bytes:
    """RFC 7292 appendix B.2, SHA-1, one iteration, for salt and password of at most 64 bytes."""
    first, output = bytearray((salt * 64)[:64] + (password * 64)[:64]), b""
    while len(output) < length:
        digest = hashlib.sha1(bytes([purpose]) * 64 + first).digest()
        output += digest
        addend = (digest * 4)[:64]
        for block in (0, 64):
            carry = 1
            for place in reversed(range(64)):
                carry += first[block + place] + addend[place]
                first[block + place] = carry & 0xFF
                carry >>= 8
    return output[:length]


def encrypt(key: bytes, plaintext: bytes) -> bytes:
    salt = os.urandom(20)
    cipher = Cipher(TripleDES(derive(key, salt, 1, 24)), modes.CBC(derive(key, salt, 2, 8))).encryptor()
    padding = 8 - len(plaintext) % 8
    ciphertext = cipher.update(plaintext + bytes([padding]) * padding) + cipher.finalize()
    parameters = Parameters({"salt": salt, "iterations": 1})
    algorithm = Algorithm({"algorithm": "1.2.840.113549.1.12.1.3", "parameters": parameters})
    encoded: bytes = Encrypted({"algorithm": algorithm, "value": ciphertext}).dump()
    return encoded


def run(*command: str | Path) -> None:
    # One iteration: the MACs over public attributes, which stay as certutil makes them, had no more either.
    environment = os.environ | {"NSS_MAX_MP_PBE_ITERATION_COUNT": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)


def make(directory: Path) -> None:
    """A database by certutil, its secrets put into the old form."""
    password, noise = directory / "password", directory / "noise"
    password.write_text(PASSWORD + "\n")
    noise.write_bytes(os.urandom(256))
    common = ("-d", f"sql:{directory}", "-f", password)
    run("certutil", "-N", *common)
    for name, kind in (("old rsa", ("-k", "rsa", "-g", "2048")), ("old ec", ("-k", "ec", "-q", "nistp256"))):
        run("certutil", "-S", *common, "-z", noise, "-x", "-n", name, "-s", f"CN={name}", "-t", "CTu,Cu,u", "-v", "1200", *kind)
    with sqlite3.connect(directory / "key4.db") as database:
        ((salt, check),) = database.execute("SELECT item1, item2 FROM metaData WHERE id='password'")
        key = hashlib.sha1(salt + PASSWORD.encode()).digest()
        assert crypto.decrypt(key, check) == b"password-check"
        database.execute("UPDATE metaData SET item2=? WHERE id='password'", (encrypt(key, b"password-check"),))
        for number, *values in database.execute(f"SELECT id, {','.join(PRIVATE)} FROM nssPrivate").fetchall():
            for column, value in zip(PRIVATE, values, strict=True):
                if value is not None:
                    blob = encrypt(key, crypto.decrypt(key, value))
                    database.execute(f"UPDATE nssPrivate SET {column}=? WHERE id=?", (blob, number))
                    signature = f"sig_key_{number:08x}_{int(column[1:], 16):08x}"
                    database.execute("DELETE FROM metaData WHERE id=?", (signature,))
    database.close()
    run("certutil", "-K", *common)
    for name in ("old rsa", "old ec"):
        run("pk12util", "-o", directory / "out.p12", "-n", name, "-d", f"sql:{directory}", "-k", password, "-W", "x")


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        target.mkdir(parents=True, exist_ok=True)
        for file in ("cert9.db", "key4.db", "pkcs11.txt"):
            shutil.copyfile(Path(name) / file, target / file)
    lines = (target / "pkcs11.txt").read_text().replace(f"sql:{name}", "sql:.")
    (target / "pkcs11.txt").write_text(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
