"""NSS's sample server (SSLsample/server.c): a thread for each connection, callbacks, a page that says who asked.

python server.py -n NICKNAME -p PORT [-d DBDIR] [-w PASSWORD] [-r | -rr]

-r asks clients for a certificate, -rr requires one.  Port 0 is any.  A request for /stop ends it.
"""

import argparse
import sys
import threading

from nss_pk11.nss import nss, pk11pub, prerror, prinit, prio, prnetdb, ssl
from nss_pk11.nss.prerror import NSPRError

stopping = threading.Event()


def my_passwd(slot, retry, arg):
    """PK11PasswordFunc: asked once; a wrong password is not sent again."""
    return None if retry else options.w


def my_auth_certificate(arg, fd, checksig, is_server):
    """SSLAuthCertificate: the database decides, as it would without this hook."""
    ssl.SSL_AuthCertificate(arg, fd, checksig, is_server)


def my_bad_cert_handler(arg, fd):
    """SSLBadCertHandler: says why, and refuses."""
    print("refused:", prerror.PR_ErrorToString(prerror.PR_GetError()), file=sys.stderr)
    return ssl.SECFailure


def my_handshake_callback(fd, client_data):
    """SSLHandshakeCallback."""
    status = ssl.SSL_SecurityStatus(fd)
    print(f"handshake: {status.cipher}, {status.secretKeySize} bits, client: {status.subject}", flush=True)


def set_up_listener(cert, key):
    """A listening socket; what it accepts has all its settings."""
    listener = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    prio.PR_SetSocketOption(listener, prio.PRSocketOptionData(prio.PR_SockOpt_Reuseaddr, True))
    ssl.SSL_OptionSet(listener, ssl.SSL_SECURITY, True)
    ssl.SSL_OptionSet(listener, ssl.SSL_HANDSHAKE_AS_SERVER, True)
    ssl.SSL_OptionSet(listener, ssl.SSL_REQUEST_CERTIFICATE, options.r >= 1)
    ssl.SSL_OptionSet(listener, ssl.SSL_REQUIRE_CERTIFICATE, options.r >= 2)
    ssl.SSL_AuthCertificateHook(listener, my_auth_certificate, None)
    ssl.SSL_BadCertHook(listener, my_bad_cert_handler, None)
    ssl.SSL_HandshakeCallback(listener, my_handshake_callback, None)
    ssl.SSL_ConfigSecureServer(listener, cert, key, ssl.NSS_FindCertKEAType(cert))
    prio.PR_Bind(listener, prnetdb.PR_InitializeNetAddr(prnetdb.PR_IpAddrAny, options.p))
    prio.PR_Listen(listener, 5)
    return listener


def handle_connection(fd):
    """Read a request, send a page."""
    try:
        request = b""
        while b"\r\n\r\n" not in request:
            data = prio.PR_Read(fd, 4096)
            if not data:
                return
            request += data
        if request.startswith(b"GET /stop"):
            stopping.set()
        page = f"Hello, {ssl.SSL_SecurityStatus(fd).subject}.\n"
        prio.PR_Write(fd, f"HTTP/1.0 200 OK\r\nContent-Length: {len(page)}\r\n\r\n{page}".encode())
    except NSPRError as error:
        print("connection:", error, file=sys.stderr)
    finally:
        prio.PR_Close(fd)


def server_main(cert, key):
    listener = set_up_listener(cert, key)
    print(f"listening on port {prio.PR_GetSockName(listener).port}", flush=True)
    threads = []
    polled = [prio.PRPollDesc(listener, prio.PR_POLL_READ)]
    while not stopping.is_set():
        if not prio.PR_Poll(polled, 200):  # milliseconds: to look whether to stop
            continue
        fd, _ = prio.PR_Accept(listener)
        threads.append(threading.Thread(target=handle_connection, args=(fd,)))
        threads[-1].start()
        threads = [thread for thread in threads if thread.is_alive()]
    for thread in threads:
        thread.join()
    prio.PR_Close(listener)


parser = argparse.ArgumentParser(add_help=False)
parser.add_argument("-n", required=True)
parser.add_argument("-p", type=int, required=True)
parser.add_argument("-d", default=".")
parser.add_argument("-w", default="")
parser.add_argument("-r", action="count", default=0)
options = parser.parse_args()

prinit.PR_Init(prinit.PR_USER_THREAD, prinit.PR_PRIORITY_NORMAL, 1)
pk11pub.PK11_SetPasswordFunc(my_passwd)
nss.NSS_Init(options.d)
ssl.NSS_SetDomesticPolicy()
server_cert = pk11pub.PK11_FindCertFromNickname(options.n, None)
server_key = pk11pub.PK11_FindKeyByAnyCert(server_cert, None)
ssl.SSL_ConfigServerSessionIDCache(0, 0, 0, None)
server_main(server_cert, server_key)
del server_cert, server_key
ssl.SSL_ShutdownServerSessionIDCache()
nss.NSS_Shutdown()
prinit.PR_Cleanup()
