"""curl (Debian's, on OpenSSL 3.0)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.suites import BY_NAME

from ..require import require
from .base import HOST, Result, Want, first, run_client

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = {Version.tls1_2: ("--tlsv1.2", "--tls-max", "1.2"), Version.tls1_3: ("--tlsv1.3", "--tls-max", "1.3")}


def curl(port: int, want: Want, *, path: str = "", environment: dict[str, str] | None = None) -> Result:
    """Fetch one page."""
    command: list[str | Path] = [require("curl"), "--verbose", "--silent", "--show-error", "--max-time", "10"]
    command += VERSIONS[want.version] if want.version else []
    command += ["--cacert", want.ca] if want.ca else ["--insecure"]
    command += ["--cert", want.credential.chain_file, "--key", want.credential.key_file] if want.credential else []
    if want.suite and want.suite.max_version == Version.tls1_2:
        command += ["--ciphers", want.suite.openssl]
    elif want.suite:
        command += ["--tls13-ciphers", want.suite.openssl]
    command += ["--resolve", f"{want.server_name}:{port}:{HOST}", "--noproxy", "*"]
    status, output = run_client(
        [*command, *want.extra, f"https://{want.server_name}:{port}/{path}"], b"", environment=environment
    )
    suite = first(r"SSL connection using \S+ / (\S+)", output)
    return Result(
        ok=status == 0,
        version=first(r"SSL connection using (\S+) /", output),
        suite=BY_NAME[suite].name if suite in BY_NAME else suite,
        alpn=first(r"ALPN: server accepted (\S+)", output),
        subject=first(r"^\*  subject:.*CN=([^;\n]+)", output),
        alert=first(r"(alert [\w ]+)", output),
        answer=output.partition("< HTTP/1.")[2].encode(),
        output=output,
    )
