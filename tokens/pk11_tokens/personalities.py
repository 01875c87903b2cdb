"""What kinds of token there are to simulate: one row each, and the fields in which tokens differ.

A personality is data: the mechanisms a token offers, how it treats PINs and sessions, how quick and how honest it is.
`behaviour` acts on it, `machine` and `functions` read it; a description may override any field for one token.  This file
knows no token, no file and no socket.  A kind of token with mechanisms of its own is another row here and another file in
`mechanisms/`, as `fortezza` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Mechanisms by what they are for, as PKCS #11 names them.
DIGESTS = ("CKM_SHA_1", "CKM_SHA224", "CKM_SHA256", "CKM_SHA384", "CKM_SHA512")
# The hashed ones go first in every list: pkcs11-tool --test signs part by part with the first it finds.
RSA_PKCS1 = ("CKM_RSA_PKCS_KEY_PAIR_GEN", "CKM_RSA_PKCS")
RSA_PKCS1_HASHED = (
    "CKM_SHA1_RSA_PKCS",
    "CKM_SHA224_RSA_PKCS",
    "CKM_SHA256_RSA_PKCS",
    "CKM_SHA384_RSA_PKCS",
    "CKM_SHA512_RSA_PKCS",
)
RSA_PSS = (
    "CKM_RSA_PKCS_PSS",
    "CKM_SHA1_RSA_PKCS_PSS",
    "CKM_SHA224_RSA_PKCS_PSS",
    "CKM_SHA256_RSA_PKCS_PSS",
    "CKM_SHA384_RSA_PKCS_PSS",
    "CKM_SHA512_RSA_PKCS_PSS",
)
RSA_MORE = ("CKM_RSA_X_509", "CKM_RSA_PKCS_OAEP")
DSA = ("CKM_DSA_KEY_PAIR_GEN", "CKM_DSA")
DSA_HASHED = ("CKM_DSA_SHA1", "CKM_DSA_SHA224", "CKM_DSA_SHA256", "CKM_DSA_SHA384", "CKM_DSA_SHA512")
ECDSA = ("CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA")
ECDSA_HASHED = ("CKM_ECDSA_SHA1", "CKM_ECDSA_SHA224", "CKM_ECDSA_SHA256", "CKM_ECDSA_SHA384", "CKM_ECDSA_SHA512")
ECDH = ("CKM_ECDH1_DERIVE",)
EDDSA = ("CKM_EC_EDWARDS_KEY_PAIR_GEN", "CKM_EDDSA")
ML_DSA = ("CKM_ML_DSA_KEY_PAIR_GEN", "CKM_ML_DSA")
HMAC = ("CKM_SHA_1_HMAC", "CKM_SHA224_HMAC", "CKM_SHA256_HMAC", "CKM_SHA384_HMAC", "CKM_SHA512_HMAC")
SECRET = (
    "CKM_GENERIC_SECRET_KEY_GEN",
    "CKM_AES_KEY_GEN",
    "CKM_AES_ECB",
    "CKM_AES_CBC",
    "CKM_AES_CBC_PAD",
    "CKM_AES_CTR",
    "CKM_AES_GCM",
    "CKM_AES_KEY_WRAP",
    "CKM_AES_KEY_WRAP_PAD",
    "CKM_AES_CMAC",
)
SKIPJACK = (
    "CKM_SKIPJACK_KEY_GEN",
    "CKM_SKIPJACK_ECB64",
    "CKM_SKIPJACK_CBC64",
    "CKM_SKIPJACK_OFB64",
    "CKM_SKIPJACK_CFB64",
    "CKM_SKIPJACK_CFB32",
    "CKM_SKIPJACK_CFB16",
    "CKM_SKIPJACK_CFB8",
    "CKM_SKIPJACK_WRAP",
)
KEA = ("CKM_KEA_KEY_PAIR_GEN", "CKM_KEA_KEY_DERIVE")
RSA_ALL = RSA_PKCS1_HASHED + RSA_PKCS1 + RSA_PSS + RSA_MORE
EC_ALL = ECDSA + ECDSA_HASHED + ECDH


@dataclass(frozen=True)
class Person:
    """Whoever stands at the keypad of a reader.

    `delay`: seconds until the PIN is typed.  `pin`: what is typed; None: the token's PIN.  `mistakes`: so many times a
    wrong one first.  `cancels`: presses Cancel instead.
    """

    delay: float = 0.0
    pin: str | None = None
    mistakes: int = 0
    cancels: bool = False


@dataclass(frozen=True)
class Personality:
    """One kind of token.  Times are in seconds; 0 of a limit means that there is none."""

    name: str
    mechanisms: tuple[str, ...]  # CKM_ names; of each the token does what `mechanisms.MECHANISMS` says
    key_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # by mechanism, where it takes fewer than it could
    manufacturer: str = "nss-pk11"
    model: str = "simulated"
    hardware: bool = True  # CKF_HW_SLOT
    removable: bool = True  # CKF_REMOVABLE_DEVICE
    pin_tries: int = 3  # 0: never locks
    pin_lengths: tuple[int, int] = (4, 16)  # shortest and longest
    max_sessions: int = 0  # open at once over all hosts; then CKR_SESSION_COUNT
    protected_path: bool = False  # a keypad: CKF_PROTECTED_AUTHENTICATION_PATH; a PIN from the host is refused
    parallel: int = 0  # operations at once; the others wait inside the device
    latency: Mapping[str, float] = field(default_factory=dict)  # by function, or "*" for every operation
    idle_timeout: float = 0.0  # a host silent for so long loses its sessions and its login
    slot_events: str = "yes"  # C_WaitForSlotEvent: "yes", "unsupported" (CKR_FUNCTION_NOT_SUPPORTED) or "silent" (never reports)
    wrong_signatures: float = 0.0  # rate, 0 to 1
    exclusive: bool = False  # one host at a time has sessions; others get CKR_SESSION_COUNT
    key_registers: int = 0  # secret keys that it holds, then CKR_DEVICE_MEMORY; the first, "Ks", is there from the beginning
    always_authenticate: bool = False  # of keys that do not say otherwise (CKA_ALWAYS_AUTHENTICATE)
    seed: int = 0  # of everything that happens at random
    person: Person = field(default_factory=Person)  # at the keypad, with `protected_path`


SLOT_EVENTS = ("yes", "unsupported", "silent")

PERSONALITIES: dict[str, Personality] = {
    personality.name: personality
    for personality in (
        # Everything, at once: where the test is about something else.
        Personality(
            name="plain",
            mechanisms=DIGESTS + RSA_ALL + EC_ALL + DSA_HASHED + DSA + EDDSA + ML_DSA + SECRET + HMAC,
            pin_tries=0,
        ),
        # A card as PIV ones are behind their middleware (NIST SP 800-73-4): PKCS #1 v1.5 and ECDSA, one operation after the
        # other, one session.
        Personality(
            name="smart card",
            mechanisms=DIGESTS + RSA_PKCS1_HASHED + RSA_PKCS1 + ECDSA,
            model="PIV card",
            pin_lengths=(6, 8),
            max_sessions=1,
            parallel=1,
        ),
        # The same card in a reader with a keypad: the PIN never passes through the host.
        Personality(
            name="pinpad reader",
            mechanisms=DIGESTS + RSA_PKCS1_HASHED + RSA_PKCS1 + ECDSA,
            model="PIV card, keypad",
            pin_lengths=(4, 12),
            parallel=1,
            protected_path=True,
            person=Person(delay=0.05),
        ),
        # In a rack, behind a link: nobody pulls it out, but it is far away, shared, and forgets the idle.
        Personality(
            name="network HSM",
            mechanisms=DIGESTS + RSA_ALL + EC_ALL + SECRET + HMAC,
            model="network HSM",
            removable=False,
            pin_tries=10,
            pin_lengths=(4, 64),
            max_sessions=16,
            parallel=8,
            latency={"*": 0.005},
            idle_timeout=300.0,
            slot_events="unsupported",
        ),
        # What SoftHSM cannot: ML-DSA (FIPS 204) and the Edwards curves (RFC 8032).
        Personality(
            name="signature token",
            mechanisms=ML_DSA + EDDSA,
            model="signature token",
        ),
        # One that computes wrongly now and then, as broken hardware and fault attacks do.
        Personality(
            name="faulty HSM",
            mechanisms=DIGESTS + RSA_ALL + EC_ALL + EDDSA,
            model="faulty HSM",
            removable=False,
            pin_tries=10,
            wrong_signatures=0.1,
        ),
        # As the US government had them (FORTEZZA, 1996): DSA and KEA, Skipjack with keys that never leave it in the clear, one
        # host at a time, one operation after the other.
        Personality(
            name="FORTEZZA card",
            mechanisms=("CKM_SHA_1", "CKM_DSA_SHA1", *DSA, *SKIPJACK, *KEA, "CKM_FORTEZZA_TIMESTAMP"),
            key_sizes=dict.fromkeys((*DSA, "CKM_DSA_SHA1"), (1024, 1024)),
            model="FORTEZZA card",
            pin_tries=10,
            pin_lengths=(4, 12),
            parallel=1,
            exclusive=True,
            key_registers=100,
        ),
    )
}
