"""Sockets with servers' certificates of every kind of key, and what the engine is told of them (see `kinds` in conftest)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nss_pk11.errors import NSPRError
from nss_pk11.nss import pk11pub, prio, ssl
from nss_pk11.nss._layers import PRFileDesc
from nss_pk11.nss._settings import Settings
from nss_pk11.nss.types import CERTCertificate, SECKEYPrivateKey
from nss_pk11.tls.config import ServerConfig


def new(model: PRFileDesc | None = None) -> PRFileDesc:
    return ssl.SSL_ImportFD(model, prio.PR_NewTCPSocket())


def pair(nickname: str) -> tuple[CERTCertificate, SECKEYPrivateKey]:
    found = pk11pub.PK11_FindCertFromNickname(nickname)
    return found, pk11pub.PK11_FindKeyByAnyCert(found)


def serve(fd: PRFileDesc, nickname: str) -> None:
    found, key = pair(nickname)
    ssl.SSL_ConfigSecureServer(fd, found, key, ssl.NSS_FindCertKEAType(found))


def settings_of(fd: PRFileDesc) -> Settings:
    assert fd.settings is not None
    return fd.settings


def server_config(fd: PRFileDesc, **arguments: Any) -> ServerConfig:
    return settings_of(fd).server_config(**arguments)


def exchanges(fd: PRFileDesc) -> set[str]:
    """The key exchanges that a server offers."""
    return {suite.key_exchange for suite in server_config(fd).usable_suites()}


def names(fd: PRFileDesc) -> list[str]:
    """The common names of the certificates that a server serves."""
    return [CERTCertificate(identity.chain[0]).subjectName.removeprefix("CN=") for identity in server_config(fd).identities]


def refused(error: Callable[[], str], call: Callable[..., object], *arguments: object, **named: object) -> str:
    """The name of the error, which is the thread's last one too."""
    with pytest.raises(NSPRError) as caught:
        call(*arguments, **named)
    assert error() == caught.value.name
    return caught.value.name


def fails(call: Callable[..., object], **arguments: object) -> str:
    with pytest.raises(NSPRError) as caught:
        call(**arguments)
    return caught.value.name
