"""`nss-pk11 cert`: certificates that others accept, signed inside the token; the OpenSSL command is the judge."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from nss_pk11.cli.output import Text
from nss_pk11.cli.records import show_token
from tests.support.require import require

from .conftest import Command

KINDS = ("rsa2048", "dsa1024", "dsa2048", "p256", "p384", "p521", "ed25519")
NAMES = ("--name", "localhost", "--name", "127.0.0.1", "--name", "::1")


def openssl(*arguments: str) -> str:
    done = subprocess.run(
        [require("openssl"), *arguments], capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def extension(holder: x509.Certificate | x509.CertificateSigningRequest, kind: type[x509.ExtensionType]) -> x509.ExtensionType:
    value = holder.extensions.get_extension_for_class(kind).value
    assert isinstance(value, kind)
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_a_self_signed_certificate_is_accepted_where_it_is_pinned(
    web: Command, key: Callable[..., str], tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "www.pem"
    web("cert", "self-signed", key(kind), *NAMES, "--out", str(file), "--pin", "env:PIN")
    pinned = ("verify", "-x509_strict", "-check_ss_sig", "-CAfile", str(file))
    openssl(*pinned, "-purpose", "sslserver", "-verify_hostname", "localhost", str(file))
    openssl(*pinned, "-purpose", "sslserver", "-verify_ip", "127.0.0.1", str(file))
    openssl(*pinned, "-purpose", "sslclient", str(file))
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    verifier = verification.PolicyBuilder().store(verification.Store([certificate]))
    for subject in (x509.DNSName("localhost"), x509.IPAddress(ip_address("::1"))):
        assert verifier.build_server_verifier(subject).verify(certificate, []) == [certificate]


def test_what_a_self_signed_certificate_says(web: Command, key: Callable[..., str]) -> None:
    before = datetime.now(UTC)
    done = web("cert", "self-signed", key("rsa2048"), *NAMES, "--days", "7", "--for", "client", "--pin", "env:PIN")
    certificate = x509.load_pem_x509_certificate(done.stdout.encode())
    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string() == "CN=localhost"
    assert certificate.not_valid_before_utc < before
    assert abs(certificate.not_valid_after_utc - before - timedelta(days=7)) < timedelta(minutes=5)
    assert certificate.serial_number.bit_length() > 64
    names = extension(certificate, x509.SubjectAlternativeName)
    assert isinstance(names, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1"), ip_address("::1")]
    assert extension(certificate, x509.ExtendedKeyUsage) == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    usage = extension(certificate, x509.KeyUsage)
    assert isinstance(usage, x509.KeyUsage)
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, True, False)
    assert extension(certificate, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
    identifier = extension(certificate, x509.SubjectKeyIdentifier)
    issuer = extension(certificate, x509.AuthorityKeyIdentifier)
    assert isinstance(identifier, x509.SubjectKeyIdentifier)
    assert isinstance(issuer, x509.AuthorityKeyIdentifier)
    assert identifier.digest == issuer.key_identifier


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_verifies_the_request(web: Command, key: Callable[..., str], tmp_path: Path, kind: str) -> None:
    file = tmp_path / "www.csr"
    web(
        "cert",
        "request",
        key(kind),
        "--name",
        "www.example.com",
        "--subject",
        "CN=www,O=Example",
        "--out",
        str(file),
        "--pin",
        "env:PIN",
    )
    text = openssl("req", "-in", str(file), "-verify", "-noout", "-text")
    assert "verify OK" in text
    assert "DNS:www.example.com" in text
    assert x509.load_pem_x509_csr(file.read_bytes()).subject.rfc4514_string() == "CN=www,O=Example"


def test_import_lays_the_certificate_beside_its_key(web: Command, key: Callable[..., str]) -> None:
    uri = key()
    done = web("cert", "self-signed", uri, *NAMES, "--import", "--pin", "env:PIN")
    certificate = x509.load_pem_x509_certificate(done.stdout.encode())
    (record,) = web.json("cert", "list", "--token", "web")
    (of_key,) = web.json("key", "list", "--token", "web", "--pin", "env:PIN")
    assert (record["label"], record["id"]) == ("www", of_key["id"])
    assert record["subject"] == "CN=localhost"
    assert int(record["serial"], 16) == certificate.serial_number
    assert not record["expired"]
    text = web("cert", "list", "--token", "web").stdout
    assert "www · CN=localhost · " in text
    assert "(in 89 days)" in text
    assert record["uri"] in text.split()


def test_a_newer_certificate_replaces_the_older_after_a_confirmation(web: Command, key: Callable[..., str]) -> None:
    renew = ("cert", "self-signed", key(), *NAMES, "--import", "--pin", "env:PIN")
    web(*renew)
    (first,) = web.json("cert", "list", "--token", "web")
    assert "Replace the certificate of key 'www'" in web.fails(2, *renew)
    assert web.json("cert", "list", "--token", "web") == [first]
    newer = x509.load_pem_x509_certificate(web(*renew, "--yes").stdout.encode())
    (second,) = web.json("cert", "list", "--token", "web")
    assert int(second["serial"], 16) == newer.serial_number != int(first["serial"], 16)


def test_the_same_certificate_is_stored_once(web: Command, key: Callable[..., str], tmp_path: Path) -> None:
    file, uri = tmp_path / "www.pem", key()
    web("cert", "self-signed", uri, *NAMES, "--out", str(file), "--import", "--pin", "env:PIN")
    assert "already on token" in web("cert", "import", str(file), "--key", uri, "--pin", "env:PIN").stderr
    assert len(web.json("cert", "list", "--token", "web")) == 1


def test_delete(web: Command, key: Callable[..., str]) -> None:
    uri = key()
    web("cert", "self-signed", uri, *NAMES, "--import", "--pin", "env:PIN")
    (record,) = web.json("cert", "list", "--token", "web")
    delete = ("cert", "delete", record["uri"], "--pin", "env:PIN")
    assert "give --yes" in web.fails(2, *delete)
    # Neither URI may delete the object that only lies beside the one it names.
    assert "of type cert, not private" in web.fails(3, "key", "delete", record["uri"], "--pin", "env:PIN", "--yes")
    assert "of type private, not cert" in web.fails(3, "cert", "delete", uri, "--pin", "env:PIN", "--yes")
    web(*delete, "--yes")
    assert web.json("cert", "list", "--token", "web") == []
    assert len(web.json("key", "list", "--token", "web", "--pin", "env:PIN")) == 1
    assert "no such certificate" in web.fails(4, *delete, "--yes")


def test_of_a_trust_store_slots_shows_the_number(
    web: Command, key: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    web("cert", "self-signed", key(), *NAMES, "--import", "--pin", "env:PIN")
    ((slot,),) = (module["slots"] for module in web.json("slots", "--token", "web")["modules"])
    token = slot["token"]
    show_token(Text(), token)
    assert "certificate   www · CN=localhost" in capsys.readouterr().out
    show_token(Text(), token | {"certificates": token["certificates"] * 21})
    assert "certificates  21; nss-pk11 cert list --token web" in capsys.readouterr().out


def issue_with_openssl(directory: Path, request: Path) -> tuple[Path, Path]:
    """An authority made by OpenSSL signs `request`: the leaf with its chain, and the root."""
    root, root_key, leaf, chain = (directory / name for name in ("root.pem", "root.key", "leaf.pem", "chain.pem"))
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=Root",
            "-keyout", str(root_key), "-out", str(root))  # fmt: skip
    openssl("x509", "-req", "-in", str(request), "-CA", str(root), "-CAkey", str(root_key), "-days", "30",
            "-copy_extensions", "copyall", "-out", str(leaf))  # fmt: skip
    chain.write_bytes(leaf.read_bytes() + root.read_bytes())
    return chain, root


def test_from_a_request_to_the_certificate_an_authority_signed(web: Command, key: Callable[..., str], tmp_path: Path) -> None:
    uri = key()
    request = tmp_path / "www.csr"
    web("cert", "request", uri, "--name", "www.example.com", "--out", str(request), "--pin", "env:PIN")
    chain, root = issue_with_openssl(tmp_path, request)
    openssl("verify", "-CAfile", str(root), "-purpose", "sslserver", "-verify_hostname", "www.example.com", str(chain))

    web("cert", "import", str(chain), "--key", uri, "--pin", "env:PIN")
    records = {record["label"]: record for record in web.json("cert", "list", "--token", "web")}
    assert set(records) == {"www", "Root"}
    (of_key,) = web.json("key", "list", "--token", "web", "--pin", "env:PIN")
    assert records["www"]["id"] == of_key["id"]


def test_import_by_token_finds_the_key(web: Command, key: Callable[..., str], tmp_path: Path) -> None:
    first, _ = key("p256", "first"), key("rsa2048", "second")
    file = tmp_path / "first.der"
    pem = web("cert", "self-signed", first, *NAMES, "--pin", "env:PIN").stdout
    file.write_bytes(x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER))
    web("cert", "import", str(file), "--token", "web", "--pin", "env:PIN")
    (record,) = web.json("cert", "list", "--token", "web")
    keys = {key["label"]: key["id"] for key in web.json("key", "list", "--token", "web", "--pin", "env:PIN")}
    assert (record["label"], record["id"]) == ("first", keys["first"])


def test_a_certificate_of_another_key_is_refused(web: Command, key: Callable[..., str], tmp_path: Path) -> None:
    first, second = key("p256", "first"), key("p256", "second")
    file = tmp_path / "first.pem"
    web("cert", "self-signed", first, *NAMES, "--out", str(file), "--pin", "env:PIN")
    assert "not a certificate of key 'second'" in web.fails(5, "cert", "import", str(file), "--key", second, "--pin", "env:PIN")
    assert web.json("cert", "list", "--token", "web") == []


def test_files_that_are_no_certificates(web: Command, tmp_path: Path) -> None:
    file = tmp_path / "no.pem"
    arguments = ("cert", "import", str(file), "--token", "web", "--pin", "env:PIN")
    assert "no.pem: No such file" in web.fails(3, *arguments)
    for content in (b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b""):
        file.write_bytes(content)
        assert "no.pem" in web.fails(5, *arguments)


def test_key_and_certificate_in_files(command: Command, tmp_path: Path) -> None:
    key, file = tmp_path / "key.pem", tmp_path / "cert.pem"
    command("key", "generate", "--type", "p256", "--out", str(key))
    command("cert", "self-signed", str(key), *NAMES, "--out", str(file))
    openssl("verify", "-CAfile", str(file), "-verify_hostname", "localhost", str(file))
    assert "key on a token" in command.fails(2, "cert", "self-signed", str(key), *NAMES, "--import")
    assert "no-such.pem" in command.fails(3, "cert", "self-signed", str(tmp_path / "no-such.pem"), *NAMES)


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ((), 2, "needs a --name"),
        (("--name", "bad name"), 3, "neither a host name"),
        (("--name", "a" * 64 + ".example"), 3, "neither a host name"),
        (("--name", "localhost", "--subject", "no subject"), 3, "RFC 4514"),
        (("--name", "localhost", "--days", "0"), 2, "--days"),
    ],
)
def test_bad_names(command: Command, tmp_path: Path, arguments: tuple[str, ...], status: int, text: str) -> None:
    key = tmp_path / "key.pem"
    command("key", "generate", "--type", "p256", "--out", str(key))
    assert text in command.fails(status, "cert", "self-signed", str(key), *arguments)
