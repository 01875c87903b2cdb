"""OpenSSL 1.1.1w, which the wheel `nassl` carries, as a client in this process."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from nss_pk11.tls.codepoints import Version
from nss_pk11.tls.suites import BY_NAME

from ..require import missing
from .base import HOST, TIMEOUT, Result, Want


def _library() -> Any:
    try:
        from nassl import ssl_client
    except ImportError:
        missing("nassl")
    return ssl_client


def nassl_client(port: int, want: Want) -> Result:
    """One connection.  nassl does not say whether it resumed."""
    assert not want.resume
    library = _library()
    versions = {
        None: library.OpenSslVersionEnum.TLSV1_3,
        Version.tls1_2: library.OpenSslVersionEnum.TLSV1_2,
        Version.tls1_3: library.OpenSslVersionEnum.TLSV1_3,
    }
    verify = library.OpenSslVerifyEnum.PEER if want.ca else library.OpenSslVerifyEnum.NONE
    own: dict[str, Any] = {"ignore_client_authentication_requests": not want.credential}
    if want.credential:
        own |= {"client_certificate_chain": Path(want.credential.chain_file), "client_key": Path(want.credential.key_file)}
    with socket.create_connection((HOST, port), TIMEOUT) as plain:
        client = library.SslClient(
            ssl_version=versions[want.version], underlying_socket=plain, ssl_verify=verify, ssl_verify_locations=want.ca, **own
        )
        if want.server_name:
            client.set_tlsext_host_name(want.server_name)
        if want.suite and want.suite.max_version == Version.tls1_2:
            client.set_cipher_list(f"{want.suite.openssl}:@SECLEVEL=0")
        elif want.suite:
            client.set_ciphersuites(want.suite.openssl)
        try:
            client.do_handshake()
            client.write(want.request)
            answer = client.read(65536)  # the first record: nassl would block for more
        except Exception as error:
            return Result(ok=False, alert=str(error), output=repr(error))
        suite = client.get_current_cipher_name()
        client.shutdown()
        name = BY_NAME[suite].name if suite in BY_NAME else suite
        return Result(ok=True, version=want.version.label if want.version else "", suite=name, answer=answer)
