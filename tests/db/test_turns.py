"""A database written in turns by us and by NSS's tools, at random: after each of 200 steps both say the same of it.

The model is what has been written; after every step our view (certificates, nicknames, trust, keys) is compared with it and with
what certutil prints.  At the end every key signs, and the other side's export of each is the key.
"""

# ruff: noqa: SIM118 (a database has keys, it is no mapping)

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12, serialize_key_and_certificates
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nss_pk11.db import Database, Trust, pkcs12
from nss_pk11.db.trust import from_stored, to_stored
from tests.db.test_database import certificate
from tests.db.tools import FEW_ITERATIONS, Tools, signs

TRUSTS = st.sampled_from(["CT,C,C", "C,,", "T,,", "c,c,c", "P,P,P", "p,p,p", "CTP,,C", "Cp,p,", ",,", ",c,P"])
PASSWORDS = st.sampled_from(["", "first password", "sécond", "third one"])
NAMES = [f"name {number}" for number in range(8)]
IDENTITIES = range(len(NAMES))
ours = st.booleans()


@cache
def identity(number: int) -> tuple[Any, bytes]:
    """A key and its certificate; made once, as every example uses them again."""
    key = (
        rsa.generate_private_key(65537, 2048)
        if number % 4 == 0
        else ec.generate_private_key((ec.SECP256R1(), ec.SECP384R1())[number % 2])
    )
    return key, certificate(key, f"subject {number}")


@dataclass
class Kept:
    """What the database should say of an identity's certificate."""

    nickname: str
    trust: str


def pem(number: int) -> bytes:
    return x509.load_der_x509_certificate(identity(number)[1]).public_bytes(Encoding.PEM)


