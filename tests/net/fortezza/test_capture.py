"""What FORTEZZA's handshakes look like to somebody else: Wireshark's dissector reads a capture, and finds nothing wrong."""

from __future__ import annotations

import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.suites import BY_NAME

from ...support.require import require
from . import Holder, Pair, card

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pk11_tokens import RunningSimulator

    from nss_pk11.tls.suites import Suite

    from ...support.pki import PKI

PORTS = 40000, 4433  # client, server
RAW_IP = 101  # LINKTYPE_RAW
VERSIONS = {Version.ssl3: "0x0300", Version.tls1_0: "0x0301"}
SUITES = [BY_NAME[f"SSL_FORTEZZA_KEA_WITH_{name}"] for name in ("FORTEZZA_CBC_SHA", "NULL_SHA", "RC4_128_SHA")]


@pytest.fixture
def holders(simulated_tokens: Callable[..., RunningSimulator], pki: PKI) -> Iterator[tuple[Holder, Holder]]:
    both = tuple(Holder(simulated_tokens([card(pki, name)]), name) for name in ("localhost", "somebody"))
    yield both[0], both[1]
    for holder in both:
        holder.close()


def capture(path: Path, flights: list[tuple[bool, bytes]]) -> None:
    """A pcap file: each flight in segments of 1400 bytes, over IP from one made-up address to another."""
    sequence = [1, 1]
    packets = []
    for by_client, data in flights:
        for start in range(0, len(data), 1400):
            segment = data[start : start + 1400]
            us, them = (0, 1) if by_client else (1, 0)
            tcp = struct.pack(">HHIIBBHHH", PORTS[us], PORTS[them], sequence[us], sequence[them], 5 << 4, 0x18, 65535, 0, 0)
            addresses = [bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))]
            length = 20 + len(tcp) + len(segment)
            ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, len(packets), 0, 64, 6, 0, addresses[us], addresses[them])
            packets.append(ip + tcp + segment)
            sequence[us] += len(segment)
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, RAW_IP)
    body = b"".join(struct.pack("<IIII", 0, number, len(p), len(p)) + p for number, p in enumerate(packets))
    path.write_bytes(head + body)


FIELDS = [f"tls.record.{name}" for name in ("content_type", "version")]
FIELDS += [f"tls.handshake.{name}" for name in ("type", "length", "ciphersuite")]
FIELDS += ["_ws.malformed"]


def dissect(path: Path) -> dict[str, list[str]]:
    """What the dissector reads, field by field, over all packets."""
    shown = [word for field in FIELDS for word in ("-e", field)]
    command = [require("tshark"), "-r", path, "-d", f"tcp.port=={PORTS[1]},tls", "-Y", "tls", "-T", "fields", *shown]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    columns = zip(*(line.split("\t") for line in lines), strict=True)
    found = ([value for cell in column for value in cell.split(",") if value] for column in columns)
    return dict(zip(FIELDS, found, strict=True))


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.label)
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.openssl)
def test_a_capture(suite: Suite, version: Version, holders: tuple[Holder, Holder], tmp_path: Path) -> None:
    pair = Pair(*holders, suite, version, client_auth="require")
    pair.finish()
    assert pair.server.handshake_complete
    pair.client.send(b"data")
    pair.pass_on(pair.server)
    path = tmp_path / "fortezza.pcap"
    capture(path, pair.sent)
    seen = dissect(path)
    assert not seen["_ws.malformed"]
    # Hello, hello, certificate, its key exchange, request, done; certificate, key exchange, verify.
    assert seen["tls.handshake.type"][:9] == ["1", "2", "11", "12", "13", "14", "11", "16", "15"]
    lengths = [int(length) for length in seen["tls.handshake.length"]]
    assert (lengths[3], lengths[4], lengths[5], lengths[7]) == (128, 4, 0, 441)
    assert int(seen["tls.handshake.ciphersuite"][-1], 16) == suite.code  # the server's, after those that the client offers
    assert set(seen["tls.record.version"][1:]) == {VERSIONS[version]}
    types = seen["tls.record.content_type"]
    assert (types.count("20"), types[-1]) == (2, "23")
    assert set(types) == {"20", "22", "23"}
