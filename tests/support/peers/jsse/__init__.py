"""Java's TLS (JSSE) in a child process: client and server for SSL 3.0 to TLS 1.2, old algorithms switched on again.

`Handshakes.java` is the child; Java compiles it when it starts.  One process serves many handshakes, since it takes a second to
come up."""

from __future__ import annotations

from pathlib import Path

from nss_pk11.tls.codepoints import Version

from ...pki import P12_PASSWORD
from ...require import require
from ..commanded import Commanded

__all__ = ["P12_PASSWORD", "PROTOCOLS", "start"]

HERE = Path(__file__).parent
PROTOCOLS = {Version.ssl3: "SSLv3", Version.tls1_0: "TLSv1", Version.tls1_1: "TLSv1.1", Version.tls1_2: "TLSv1.2"}


def start(*properties: str) -> Commanded:
    """The child.  `properties`: Java's, as "jdk.tls.useExtendedMasterSecret=false"."""
    command = [require("java"), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
    command += [f"-Djava.security.properties={HERE / 'legacy.security'}", *(f"-D{name}" for name in properties)]
    require("javac")  # without a compiler `java` runs no source
    return Commanded([*command, HERE / "Handshakes.java"])