class Turns(RuleBasedStateMachine):
    """Every rule takes a side: `ours`, or else certutil."""

    @initialize(by_us=ours, password=PASSWORDS)
    def create(self, by_us: bool, password: str) -> None:
        self.environment = mock.patch.dict(os.environ, FEW_ITERATIONS)
        self.environment.start()
        self.root = Path(tempfile.mkdtemp(prefix="turns"))
        directory = self.root / "db"
        directory.mkdir()
        self.tools = Tools(directory, password, environment=FEW_ITERATIONS)
        if by_us:
            with Database.open(directory, read_only=False, create=True) as database:
                database.set_password(None, password)
        else:
            self.tools.initialise()
        self.certificates: dict[int, Kept] = {}
        self.keys: set[int] = set()
        # `certutil -F` leaves the public key; `certutil -L`, not logged in, then still takes the certificate for a user's.
        self.orphans: set[int] = set()
        self.database = Database.open(directory, read_only=False)
        assert self.database.unlock(password)

    def teardown(self) -> None:
        if not hasattr(self, "database"):
            return
        try:
            self.keys_are_whole()
        finally:
            self.database.close()
            self.environment.stop()
            shutil.rmtree(self.root)

    # --- certificates and trust ---

    @rule(by_us=ours, number=st.sampled_from(IDENTITIES), trust=TRUSTS)
    def add_certificate(self, by_us: bool, number: int, trust: str) -> None:
        nickname = self.certificates[number].nickname if number in self.certificates else NAMES[number]
        if by_us:
            self.database.add_certificate(identity(number)[1], nickname, Trust.parse(trust))
        else:
            self.tools.certutil("-A", "-n", nickname, "-t", trust, "-i", self.tools.file("pem", pem(number)))
        self.certificates[number] = Kept(nickname, trust)

    @precondition(lambda self: self.certificates)
    @rule(by_us=ours, data=st.data(), trust=TRUSTS)
    def change_trust(self, by_us: bool, data: st.DataObject, trust: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.certificates)))
        if by_us:
            self.database.set_trust(identity(number)[1], Trust.parse(trust))
        else:
            self.tools.certutil("-M", "-n", self.certificates[number].nickname, "-t", trust)
        self.certificates[number].trust = trust

    @precondition(lambda self: self.certificates)
    @rule(by_us=ours, data=st.data())
    def rename(self, by_us: bool, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.certificates)))
        kept = self.certificates[number]
        nickname = NAMES[number] if kept.nickname != NAMES[number] else f"{NAMES[number]} é"
        if by_us:
            self.database.set_nickname(self.database.certificates(nickname=kept.nickname)[0], nickname)
        else:
            self.tools.certutil("--rename", "-n", kept.nickname, "--new-n", nickname)
        kept.nickname = nickname

    @precondition(lambda self: self.certificates)
    @rule(by_us=ours, data=st.data())
    def delete_certificate(self, by_us: bool, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.certificates)))
        nickname = self.certificates.pop(number).nickname
        if by_us:
            self.database.delete_certificate(self.database.certificates(nickname=nickname)[0])
        else:
            self.tools.certutil("-D", "-n", nickname)

    # --- keys ---

    @rule(by_us=ours, number=st.sampled_from(IDENTITIES))
    def import_key(self, by_us: bool, number: int) -> None:
        key, der = identity(number)
        own = x509.load_der_x509_certificate(der)
        nickname = self.certificates[number].nickname if number in self.certificates else NAMES[number]
        data = serialize_key_and_certificates(nickname.encode(), key, own, None, BestAvailableEncryption(b"x"))
        if by_us:
            pkcs12.import_(self.database, data, "x")
        elif number not in self.keys:  # pk12util refuses what is there already
            self.tools.import_(data, "x")
        else:
            return
        self.keys.add(number)
        self.orphans.discard(number)
        self.certificates.setdefault(number, Kept(nickname, ",,"))

    @rule(number=st.sampled_from(IDENTITIES))
    def add_key_alone(self, number: int) -> None:
        self.database.add_key(identity(number)[0])
        self.keys.add(number)
        self.orphans.discard(number)

    @precondition(lambda self: self.keys)
    @rule(by_us=ours, data=st.data())
    def delete_key(self, by_us: bool, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.keys)))
        record = next(key for key in self.database.keys() if key.public_key == identity(number)[0].public_key())
        if by_us:
            self.database.delete_key(record)
        else:
            self.tools.certutil("-F", "-k", record.key_id.hex())
            self.orphans.add(number)
        self.keys.remove(number)

    # --- the password ---

    @rule(by_us=ours, password=PASSWORDS)
    def change_password(self, by_us: bool, password: str) -> None:
        if by_us:
            self.database.set_password(self.tools.password, password)
            self.tools.password = password
        else:
            self.tools.change_password(password)
            assert self.database.unlock(password)

    @rule()
    def open_again(self) -> None:
        self.database.close()
        self.database = Database.open(self.tools.directory, read_only=False)
        assert self.database.unlock(self.tools.password)

    # --- both say the same ---

    def expected(self, keys: set[int]) -> dict[str, str]:
        """The letters that are left of those given: some cannot be kept (P beside C), and `u` is the key's."""
        return {
            kept.nickname: str(from_stored(to_stored(Trust.parse(kept.trust)), number in keys))
            for number, kept in self.certificates.items()
        }

    @invariant()
    def equal(self) -> None:
        if not hasattr(self, "database"):
            return
        seen = {record.nickname: str(self.database.trust(record.der)) for record in self.database.certificates()}
        assert seen == self.expected(self.keys)
        assert self.tools.listed() == self.expected(self.keys | (self.orphans if self.tools.password else set()))
        assert {record.der for record in self.database.certificates()} == {identity(number)[1] for number in self.certificates}
        assert {key.key_id.hex() for key in self.database.keys()} == set(self.tools.keys())
        public_keys = [identity(number)[0].public_key() for number in self.keys]
        assert len(self.database.keys()) == len(public_keys)
        assert all(key.public_key in public_keys for key in self.database.keys())

    def keys_are_whole(self) -> None:
        for key in self.database.keys():
            signs(self.database.private_key(key), key.public_key)
        for number in self.keys & set(self.certificates):
            with warnings.catch_warnings(action="ignore"):  # pk12util writes BER
                exported = load_pkcs12(self.tools.export(self.certificates[number].nickname, "x"), b"x")
            assert exported.key is not None
            assert exported.key.public_key() == identity(number)[0].public_key()


# Two examples of 200 steps: each step costs two or three runs of certutil.
Turns.TestCase.settings = settings(
    max_examples=2, stateful_step_count=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestTurns = Turns.TestCase
