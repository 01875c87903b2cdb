"""Certificates as people make them: by the openssl and certtool commands, in their plainest forms."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nss_pk11 import certs
from nss_pk11.errors import CertificateError

from ..support.require import require

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
Run = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(tool: str, *arguments: str) -> None:
        command = [require(tool), *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=30, stdin=subprocess.DEVNULL)

    return run


def verify(directory: Path, ca: str, leaf: str, name: str | None = "localhost") -> int:
    trust, chain = certs.Trust.from_file(directory / ca), certs.load_pem_chain(directory / leaf)
    now = time.time()
    return len(trust.verify_client(chain, now=now) if name is None else trust.verify_server(chain, name, now=now))


def sign(run: Run, directory: Path, out: str, extensions: str, ca: str = "ca") -> None:
    """`openssl x509 -req`, with or without an extension file."""
    (directory / "ext").write_text(extensions)
    made_by = ("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "10")
    run("openssl", "x509", "-req", "-in", "leaf.csr", *made_by, *(("-extfile", "ext") if extensions else ()), "-out", out)


@pytest.mark.parametrize("algorithm", ["EC", "ED25519", "ED448", "RSA"])
def test_openssl_req_x509_and_x509_req(run: Run, tmp_path: Path, algorithm: str) -> None:
    options = {"EC": ("-pkeyopt", "ec_paramgen_curve:P-256")}.get(algorithm, ())
    run("openssl", "genpkey", "-algorithm", algorithm, *options, "-out", "ca.key")
    run("openssl", "req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=My CA", "-days", "30", "-out", "ca.pem")
    run("openssl", "req", *EC, "-keyout", "leaf.key", "-subj", "/CN=localhost", "-out", "leaf.csr")
    sign(run, tmp_path, "server.pem", "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    sign(run, tmp_path, "client.pem", "extendedKeyUsage=clientAuth\n")
    sign(run, tmp_path, "old.pem", "")  # no extensions at all: version 1, before OpenSSL 3.2
    assert verify(tmp_path, "ca.pem", "server.pem") == 2
    assert verify(tmp_path, "ca.pem", "server.pem", "127.0.0.1") == 2
    assert verify(tmp_path, "ca.pem", "server.pem", None) == 2
    assert verify(tmp_path, "ca.pem", "client.pem", None) == 2
    assert verify(tmp_path, "ca.pem", "old.pem", None) == 2
    with pytest.raises(CertificateError) as caught:
        verify(tmp_path, "ca.pem", "old.pem")
    assert caught.value.name == "SSL_ERROR_BAD_CERT_DOMAIN"


def test_a_version_1_root(run: Run, tmp_path: Path) -> None:
    run("openssl", "req", *EC, "-keyout", "ca.key", "-subj", "/CN=Old CA", "-out", "ca.csr")
    run("openssl", "x509", "-req", "-in", "ca.csr", "-signkey", "ca.key", "-days", "30", "-out", "ca.pem")
    run("openssl", "req", *EC, "-keyout", "leaf.key", "-subj", "/CN=localhost", "-out", "leaf.csr")
    sign(run, tmp_path, "leaf.pem", "subjectAltName=DNS:localhost\n")
    if (
        b"Version: 1"
        not in subprocess.run(
            ["openssl", "x509", "-in", tmp_path / "ca.pem", "-noout", "-text"], capture_output=True, check=True, timeout=30
        ).stdout
    ):
        pytest.skip("this openssl makes no version 1 certificates")
    assert verify(tmp_path, "ca.pem", "leaf.pem") == 2


def test_openssl_self_signed_in_one_line(run: Run, tmp_path: Path) -> None:
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "30")
    run("openssl", "req", "-x509", *EC, "-keyout", "key.pem", *subject, "-out", "own.pem")
    run("openssl", "req", "-x509", *EC, "-keyout", "key.pem", *subject, "-out", "other.pem")
    assert verify(tmp_path, "own.pem", "own.pem") == 1
    with pytest.raises(CertificateError):
        verify(tmp_path, "own.pem", "other.pem")


def test_certtool(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ca.cfg").write_text('cn = "My CA"\nca\ncert_signing_key\nexpiration_days = 30\n')
    (tmp_path / "leaf.cfg").write_text(
        'cn = "localhost"\ndns_name = "localhost"\ntls_www_server\nsigning_key\nexpiration_days = 30\n'
    )
    for name in ("ca", "leaf"):
        run("certtool", "--generate-privkey", "--key-type", "ecdsa", "--outfile", f"{name}.key")
    run("certtool", "--generate-self-signed", "--load-privkey", "ca.key", "--template", "ca.cfg", "--outfile", "ca.pem")
    issuer = ("--load-ca-certificate", "ca.pem", "--load-ca-privkey", "ca.key")
    run(
        "certtool",
        "--generate-certificate",
        "--load-privkey",
        "leaf.key",
        *issuer,
        "--template",
        "leaf.cfg",
        "--outfile",
        "leaf.pem",
    )
    assert verify(tmp_path, "ca.pem", "leaf.pem") == 2
