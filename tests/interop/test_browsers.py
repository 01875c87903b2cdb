"""Browsers' ClientHellos, by curl_cffi (BoringSSL): GREASE, extensions in random order, certificate compression, the hybrid
group, delegated credentials, encrypted ClientHello for show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nss_pk11.sessions import TicketKeys
from nss_pk11.tls.codepoints import CertificateCompression, Version
from nss_pk11.tls.config import ServerConfig

from ..support.ours import OurServer, page
from ..support.require import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..support.pki import PKI
    from .conftest import Keyring


@pytest.fixture(scope="module")
def requests() -> Any:
    try:
        from curl_cffi import requests
    except ImportError:
        missing("curl_cffi")
    return requests


@pytest.fixture(scope="module")
def server(server_keys: Keyring) -> Iterator[OurServer]:
    config = ServerConfig(
        identities=(server_keys.identity("p256"), server_keys.identity("rsa")),
        tickets=TicketKeys(),
        alpn=("http/1.1",),
        certificate_compression=tuple(CertificateCompression),
    )
    with OurServer(config) as server:
        yield server


@pytest.mark.parametrize("browser", ["chrome", "chrome99", "edge", "firefox", "safari", "safari_ios", "chrome_android", "tor145"])
def test_browser(server: OurServer, requests: Any, browser: str, pki: PKI) -> None:
    before = server.mark()
    url = f"https://localhost:{server.port}/"
    answer = requests.get(url, impersonate=browser, verify=str(pki.ca_file), timeout=10, http_version="v1")
    assert answer.status_code == 200
    seen = server.next(before)
    assert seen.error is None
    assert seen.info.version is Version.tls1_3
    assert not seen.info.hello_retry
    assert page(answer.content)["version"] == "TLSv1.3"


def test_the_hybrid_group_with_boringssl(server: OurServer, requests: Any, pki: PKI) -> None:
    url = f"https://localhost:{server.port}/"
    answer = requests.get(url, impersonate="chrome", verify=str(pki.ca_file), timeout=10, http_version="v1")
    assert page(answer.content)["group"] == "X25519MLKEM768"
