"""NSS's sample client (SSLsample/client.c): connects, checks the server, fetches a page.

python client.py -p PORT [-n NICKNAME] [-d DBDIR] [-w PASSWORD] [-a ADDRESS] HOST

-n is the certificate to show if the server asks for one; -a connects there, where HOST is not to be looked up.
"""

import argparse
import sys

from nss_pk11.nss import cert, nss, pk11pub, prerror, prinit, prinrval, prio, prnetdb, ssl


def my_passwd(slot, retry, arg):
    """PK11PasswordFunc; `arg` is what SSL_SetPKCS11PinArg set."""
    return None if retry else arg


def my_bad_cert_handler(arg, fd):
    """SSLBadCertHandler: says why, and refuses."""
    print("refused:", prerror.PR_ErrorToString(prerror.PR_GetError()), file=sys.stderr)
    return ssl.SECFailure


def my_handshake_callback(fd, client_data):
    """SSLHandshakeCallback."""
    status = ssl.SSL_SecurityStatus(fd)
    print(f"handshake: {status.cipher}, {status.secretKeySize} bits, server: {status.subject}", file=sys.stderr)


def set_up_socket():
    fd = ssl.SSL_ImportFD(None, prio.PR_NewTCPSocket())
    ssl.SSL_OptionSet(fd, ssl.SSL_SECURITY, True)
    ssl.SSL_OptionSet(fd, ssl.SSL_HANDSHAKE_AS_CLIENT, True)
    ssl.SSL_SetPKCS11PinArg(fd, options.w)
    ssl.SSL_SetURL(fd, options.host)
    ssl.SSL_AuthCertificateHook(fd, ssl.SSL_AuthCertificate, cert.CERT_GetDefaultCertDB())
    ssl.SSL_BadCertHook(fd, my_bad_cert_handler, None)
    ssl.SSL_GetClientAuthDataHook(fd, ssl.NSS_GetClientAuthData, options.n)
    ssl.SSL_HandshakeCallback(fd, my_handshake_callback, None)
    return fd


def addresses():
    """Every address of the host."""
    found = prnetdb.PR_GetAddrInfoByName(options.a or options.host, prio.PR_AF_INET, prnetdb.PR_AI_ADDRCONFIG)
    place, address = prnetdb.PR_EnumerateAddrInfo(0, found, options.p)
    while place:
        yield address
        place, address = prnetdb.PR_EnumerateAddrInfo(place, found, options.p)


def client_main():
    fd = set_up_socket()
    try:
        prio.PR_Connect(fd, next(addresses()), prinrval.PR_SecondsToInterval(30))
        prio.PR_Write(fd, f"GET / HTTP/1.0\r\nHost: {options.host}\r\n\r\n".encode())
        while data := prio.PR_Read(fd, 4096):
            sys.stdout.write(data.decode())
    finally:
        prio.PR_Close(fd)


parser = argparse.ArgumentParser(add_help=False)
parser.add_argument("host")
parser.add_argument("-p", type=int, required=True)
parser.add_argument("-n")
parser.add_argument("-d", default=".")
parser.add_argument("-w", default="")
parser.add_argument("-a")
options = parser.parse_args()

prinit.PR_Init(prinit.PR_USER_THREAD, prinit.PR_PRIORITY_NORMAL, 1)
pk11pub.PK11_SetPasswordFunc(my_passwd)
nss.NSS_Init(options.d)
ssl.NSS_SetDomesticPolicy()
try:
    client_main()
except prerror.NSPRError as problem:
    sys.exit(f"client: {problem}")
finally:
    ssl.SSL_ClearSessionCache()
nss.NSS_Shutdown()
prinit.PR_Cleanup()
