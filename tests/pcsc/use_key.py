"""Signs with a key on a token and says as JSON what happened: run by tests, in a process of its own.

Its argument is JSON: `uri`, `answers` (PINs; null cancels), `provider`, `signatures`, `public_key` (SubjectPublicKeyInfo, hex).
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from nss_pk11 import pins
from nss_pk11.errors import NSPRError
from nss_pk11.slots import Algorithm, SlotManager

MESSAGE = b"message"


def main(order: dict[str, Any]) -> dict[str, list[Any]]:
    asked: list[dict[str, Any]] = []
    results: list[str] = []
    messages: list[str] = []
    answers = iter(order["answers"])

    def answer(request: pins.PinRequest, retry: bool, arg: object) -> str | None:
        asked.append({key: value for key, value in asdict(request).items() if key != "module"})
        found: str | None = next(answers)
        return found

    if order["provider"] == "static":
        provider = pins.value(order["answers"][0])
    else:
        provider = pins.callback(answer, person=order["provider"] == "person")
    public = load_der_public_key(bytes.fromhex(order["public_key"]))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    with SlotManager(provider) as manager:
        manager.load(os.environ["NSS_PK11_MODULE"])
        for _ in range(order["signatures"]):
            try:
                signature = manager.find_key(order["uri"]).sign(Algorithm.ecdsa_sha256, MESSAGE)
                public.verify(signature, MESSAGE, ec.ECDSA(SHA256()))
                results.append("ok")
            except NSPRError as error:
                results.append(error.name)
                messages.append(str(error))
    return {"asked": asked, "results": results, "messages": messages}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
