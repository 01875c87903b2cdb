"""`tstclnt`: a TLS client between standard input and output, with the flags, lines and exit statuses of NSS's program.

This is its beginning and end: flags, address, databases.  `talking` has the connection.  `nss_pk11.nss` by its public names only.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from ...nss.nss import NSS_Init, NSS_IsInitialized, NSS_NoDB_Init, NSS_Shutdown
from ...nss.pk11pub import PK11_SetPasswordFunc
from ...nss.prerror import NSPRError
from ...nss.prinit import PR_PRIORITY_NORMAL, PR_SYSTEM_THREAD, PR_Cleanup, PR_Init
from ...nss.prinrval import PR_INTERVAL_NO_TIMEOUT, PR_SecondsToInterval
from ...nss.prio import PR_SHUTDOWN_BOTH, PR_Close, PR_Connect, PR_OpenTCPSocket, PR_Shutdown, PRFileDesc, PRNetAddr
from ...nss.prnetdb import PR_StringToNetAddr
from ...nss.secmod import SECMOD_LoadUserModule
from ...nss.ssl import (
    SSL_ENABLE_EXTENDED_MASTER_SECRET,
    SSL_ENABLE_FALLBACK_SCSV,
    SSL_ENABLE_OCSP_STAPLING,
    SSL_ENABLE_POST_HANDSHAKE_AUTH,
    SSL_ENABLE_SESSION_TICKETS,
    SSL_ENABLE_TLS13_COMPAT_MODE,
    SSL_REQUIRE_DH_NAMED_GROUPS,
    NSS_SetDomesticPolicy,
    SSL_ClearSessionCache,
    SSL_VersionRangeGetSupported,
    SSLNamedGroup,
    SSLProtocolVariant,
    SSLSignatureScheme,
    SSLVersionRange,
)
from . import feeding, words
from .hosts import look_up, no_suites, usual_suites
from .passwords import Passwords, module_password
from .report import print_error, say
from .talking import Connection

PROGRAM = "tstclnt"
LETTERS = "246A:BCDEFGHI:J:KL:M:N:OP:QR:STUV:W:X:YZa:bc:d:efgh:i:m:n:op:qr:st:uvw:x:z:"
MOST_PINGS = 600
PAUSE = 0.1  # seconds between two of them

USAGE = f"""\
Usage:  {PROGRAM} -h host [-a 1st_hs_name ] [-a 2nd_hs_name ] [-p port]
  [-D | -d certdir] [-C] [-b | -R root-module]\x20
  [-n nickname] [-2Bafosvx] [-c ciphers] [-Y] [-Z] [-E]
  [-V [min-version]:[max-version]] [-K] [-T] [-U]
  [-r N] [-w passwd] [-W pwfile] [-q [-t seconds]]
  [-I groups] [-J signatureschemes]
  [-A requestfile] [-L totalconnections] [-Q]
"""

PARAMETERS = """\
-h host, -p port (443)    -4, -6 by IPv4 or IPv6 alone    -a name to ask for by SNI; twice: in the second handshake
-d directory of the database (default: SSL_DIR of the environment, ~/.netscape)    -D no database
-w, -W its password, or a file that has it    -b, -R load the builtin root CAs, or a module of root CAs
-n nickname of the client's certificate    -E post-handshake authentication with it
-V [min]:[max] of ssl2 ssl3 tls1.0 tls1.1 tls1.2 tls1.3    -2 no SSL 2.0    -c suites: letters (-Y lists them) or :XXXX
-I groups: P256 P384 P521 x25519 FF2048 FF3072 FF4096 FF6144 FF8192    -J signature schemes
-K TLS_FALLBACK_SCSV    -u session tickets    -G extended master secret    -H groups of RFC 7919 alone    -T OCSP stapling
-e middlebox compatibility mode    -r N renegotiate N times, resuming the session if N > 1
-o accept a bad certificate of the server    -O choose and judge certificates within the handshake
-C certificates of the server; twice: all of them, three times: as PEM too
-F fresh information on revocation is required (with -O); twice: of intermediate CAs too; exit status
   0: good, 1: bad certificate, 2: there is no such information, 3: revoked    -M 0: any, 1: OCSP, 2: CRLs
-q ping the server and exit    -t seconds of that    -Q exit after the handshake    -L connect N times
-A read from a file    -f the client speaks first    -S no HTTP header    -m pause of 50 milliseconds times N
-x LABEL[:LENGTH[:CONTEXT]],... print keying material    -v tell what is done
-U, -B, -g, -Z, -s: said to be not done here, or mean nothing
"""

CIPHERS = words.letters_page("           ")


@dataclass
class Settings:
    """What the flags say.  `options`: what is switched on, and how NSS's program calls that."""

    host: str = ""
    port: int = 443
    directory: str | None = None
    no_database: bool = False
    builtins: bool = False
    root_module: str | None = None
    nickname: str | None = None
    versions: SSLVersionRange = field(default_factory=lambda: SSL_VersionRangeGetSupported(SSLProtocolVariant.ssl_variant_stream))
    suites: list[int] | None = None
    groups: list[SSLNamedGroup] | None = None
    schemes: list[SSLSignatureScheme] | None = None
    exporters: list[words.Exporter] = field(default_factory=list)
    options: dict[int, str] = field(default_factory=dict)
    no_ssl2: bool = False
    sni: list[str] = field(default_factory=list)
    renegotiations: int = 0
    overlook: bool = False
    synchronous: bool = False
    dump_chain: int = 0
    revocation: int = 0
    revocation_methods: int = 0
    ping: bool = False
    ping_seconds: int = -1
    stop_after_handshake: bool = False
    connections: int = 1
    request_file: str | None = None
    client_speaks_first: bool = False
    skip_header: bool = False
    pause: int = 0
    verbose: int = 0
    families: set[str] = field(default_factory=lambda: {"4", "6"})
    passwords: Passwords = field(default_factory=Passwords)


