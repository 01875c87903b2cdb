"""Step-up: a client under export policy takes strong suites once a server has shown a certificate that is approved for it.

The first handshake is done by what policy always allows.  If policy has suites as SSL_RESTRICTED, and the server's certificate
has the extended key usage for strong cryptography and verifies for it, another handshake follows at once in which they may be
chosen too.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from ..certs.info import extension, parse
from ..errors import NSPRError
from ..tls.codepoints import V
from . import cert as certificates

if TYPE_CHECKING:
    from ..tls.events import ConnectionInfo
    from ._connection import Connection

APPROVED = {
    ObjectIdentifier("2.16.840.1.113730.4.1"),  # Netscape's, "Global ID"
    ObjectIdentifier("1.3.6.1.4.1.311.10.3.3"),  # Microsoft's, server gated cryptography
}


class StepUp:
    """Of one connection.  `restricted`: suites of that policy may be chosen; `under_way`: the other handshake is not over."""

    def __init__(self, layer: Connection) -> None:
        self._layer: Connection = weakref.proxy(layer)  # whose own this is
        self.restricted = self.under_way = False

    def consider(self, info: ConnectionInfo) -> None:
        """After a handshake."""
        self.under_way = False
        if self.restricted or self._layer.is_server or info.version == V.tls1_3:
            return
        if not self._layer.settings.has_restricted_suites:
            return
        if not self._approved(info):
            return
        self.restricted = True
        try:
            self._layer.renegotiate(resume=False)
        except NSPRError:  # settings or server do not allow it
            return
        self.under_way = True

    def declined(self) -> None:
        """The server wants no other handshake: the connection stays as it is."""
        self.under_way = False

    def _approved(self, info: ConnectionInfo) -> bool:
        try:
            uses = extension(parse(info.peer_chain[0]), x509.ExtendedKeyUsage) if info.peer_chain else None
            if not set(uses or ()) & APPROVED:
                return False
            usage = certificates.SECCertUsage.certUsageSSLServerWithStepUp
            argument = self._layer.settings.pin_arg
            certificates.CERT_VerifyCertNow(None, self._layer.peer_chain[0], True, usage, argument)
        except NSPRError:
            return False
        return True
