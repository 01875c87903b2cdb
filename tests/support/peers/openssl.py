"""openssl s_server and s_client (OpenSSL 3.0)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nss_pk11.tls.codepoints import Group, SignatureScheme, Version
from nss_pk11.tls.suites import BY_NAME, SUITES

from ..require import require
from .base import HOST, ForeignServer, Result, Want, first, run_client

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = {Version.tls1_0: "-tls1", Version.tls1_1: "-tls1_1", Version.tls1_2: "-tls1_2", Version.tls1_3: "-tls1_3"}
GROUPS = {
    Group.secp256r1: "P-256",
    Group.secp384r1: "P-384",
    Group.secp521r1: "P-521",
    Group.x25519: "X25519",
    Group.x448: "X448",
    Group.ffdhe2048: "ffdhe2048",
    Group.ffdhe3072: "ffdhe3072",
    Group.ffdhe4096: "ffdhe4096",
    Group.ffdhe6144: "ffdhe6144",
    Group.ffdhe8192: "ffdhe8192",
}
# OpenSSL spells schemes by algorithm and digest, except where one name holds both.
SCHEMES = {
    SignatureScheme.rsa_pkcs1_sha1: "RSA+SHA1",
    SignatureScheme.ecdsa_sha1: "ECDSA+SHA1",
    SignatureScheme.rsa_pkcs1_sha256: "RSA+SHA256",
    SignatureScheme.rsa_pkcs1_sha384: "RSA+SHA384",
    SignatureScheme.rsa_pkcs1_sha512: "RSA+SHA512",
    SignatureScheme.ecdsa_secp256r1_sha256: "ECDSA+SHA256",
    SignatureScheme.ecdsa_secp384r1_sha384: "ECDSA+SHA384",
    SignatureScheme.ecdsa_secp521r1_sha512: "ECDSA+SHA512",
    **{
        scheme: scheme.name
        for scheme in SignatureScheme
        if scheme.name.startswith(("rsa_pss", "ed")) and not scheme.name.startswith("mldsa")
    },
}


def limits(want: Want) -> list[str]:
    """The options that s_client and s_server share."""
    options: list[str] = []
    if want.version:
        options.append(VERSIONS[want.version])
    if want.all_suites:
        options += ["-ciphersuites", ":".join(suite.openssl for suite in SUITES if suite.min_version == Version.tls1_3)]
    if want.suite and want.suite.min_version == Version.tls1_3:
        options += ["-ciphersuites", want.suite.openssl]
    else:
        options += ["-cipher", f"{want.suite.openssl if want.suite else 'ALL'}:@SECLEVEL=0"]
    if want.group:
        options += ["-groups", GROUPS[want.group]]
    if want.scheme:
        options += ["-sigalgs", SCHEMES[want.scheme]]
    return options


class OpenSSLServer(ForeignServer):
    """`www`: answers HTTP with a page of what it negotiated; otherwise interactive: its input goes to the client, and
    lines "k", "K" and "c" make it send a KeyUpdate, one that asks for ours, a post-handshake CertificateRequest."""

    reports = r"^ACCEPT \S+:(\d+)"
    www = True

    def command(self, port: int) -> list[str | Path]:
        want, credential = self.want, self.want.credential
        assert credential
        command: list[str | Path] = [require("openssl"), "s_server", "-accept", f"{HOST}:{port}", *limits(want)]
        command += ["-cert", credential.chain_file, "-key", credential.key_file, "-cert_chain", credential.issuer_file]
        command += ["-www"] if self.www else ["-state"]
        command += ["-alpn", ",".join(want.alpn)] if want.alpn else []
        if want.client_auth != "none":
            assert want.ca
            command += ["-CAfile", want.ca, "-verify_return_error"]
            command += ["-Verify" if want.client_auth == "require" else "-verify", "5"]
        return [*command, *want.extra]


class InteractiveOpenSSLServer(OpenSSLServer):
    www = False


def s_client_command(port: int, want: Want) -> list[str | Path]:
    command: list[str | Path] = [require("openssl"), "s_client", "-connect", f"{HOST}:{port}", *limits(want)]
    command += ["-servername", want.server_name] if want.server_name else ["-noservername"]
    if want.ca:
        command += ["-CAfile", want.ca, "-verify_return_error"]
        command += ["-verify_hostname", want.server_name] if want.server_name else []
    command += ["-alpn", ",".join(want.alpn)] if want.alpn else []
    if want.credential:
        command += ["-cert", want.credential.chain_file, "-key", want.credential.key_file]
        command += ["-cert_chain", want.credential.issuer_file]
    return [*command, *want.extra]


def s_client(port: int, want: Want, session: Path | None = None) -> Result:
    """One connection; `session`: a file that holds a session to resume, or where a new one goes (`want.resume` says which)."""
    command = s_client_command(port, want)
    if session:
        command += ["-sess_in" if want.resume else "-sess_out", session]
    return parse(*run_client(command, want.request))


def parse(status: int | None, output: str) -> Result:
    suite = first(r"Cipher is (\S+)$", output)
    done = suite not in ("", "(NONE)")
    return Result(
        ok=status == 0 and done,
        version=first(r"^(?:New|Reused), (\S+), Cipher", output) if done else "",
        suite=BY_NAME[suite].name if suite in BY_NAME else suite,
        group=first(r"^Server Temp Key: (?:ECDH, |DH, )?([\w-]+)", output),
        scheme="/".join(
            filter(None, (first(r"^Peer signature type: (\S+)", output), first(r"^Peer signing digest: (\S+)", output)))
        ),
        resumed="\nReused, " in output,
        alpn=first(r"^ALPN protocol: (\S+)", output),
        subject=first(r"^subject=.*CN = (.+)$", output),
        alert=first(r":((?:sslv3|tlsv1|tlsv13) alert [\w ]+)", output) or first(r"SSL alert number (\d+)", output),
        answer=output.partition("\nHTTP/1.")[2].encode(),
        output=output,
    )
