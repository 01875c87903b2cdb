"""Settings that only NSS's API turns: named Diffie-Hellman groups alone, and no resumption of sessions without a certificate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nss_pk11.sessions import TicketKeys
from nss_pk11.tls.codepoints import Group, Version
from nss_pk11.tls.config import ServerConfig
from nss_pk11.tls.suites import BY_NAME, SUITES

from ..support import drive
from ..support.drive import Stdlib, client_context, exchange, server_context
from ..support.pki import PKI
from .test_tls12_stdlib import FFDHE2048, _modp2048

DHE = BY_NAME["DHE-RSA-AES128-GCM-SHA256"]
RSA = BY_NAME["AES128-GCM-SHA256"]


@pytest.mark.parametrize("named", [True, False])
def test_a_client_may_want_a_named_group(named: bool, engine_pki: PKI) -> None:
    ours = drive.client(suites=(DHE,), max_version=Version.tls1_2, named_dh_groups_only=True)
    parameters = FFDHE2048 if named else (_modp2048(), 2)
    exchange(ours, Stdlib(server_context(engine_pki.server("rsa"), dh=parameters), server=True))
    if named:
        assert ours.engine.info.group == Group.ffdhe2048
    else:
        assert ours.error is not None
        assert ours.error.name == "SSL_ERROR_WEAK_SERVER_EPHEMERAL_DH_KEY"


@pytest.mark.parametrize(("only", "chosen"), [(False, DHE), (True, RSA)])
def test_a_server_may_leave_out_who_names_no_group(only: bool, chosen: Any, engine_pki: PKI) -> None:
    """OpenSSL names no finite field below TLS 1.3."""
    settings = {"suites": (DHE, RSA), "max_version": Version.tls1_2, "named_dh_groups_only": only}
    ours = drive.server(engine_pki.server("rsa"), **settings)
    context = client_context(engine_pki.ca_file, ciphers="ALL:@SECLEVEL=0", version=Version.tls1_2)
    exchange(ours, Stdlib(context, server=False, name="localhost"))
    assert ours.engine.info.suite is chosen


@pytest.mark.parametrize("version", [Version.tls1_2, Version.tls1_3])
@pytest.mark.parametrize("good", [True, False])
def test_a_session_without_certificate_may_be_no_good(version: Version, good: bool, engine_pki: PKI) -> None:
    keys, session, cache = TicketKeys(), None, dict[bytes, bytes]()
    context = client_context(engine_pki.ca_file, ciphers="ALL:@SECLEVEL=0", version=version)
    for resumed in (False, good):
        ours = drive.server(
            engine_pki.server("rsa"), suites=SUITES, tickets=keys, client_auth="request", resume_without_certificate=good
        )
        ours.cache = cache
        theirs = Stdlib(context, server=False, name="localhost", session=session)
        exchange(ours, theirs)
        assert (ours.error, theirs.error) == (None, None)
        assert ours.engine.info.resumed == theirs.ssl.session_reused == resumed
        session = theirs.ssl.session


def test_what_a_session_must_have() -> None:
    chain = (b"certificate",)
    wanted = {
        ("none", True): (True, False),
        ("request", True): (True, True),
        ("request", False): (False, True),
        ("require", True): (False, True),
    }
    for (client_auth, without), (anonymous, authenticated) in wanted.items():
        config = replace(ServerConfig(), client_auth=client_auth, resume_without_certificate=without)
        assert (config.accepts_session_of(()), config.accepts_session_of(chain)) == (anonymous, authenticated)


def test_settings_that_suites_narrow_are_narrowed_once() -> None:
    """They remember what offers lead to: a copy per handshake would forget it."""
    config = ServerConfig(min_version=Version.ssl3, max_version=Version.tls1_3, suites=(BY_NAME["AES128-SHA"],))
    assert config.at_start().max_version == Version.tls1_2
    assert config.at_start() is config.at_start()
