"""Keys (keyhi.h, keythi.h)."""

from __future__ import annotations

from .prerror import sets_error
from .types import SECKEYPrivateKey, SECKEYPublicKey

__all__ = [
    "SECKEYPrivateKey",
    "SECKEYPublicKey",
    "SECKEY_CopyPrivateKey",
    "SECKEY_DestroyPrivateKey",
    "SECKEY_DestroyPublicKey",
    "SECKEY_GetPrivateKeyType",
]


def SECKEY_CopyPrivateKey(key: SECKEYPrivateKey) -> SECKEYPrivateKey:
    """One more use of it; to be destroyed once more (keyhi.h)."""
    return key.duplicate()


@sets_error
def SECKEY_DestroyPrivateKey(key: SECKEYPrivateKey | None) -> None:
    """Give it back; it stays on its token (keyhi.h).  None: nothing."""
    if key is not None:
        key.free()


def SECKEY_DestroyPublicKey(key: SECKEYPublicKey | None) -> None:
    """Nothing (keyhi.h)."""


def SECKEY_GetPrivateKeyType(key: SECKEYPrivateKey) -> str:
    """ "rsa", "ec", "dsa", "ed25519" (keyhi.h).  Differs: C has numbers."""
    return key.keyType
