"""What `serve` serves: HTTP, files, the status page; over a real connection."""

from __future__ import annotations

import json
import os
import socket
import ssl
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nss_pk11.cli.files import Files
from nss_pk11.cli.http import HTTP
from nss_pk11.cli.www import status_site
from nss_pk11.net.executor import KeyExecutor
from nss_pk11.tls.config import ServerConfig

from .peers import TIMEOUT, Running, client_context, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nss_pk11.tls.config import Identity

    from ..support.pki import PKI


class Client(HTTPConnection):
    """An HTTP client on a TLS connection of Python's."""

    def __init__(self, server: Running, pki: PKI) -> None:
        super().__init__(*server.address)
        self.tls: ssl.SSLSocket = client_context(pki).wrap_socket(
            socket.create_connection(server.address, TIMEOUT), server_hostname="localhost"
        )
        self.sock = self.tls

    def ask(self, target: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        self.request(method, target, body, headers)
        response = self.getresponse()
        return response, response.read()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "public"
    (root / "sub").mkdir(parents=True)
    (root / "hello.txt").write_text("hello, world\n")
    (root / "empty").write_text("")
    (root / ".hidden").write_text("secret")
    (root / "<b>&.html").write_text("odd")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret.txt")
    (root / "big").write_bytes(os.urandom(3_000_000))
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture
def files(identity: Identity, pki: PKI, root: Path) -> Iterator[Client]:
    config = ServerConfig(identities=(identity,), alpn=("http/1.1",))
    with KeyExecutor() as executor, running(config, executor, partial(HTTP, site=Files(root))) as server:
        client = Client(server, pki)
        yield client
        client.close()


@pytest.fixture
def www(identity: Identity, pki: PKI) -> Iterator[Client]:
    config = ServerConfig(identities=(identity,))
    with KeyExecutor() as executor, running(config, executor, partial(HTTP, site=status_site)) as server:
        client = Client(server, pki)
        yield client
        client.close()


def test_file_and_keep_alive(files: Client) -> None:
    for _ in range(3):  # on one connection
        response, body = files.ask("/hello.txt?query")
        assert response.status == 200
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["content-length"] == "13"
        assert body == b"hello, world\n"
    assert files.ask("/empty")[1] == b""


def test_head(files: Client) -> None:
    response, body = files.ask("/hello.txt", "HEAD")
    assert (response.status, response.headers["content-length"], body) == (200, "13", b"")
    assert files.ask("/hello.txt")[1] == b"hello, world\n"


def test_big_file(files: Client, root: Path) -> None:
    assert files.ask("/big")[1] == (root / "big").read_bytes()


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-4", 206, slice(0, 5)),
        ("bytes=7-", 206, slice(7, 13)),
        ("bytes=-6", 206, slice(7, 13)),
        ("bytes=7-1000", 206, slice(7, 13)),
        ("bytes=0-", 200, slice(0, 13)),
        ("bytes=-1000", 200, slice(0, 13)),
        ("bytes=x-y", 200, slice(0, 13)),
        ("bytes=0-1,3-4", 200, slice(0, 13)),
    ],
)
def test_ranges(files: Client, wanted: str, status: int, part: slice) -> None:
    response, body = files.ask("/hello.txt", Range=wanted)
    assert response.status == status
    assert body == b"hello, world\n"[part]
    if status == 206:
        assert response.headers["content-range"] == f"bytes {part.start}-{part.stop - 1}/13"


def test_range_beyond_the_end(files: Client) -> None:
    response, _ = files.ask("/hello.txt", Range="bytes=13-")
    assert (response.status, response.headers["content-range"]) == (416, "bytes */13")


OUTSIDE = [
    "/../secret.txt",
    "/sub/../../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/link",
    "/.hidden",
    "/%00",
    "//etc/passwd",
    "/hello.txt/x",
    "/nothing",
    "/%ff%fe",
]


@pytest.mark.parametrize("target", OUTSIDE)
def test_nothing_outside_the_directory(files: Client, target: str) -> None:
    response, body = files.ask(target)
    assert response.status == 404
    assert b"secret" not in body


PIECES = ["/", ".", "..", "%2e", "%2f", "%00", "sub", "link", "secret.txt", "hello.txt", "\\", "?", ";", "é", "http://x"]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_spelling_leads_outside(root: Path, target: str) -> None:
    found = Files(root)._resolve("/" + target)
    assert found is None or found.is_relative_to(root)


def test_pipe_is_not_waited_for(files: Client) -> None:
    assert files.ask("/pipe")[0].status == 403


def test_listing(files: Client) -> None:
    response, body = files.ask("/")
    assert response.status == 200
    assert b"&lt;b&gt;&amp;.html" in body
    assert b'href="sub/"' in body
    assert b".hidden" not in body
    assert b"<b>&.html" not in body


def test_directory_without_slash_redirects_here_and_nowhere_else(files: Client) -> None:
    response, _ = files.ask("/sub")
    assert (response.status, response.headers["location"]) == (301, "/sub/")
    response, _ = files.ask("//sub")
    assert (response.status, response.headers["location"]) == (301, "/sub/")


def test_index(files: Client, root: Path) -> None:
    (root / "sub" / "index.html").write_text("<p>index")
    assert files.ask("/sub/")[1] == b"<p>index"


def test_other_methods(files: Client) -> None:
    response, _ = files.ask("/hello.txt", "POST", body=b"x" * 100_000)
    assert (response.status, response.headers["allow"]) == (405, "GET, HEAD")
    assert files.ask("/hello.txt")[1] == b"hello, world\n"


def test_endless_body_is_refused(files: Client) -> None:
    response, _ = files.ask("/", "POST", body=b"x" * 2_000_000)
    assert response.status in (405, 413)


def test_pipelined_requests(files: Client) -> None:
    request = b"GET /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    files.tls.sendall(request * 3 + last)
    got = b"".join(iter(lambda: files.tls.recv(65536), b""))
    assert got.count(b"hello, world") == 3
    assert got.count(b"HTTP/1.1 200 OK") == 4


def test_what_is_no_http(files: Client) -> None:
    files.tls.sendall(b"NONSENSE\r\n\r\n")
    got = b"".join(iter(lambda: files.tls.recv(65536), b""))
    assert got.startswith(b"HTTP/1.1 400 Bad Request")


def test_status(www: Client) -> None:
    response, body = www.ask("/status.json")
    assert response.headers["content-type"] == "application/json"
    status = json.loads(body)
    assert status["connection"]["version"] == www.tls.version() == "TLSv1.3"
    assert status["connection"]["suite"] == "TLS_AES_128_GCM_SHA256"
    assert status["connection"]["server_name"] == "localhost"
    assert status["key"]["token"] == "net"
    assert status["key"]["CKA_SENSITIVE"] is True
    assert status["key"]["CKA_EXTRACTABLE"] is False
    assert status["key"]["signatures"] >= 1
    assert status["client_certificate"] is None


def test_page_says_the_same_and_escapes_it(www: Client) -> None:
    www.request("GET", "/?<script>", headers={"User-Agent": "<script>alert(1)</script>"})
    response = www.getresponse()
    body = response.read()
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    text = body.decode()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "the key cannot leave its token" in text
    assert "TLS_AES_128_GCM_SHA256" in text
    assert www.ask("/other")[0].status == 404
