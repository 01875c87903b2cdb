"""Which RSA keys of this process serve SSL 2.0, and which do anything else: none does both, unless its owner says so.

Whoever finds a server of SSL 2.0 can have it decrypt, with some patience, what was encrypted for its key elsewhere (DROWN,
CVE-2016-0800).  Keys are known by their certificates, so that it is no matter through how many handles they are used.  What a key
was used for once it counts as used for until the process ends: what was recorded may be decrypted later.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from ..errors import ConfigurationError
from ..tls.codepoints import Version
from ..tls.signatures import load_leaf

if TYPE_CHECKING:
    from ..tls.config import Identity, ServerConfig


class Purposes:
    """What is known of a process's keys.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._serves_ssl2: dict[int, bool] = {}  # by modulus

    def claim(self, identity: Identity, *, ssl2: bool) -> None:
        """The key is to serve SSL 2.0, or to do something else.

        Raises ConfigurationError (SEC_ERROR_INADEQUATE_KEY_USAGE) if it did the other before.  Only RSA keys can; one without a
        certificate, which nobody can have met elsewhere, may do what it likes, and so may one that is `shared_with_ssl2`.
        """
        if not identity.modulus_bits or not identity.chain or identity.shared_with_ssl2:
            return
        key = load_leaf(identity.chain).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        with self._lock:
            before = self._serves_ssl2.setdefault(key.public_numbers().n, ssl2)
        if before is not ssl2:
            which = "that serves SSL 2.0 is refused for anything else" if before else "that is in use is refused for SSL 2.0"
            raise ConfigurationError(
                f"a key {which} (DROWN): give SSL 2.0 a key of its own", name="SEC_ERROR_INADEQUATE_KEY_USAGE"
            )

    def claim_all(self, config: ServerConfig) -> None:
        """The keys of a server that is about to start.  Raises as `claim`."""
        for identity in config.identities:
            self.claim(identity, ssl2=config.min_version == Version.ssl2)


PURPOSES = Purposes()  # of this process
