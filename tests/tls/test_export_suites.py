"""The short RSA keys of export suites: when they are made, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from nss_pk11.errors import Alert
from nss_pk11.net.stepdown import step_down
from nss_pk11.tls.codepoints import HandshakeType, Version
from nss_pk11.tls.config import Identity, StepDownKey
from nss_pk11.tls.messages import tls12
from nss_pk11.tls.ssl3 import keyexchange, rsa_export
from nss_pk11.tls.ssl3.server import ServerHandshake

from ..support import drive
from ..support.drive import Driver, exchange
from ..support.pki import PKI
from ..support.rewrite import refusal, run
from .test_old_strict import by_version, only, suite, well

H, V = HandshakeType, Version


def export_pair(pki: PKI, name: str, key: StepDownKey | None, kind: str = "rsa") -> tuple[Driver, Driver]:
    server = drive.server(pki.server(kind), **only(V.tls1_0, **suite(name)), step_down=None if key is None else lambda bits: key)
    return server, drive.client(**only(V.tls1_0, **suite(name)))


@pytest.mark.parametrize(
    ("name", "kind", "bits"),
    [
        ("EXP-RC4-MD5", "rsa", 512),
        ("EXP-RC4-MD5", "rsa1024", 512),
        ("EXP-RC4-MD5", "rsa512", 0),
        ("EXP1024-RC4-SHA", "rsa", 1024),
        ("EXP1024-RC4-SHA", "rsa1024", 0),
        ("EXP1024-RC4-SHA", "rsa512", 0),
    ],
)
def test_short_keys_where_they_are_needed(engine_pki: PKI, name: str, kind: str, bits: int) -> None:
    """`bits`: of the key that the server signs, 0 where its own is short enough."""
    asked: list[int] = []

    def ask(limit: int) -> StepDownKey:
        asked.append(limit)
        return step_down(limit)

    server = drive.server(engine_pki.server(kind), **only(V.tls1_0, **suite(name)), step_down=ask)
    client = drive.client(**only(V.tls1_0, **suite(name)))
    well(server, client)
    assert asked == ([bits] if bits else [])
    assert (server.engine.info.signature_scheme is None) == (not bits)


def test_short_keys_are_a_last_resort(engine_pki: PKI) -> None:
    """They are cheap to use; so is breaking them."""
    cheap, better, sound = (
        drive.identity(engine_pki.server(kind), cost=cost) for kind, cost in (("rsa512", 1), ("rsa1024", 10), ("rsa", 100))
    )

    def chosen(name: str, *identities: Identity, version: Version = V.tls1_0, short: bool = False) -> Identity | None:
        settings = only(version, **suite(name)) | {"step_down": step_down if short else None}
        server = drive.server(identities=identities, **settings)
        client = drive.client(**only(version, **suite(name)))
        well(server, client)
        return server.engine.info.identity

    for name in ("AES128-SHA", "DHE-RSA-AES128-SHA"):
        for version in (V.tls1_0, V.tls1_2):
            assert chosen(name, cheap, better, sound, version=version) is sound
        assert chosen(name, cheap, better) is better
        assert chosen(name, cheap) is cheap
    assert chosen("EXP-RC4-MD5", cheap, better, sound) is cheap
    assert chosen("EXP1024-RC4-SHA", cheap, better, sound) is better
    assert chosen("EXP-RC4-MD5", cheap, better, sound, short=True) is sound, "it signs a short key of the hour"


def test_no_export_suite_without_short_keys(engine_pki: PKI) -> None:
    server, client = export_pair(engine_pki, "EXP-RC4-MD5", None)
    exchange(server, client)
    refusal(server, client, Alert.handshake_failure)
    well(*export_pair(engine_pki, "EXP-RC4-MD5", None, "rsa512"))


def test_short_key_that_is_too_long(engine_pki: PKI) -> None:
    server, client = export_pair(engine_pki, "EXP-RC4-MD5", step_down(1024))
    exchange(server, client)
    refusal(client, server, Alert.insufficient_security)


@pytest.mark.parametrize(
    ("modulus", "exponent", "alert"),
    [
        (1 << 511, 3, Alert.insufficient_security),
        ((1 << 512) - 1, 1, Alert.illegal_parameter),
        ((1 << 512) - 1, 2, Alert.illegal_parameter),
        ((1 << 400) - 1, 3, Alert.insufficient_security),
        (0, 0, Alert.decode_error),
    ],
    ids=["even modulus", "exponent 1", "even exponent", "no room for 48 bytes", "nothing"],
)
def test_short_key_that_is_none(engine_pki: PKI, modulus: int, exponent: int, alert: Alert) -> None:
    key = step_down(512)
    server, client = export_pair(engine_pki, "EXP-RC4-MD5", StepDownKey(512, modulus, exponent, key.identity))
    exchange(server, client)
    refusal(client, server, alert)


def test_short_key_is_missing(engine_pki: PKI) -> None:
    server, client = export_pair(engine_pki, "EXP-RC4-MD5", step_down(512))
    run(server, client, H.server_key_exchange, lambda raw: b"", by="server")
    refusal(client, server, Alert.unexpected_message)


@by_version
def test_short_key_outside_export_suites(engine_pki: PKI, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    """FREAK: somebody makes the server believe that the client wants an export suite."""
    server = drive.server(engine_pki.server("rsa"), **only(version, **suite("AES128-SHA")))
    client = drive.client(**only(version, **suite("AES128-SHA")))

    class Freak(rsa_export.RsaExportServer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(step_down(512), *arguments[1:])

    monkeypatch.setattr(keyexchange, "RsaServer", Freak)
    monkeypatch.setattr(ServerHandshake, "_send_server_key_exchange", _signed_by_anything)
    exchange(server, client)
    refusal(client, server, Alert.unexpected_message)


def _signed_by_anything(handshake: Any) -> Any:
    handshake._send(tls12.encode_server_key_exchange(handshake.key_exchange.parameters, None, bytes(256)))
    yield from ()
