"""The child process: OpenSSL 1.0.2e as client and server, one after the other, as lines on its input ask (`commanded`).

Words of a request: `role`, `port` (client), `count`; `protocol`: ssl2, ssl3, tls1, tls1_1, tls1_2, or ssl23 for all that `off`
does not name; `suites`: numbers, hexadecimal, or `ciphers`: OpenSSL's own names; `certificate`, `key`, `ca`, `dh`: files;
`verify`: a client checks the server's certificate, a server demands one; `resume`; `renegotiate`; and what makes it an old or a
special peer: `unsafe_renegotiation`, `no_rfc5746`, `no_tickets`, `tls_prf`.  With `http` a page is asked for in place of the
conversation.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import socket
import struct
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from ..base import HOST
from ..commanded import CONVERSATION, answers
from .library import InfoCallback, Library, TemporaryRSACallback
from .surgery import Suites, forget_secure_renegotiation, mend_ssl2_resumption, tls_prf_in_ssl3, without_scsv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUEST, PAGE = b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"  # of `http`
PATIENCE = 5  # seconds for every system call
METHODS = {"ssl2": "SSLv2", "ssl3": "SSLv3", "tls1": "TLSv1", "tls1_1": "TLSv1_1", "tls1_2": "TLSv1_2", "ssl23": "SSLv23"}

# SSL_OP_*
NO = {"ssl2": 0x01000000, "ssl3": 0x02000000, "tls1": 0x04000000, "tls1_1": 0x10000000, "tls1_2": 0x08000000}
OPTIONS = {"no_tickets": 0x00004000, "unsafe_renegotiation": 0x00040004}  # as server; as client
# SSL_CTRL_*
SET_TMP_DH, SET_TMP_ECDH, GET_SESSION_REUSED, SET_OPTIONS, SET_MODE, SET_SESS_CACHE_MODE, GET_RI_SUPPORT = 3, 4, 8, 32, 33, 44, 76
AUTO_RETRY = 4  # SSL_MODE: or SSL_read gives up after a renegotiation
P_256 = 415  # NID
STATE_ACCEPT = 0x2000  # SSL_ST_ACCEPT: what SSL_set_state needs for a server to read on after its HelloRequest
VERIFY_PEER, VERIFY_AND_DEMAND = 1, 3

Request = dict[str, str]


class Failure(Exception):
    """OpenSSL, or the other side, did not do what it should have."""


class Context:
    """SSL_CTX for a request, and everything it holds."""

    def __init__(self, library: Library, suites: Suites, request: Request) -> None:
        self._library, self._request = library, request
        self.server = request["role"] == "server"
        self.step_down: list[int] = []
        self._keys: dict[int, int] = {}
        method = library.method(f"{METHODS[request['protocol']]}_{request['role']}")
        self.handle = library.SSL_CTX_new(method)
        self.control(SET_MODE, AUTO_RETRY)
        self.control(SET_OPTIONS, self._options())
        wanted = {int(number, 16) for number in request["suites"].split(",")} if "suites" in request else suites.own
        with suites.only(wanted):
            self._must(library.SSL_CTX_set_cipher_list(self.handle, request.get("ciphers", "ALL:COMPLEMENTOFALL").encode()))
        self._load()
        if self.server:
            self._prepare_server()
        else:
            library.SSL_CTX_set_verify(self.handle, VERIFY_PEER if "verify" in request else 0, None)
            self.control(SET_SESS_CACHE_MODE, 3)

    def control(self, command: int, number: int = 0, pointer: int | None = None) -> int:
        done: int = self._library.SSL_CTX_ctrl(self.handle, command, number, pointer)
        return done

    def _must(self, done: object) -> None:
        if not done:
            raise Failure(self._library.errors())

    def _options(self) -> int:
        options = sum(NO[name] for name in filter(None, self._request.get("off", "").split(",")))
        return options | sum(bit for name, bit in OPTIONS.items() if name in self._request)

    def _load(self) -> None:
        """Certificate, key and CA, out of files."""
        library, request = self._library, self._request
        if "certificate" in request:
            self._must(library.SSL_CTX_use_certificate_chain_file(self.handle, request["certificate"].encode()))
            self._must(library.SSL_CTX_use_PrivateKey_file(self.handle, request["key"].encode(), 1))
        if "ca" in request:
            self._must(library.SSL_CTX_load_verify_locations(self.handle, request["ca"].encode(), None))

    def _prepare_server(self) -> None:
        library, request = self._library, self._request
        library.SSL_CTX_set_session_id_context(self.handle, b"test", 4)
        curve = library.EC_KEY_new_by_curve_name(P_256)
        self.control(SET_TMP_ECDH, pointer=curve)
        library.EC_KEY_free(curve)
        if "dh" in request:
            file = library.BIO_new_file(request["dh"].encode(), b"r")
            parameters = library.PEM_read_bio_DHparams(file, None, None, None)
            self._must(parameters)
            self.control(SET_TMP_DH, pointer=parameters)
            library.DH_free(parameters)
            library.BIO_free(file)
        library.SSL_CTX_set_tmp_rsa_callback(self.handle, self._temporary_rsa)
        if "verify" in request:
            library.SSL_CTX_set_client_CA_list(self.handle, library.SSL_load_client_CA_file(request["ca"].encode()))
            library.SSL_CTX_set_verify(self.handle, VERIFY_AND_DEMAND, None)
        if "no_rfc5746" in request:
            library.SSL_CTX_set_info_callback(self.handle, self._as_before_rfc5746)

    @cached_property
    def _temporary_rsa(self) -> Callable[[int, int, int], int]:
        def make(_connection: int, _export: int, bits: int) -> int:
            self.step_down.append(bits)
            if bits not in self._keys:
                key, exponent = self._library.RSA_new(), self._library.BN_new()
                self._library.BN_set_word(exponent, 65537)
                self._library.RSA_generate_key_ex(key, bits, exponent, None)
                self._keys[bits] = key
            return self._keys[bits]

        return TemporaryRSACallback(make)

    @cached_property
    def _as_before_rfc5746(self) -> Callable[[int, int, int], None]:
        return InfoCallback(lambda connection, _where, _result: forget_secure_renegotiation(connection))

    def close(self) -> None:
        self._library.SSL_CTX_free(self.handle)


class Link:
    """One connection: SSL over a socket."""

    def __init__(self, library: Library, context: Context, sock: socket.socket) -> None:
        self._library, self._sock = library, sock
        sock.settimeout(None)
        patience = struct.pack("@ll", PATIENCE, 0)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, patience)
        library.ERR_clear_error()
        self.handle = library.SSL_new(context.handle)
        library.SSL_set_fd(self.handle, sock.fileno())
        self._unread = b""

    def must(self, done: int, what: str) -> None:
        if done <= 0:
            raise Failure(f"{what}: {self._library.errors() or 'closed or too late'}")

    def read_line(self) -> bytes:
        """Up to the next newline.  Raises Failure where the other side ends before."""
        buffer = ctypes.create_string_buffer(65536)
        while b"\n" not in self._unread:
            count = self._library.SSL_read(self.handle, buffer, len(buffer))
            self.must(count, "read")
            self._unread += buffer.raw[:count]
        line, newline, self._unread = self._unread.partition(b"\n")
        return line + newline

    def write(self, data: bytes) -> None:
        self.must(self._library.SSL_write(self.handle, data, len(data)), "write")

    def renegotiate(self, server: bool) -> None:
        library = self._library
        self.must(library.SSL_renegotiate(self.handle), "renegotiate")
        self.must(library.SSL_do_handshake(self.handle), "renegotiation" if not server else "hello request")
        if server:
            library.SSL_set_state(self.handle, STATE_ACCEPT)
            self.must(library.SSL_do_handshake(self.handle), "renegotiation")

    def describe(self) -> dict[str, Any]:
        library, peer = self._library, self._library.SSL_get_peer_certificate(self.handle)
        subject = ctypes.create_string_buffer(300)
        if peer:
            library.X509_NAME_oneline(library.X509_get_subject_name(peer), subject, len(subject))
            library.X509_free(peer)
        number = library.SSL_CIPHER_get_id(library.SSL_get_current_cipher(self.handle))
        return {
            "version": library.SSL_get_version(self.handle).decode(),
            "suite": number & 0xFFFFFF,  # without OpenSSL's own mark of the version
            "resumed": bool(library.SSL_ctrl(self.handle, GET_SESSION_REUSED, 0, None)),
            "secure_renegotiation": bool(library.SSL_ctrl(self.handle, GET_RI_SUPPORT, 0, None)),
            "peer": subject.value.decode(),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._library.SSL_free(self.handle)
        self._sock.close()


class Peer:
    """What requests are put to."""

    def __init__(self, library: Library) -> None:
        self._library, self._suites = library, Suites(library)
        mend_ssl2_resumption(library)

    def run(self, request: Request) -> None:
        """Answers on standard output."""
        with contextlib.ExitStack() as changes:
            if "tls_prf" in request:
                changes.enter_context(tls_prf_in_ssl3(self._library))
            if "no_rfc5746" in request:
                changes.enter_context(without_scsv(self._library))
            context = Context(self._library, self._suites, request)
            changes.callback(context.close)
            done = list((self._serve if context.server else self._connect)(context, request))
        say(connections=done)

    def _serve(self, context: Context, request: Request) -> Iterator[dict[str, Any]]:
        with socket.create_server((HOST, 0)) as listener:
            listener.settimeout(PATIENCE)
            say(port=listener.getsockname()[1])
            for _ in range(int(request.get("count", "1"))):
                context.step_down.clear()
                try:
                    sock, _ = listener.accept()
                except TimeoutError:
                    yield {"error": "nobody came"}
                    return
                with Link(self._library, context, sock) as link:
                    yield self._hold(link, request, self._answer) | {"step_down": list(context.step_down)}

    def _connect(self, context: Context, request: Request) -> Iterator[dict[str, Any]]:
        session = None
        for _ in range(int(request.get("count", "1"))):
            sock = socket.create_connection((HOST, int(request["port"])), PATIENCE)
            with Link(self._library, context, sock) as link:
                if session and "resume" in request:
                    self._library.SSL_set_session(link.handle, session)
                yield self._hold(link, request, self._converse)
                if session:
                    self._library.SSL_SESSION_free(session)
                session = self._library.SSL_get1_session(link.handle)

    def _hold(self, link: Link, request: Request, talk: Callable[[Link, Request], int]) -> dict[str, Any]:
        """Handshake, conversation, goodbye."""
        said: dict[str, Any] = {"ok": False}
        try:
            shake = self._library.SSL_accept if request["role"] == "server" else self._library.SSL_connect
            link.must(shake(link.handle), "handshake")
            said |= link.describe()
            said["renegotiated"] = talk(link, request)
            said |= link.describe() | {"ok": True}
        except Failure as failure:
            said["error"] = str(failure)
        self._library.SSL_shutdown(link.handle)
        return said

    def _converse(self, link: Link, request: Request) -> int:
        renegotiated = 0
        if "http" in request:
            link.write(REQUEST)
            if link.read_line() != PAGE.splitlines(keepends=True)[0]:
                raise Failure("no page")
            return renegotiated
        for number, (line, answer) in enumerate(zip(CONVERSATION, answers(CONVERSATION), strict=True)):
            if number == 1 and "renegotiate" in request:
                link.renegotiate(server=False)
                renegotiated += 1
            link.write(line)
            if link.read_line() != answer:
                raise Failure(f"wrong answer to line {number}")
        return renegotiated

    def _answer(self, link: Link, request: Request) -> int:
        renegotiated = 0
        if "http" in request:
            while link.read_line().strip():
                pass
            link.write(PAGE)
            return renegotiated
        for number, expected in enumerate(CONVERSATION):
            line = link.read_line()
            if number == 1 and "renegotiate" in request:
                link.renegotiate(server=True)  # the client waits for the answer, and reads
                renegotiated += 1
            if line != expected:
                raise Failure(f"wrong line {number}")
            link.write(b"ECHO " + line)
        return renegotiated


def say(**answer: object) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    peer = Peer(Library())
    for line in sys.stdin:
        peer.run(dict(word.split("=", 1) for word in line.rstrip("\n").split("\t")))


if __name__ == "__main__":
    main()
