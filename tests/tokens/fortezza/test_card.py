"""What the card is, whom it serves, what time it has, and how one is described."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_public_key
from pk11_tokens import DescriptionError, RunningSimulator
from pk11_tokens.abi import CKA, CKF, CKK, CKM, CKO, MECHANISM_INFO, ULONG
from pk11_tokens.issuing import Issuer, self_signed
from pk11_tokens.kea import DOMAINS

from ...support.require import require
from ..client import Client, Mechanism, key_of, refused
from ..conftest import Start
from ..cryptoki import Module
from .host import (
    DOMAIN,
    EXCHANGE,
    KEY_GEN,
    PIN,
    Card,
    Cipher,
    token,
)

# --- what it is ------------------------------------------------------------------------------------------------------

SKIPJACK_FLAGS = CKF.ENCRYPT | CKF.DECRYPT


@pytest.mark.parametrize(
    ("mechanism", "flags"),
    [
        (CKM.SKIPJACK_KEY_GEN, CKF.GENERATE),
        *((CKM[f"SKIPJACK_{mode}"], SKIPJACK_FLAGS) for mode in ("ECB64", "CBC64", "OFB64", "CFB64", "CFB32", "CFB16", "CFB8")),
        (CKM.SKIPJACK_WRAP, CKF.WRAP | CKF.UNWRAP),
        (CKM.KEA_KEY_PAIR_GEN, CKF.GENERATE_KEY_PAIR),
        (CKM.KEA_KEY_DERIVE, CKF.DERIVE),
        (CKM.FORTEZZA_TIMESTAMP, CKF.SIGN),
        (CKM.DSA, CKF.SIGN | CKF.VERIFY),
    ],
)
def test_mechanisms(module: Module, mechanism: CKM, flags: int) -> None:
    room = ctypes.create_string_buffer(MECHANISM_INFO.size)
    assert module.C_GetMechanismInfo(1, mechanism, room) == "CKR_OK"
    assert MECHANISM_INFO.unpack(room.raw)[2] == flags | CKF.HW


@pytest.mark.parametrize("mechanism", [CKM.RSA_PKCS, CKM.AES_CBC, CKM.SKIPJACK_PRIVATE_WRAP, CKM.SKIPJACK_RELAYX])
def test_there_is_no_more(module: Module, mechanism: CKM) -> None:
    room = ctypes.create_string_buffer(MECHANISM_INFO.size)
    assert module.C_GetMechanismInfo(1, mechanism, room) == "CKR_MECHANISM_INVALID"


def test_pkcs11_tool_shows_it(cards: RunningSimulator) -> None:
    def tool(*arguments: str) -> str:
        command = [require("pkcs11-tool"), "--module", cards.module, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    assert "FORTEZZA card" in tool("-L")
    shown = tool("--slot", "1", "-M")
    assert all(f"SKIPJACK-{mode}" in shown for mode in ("CBC64", "WRAP"))
    assert "KEA-KEY-DERIVE" in shown


# --- time ------------------------------------------------------------------------------------------------------------


def test_time_stamps(cards: RunningSimulator, module: Module, a: Card) -> None:
    assert module.token_flags(1) & CKF.CLOCK_ON_TOKEN
    data = sha1(b"what is stamped").digest()
    public_key = load_der_public_key(cards["a"].public_key_der("signature"))
    assert isinstance(public_key, dsa.DSAPublicKey)

    def stamped() -> bool:
        before = module.token_info(1)[-1]
        signature = a.client.sign(Mechanism(CKM.FORTEZZA_TIMESTAMP), key_of(a.client, "signature"), data)
        assert len(signature) == 40
        der = encode_dss_signature(int.from_bytes(signature[:20], "big"), int.from_bytes(signature[20:], "big"))
        try:
            public_key.verify(der, sha1(data + before).digest(), Prehashed(SHA1()))
        except InvalidSignature:
            assert module.token_info(1)[-1] != before  # a second began meanwhile
            return False
        return True

    end = time.monotonic() + 10
    while not stamped():
        assert time.monotonic() < end
    with refused("DATA_LEN_RANGE"):
        a.client.sign(Mechanism(CKM.FORTEZZA_TIMESTAMP), key_of(a.client, "signature"), data + b"\0")


# --- hosts, PINs, readers --------------------------------------------------------------------------------------------

_OTHER_HOST = """
import sys
from tests.tokens.cryptoki import Module
import ctypes
with Module(sys.argv[1]) as module:
    print(module.C_OpenSession(1, 4, None, None, ctypes.byref(ctypes.c_ulong())))
