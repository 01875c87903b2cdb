"""gnutls-serv and gnutls-cli (GnuTLS 3.7)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from nss_pk11.tls.codepoints import Group, SignatureScheme, Version
from nss_pk11.tls.suites import SUITES, Suite

from ..require import require
from .base import ForeignServer, Result, Want, first, run_client

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = {version: f"VERS-TLS1.{version - Version.tls1_0}" for version in Version if version > Version.ssl3}
GROUPS = {
    Group.secp256r1: "GROUP-SECP256R1",
    Group.secp384r1: "GROUP-SECP384R1",
    Group.secp521r1: "GROUP-SECP521R1",
    Group.x25519: "GROUP-X25519",
    Group.x448: "GROUP-X448",
    Group.ffdhe2048: "GROUP-FFDHE2048",
    Group.ffdhe3072: "GROUP-FFDHE3072",
    Group.ffdhe4096: "GROUP-FFDHE4096",
    Group.ffdhe6144: "GROUP-FFDHE6144",
    Group.ffdhe8192: "GROUP-FFDHE8192",
}
SCHEMES = {
    SignatureScheme.rsa_pkcs1_sha1: "RSA-SHA1",
    SignatureScheme.ecdsa_sha1: "ECDSA-SHA1",
    SignatureScheme.rsa_pkcs1_sha256: "RSA-SHA256",
    SignatureScheme.rsa_pkcs1_sha384: "RSA-SHA384",
    SignatureScheme.rsa_pkcs1_sha512: "RSA-SHA512",
    SignatureScheme.ecdsa_secp256r1_sha256: "ECDSA-SECP256R1-SHA256",
    SignatureScheme.ecdsa_secp384r1_sha384: "ECDSA-SECP384R1-SHA384",
    SignatureScheme.ecdsa_secp521r1_sha512: "ECDSA-SECP521R1-SHA512",
    SignatureScheme.rsa_pss_rsae_sha256: "RSA-PSS-RSAE-SHA256",
    SignatureScheme.rsa_pss_rsae_sha384: "RSA-PSS-RSAE-SHA384",
    SignatureScheme.rsa_pss_rsae_sha512: "RSA-PSS-RSAE-SHA512",
    SignatureScheme.rsa_pss_pss_sha256: "RSA-PSS-SHA256",
    SignatureScheme.rsa_pss_pss_sha384: "RSA-PSS-SHA384",
    SignatureScheme.rsa_pss_pss_sha512: "RSA-PSS-SHA512",
    SignatureScheme.ed25519: "EdDSA-Ed25519",
    SignatureScheme.ed448: "EdDSA-Ed448",
}
# GnuTLS's keyword of a key exchange and of a MAC.
_KEY_EXCHANGES = {"rsa": "RSA", "dhe_rsa": "DHE-RSA", "ecdhe_rsa": "ECDHE-RSA", "ecdhe_ecdsa": "ECDHE-ECDSA"}
_MACS = {"": "AEAD", "sha1": "SHA1", "sha256": "SHA256", "sha384": "SHA384"}


def _cipher(suite: Suite) -> str:
    return "CHACHA20-POLY1305" if suite.cipher.name.startswith("ChaCha") else suite.cipher.name


def priority(want: Want, *more: str) -> str:
    """The priority string that allows exactly what is wanted; all else as by default, legacy included."""
    words = ["NORMAL", "+SIGN-RSA-SHA1", "+SIGN-ECDSA-SHA1"]
    if want.all_suites:
        words += ["+AES-128-CCM-8", "+AES-256-CCM-8", "+SHA384", "+SHA256"]
    if want.version:
        words += ["-VERS-ALL", "+" + VERSIONS[want.version]]
    if want.suite:
        words += ["-CIPHER-ALL", "+" + _cipher(want.suite), "-MAC-ALL", "+" + _MACS[want.suite.mac]]
        if want.suite.key_exchange != "any":
            words += ["-KX-ALL", "+" + _KEY_EXCHANGES[want.suite.key_exchange]]
    if want.group:
        words += ["-GROUP-ALL", "+" + GROUPS[want.group]]
    if want.scheme:
        # Before TLS 1.3 an ECDSA scheme named no curve, and GnuTLS wants it called by that name.
        older = want.version == Version.tls1_2 and want.scheme.name.startswith("ecdsa_secp")
        name = f"ECDSA-{want.scheme.name.rpartition('_')[2].upper()}" if older else SCHEMES[want.scheme]
        words += ["-SIGN-ALL", "+SIGN-" + name]
    return ":".join([*words, *more])


def suite_name(description: str) -> str:
    """IANA name of what GnuTLS describes as "(TLS1.2-X.509)-(ECDHE-X25519)-(RSA-SHA256)-(AES-128-CBC)-(SHA1)"."""
    parts = re.findall(r"\(([^)]*)\)", description)
    if len(parts) < 3:
        return ""
    mac = parts.pop() if parts[-1] in ("SHA1", "SHA256", "SHA384") else "AEAD"
    cipher = parts[-1]
    if parts[0].startswith("TLS1.3"):
        kx = "any"
    else:
        exchange, signature = parts[1].split("-")[0], parts[2]
        kx = "rsa" if exchange == "RSA" else f"{exchange.lower()}_{'rsa' if signature.startswith('RSA') else 'ecdsa'}"
    return next((s.name for s in SUITES if (s.key_exchange, _cipher(s), _MACS[s.mac]) == (kx, cipher, mac)), description)


class GnuTLSServer(ForeignServer):
    """Answers HTTP with a page of what it negotiated.  `words`: more of the priority string."""

    words: tuple[str, ...] = ()
    mode = "--http"

    def command(self, port: int) -> list[str | Path]:
        want, credential = self.want, self.want.credential
        assert credential
        command: list[str | Path] = [require("gnutls-serv"), "--port", str(port), self.mode]
        command += ["--priority", priority(want, *self.words)]
        command += ["--x509certfile", credential.chain_file, "--x509keyfile", credential.key_file]
        for name in want.alpn:
            command += ["--alpn", name]
        if want.ca:
            command += ["--x509cafile", want.ca]
        command += {"none": ["--disable-client-cert"], "request": ["--verify-client-cert"]}.get(
            want.client_auth, ["--require-client-cert", "--verify-client-cert"]
        )
        return [*command, *want.extra]


class GnuTLSEchoServer(GnuTLSServer):
    """Sends back what it gets, and keeps the connection."""

    mode = "--echo"


def gnutls_cli(port: int, want: Want, *words: str, environment: dict[str, str] | None = None) -> Result:
    """One connection (two with `want.resume`: the result tells of the second).  `words`: more of the priority string."""
    command: list[str | Path] = [require("gnutls-cli"), "--port", str(port), "--priority", priority(want, *words)]
    command += ["--x509cafile", want.ca] if want.ca else ["--insecure"]
    if want.server_name:
        command += ["--sni-hostname", want.server_name, "--verify-hostname", want.server_name]
    else:
        command += ["--disable-sni"]
    if want.credential:
        command += ["--x509certfile", want.credential.chain_file, "--x509keyfile", want.credential.key_file]
    for name in want.alpn:
        command += ["--alpn", name]
    command += ["--resume", "--waitresumption"] if want.resume else []
    done = {**os.environ, **(environment or {})}
    status, output = run_client([*command, *want.extra, "localhost"], want.request, environment=done)
    return parse(status, output)


def parse(status: int | None, output: str) -> Result:
    last = output.rpartition("- Description:")[2] if "- Description:" in output else ""
    description = last.partition("\n")[0].strip()
    return Result(
        ok=status == 0 and "Handshake was completed" in last,
        version=first(r"^\((TLS1\.\d)", description).replace("TLS1", "TLSv1"),
        suite=suite_name(description),
        group=first(r"-\((?:ECDHE|DHE)-(\w+)\)", description),
        scheme=first(r"^- Server Signature: (\S+)", last),
        resumed="*** This is a resumed session" in output,
        alpn=first(r"^- Application protocol: (\S+)", last),
        subject=first(r"- subject `.*?CN=([^,']+)", output) or first(r"subject `CN=([^,']+)", output),
        alert=first(r"(?:Received|received) alert \[?'?(\d+)", output),
        answer=last.partition("HTTP/1.")[2].encode(),
        output=output,
    )
