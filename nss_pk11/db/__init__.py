"""NSS databases: `cert9.db`, `key4.db` and `pkcs11.txt`, read and written natively and in both directions with NSS's tools.

    location    where a database is: `sql:DIR`
    store       one SQLite file of PKCS #11 objects, raw
    crypto      encryption and integrity of what is kept, pure
    trust       trust flags and their stored form, pure
    attributes  the numbers of PKCS #11 objects and the columns they are kept in
    records     what a database hands out, and how it is kept as attributes
    keys        keys as attributes, pure
    protection  the database password: encryption and MACs of one key4.db
    database    a directory of both files: certificates, trust, CRLs, keys, password
    pkcs12      PKCS #12 into a database and out of it
    modules     `pkcs11.txt`

Knows no slots, no PIN providers and no sockets; imports only `errors`.
"""

from __future__ import annotations

from .database import Database
from .location import Location
from .records import CertificateRecord, CRLRecord, KeyRecord
from .trust import Trust, TrustFlags

__all__ = ["CRLRecord", "CertificateRecord", "Database", "KeyRecord", "Location", "Trust", "TrustFlags"]
