"""Peer: tlslite-ng with its key behind python-pkcs11.  `tlslite_server.py CERTIFICATE MODULE TOKEN PIN LABEL [FILE] [--hold]`.

Listens on a free port of 127.0.0.1.  Answers any request with the contents of FILE.  One connection after the other;
`--hold` keeps them all open and idle.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import pkcs11
from pkcs11.util.ec import encode_ecdsa_signature
from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain  # type: ignore[import-untyped]
from tlslite.utils.python_ecdsakey import Python_ECDSAKey  # type: ignore[import-untyped]
from tlslite.utils.python_rsakey import Python_RSAKey  # type: ignore[import-untyped]

HASHES = {"sha256": pkcs11.Mechanism.SHA256, "sha384": pkcs11.Mechanism.SHA384, "sha512": pkcs11.Mechanism.SHA512}
MASKS = {"sha256": pkcs11.MGF.SHA256, "sha384": pkcs11.MGF.SHA384, "sha512": pkcs11.MGF.SHA512}


class TokenRSAKey(Python_RSAKey):  # type: ignore[misc]  # tlslite-ng is untyped
    """tlslite-ng's RSA key with the private operations done on the token; it checks its signatures in Python."""

    def __init__(self, public: Any, token_key: Any) -> None:
        super().__init__(public.n, public.e)
        self.token_key = token_key

    def hasPrivateKey(self) -> bool:
        return True

    def _raw_pkcs1_sign(self, data: bytes) -> bytearray:
        return bytearray(self.token_key.sign(bytes(data), mechanism=pkcs11.Mechanism.RSA_PKCS))

    def RSASSA_PSS_sign(self, mHash: bytes, hAlg: str, sLen: int = 0) -> bytearray:
        parameters = (HASHES[hAlg], MASKS[hAlg], sLen)
        mechanism = pkcs11.Mechanism.RSA_PKCS_PSS
        return bytearray(self.token_key.sign(bytes(mHash), mechanism=mechanism, mechanism_param=parameters))


class TokenECDSAKey(Python_ECDSAKey):  # type: ignore[misc]  # tlslite-ng is untyped
    """tlslite-ng's ECDSA key with the private operation done on the token; it checks its signatures in Python."""

    def __init__(self, public: Any, token_key: Any) -> None:
        self.key_type, self.curve_name = "ecdsa", public.curve_name
        self.public_key = self.private_key = public.public_key  # tlslite-ng asks private_key for its curve
        self.token_key = token_key

    def _sign(self, data: bytes, hAlg: str) -> bytearray:
        return bytearray(encode_ecdsa_signature(self.token_key.sign(bytes(data), mechanism=pkcs11.Mechanism.ECDSA)))


def main() -> None:
    certificate, module, label_of_token, pin, label, *options = sys.argv[1:]
    chain = X509CertChain()
    chain.parsePemList(Path(certificate).read_text())
    session = pkcs11.lib(module).get_token(token_label=label_of_token).open(user_pin=pin)
    private = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=label)
    public = chain.getEndEntityPublicKey()
    key = TokenRSAKey(public, private) if label == "rsa" else TokenECDSAKey(public, private)
    settings = HandshakeSettings()
    settings.ticketKeys = [bytearray(os.urandom(32))]
    content = Path(options[0]).read_bytes() if options and options[0] != "--hold" else b""
    held = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        while True:
            plain, _ = listener.accept()
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = TLSConnection(plain)
            try:
                connection.handshakeServer(certChain=chain, privateKey=key, settings=settings)
                if "--hold" in options:
                    held.append(connection)
                    continue
                if connection.read(max=65536, min=1):
                    connection.write(content)
                connection.close()
            except Exception:  # a client that fails costs its own connection only
                traceback.print_exc()
            plain.close()


if __name__ == "__main__":
    main()
