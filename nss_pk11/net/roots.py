"""What root modules (libnssckbi.so) say of certificates, as a store that verification reads.

Where tokens and verification meet for those who have an NSS database; makes no connection.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping

from cryptography.utils import CryptographyDeprecationWarning

from ..certs.stores import MemoryStore
from ..db import Trust
from ..db.attributes import Attribute
from ..db.records import place
from ..errors import NSPRError, TokenError
from ..slots import Token, TokenCertificate
from ..slots.tokens import PKCS11Token

_log = logging.getLogger(__name__)

Place = tuple[bytes, bytes]  # issuer and serial number, DER: how a trust record names its certificate


def place_of(der: bytes) -> Place:
    """Of a certificate.  Raises NSPRError for one that does not parse."""
    found = place(der)
    return found[Attribute.issuer], found[Attribute.serial_number]


def trust_records(token: Token | None) -> dict[Place, Trust]:
    """What a token says of certificates: root modules do, others know no such objects."""
    if not isinstance(token, PKCS11Token):
        return {}
    try:
        return token.trust_records()
    except TokenError as error:  # a search for a class of objects that it does not know
        _log.info("trust records of token %s: %s", token.info.label, error)
        return {}


def store_of(certificates: Iterable[TokenCertificate], records: Mapping[Place, Trust]) -> MemoryStore:
    """The certificates of a token with what its records say of them; of one that they do not name, nothing is trusted."""
    letters: dict[bytes, str] = {}
    for item in certificates:
        try:
            trust = records.get(place_of(item.der))
        except NSPRError:  # helps nobody
            continue
        letters[item.der] = str(trust.ssl) if trust else ""
    with warnings.catch_warnings():  # some old roots have the serial number 0
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return MemoryStore(letters)
