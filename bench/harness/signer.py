"""Raw signatures, a process of its own for each way to sign: `signer.py slots|python-pkcs11|cryptography KEY WHAT`.

Says so with an empty line when it is ready; then, for every line "COUNT" on stdin, does that many operations and answers
with the CPU seconds they took.  A signature is what TLS needs: of a 130-byte message, hashed, ECDSA as DER.

KEY: a token's key label (its URI in BENCH_URI, its token's label and PIN in BENCH_TOKEN and BENCH_PIN, the module in
BENCH_MODULE), or for `cryptography` a PEM file.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

MESSAGE = bytes(range(130))
Operation = Callable[[], object]
SHA256 = hashes.SHA256()


def cryptography(key_file: str, what: str) -> Operation:
    """In software."""
    key: Any = serialization.load_pem_private_key(Path(key_file).read_bytes(), None)
    pss, pkcs1, ecdsa = padding.PSS(padding.MGF1(SHA256), 32), padding.PKCS1v15(), ec.ECDSA(SHA256)
    if what == "decrypt":
        ciphertext = key.public_key().encrypt(bytes(48), pkcs1)
        return lambda: key.decrypt(ciphertext, pkcs1)
    arguments = {"ecdsa": (ecdsa,), "pss": (pss, SHA256), "pkcs1": (pkcs1, SHA256), "ed25519": ()}[what]
    return lambda: key.sign(MESSAGE, *arguments)


def python_pkcs11(label: str, what: str) -> Operation:
    """The binding alone, used as its documentation shows."""
    import pkcs11
    from pkcs11 import MGF, Mechanism, ObjectClass
    from pkcs11.util.ec import encode_ecdsa_signature

    token = pkcs11.lib(os.environ["BENCH_MODULE"]).get_token(token_label=os.environ["BENCH_TOKEN"])
    session = token.open(user_pin=os.environ["BENCH_PIN"])
    key: Any = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=label)
    match what:
        case "ecdsa":
            return lambda: encode_ecdsa_signature(key.sign(hashlib.sha256(MESSAGE).digest(), mechanism=Mechanism.ECDSA))
        case "pss":
            parameters = (Mechanism.SHA256, MGF.SHA256, 32)
            return lambda: key.sign(MESSAGE, mechanism=Mechanism.SHA256_RSA_PKCS_PSS, mechanism_param=parameters)
        case "pkcs1":
            return lambda: key.sign(MESSAGE, mechanism=Mechanism.SHA256_RSA_PKCS)
        case "ed25519":
            return lambda: key.sign(MESSAGE, mechanism=Mechanism.EDDSA)
        case _:
            public: Any = session.get_key(object_class=ObjectClass.PUBLIC_KEY, label=label)
            ciphertext = public.encrypt(bytes(48), mechanism=Mechanism.RSA_PKCS)
            return lambda: key.decrypt(ciphertext, mechanism=Mechanism.RSA_PKCS)


def slots(label: str, what: str) -> Operation:
    """Our slot manager, as the key executor calls it."""
    from nss_pk11.slots import Algorithm, SlotManager

    key = SlotManager().find_key(os.environ["BENCH_URI"])
    if what == "decrypt":
        public: Any = key.public_key
        ciphertext = public.encrypt(bytes(48), padding.PKCS1v15())
        return lambda: key.decrypt(ciphertext)
    names = {"ecdsa": "ecdsa_sha256", "pss": "rsa_pss_sha256", "pkcs1": "rsa_pkcs1_sha256", "ed25519": "ed25519"}
    algorithm = Algorithm[names[what]]
    return lambda: key.sign(algorithm, MESSAGE)


WAYS = {"slots": slots, "python-pkcs11": python_pkcs11, "cryptography": cryptography}


def main() -> None:
    way, key, what = sys.argv[1:]
    operation = WAYS[way](key, what)
    operation()
    print(flush=True)
    for line in sys.stdin:
        start = time.process_time()
        for _ in range(int(line)):
            operation()
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main()
