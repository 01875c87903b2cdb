"""Certificates and keys by the NSS API: lookups that certutil agrees with, changes that certutil sees."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nss_pk11.db import pkcs12
from nss_pk11.nss import cert, keyhi, nss, p12, pk11pub, secmod
from nss_pk11.nss.pk11pub import PK11CertListType
from nss_pk11.nss.prerror import NSPRError
from nss_pk11.slots import Algorithm
from tests.db.tools import Tools, signs
from tests.support.pki import Authority
from tests.support.softhsm import PIN, SoftHSM, TokenOnDisk

from .conftest import PASSWORD

Error = Callable[[], str]
_numbers = count(1)
MEANINGS = {  # certutil says it in NSS's words (SECerrs.h)
    "issuer is not recognized": "SEC_ERROR_UNKNOWN_ISSUER",
    "issuer has been marked as not trusted": "SEC_ERROR_UNTRUSTED_ISSUER",
}
P256 = bytes.fromhex("06082a8648ce3d030107")


@pytest.fixture
def token(softhsm: SoftHSM) -> TokenOnDisk:
    return softhsm.create_token(f"nss certificates {next(_numbers)}")


def make(key: Any, name: str, *, issuer: Any = None, serial: int = 0, ca: bool = False) -> x509.Certificate:
    """A certificate of `key`, self-signed or signed by a name and a key."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=issuer[0] if issuer else subject,
        subject_name=subject,
        public_key=key.public_key() if hasattr(key, "public_key") else key,
        serial_number=serial or x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(days=1),
        not_valid_after=now + datetime.timedelta(days=30),
    ).add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(issuer[1] if issuer else key, SHA256())


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def pkcs8(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def only_ours(certificates: list[cert.CERTCertificate]) -> list[str]:
    """The nicknames of those in the database."""
    return sorted(item.nickname for item in certificates if ":" not in item.nickname)


# --- finding ---------------------------------------------------------------------------------------------------------


def test_lists(opened: Tools) -> None:
    kinds = PK11CertListType
    everything = ["ca", "server", "stranger", "unknown"]
    assert only_ours(pk11pub.PK11_ListCerts(kinds.PK11CertListAll)) == everything == sorted(opened.listed())
    assert only_ours(pk11pub.PK11_ListCerts(kinds.PK11CertListUser)) == everything
    assert only_ours(pk11pub.PK11_ListCerts(kinds.PK11CertListCA)) == ["ca"]  # the only one with its trust
    assert only_ours(pk11pub.PK11_ListCerts(kinds.PK11CertListRootUnique)) == []  # its key is here
    assert [item.nickname for item in pk11pub.PK11_ListCertsInSlot(pk11pub.PK11_GetInternalKeySlot())]
    assert set(cert.CERT_GetCertNicknames(None, 1)) >= set(everything)
    assert [name for name in cert.CERT_GetCertNicknames(None, 4) if ":" not in name] == ["ca"]


def test_other_ways_to_a_certificate(opened: Tools) -> None:
    handle = cert.CERT_GetDefaultCertDB()
    server = cert.CERT_FindCertByNickname(handle, "server")
    assert pk11pub.PK11_FindCertFromNickname("NSS Certificate DB:server") == server
    assert cert.CERT_FindCertByNicknameOrEmailAddr(handle, "Admin@host.example") == server
    assert cert.CERT_FindCertByDERCert(handle, server.derCert).nickname == "server"
    assert cert.CERT_FindCertByName(handle, server.derSubject) == server
    assert cert.CERT_FindCertByIssuerAndSN(handle, (server.derIssuer, server.serialNumber)) == server
    assert pk11pub.PK11_FindCertFromNickname("pkcs11:token=NSS%20Certificate%20DB;object=server;type=cert") == server
    assert "server" in server.subjectName
    assert "ca" in server.issuerName
    assert server.isperm
    assert server.slot == pk11pub.PK11_GetInternalKeySlot()


@pytest.mark.parametrize(
    ("nickname", "name"),
    [("nobody", "SEC_ERROR_UNKNOWN_CERT"), ("no token:server", "SEC_ERROR_NO_TOKEN"), ("a@b.example", "SEC_ERROR_UNKNOWN_CERT")],
)
def test_not_found(opened: Tools, nickname: str, name: str, error: Error) -> None:
    with pytest.raises(NSPRError):
        pk11pub.PK11_FindCertFromNickname(nickname)
    assert error() == name


def test_the_newest_of_a_subject_comes_first(opened: Tools) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    slot = pk11pub.PK11_GetInternalKeySlot()
    old, new = make(key, "twice", serial=1), make(key, "twice", serial=2)
    for certificate in (old, new):
        pk11pub.PK11_ImportDERCert(slot, der(certificate), None, "twice")
    found = pk11pub.PK11_FindCertsFromNickname("twice")
    assert {item.derCert for item in found} == {der(old), der(new)}
    assert found[0].validity >= found[1].validity
    assert opened.certutil("-L", "-n", "twice")


@pytest.mark.parametrize("nickname", ["ca", "server", "stranger", "unknown"])
def test_each_key_signs(opened: Tools, nickname: str) -> None:
    found = pk11pub.PK11_FindCertFromNickname(nickname)
    key = pk11pub.PK11_FindKeyByAnyCert(found)
    public = cert.CERT_ExtractPublicKey(found).key
    assert keyhi.SECKEY_GetPrivateKeyType(key) == ("rsa" if nickname == "server" else "ec")
    if isinstance(public, rsa.RSAPublicKey):
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        public.verify(key.key.sign(Algorithm.rsa_pkcs1_sha256, b"message"), b"message", PKCS1v15(), SHA256())
    else:
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(key.key.sign(Algorithm.ecdsa_sha256, b"message"), b"message", ec.ECDSA(SHA256()))
    assert pk11pub.PK11_FindPrivateKeyFromCert(pk11pub.PK11_GetInternalKeySlot(), found) == key


def test_on_a_card(softhsm: SoftHSM, token: TokenOnDisk, tools: Tools, error: Error) -> None:
    key = token.generate_key("p256", "web")
    signer = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    certificate = make(key.public_key, "on a card", issuer=(issuer, signer))
    token.import_certificate(certificate, key)
    asked: list[str] = []

    def password(slot: pk11pub.PK11SlotInfo, retry: bool, arg: object) -> str | None:
        asked.append(pk11pub.PK11_GetTokenName(slot))
        return None if retry else {token.label: PIN}.get(asked[-1], PASSWORD)

    pk11pub.PK11_SetPasswordFunc(password)
    nss.NSS_Init(str(tools.directory))
    secmod.SECMOD_LoadUserModule(f"library={softhsm.module_path} name=soft")
    nickname = (
        f"{token.label}:{pk11pub.PK11_ListCertsInSlot(pk11pub.PK11_FindSlotByName(token.label))[0].nickname.partition(':')[2]}"
    )
    found = pk11pub.PK11_FindCertFromNickname(nickname)
    assert found.nickname == nickname
    assert found.derCert == der(certificate)
    found_key = pk11pub.PK11_FindKeyByAnyCert(found)
    assert pk11pub.PK11_GetTokenName(found_key.pkcs11Slot) == token.label
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(found_key.key.sign(Algorithm.ecdsa_sha256, b"m"), b"m", ec.ECDSA(SHA256()))
    assert set(asked) == {token.label}  # the database's password is nobody's business
    # The certificate alone, from a peer say, is enough to find the key.
    assert pk11pub.PK11_FindKeyByAnyCert(cert.CERT_NewTempCertificate(None, der(certificate))) == found_key
    with pytest.raises(NSPRError):
        pk11pub.PK11_FindKeyByAnyCert(cert.CERT_NewTempCertificate(None, der(make(signer, "keyless"))))
    assert error() == "SEC_ERROR_NO_KEY"


# --- changing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_certutil_sees_what_we_import(opened: Tools, kind: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP384R1())
    slot = pk11pub.PK11_GetInternalKeySlot()
    before = len(opened.keys())
    made = pk11pub.PK11_ImportDERPrivateKeyInfoAndReturnKey(slot, pkcs8(key), "imported")
    kept = pk11pub.PK11_ImportCert(slot, cert.CERT_NewTempCertificate(None, der(make(key, "imported"))), made, "imported")
    assert kept.isperm
    assert opened.listed()["imported"] == "u,u,u"
    assert len(opened.keys()) == before + 1
    assert pk11pub.PK11_FindKeyByAnyCert(kept) == made
    data = opened.export("imported", "transport")
    exported = pkcs12.decode(data, "transport").key
    assert exported is not None
    signs(exported, key.public_key())


@pytest.mark.parametrize(
    ("mechanism", "parameters"),
    [
        (pk11pub.CKM_RSA_PKCS_KEY_PAIR_GEN, pk11pub.PK11RSAGenParams(2048)),
        (pk11pub.CKM_EC_KEY_PAIR_GEN, P256),
    ],
)
def test_certutil_sees_what_we_generate(opened: Tools, mechanism: int, parameters: Any) -> None:
    before = opened.keys()
    private, public = pk11pub.PK11_GenerateKeyPair(pk11pub.PK11_GetInternalKeySlot(), mechanism, parameters)
    after = opened.keys()
    assert set(after) - set(before) == {private.key.id.hex()}
    signer = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    pk11pub.PK11_ImportDERCert(private.pkcs11Slot, der(make(public.key, "made", issuer=(issuer, signer))), private, "made")
    assert opened.listed()["made"] == "u,u,u"


@pytest.mark.parametrize(
    ("mechanism", "parameters"),
    [(0, pk11pub.PK11RSAGenParams(512)), (0, b""), (0x1040, bytes.fromhex("06052b8104000a")), (0x1055, P256), (0x120, b"")],
)
def test_keys_that_are_not_made(opened: Tools, mechanism: int, parameters: Any, error: Error) -> None:
    with pytest.raises(NSPRError):
        pk11pub.PK11_GenerateKeyPair(pk11pub.PK11_GetInternalKeySlot(), mechanism, parameters)
    assert error() in ("SEC_ERROR_INVALID_ARGS", "SEC_ERROR_UNSUPPORTED_ELLIPTIC_CURVE")


def test_keys_on_a_card(softhsm: SoftHSM, token: TokenOnDisk) -> None:
    pk11pub.PK11_SetPasswordFunc(lambda slot, retry, arg: None if retry else PIN)
    nss.NSS_NoDB_Init()
    secmod.SECMOD_LoadUserModule(f"library={softhsm.module_path} name=soft")
    slot = pk11pub.PK11_FindSlotByName(token.label)
    private, public = pk11pub.PK11_GenerateKeyPair(slot, pk11pub.CKM_EC_KEY_PAIR_GEN, P256)
    signer = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody")])
    kept = pk11pub.PK11_ImportDERCert(slot, der(make(public.key, "made", issuer=(issuer, signer))), None, "made")
    assert kept.nickname == f"{token.label}:made"
    assert pk11pub.PK11_FindKeyByAnyCert(kept) == private
    pk11pub.PK11_DeleteTokenCertAndKey(kept)
    assert pk11pub.PK11_ListPrivKeysInSlot(slot) == []
    assert pk11pub.PK11_ListCertsInSlot(slot) == []


def test_what_cannot_be_imported(opened: Tools, error: Error) -> None:
    slot = pk11pub.PK11_GetInternalKeySlot()
    key = ec.generate_private_key(ec.SECP256R1())
    attempts: list[tuple[Callable[[], object], str]] = [
        (lambda: cert.CERT_NewTempCertificate(None, b"0\x03\x02\x01\x01"), "SEC_ERROR_BAD_DER"),
        (lambda: pk11pub.PK11_ImportDERCert(slot, b"", None, "x"), "SEC_ERROR_BAD_DER"),
        (lambda: pk11pub.PK11_ImportDERPrivateKeyInfo(slot, b"nonsense"), "SEC_ERROR_BAD_DER"),
        (lambda: pk11pub.PK11_ImportDERCert(slot, der(make(key, "another")), None, "server"), "SEC_ERROR_ADDING_CERT"),
        (
            lambda: pk11pub.PK11_ImportDERPrivateKeyInfo(pk11pub.PK11_GetInternalSlot(), pkcs8(key)),
            "SEC_ERROR_READ_ONLY",
        ),
    ]
    for attempt, name in attempts:
        with pytest.raises(NSPRError):
            attempt()
        assert error() == name
    assert opened.listed().keys() == {"ca", "server", "stranger", "unknown"}


def test_certutil_sees_what_we_delete(opened: Tools, error: Error) -> None:
    server = pk11pub.PK11_FindCertFromNickname("server")
    key = pk11pub.PK11_FindKeyByAnyCert(server)
    with pytest.raises(NSPRError):
        pk11pub.PK11_DeleteTokenPrivateKey(key)
    assert error() == "SEC_ERROR_INVALID_ARGS"
    cert.SEC_DeletePermCertificate(server)
    assert "server" not in opened.listed()
    id = key.key.id.hex()
    assert id in set(opened.keys())
    pk11pub.PK11_DeleteTokenPrivateKey(key)
    assert id not in set(opened.keys())
    pk11pub.PK11_DeleteTokenCertAndKey(pk11pub.PK11_FindCertFromNickname("unknown"))
    assert opened.listed().keys() == {"ca", "stranger"}
    assert len(opened.keys()) == 2


# --- trust and verification ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", ["CT,C,C", "P,,", "p,p,p", "c,,", ",,"])
def test_certutil_sees_the_trust_we_set(opened: Tools, trust: str) -> None:
    stranger = pk11pub.PK11_FindCertFromNickname("stranger")
    pk11pub.PK11_Authenticate(pk11pub.PK11_GetInternalKeySlot())
    cert.CERT_ChangeCertTrust(cert.CERT_GetDefaultCertDB(), stranger, cert.CERT_DecodeTrustString(trust))
    assert opened.listed()["stranger"] == cert.CERT_EncodeTrustString(cert.CERT_GetCertTrust(stranger))
    assert opened.listed()["stranger"].replace("u", "") == trust


def test_trust_wants_the_password(opened: Tools, error: Error) -> None:
    with pytest.raises(NSPRError):
        cert.CERT_ChangeCertTrust(None, pk11pub.PK11_FindCertFromNickname("ca"), cert.CERT_DecodeTrustString(",,"))
    assert error() == "SEC_ERROR_TOKEN_NOT_LOGGED_IN"
    with pytest.raises(NSPRError):
        cert.CERT_DecodeTrustString("X,,")
    assert error() == "SEC_ERROR_INVALID_ARGS"


def test_verdicts_are_certutils(opened: Tools, error: Error) -> None:
    handle = cert.CERT_GetDefaultCertDB()
    slot, server = pk11pub.PK11_GetInternalKeySlot(), pk11pub.PK11_FindCertFromNickname("server")
    key = ec.generate_private_key(ec.SECP256R1())
    root = make(key, "nobody's root", ca=True)
    for nickname, certificate in (("nobody's root", root), ("below", make(key, "below", issuer=(root.subject, key)))):
        pk11pub.PK11_ImportDERCert(slot, der(certificate), None, nickname)
    verdicts = {}
    expected = {"unknown": "SEC_ERROR_UNKNOWN_ISSUER", "below": "SEC_ERROR_UNTRUSTED_ISSUER"}
    path = cert.CERT_VerifyCertNow(handle, server, True, cert.SECCertUsage.certUsageSSLServer)
    assert [item.nickname for item in path] == ["server", "ca"]
    assert "is valid" in opened.certutil("-V", "-n", "server", "-u", "V")
    for nickname in expected:
        with pytest.raises(NSPRError):
            cert.CERT_VerifyCertNow(
                handle, pk11pub.PK11_FindCertFromNickname(nickname), True, cert.SECCertUsage.certUsageSSLServer
            )
        theirs = opened.run("certutil", "-V", "-n", nickname, "-u", "V", statuses=(255,))
        verdicts[nickname] = error(), next((name for words, name in MEANINGS.items() if words in theirs), theirs)
    assert verdicts == {name: (verdict, verdict) for name, verdict in expected.items()}
    with pytest.raises(NSPRError):
        cert.CERT_VerifyCert(handle, server, True, cert.SECCertUsage.certUsageSSLServer, time.time() + 10 * 365 * 86400)
    assert error() == "SEC_ERROR_EXPIRED_CERTIFICATE"
    with pytest.raises(NSPRError):
        cert.CERT_VerifyCertNow(handle, server, True, 4)
    assert error() == "SEC_ERROR_INVALID_ARGS"


def test_names(opened: Tools, error: Error) -> None:
    server = pk11pub.PK11_FindCertFromNickname("server")
    cert.CERT_VerifyCertName(server, "HOST.example")
    for host, name in (("other.example", "SSL_ERROR_BAD_CERT_DOMAIN"), ("", "SEC_ERROR_INVALID_ARGS")):
        with pytest.raises(NSPRError):
            cert.CERT_VerifyCertName(server, host)
        assert error() == name
    cert.CERT_VerifyCertName(pk11pub.PK11_FindCertFromNickname("ca"), "ca")  # no alternative name: the common name


def test_temporary_certificates_are_issuers(opened: Tools, error: Error) -> None:
    usage = cert.SECCertUsage.certUsageSSLServer
    key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = make(key, "temporary root", ca=True)
    leaf = cert.CERT_NewTempCertificate(None, der(make(leaf_key, "leaf", issuer=(root.subject, key))))
    assert leaf.istemp
    assert leaf.slot is None
    with pytest.raises(NSPRError):
        cert.CERT_VerifyCertNow(None, leaf, True, usage)
    assert error() == "SEC_ERROR_UNKNOWN_ISSUER"
    issuer = cert.CERT_DecodeCertFromPackage(root.public_bytes(Encoding.PEM))
    with pytest.raises(NSPRError):
        cert.CERT_VerifyCertNow(None, leaf, True, usage)
    assert error() != "SEC_ERROR_UNKNOWN_ISSUER"  # found now, though nobody trusts it
    cert.CERT_DestroyCertificate(issuer)


def test_root_modules_are_trusted_unless_the_database_says_otherwise(opened: Tools, error: Error) -> None:
    if not secmod.SECMOD_HasRootCerts():
        from tests.support.require import missing

        missing("libnssckbi.so")
    roots = pk11pub.PK11_ListCertsInSlot(pk11pub.PK11_FindSlotByName("Builtin Object Token"))
    trusted = [root for root in roots if cert.CERT_GetCertTrust(root).sslFlags & cert.TrustFlags.trusted_ca]
    root = next(
        root for root in trusted if root.is_ca and root.validity.notAfter.timestamp() > time.time() and root.serialNumber > 0
    )
    assert root.nickname.startswith("Builtin Object Token:")
    assert cert.CERT_VerifyCertNow(None, root, True, cert.SECCertUsage.certUsageSSLCA) == [root]
    pk11pub.PK11_Authenticate(pk11pub.PK11_GetInternalKeySlot())
    cert.CERT_ChangeCertTrust(None, root, cert.CERT_DecodeTrustString("p,p,p"))
    with pytest.raises(NSPRError):
        cert.CERT_VerifyCertNow(None, root, True, cert.SECCertUsage.certUsageSSLCA)
    assert error() in ("SEC_ERROR_UNTRUSTED_CERT", "SEC_ERROR_UNTRUSTED_ISSUER")


def test_crls(opened: Tools, error: Error, tmp_path: Path) -> None:
    server = pk11pub.PK11_FindCertFromNickname("server")
    now = datetime.datetime.now(datetime.UTC)
    stamp = now.strftime("%Y%m%d%H%M%SZ")
    script = opened.file("crl", f"update={stamp}\naddcert {server.serialNumber} {stamp}\n")
    opened.run(
        "crlutil", "-G", "-n", "ca", "-c", script, "-f", opened.file("password", PASSWORD), "-o", tmp_path / "crl.der", "-B"
    )
    for old in cert.SEC_LookupCrls(None):
        cert.SEC_DeletePermCRL(old)
    cert.CERT_VerifyCertNow(None, server, True, cert.SECCertUsage.certUsageSSLServer)
    cert.SEC_NewCrl(None, None, (tmp_path / "crl.der").read_bytes())
    assert cert.SEC_FindCrlByName(None, server.derIssuer).derCrl == (tmp_path / "crl.der").read_bytes()
    with pytest.raises(NSPRError):
        cert.CERT_VerifyCertNow(None, server, True, cert.SECCertUsage.certUsageSSLServer)
    assert error() == "SEC_ERROR_REVOKED_CERTIFICATE"
    assert "ca" in opened.run("crlutil", "-L")


def test_dates(opened: Tools) -> None:
    server = pk11pub.PK11_FindCertFromNickname("server")
    start, end = (moment.timestamp() for moment in server.validity)
    validity = cert.SECCertTimeValidity
    assert cert.CERT_CheckCertValidTimes(server, time.time()) == validity.secCertTimeValid
    assert cert.CERT_CheckCertValidTimes(server, end + 1) == validity.secCertTimeExpired
    assert cert.CERT_CheckCertValidTimes(server, start - 2 * 86400) == validity.secCertTimeNotValidYet


# --- PKCS #12 --------------------------------------------------------------------------------------------------------


def test_pk12util_reads_what_we_export(opened: Tools, tmp_path: Path) -> None:
    context = p12.SEC_PKCS12CreateExportContext(None, None, pk11pub.PK11_GetInternalKeySlot())
    p12.SEC_PKCS12AddPasswordIntegrity(context, "transport")
    p12.SEC_PKCS12AddCertAndKey(context, pk11pub.PK11_FindCertFromNickname("server"))
    pieces: list[bytes] = []
    data = p12.SEC_PKCS12Encode(context, lambda arg, piece: pieces.append(piece))
    p12.SEC_PKCS12DestroyExportContext(context)
    assert b"".join(pieces) == data
    other = Tools(tmp_path / "other", "other")
    other.directory.mkdir()
    other.initialise()
    other.import_(data, "transport")
    assert other.listed()["server"] == "u,u,u"
    assert other.der("server") == opened.der("server")


def test_we_read_what_pk12util_exports(opened: Tools, error: Error) -> None:
    data = opened.export("server", "transport")
    slot = pk11pub.PK11_GetInternalKeySlot()
    pk11pub.PK11_DeleteTokenCertAndKey(pk11pub.PK11_FindCertFromNickname("server"))
    assert "server" not in opened.listed()
    wrong = p12.SEC_PKCS12DecoderStart("guessed", slot)
    p12.SEC_PKCS12DecoderUpdate(wrong, data)
    with pytest.raises(NSPRError):
        p12.SEC_PKCS12DecoderVerify(wrong)
    assert error() == "SEC_ERROR_PKCS12_INVALID_MAC"
    context = p12.SEC_PKCS12DecoderStart("transport", slot)
    p12.SEC_PKCS12DecoderUpdate(context, data[:100])
    p12.SEC_PKCS12DecoderUpdate(context, data[100:])
    with pytest.raises(NSPRError, match="comes first"):
        p12.SEC_PKCS12DecoderImportBags(context)
    p12.SEC_PKCS12DecoderVerify(context)
    assert p12.SEC_PKCS12DecoderGetCerts(context)[0].nickname == "server"
    p12.SEC_PKCS12DecoderValidateBags(context)
    p12.SEC_PKCS12DecoderImportBags(context)
    p12.SEC_PKCS12DecoderFinish(context)
    assert opened.listed()["server"] == "u,u,u"


@pytest.mark.parametrize("call", [lambda: pk11pub.PK11_ListCerts(7), lambda: cert.CERT_GetCertNicknames(None, 5)])
def test_no_such_kind_of_list(opened: Tools, call: Callable[[], object], error: Error) -> None:
    with pytest.raises(NSPRError):
        call()
    assert error() == "SEC_ERROR_INVALID_ARGS"


def test_null_is_given_back_like_anything_else() -> None:
    """As in C, where programs clean up what they may not have."""
    cert.CERT_DestroyCertificate(None)
    keyhi.SECKEY_DestroyPrivateKey(None)
    keyhi.SECKEY_DestroyPublicKey(None)
    assert cert.CERT_DupCertificate(None) is None


def test_a_nickname_that_is_taken(opened: Tools, error: Error) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
    from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

    key = ec.generate_private_key(ec.SECP256R1())
    data = serialize_key_and_certificates(b"server", key, make(key, "another"), None, BestAvailableEncryption(b"x"))
    context = p12.SEC_PKCS12DecoderStart("x", pk11pub.PK11_GetInternalKeySlot())
    p12.SEC_PKCS12DecoderUpdate(context, data)
    p12.SEC_PKCS12DecoderVerify(context)
    with pytest.raises(NSPRError):
        p12.SEC_PKCS12DecoderValidateBags(context)
    assert error() == "SEC_ERROR_PKCS12_CERT_COLLISION"
    p12.SEC_PKCS12DecoderValidateBags(context, lambda old, leaf: f"{old} of another")
    p12.SEC_PKCS12DecoderImportBags(context)
    assert opened.listed()["server of another"] == "u,u,u"


def test_a_certificate_of_ours_for_a_use(opened: Tools, error: Error) -> None:
    usages = cert.SECCertUsage
    both = pk11pub.PK11_FindCertFromNickname("server")
    find = lambda usage, name="server", valid=True: cert.CERT_FindUserCertByUsage(None, name, usage, valid, "window")  # noqa: E731
    for usage in (usages.certUsageSSLServer, usages.certUsageSSLClient):
        assert find(usage) == both
    opened.issue("client", "-k", "ec", "-q", "nistp256", "--extKeyUsage", "clientAuth", issuer="ca", trust=",,")
    assert find(usages.certUsageSSLClient, "client").nickname == "client"
    root = Authority.root("Root of ours", "p256")
    slot, form = pk11pub.PK11_GetInternalKeySlot(), (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    pk11pub.PK11_ImportDERPrivateKeyInfo(slot, root.key.private_bytes(*form))
    pk11pub.PK11_ImportDERCert(slot, root.certificate.public_bytes(Encoding.DER), None, "root")
    assert find(usages.certUsageSSLCA, "root").nickname == "root"
    step_up = cert.SECCertUsage.certUsageSSLServerWithStepUp
    opened.issue("approved", "-k", "rsa", "-g", "2048", "--extKeyUsage", "stepUp", issuer="ca", trust=",,")
    assert find(step_up, "approved").nickname == "approved"
    for usage, name in (
        (usages.certUsageSSLServer, "client"),
        (usages.certUsageSSLCA, "server"),
        (step_up, "server"),
        (usages.certUsageSSLServer, "nobody"),
    ):
        with pytest.raises(NSPRError):
            find(usage, name)
        assert error() == "SEC_ERROR_UNKNOWN_CERT"
    with pytest.raises(NSPRError):
        find(4)
    assert error() == "SEC_ERROR_INVALID_ARGS"
