"""The steps of the key schedule that client and server take alike (RFC 8446 sections 7.1 and 4.4.4)."""

from __future__ import annotations

from hmac import compare_digest

from ...errors import DecodeError, DecryptError
from ..link import Link
from ..transcript import Transcript
from .schedule import KeySchedule


def handshake_secrets(link: Link, schedule: KeySchedule, shared_secret: bytes, transcript: Transcript) -> tuple[bytes, bytes]:
    """The client's and the server's traffic secret of the handshake; `transcript` ends with ServerHello."""
    schedule.enter_handshake(shared_secret)
    digest = transcript.digest()
    client, server = schedule.derive(b"c hs traffic", digest), schedule.derive(b"s hs traffic", digest)
    link.log_secret("CLIENT_HANDSHAKE_TRAFFIC_SECRET", client)
    link.log_secret("SERVER_HANDSHAKE_TRAFFIC_SECRET", server)
    return client, server


def application_secrets(link: Link, schedule: KeySchedule, transcript: Transcript) -> tuple[bytes, bytes]:
    """The client's and the server's first traffic secret of application data; `transcript` ends with the server's Finished.
    The exporter's secret goes to the link."""
    schedule.enter_master()
    digest = transcript.digest()
    client, server = schedule.derive(b"c ap traffic", digest), schedule.derive(b"s ap traffic", digest)
    link.exporter_secret = schedule.derive(b"exp master", digest)
    link.log_secret("CLIENT_TRAFFIC_SECRET_0", client)
    link.log_secret("SERVER_TRAFFIC_SECRET_0", server)
    link.log_secret("EXPORTER_SECRET", link.exporter_secret)
    return client, server


def check_finished(schedule: KeySchedule, raw: bytes, traffic_secret: bytes, transcript: Transcript) -> None:
    """The peer's Finished, under its traffic secret; then it joins the transcript.  Raises DecodeError, DecryptError."""
    expected = schedule.finished(traffic_secret, transcript.digest())
    if len(raw) != 4 + len(expected):
        raise DecodeError(f"Finished of {len(raw) - 4} bytes", name="SSL_ERROR_RX_MALFORMED_FINISHED")
    if not compare_digest(raw[4:], expected):
        raise DecryptError("peer's Finished does not verify")
    transcript.add(raw)
