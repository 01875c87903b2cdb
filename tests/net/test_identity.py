"""From a key and a certificate to an Identity."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.hazmat.primitives.serialization import Encoding

from nss_pk11 import pins
from nss_pk11.errors import CertificateError, ConfigurationError, DecryptError, NotFound
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.net.identity import ALGORITHMS, check_signature, key_of, limitations, load_identity, make_identity
from nss_pk11.net.stepdown import step_down
from nss_pk11.slots import Algorithm
from nss_pk11.tls.codepoints import Group, SignatureScheme
from nss_pk11.tls.waits import Decrypt, Sign

from ..support.pki import P12_PASSWORD
from .peers import KeyWith

if TYPE_CHECKING:
    from nss_pk11.slots import SlotManager
    from nss_pk11.tls.config import Identity

    from ..support.pki import PKI, Credential
    from ..support.softhsm import TokenOnDisk

S = SignatureScheme
PKCS1 = {S.rsa_pkcs1_md5_sha1, S.rsa_pkcs1_sha1, S.rsa_pkcs1_sha256, S.rsa_pkcs1_sha384, S.rsa_pkcs1_sha512}
DSA = {S.dsa_sha1, S.dsa_sha256, S.dsa_sha384, S.dsa_sha512}
RSAE = {S.rsa_pss_rsae_sha256, S.rsa_pss_rsae_sha384, S.rsa_pss_rsae_sha512}
PSS = {S.rsa_pss_pss_sha256, S.rsa_pss_pss_sha384, S.rsa_pss_pss_sha512}


def test_every_scheme_has_an_algorithm() -> None:
    assert set(ALGORITHMS) == set(SignatureScheme)


def test_key_on_a_token_with_its_chain_in_a_file(identity: Identity, credential: Credential) -> None:
    assert set(identity.schemes) == {S.ecdsa_secp256r1_sha256, S.ecdsa_sha1}
    assert identity.curve is Group.secp256r1
    assert "localhost" in identity.names
    assert len(identity.chain) == 2
    assert identity.issuers[0] == credential.certificate.issuer.public_bytes()
    assert not identity.can_decrypt
    assert identity.cost > 0
    assert limitations(identity) == ""


@pytest.mark.parametrize(
    ("kind", "schemes", "can_decrypt"),
    [
        ("rsa", PKCS1 | RSAE, True),
        ("rsa-pss", PSS, False),
        ("p384", {S.ecdsa_secp384r1_sha384, S.ecdsa_sha1}, False),
        ("p521", {S.ecdsa_secp521r1_sha512, S.ecdsa_sha1}, False),
        ("ed25519", {S.ed25519}, False),
        ("ed448", {S.ed448}, False),
        ("mldsa65", {S.mldsa65}, False),
    ],
)
def test_schemes_by_kind_of_key(
    manager: SlotManager, pki: PKI, kind: str, schemes: set[SignatureScheme], can_decrypt: bool
) -> None:
    credential = pki.server(kind)
    identity = load_identity(manager, credential.key_file, chain=credential.chain_file)
    assert set(identity.schemes) == schemes
    assert identity.can_decrypt is can_decrypt


@pytest.mark.parametrize("bits", [1024, 2048])
def test_a_dsa_key_on_a_token(manager: SlotManager, token: TokenOnDisk, pki: PKI, bits: int) -> None:
    """It signs before TLS 1.3, and without a number before TLS 1.2."""
    on_token = token.import_key(dsa.generate_private_key(bits), f"dsa {bits}", b"dsa %d" % bits)
    credential = pki.for_token(on_token)
    with KeyExecutor(check_signatures=True) as executor:
        identity = load_identity(manager, on_token.uri, chain=credential.chain_file)
        assert set(identity.schemes) == DSA
        assert (identity.can_decrypt, identity.modulus_bits, identity.curve) == (False, 0, None)
        assert "DSA" in limitations(identity)
        for scheme in identity.schemes:
            check_signature(scheme, credential.certificate, _bytes(executor.run(Sign(identity, scheme, b"message"))), b"message")
        signature = _bytes(executor.run(Sign(identity, S.dsa_sha1, bytes(range(20)), prehashed=True)))
        check_signature(S.dsa_sha1, credential.certificate, signature, bytes(range(20)), prehashed=True)


@pytest.mark.parametrize("bits", [512, 1024, 2048])
def test_an_rsa_key_on_a_token_signs_as_before_tls12(manager: SlotManager, token: TokenOnDisk, pki: PKI, bits: int) -> None:
    key = rsa.generate_private_key(65537, 2048) if bits == 2048 else key_of(step_down(bits).identity)._key  # type: ignore[attr-defined]
    on_token = token.import_key(key, f"rsa {bits}", b"rsa %d" % bits)
    credential = pki.for_token(on_token)
    with KeyExecutor(check_signatures=True) as executor:
        identity = load_identity(manager, on_token.uri, chain=credential.chain_file)
        assert (identity.modulus_bits, identity.can_decrypt) == (bits, True)
        digest = hashlib.md5(b"message").digest() + hashlib.sha1(b"message").digest()
        for message, prehashed in ((b"message", False), (digest, True)):
            signature = _bytes(executor.run(Sign(identity, S.rsa_pkcs1_md5_sha1, message, prehashed)))
            credential.certificate.public_key().verify(signature, digest, padding.PKCS1v15(), NoDigestInfo())  # type: ignore[union-attr, call-arg]
            check_signature(S.rsa_pkcs1_md5_sha1, credential.certificate, signature, message, prehashed)
        with pytest.raises(DecryptError):
            check_signature(S.rsa_pkcs1_md5_sha1, credential.certificate, signature, b"another")
        premaster = os.urandom(48)
        ciphertext = credential.certificate.public_key().encrypt(premaster, padding.PKCS1v15())  # type: ignore[union-attr]
        assert executor.run(Decrypt(identity, ciphertext)) == premaster


def _bytes(result: object) -> bytes:
    assert isinstance(result, bytes)
    return result


def test_pkcs12_brings_its_chain(manager: SlotManager, pki: PKI) -> None:
    credential = pki.server("p256")
    identity = load_identity(manager, credential.p12_file, pins=pins.value(P12_PASSWORD))
    assert len(identity.chain) == 2


def test_certificate_beside_the_key_on_the_token(manager: SlotManager, token: TokenOnDisk, pki: PKI) -> None:
    key = token.generate_key("p256", "beside")
    with pytest.raises(CertificateError, match="no certificate lies beside") as missing:
        load_identity(manager, key.uri)
    assert missing.value.name == "SSL_ERROR_NO_CERTIFICATE"
    credential = pki.for_token(key)
    token.import_certificate(credential.certificate, key)
    identity = load_identity(manager, key.uri)
    assert identity.chain[0] == credential.certificate.public_bytes(Encoding.DER)


def test_certificate_of_another_key(manager: SlotManager, credential: Credential, pki: PKI) -> None:
    assert credential.token_key
    with pytest.raises(CertificateError, match=r"does not belong to the key 'www' on token 'net'") as refused:
        load_identity(manager, credential.token_key.uri, chain=pki.server("p256").chain_file)
    assert refused.value.name == "SEC_ERROR_NO_KEY"


def test_expired_certificate(manager: SlotManager, pki: PKI) -> None:
    credential = pki.server("p256", expired=True)
    with pytest.raises(CertificateError, match="expired on") as refused:
        load_identity(manager, credential.key_file, chain=credential.chain_file)
    assert refused.value.name == "SEC_ERROR_EXPIRED_CERTIFICATE"
    assert load_identity(manager, credential.key_file, chain=credential.chain_file, allow_expired=True).schemes


def test_no_such_key(manager: SlotManager, credential: Credential) -> None:
    assert credential.token_key
    with pytest.raises(NotFound):
        load_identity(manager, credential.token_key.uri.replace("object=www", "object=nobody").replace("id=", "id=%ff"))


def test_rsa_key_without_pss_is_for_tls12_and_is_said_to_be(
    manager: SlotManager, pki: PKI, caplog: pytest.LogCaptureFixture
) -> None:
    credential = pki.server("rsa")
    whole = load_identity(manager, credential.key_file, chain=credential.chain_file)
    key = KeyWith(key_of(whole), algorithms=frozenset({Algorithm.rsa_pkcs1_sha256}))
    identity = make_identity(key, whole.chain)
    assert identity.schemes == (S.rsa_pkcs1_sha256,)
    assert "TLS 1.2 only" in limitations(identity)
    assert "cannot sign RSA-PSS" in caplog.text


def test_key_that_can_do_nothing(identity: Identity) -> None:
    key = KeyWith(key_of(identity), algorithms=frozenset())
    with pytest.raises(ConfigurationError, match="no signature that TLS knows"):
        make_identity(key, identity.chain)


def test_key_without_a_public_key_proves_itself_by_signing(identity: Identity, pki: PKI) -> None:
    """Some tokens hold the private object only."""

    class Mute(KeyWith):
        @property
        def public_key(self) -> None:
            raise NotFound("no public key")

    key = Mute(key_of(identity))
    assert make_identity(key, identity.chain).schemes == identity.schemes  # type: ignore[arg-type]
    other = pki.server("p256").certificate.public_bytes(Encoding.DER)
    with pytest.raises(CertificateError, match="does not belong"):
        make_identity(key, (other,))  # type: ignore[arg-type]