"""


def other_host(module: str) -> str:
    command = [sys.executable, "-c", _OTHER_HOST, module]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=Path(__file__).parents[3]).stdout


def test_one_process_at_a_time(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([token("card")])
    with Module(simulator.module) as module:
        sessions = [module.open(), module.open()]
        assert other_host(simulator.module) == "CKR_SESSION_COUNT\n"
        for session in sessions:
            module.C_CloseSession(session)
        assert other_host(simulator.module) == "CKR_OK\n"


def test_pins(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([token("card")])
    with Module(simulator.module) as module:
        session = module.open()
        assert module.login(session, b"0123456789abc") == "CKR_PIN_LEN_RANGE"
        for _ in range(10):
            assert module.login(session, b"wrong pin") == "CKR_PIN_INCORRECT"
        assert module.login(session, PIN.encode()) == "CKR_PIN_LOCKED"
        simulator["card"].unlock()
        assert module.login(session, PIN.encode()) == "CKR_OK"


def test_taken_out_in_the_middle(simulated_tokens: Start) -> None:
    simulator = simulated_tokens([token("card")])
    with Module(simulator.module) as module:
        card = Card(Client(module).login(PIN.encode()))
        key = card.client.generate(KEY_GEN, {})
        card.client("C_EncryptInit", Cipher().address, key)
        simulator["card"].remove()
        with refused("DEVICE_REMOVED"):
            card.client.finish("C_EncryptUpdate", bytes(8), 8)
        simulator["card"].insert()
        again = Client(module).login(PIN.encode())
        assert again.labels() == {"exchange", "signature", "issuer", "Ks"}
        assert again.find({CKA.CLASS: CKO.SECRET_KEY}) == again.find({CKA.LABEL: "Ks"})


# --- certificates and descriptions -----------------------------------------------------------------------------------


def test_certificates_are_by_one_issuer(cards: RunningSimulator) -> None:
    issuers = {cards[name].certificate_der("issuer") for name in "abc"}
    assert len(issuers) == 1
    issuer = x509.load_der_x509_certificate(issuers.pop())
    for name in "ab":
        for label in ("exchange", "signature"):
            certificate = x509.load_der_x509_certificate(cards[name].certificate_der(label))
            certificate.verify_directly_issued_by(issuer)
            assert cards[name].public_key_der(label) in certificate.tbs_certificate_bytes
            usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
            assert (usage.key_agreement, usage.digital_signature) == (label == "exchange", label == "signature")


def test_a_certificate_lies_beside_its_key(a: Card) -> None:
    private = a.client.get(a.private, CKA.ID)
    found = a.client.find({CKA.CLASS: CKO.CERTIFICATE, CKA.ID: private})
    assert [a.client.get(each, CKA.LABEL) for each in found] == [b"exchange"]


@pytest.mark.parametrize("kind", [ec.generate_private_key(ec.SECP384R1()), dsa.generate_private_key(1024)], ids=["ec", "dsa"])
def test_an_issuer_of_ones_own(simulated_tokens: Start, tmp_path: Path, kind: Any) -> None:
    certificate = self_signed(kind, ("Authority",))
    file = tmp_path / "issuer.pem"
    private = kind.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    simulator = simulated_tokens([token("card", key=[EXCHANGE | {"issuer": file}])])
    issued = x509.load_der_x509_certificate(simulator["card"].certificate_der("exchange"))
    issued.verify_directly_issued_by(certificate)
    with pytest.raises(RuntimeError, match="no certificate"):
        simulator["card"].certificate_der("issuer")


def test_a_certificate_of_kea_from_a_file(simulated_tokens: Start, tmp_path: Path) -> None:
    """It has to be for the key on the card, which is a new one."""
    file = tmp_path / "other.der"
    file.write_bytes(Issuer().issue(DOMAIN.generate().public_key(), ("localhost",)))
    with pytest.raises(DescriptionError, match="is not for this key"):
        simulated_tokens([token("card", key=[{"label": "exchange", "kind": "kea", "certificate": file}])])


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ({"kind": "kea", "self_signed": ["localhost"]}, "self_signed: a key of KEA cannot sign; say issued"),
        ({"kind": "dsa1024", "self_signed": ["a"], "issued": ["a"]}, "self_signed: not with issued"),
        ({"kind": "kea", "certificate": "a", "issued": ["a"]}, "certificate: not with issued"),
        ({"kind": "kea", "issuer": "a.pem"}, "issuer: only with issued"),
        ({"kind": "kea", "issued": ["a"], "issuer": "/nowhere/a.pem"}, "issuer: /nowhere/a.pem: No such file"),
        ({"kind": "kea", "issued": ["a"], "issuer": __file__}, "does not hold a private key and its certificate"),
        ({"kind": "dsa2048"}, "kind: a FORTEZZA card has no key of 2048 bits for CKM_DSA"),
        ({"kind": "p256"}, "a FORTEZZA card has no CKM_ECDSA, so no p256 key"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(simulated_tokens: Start, key: dict[str, Any], fault: str) -> None:
    with pytest.raises(DescriptionError, match=fault):
        simulated_tokens([token("card", key=[{"label": "key"} | key])])


def test_every_domain_is_a_kind_of_key(cards: RunningSimulator, c: Card) -> None:
    assert set(DOMAINS) == {"kea", "kea_other"}
    assert int.from_bytes(c.public, "big") < DOMAINS["kea_other"].p
    assert DOMAINS["kea_other"].contains(int.from_bytes(c.public, "big"))
    assert ULONG.unpack(c.client.get(c.private, CKA.KEY_TYPE))[0] == CKK.KEA
