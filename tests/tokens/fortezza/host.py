"""A FORTEZZA card in the hands of a test: parameters of its mechanisms, and somebody at the other end who has no card."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from struct import Struct
from typing import Any

from pk11_tokens.abi import CKA, CKK, CKM, CKO
from pk11_tokens.kea import DOMAINS, KeaPublicKey
from pk11_tokens.skipjack import Skipjack, wrap

from ..client import Client, Mechanism, Value, key_of

KEA_PARAMS = Struct("@?LPPLP")  # CK_KEA_DERIVE_PARAMS
DOMAIN = DOMAINS["kea"]
NONE, MAIL = bytes(128), (1).to_bytes(128, "big")  # what pRandomB says where it is no random value
WRAP = Mechanism(CKM.SKIPJACK_WRAP)
KEY_GEN = Mechanism(CKM.SKIPJACK_KEY_GEN)
EXCHANGE = {"label": "exchange", "kind": "kea", "issued": ["localhost"]}
SIGNATURE = {"label": "signature", "kind": "dsa1024", "issued": ["localhost"]}
PIN = "4711 and more"[:12]  # as long as one may be
SKIPJACK_KEY: dict[int, Value] = {CKA.CLASS: CKO.SECRET_KEY, CKA.KEY_TYPE: CKK.SKIPJACK}


class Agreement(Mechanism):
    """CKM_KEA_KEY_DERIVE; `random_a` and `random_b` tell what is in the host's buffers."""

    def __init__(self, *, sender: bool, public: bytes, random_a: bytes = NONE, random_b: bytes = MAIL, length: int = 128) -> None:
        self._a, self._b, y = (ctypes.create_string_buffer(value, 128) for value in (random_a, random_b, public))
        places = [ctypes.addressof(each) for each in (self._a, self._b, y)]
        super().__init__(CKM.KEA_KEY_DERIVE, KEA_PARAMS.pack(sender, length, *places[:2], len(public), places[2]), y)

    @property
    def random_a(self) -> bytes:
        return self._a.raw

    @property
    def random_b(self) -> bytes:
        return self._b.raw


class Cipher(Mechanism):
    """A mode with a parameter of so many bytes, in which the card leaves its initialization vector."""

    def __init__(self, number: CKM = CKM.SKIPJACK_CBC64, parameter: bytes = bytes(24)) -> None:
        super().__init__(number, parameter)

    @property
    def iv(self) -> bytes:
        buffer, _ = self.address.keep
        return bytes(buffer.raw)


class Card:
    """A session with a card, and the pair of KEA on it."""

    def __init__(self, client: Client, label: str = "exchange") -> None:
        self.client = client
        self.private = key_of(client, label)
        self.public = client.get(key_of(client, label, CKO.PUBLIC_KEY), CKA.VALUE)

    def derive(self, agreement: Agreement, template: Mapping[int, Value] | None = None) -> int:
        return self.client.derive(agreement, self.private, template or {})

    def encrypt(self, key: int, data: bytes, number: CKM = CKM.SKIPJACK_CBC64) -> tuple[bytes, bytes]:
        """The ciphertext, and what the card wrote into the parameter."""
        cipher = Cipher(number)
        return self.client.run("Encrypt", cipher, key, data), cipher.iv

    def decrypt(self, key: int, data: bytes, parameter: bytes, number: CKM = CKM.SKIPJACK_CBC64) -> bytes:
        return self.client.run("Decrypt", Cipher(number, parameter), key, data)


class Stranger:
    """Somebody of the same domain who computes for himself, and sends mail to a card."""

    def __init__(self) -> None:
        self.key = DOMAIN.generate()
        self.public = self.key.public_key().to_bytes()

    def write_to(self, card: Card) -> tuple[bytes, int]:
        """The key that the two agree on: as it is, and as the card has it."""
        random = DOMAIN.generate()
        peer = KeaPublicKey(DOMAIN, int.from_bytes(card.public, "big"))
        tek = self.key.agree(random.x, peer, peer)
        agreement = Agreement(sender=False, public=self.public, random_a=random.public_key().to_bytes())
        return tek, card.derive(agreement)

    def give_key(self, card: Card) -> tuple[bytes, int]:
        """A key that both know, sent wrapped."""
        tek, handle = self.write_to(card)
        key = os.urandom(10)
        return key, card.client.unwrap(WRAP, handle, wrap(Skipjack(tek), key), SKIPJACK_KEY)


def same_key(one: Card, key: int, other: Card, its: int) -> bool:
    """Whether two cards have the same key: what one encrypts, the other decrypts."""
    data = os.urandom(16)
    ciphertext, parameter = one.encrypt(key, data)
    return other.decrypt(its, ciphertext, parameter) == data


def token(label: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "personality": "FORTEZZA card", "pin": PIN, "key": [EXCHANGE, SIGNATURE]} | more