_OPTIONS = {
    "E": (SSL_ENABLE_POST_HANDSHAKE_AUTH, "error enabling post-handshake auth"),
    "G": (SSL_ENABLE_EXTENDED_MASTER_SECRET, "error enabling extended master secret"),
    "H": (SSL_REQUIRE_DH_NAMED_GROUPS, "error in requiring the use of fixed finite-field DH groups"),
    "K": (SSL_ENABLE_FALLBACK_SCSV, "error forcing fallback scsv"),
    "T": (SSL_ENABLE_OCSP_STAPLING, "error enabling cert status (OCSP stapling)"),
    "e": (SSL_ENABLE_TLS13_COMPAT_MODE, "error enabling middlebox compatibility mode"),
    "u": (SSL_ENABLE_SESSION_TICKETS, "error enabling Session Ticket extension"),
}
_FIELDS = words.Fields(
    switches={
        "2": "no_ssl2", "D": "no_database", "O": "synchronous", "Q": "stop_after_handshake", "S": "skip_header",
        "b": "builtins", "f": "client_speaks_first", "o": "overlook", "q": "ping",
    },
    texts={"A": "request_file", "R": "root_module", "d": "directory", "h": "host", "n": "nickname"},
    numbers={
        "L": "connections", "M": "revocation_methods", "m": "pause", "r": "renegotiations", "t": "ping_seconds",
    },
    counts={"C": "dump_chain", "F": "revocation", "v": "verbose"},
)  # fmt: skip
_NOTED = {
    "B": "delegated credentials are not asked for here",
    "U": "signed certificate timestamps are not asked for here",
    "Z": "0-RTT data is not sent here; it waits for the handshake",
    "g": "false start is not done here; data waits for the handshake",
}
_REFUSED = {
    "N": "encrypted ClientHello is not done here",
    "P": "DTLS is not done here",
    "X": "the alternative ServerHello is not done here",
    "i": "encrypted ClientHello is not done here",
    "z": "external pre-shared keys are not done here",
}
_IGNORED = frozenset("s")


def parse(arguments: list[str]) -> Settings:
    """Raises BadFlags."""
    settings = Settings()
    for flag, value in words.flags(arguments, LETTERS):
        _take(settings, flag, value)
    if not settings.host or not settings.port:
        raise words.BadFlags(f"{PROGRAM}: parameters -h and -p are mandatory")
    for wrong, complaint in (
        (settings.revocation and not settings.synchronous, "-F requires the use of -O"),
        (settings.directory and settings.no_database, "Cannot combine parameters -D and -d"),
        (settings.root_module and settings.builtins, "Cannot combine parameters -b and -R"),
        (SSL_ENABLE_POST_HANDSHAKE_AUTH in settings.options and not settings.nickname, "-E requires the use of -n"),
    ):
        if wrong:
            raise words.BadFlags(f"{PROGRAM}: {complaint}", usage=False)
    return settings


def _take(settings: Settings, flag: str, value: str) -> None:
    """One flag."""
    if _FIELDS.take(settings, flag, value):
        return
    if flag in _OPTIONS:
        option, what = _OPTIONS[flag]
        settings.options[option] = what
    elif flag in _VALUES:
        name, read = _VALUES[flag]
        setattr(settings, name, read(settings, value))
    elif flag in _REFUSED:
        raise words.BadFlags(f"{PROGRAM}: -{flag}: {_REFUSED[flag]}", usage=False)
    elif flag in _NOTED:
        say(f"{PROGRAM}: -{flag}: {_NOTED[flag]}")
    elif flag == "Y":
        raise words.BadFlags(f"{USAGE}\n{CIPHERS}", usage=False)
    elif flag not in _IGNORED:
        raise words.BadFlags()


def _suites(settings: Settings, text: str) -> list[int]:
    try:
        return words.suites(text)
    except words.BadSuite:
        raise words.BadFlags() from None


def _sni(settings: Settings, name: str) -> list[str]:
    if len(settings.sni) == 2:
        raise words.BadFlags()
    return [*settings.sni, name]


