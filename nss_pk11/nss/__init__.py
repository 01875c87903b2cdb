"""The NSS C API, name for name: a program written for NSS ports line by line.

    prerror, prinit     NSPR's errors and start
    nss                 opening databases and shutting down (nss.h)
    pk11pub             slots, login, certificates and keys on tokens (pk11pub.h)
    secmod              PKCS #11 modules (secmod.h)
    cert                certificates, trust, nicknames, verification (cert.h, certdb.h)
    keyhi               keys (keyhi.h)
    p12                 PKCS #12 (p12.h, shorter than in C)
    ssl                 SSL sockets: settings, handshakes, sessions (ssl.h, sslt.h)
    sslproto            numbers of suites and versions (sslproto.h)
    sslerr, secerr      numbers of errors (sslerr.h, secerr.h)
    prio, prnetdb       NSPR's sockets and addresses (prio.h, prnetdb.h)
    prinrval            NSPR's intervals (prinrval.h)

Names and order of arguments are NSS's.  What C returns through pointers is returned; what C frees, Python frees, and the
functions that free are there for whoever wants an object gone now.  Where C returns SECFailure or NULL, `NSPRError` is raised,
and `PR_GetError()` gives its number, per thread.  Unlike the rest of the package there is one state of the whole process, as in
NSS; it begins with `nss.NSS_Init` and ends with `nss.NSS_Shutdown`.

A face, as `cli` is: may import everything but `cli`, nothing imports it.
"""

from __future__ import annotations
