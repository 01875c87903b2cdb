"""ECDHE key exchange (RFC 8422 sections 5.4 and 5.7)."""

from __future__ import annotations

from collections.abc import Collection

from ...errors import IllegalParameter
from .. import groups
from ..codec import Reader
from ..codepoints import Group
from ..link import Steps
from ..messages import tls12


class EcdheServer:
    def __init__(self, group: Group) -> None:
        self._share = groups.new_share(group)
        self.parameters = tls12.encode_ecdh_params(group, self._share.public)

    def receive(self, raw: bytes) -> Steps[bytes]:
        yield from ()  # nothing to wait for, unlike RSA
        return self._share.agree(tls12.decode_client_key_exchange(raw, 1))


class EcdheClient:
    """`offered`: the groups our ClientHello named."""

    def __init__(self, offered: Collection[Group]) -> None:
        self._offered = offered
        self.group: Group | None = None
        self._point = b""

    def read_parameters(self, reader: Reader) -> None:
        group, self._point = tls12.decode_ecdh_params(reader)
        if group not in self._offered or group not in groups.TLS12_CURVES:
            raise IllegalParameter(
                f"server chose group {group:#06x}, which was not offered", name="SEC_ERROR_UNSUPPORTED_ELLIPTIC_CURVE"
            )
        self.group = Group(group)

    def answer(self) -> tuple[bytes, bytes]:
        assert self.group is not None
        public, secret = groups.respond(self.group, self._point)
        return tls12.encode_client_key_exchange(1, public), secret