# Flags whose value becomes a field's.
_VALUES: dict[str, tuple[str, Callable[[Settings, str], object]]] = {
    "4": ("families", lambda settings, _: words.only_family(settings.families, "4")),
    "6": ("families", lambda settings, _: words.only_family(settings.families, "6")),
    "I": ("groups", lambda _, text: words.groups(text)),
    "J": ("schemes", lambda _, text: words.schemes(text)),
    "V": ("versions", lambda settings, text: words.version_range(text, settings.versions)),
    "W": ("passwords", lambda _, text: Passwords(file=text)),
    "a": ("sni", _sni),
    "c": ("suites", _suites),
    "p": ("port", lambda _, text: words.port(text)),
    "w": ("passwords", lambda _, text: Passwords(plain=text)),
    "x": ("exporters", lambda _, text: words.exporters(text)),
}


# --- running -----------------------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """The program; its exit status."""
    try:
        settings = parse(arguments)
    except words.BadFlags as error:
        say("\n".join(filter(None, (str(error), f"{USAGE}\n{PARAMETERS}" if error.usage else ""))))
        return error.status
    PR_Init(PR_SYSTEM_THREAD, PR_PRIORITY_NORMAL, 1)
    PK11_SetPasswordFunc(module_password)
    status = _run(settings)
    if NSS_IsInitialized():
        SSL_ClearSessionCache()
        try:
            NSS_Shutdown()
        except NSPRError:
            status = 1
    if settings.verbose:
        say(f"{PROGRAM}: exiting with return code {status}")
    PR_Cleanup()
    sys.stdout.flush()
    return status


def _run(settings: Settings) -> int:
    try:
        address = _address(settings)
    except NSPRError as error:
        say(f"HOSTNAME={settings.host}")
        print_error(PROGRAM, "error looking up host", error)
        return 1
    if settings.verbose:
        say(f"{PROGRAM}: connecting to {settings.host}:{settings.port} (address={address.ip})")
    if settings.ping:
        return _ping(settings, address)
    try:
        _open_databases(settings)
    except NSPRError as error:
        print_error(PROGRAM, "failed to initialize NSS" if settings.no_database else "unable to open cert database", error)
        return 1
    NSS_SetDomesticPolicy()
    if settings.suites is None:
        usual_suites()
    else:
        no_suites()
    standard_input = feeding.standard_input() if settings.request_file is None else None
    try:
        return _connect(settings, address, standard_input)
    finally:
        if standard_input is not None:
            PR_Close(standard_input)


def _connect(settings: Settings, address: PRNetAddr, standard_input: PRFileDesc | None) -> int:
    """As often as -L says, while all is well."""
    for _ in range(settings.connections):
        try:
            source = standard_input or feeding.file(settings.request_file or "")
        except OSError:
            say(f"{PROGRAM}: unable to open input file: {settings.request_file}")
            return 1
        status = Connection(settings, address, source, _interval()).run()
        if source is not standard_input:
            PR_Close(source)
        if status:
            return status
    return 0


def _address(settings: Settings) -> PRNetAddr:
    """Raises NSPRError."""
    with suppress(NSPRError):
        literal = PR_StringToNetAddr(settings.host)
        return PRNetAddr(literal.family, literal.ip, settings.port)
    return look_up(settings.host, settings.port, settings.families)


def _interval() -> int:
    seconds = words.number(os.environ.get("NSS_DEBUG_TIMEOUT", ""))
    return PR_SecondsToInterval(seconds) if seconds > 0 else PR_INTERVAL_NO_TIMEOUT


def _open_databases(settings: Settings) -> None:
    """Raises NSPRError."""
    if settings.no_database:
        NSS_NoDB_Init(None)
    else:
        home = os.path.join(os.environ.get("HOME", ""), ".netscape")
        NSS_Init(settings.directory or os.environ.get("SSL_DIR", "").removesuffix("/") or home)
    library = "libnssckbi.so" if settings.builtins else settings.root_module
    if library:
        with suppress(NSPRError):  # as with NSS's program, roots that are missing are missed later
            SECMOD_LoadUserModule(f'library="{library}" name="Builtins"', None, False)


# --- ping --------------------------------------------------------------------------------------------------------------------


def _ping(settings: Settings, address: PRNetAddr) -> int:
    """Until a server takes a connection; 0 if one does."""
    limited = settings.ping_seconds >= 0
    interval = PR_SecondsToInterval(settings.ping_seconds) if limited else PR_INTERVAL_NO_TIMEOUT
    last: NSPRError | None = None
    for _ in range(2 if limited else MOST_PINGS):
        fd: PRFileDesc = PR_OpenTCPSocket(address.family)
        try:
            PR_Connect(fd, address, interval)
            PR_Shutdown(fd, PR_SHUTDOWN_BOTH)
        except NSPRError as error:
            if error.name not in ("PR_CONNECT_REFUSED_ERROR", "PR_CONNECT_RESET_ERROR"):
                print_error(PROGRAM, "TCP Connection failed", error)
                return 1
            last = error
        else:
            return 0
        finally:
            PR_Close(fd)
        threading.Event().wait(PAUSE)
    if last is not None:
        print_error(PROGRAM, "Client timed out while waiting for connection to server", last)
    return 1
