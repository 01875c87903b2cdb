"""`selfserv`: an HTTP server for tests, with the flags, lines and exit statuses of NSS's program of that name.

This is its beginning and end: flags, databases, certificates, statistics.  `serving` has the sockets, `answering` what clients
get, `children` the server of several processes.  `nss_pk11.nss` by its public names only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...nss.nss import NSS_INIT_READONLY, SECMOD_DB, NSS_Initialize, NSS_Shutdown
from ...nss.pk11pub import PK11_FindCertFromNickname, PK11_FindKeyByAnyCert, PK11_SetPasswordFunc
from ...nss.prerror import NSPRError
from ...nss.prinit import PR_PRIORITY_NORMAL, PR_SYSTEM_THREAD, PR_Cleanup, PR_Init
from ...nss.prio import PR_Close, PR_SetFDInheritable, PRFileDesc
from ...nss.ssl import (
    NSS_SetDomesticPolicy,
    SSL_ConfigServerSessionIDCache,
    SSL_GetStatistics,
    SSL_ShutdownServerSessionIDCache,
    SSL_VersionRangeGetSupported,
    SSLNamedGroup,
    SSLProtocolVariant,
    SSLSignatureScheme,
    SSLVersionRange,
)
from . import children, words
from .hosts import listen, only_suites, usual_suites
from .passwords import Passwords, module_password
from .report import Fatal, complain, print_error, say, step
from .serving import Certificate, Server
from .stapling import MODES, SIGNED, Stapler

PROGRAM = "selfserv"
LETTERS = "2:A:C:DEGH:I:J:L:M:NP:QRS:T:U:V:W:X:YZa:bc:d:e:f:g:hi:jk:lmn:op:rst:uvw:x:yz:"
FEWEST_THREADS, MOST_THREADS, MOST_PROCESSES, MOST_NAMES = 3, 4096, 25, 10

USAGE = f"""\
Usage: {PROGRAM} -n rsa_nickname -p port [-BDENRZbjlmrsuvx] [-w password]
         [-t threads] [-i pid_file] [-c ciphers] [-Y] [-d dbdir] [-g numblocks]
         [-f password_file] [-L [seconds]] [-M maxProcs] [-P dbprefix]
         [-V [min-version]:[max-version]] [-a sni_name]
         [ T <good|revoked|unknown|badsig|corrupted|none|ocsp>] [-A ca]
         [-C SSLCacheEntries] [-S dsa_nickname] [-Q]
         [-I groups] [-J signatureschemes] [-e ec_nickname]
         -U [0|1] -H [0|1|2] -W [0|1]
"""

PARAMETERS = """\
-n, -S, -e nickname of the certificate to serve (RSA, DSA, EC)    -p port to listen on, at every address of this host
-d directory of the database    -P prefix of its files    -w, -f its password, or a file that has it
-V [min]:[max] of ssl2 ssl3 tls1.0 tls1.1 tls1.2 tls1.3    -c suites: letters (-Y lists them) or :XXXX
-r once: ask for a client's certificate in the first handshake; twice: require it
   three times, four times: the same in a second handshake    -E by TLS 1.3's post-handshake authentication
-o accept client certificates that are invalid
-M processes that share the session cache    -t threads of each    -C entries of the cache    -N no cache
-u session tickets    -Z 0-RTT is not accepted here; clients send it again
-a another name to answer by SNI, the nickname of its certificate too    -k the name that clients have to ask for
-T none, good, revoked, unknown, failure, badsig, corrupted, random: what to staple    -A nickname of the CA that signs it
-I groups: P256 P384 P521 x25519 FF2048 FF3072 FF4096 FF6144 FF8192    -J signature schemes    -Q ALPN http/1.1
-H 0: no DHE, 1: DHE, 2: by the groups of RFC 7919 alone    -G extended master secret    -R no rollback detection
-x LABEL[:LENGTH[:CONTEXT]],... print keying material    -g send so many blocks of 16 KiB after the answer
-b try to bind to the port and exit    -i file for the process id    -D no delays in TCP    -m use a model socket
-L seconds between statistics    -v tell what is done    -l, -s, -y, -U: mean nothing here
A client ends the server by "GET /stop HTTP/1.0".  Any file that this process may read is served to whoever asks.
"""

CIPHERS = words.letters_page("   ", tls_names=True)
RUN_FOR_USAGE = f"Run '{PROGRAM} -h' for usage information."


class Quit(words.BadFlags):
    """The program ends with a line and a status of its own."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text, status, usage=False)


def _hint(text: str, status: int) -> Quit:
    return Quit(f"{text}\n{RUN_FOR_USAGE}", status)


@dataclass
class Settings:
    """What the flags say."""

    nicknames: list[str] = field(default_factory=list)
    virtual_names: list[str] = field(default_factory=list)  # of -a
    default_name: str = ""  # of -n
    port: int = 0
    directory: str = "."
    prefix: str = ""
    versions: SSLVersionRange = field(default_factory=lambda: SSL_VersionRangeGetSupported(SSLProtocolVariant.ssl_variant_stream))
    suites: str | None = None
    groups: list[SSLNamedGroup] | None = None
    schemes: list[SSLSignatureScheme] | None = None
    exporters: list[words.Exporter] = field(default_factory=list)
    requests: int = 0  # how often -r was given
    post_handshake: bool = False
    overlook: bool = False
    processes: int = 1
    threads: int = 8
    cache_entries: int = 0
    no_cache: bool = False
    tickets: bool = False
    zero_rtt: bool = False
    expected_name: str | None = None
    stapling: str = "none"
    stapling_ca: str = ""
    alpn: bool = False
    dhe: int | None = None
    reuse_ecdhe: int | None = None
    extended_master_secret: bool = False
    no_rollback_detection: bool = False
    blocks: int | None = None  # of -g
    full_duplex: str | None = None
    bind_only: bool = False
    pid_file: str | None = None
    no_delay: bool = False
    model_socket: bool = False
    log_seconds: int | None = None
    verbose: int = 0
    passwords: Passwords = field(default_factory=Passwords)


_FIELDS = words.Fields(
    switches={
        "D": "no_delay", "E": "post_handshake", "G": "extended_master_secret", "N": "no_cache", "Q": "alpn",
        "R": "no_rollback_detection", "Z": "zero_rtt", "b": "bind_only", "m": "model_socket", "o": "overlook", "u": "tickets",
    },
    texts={
        "2": "full_duplex", "A": "stapling_ca", "P": "prefix", "c": "suites", "d": "directory", "i": "pid_file",
        "k": "expected_name",
    },
    numbers={"C": "cache_entries", "U": "reuse_ecdhe", "g": "blocks"},
    counts={"r": "requests", "v": "verbose"},
)  # fmt: skip
_IGNORED = frozenset("lsy")
_REFUSED = {
    "X": "encrypted ClientHello is not done here",
    "j": "bytes below TLS are not counted here",
    "z": "external pre-shared keys are not done here",
}


def _bounded(least: int, most: int) -> Callable[[str], int]:
    return lambda text: min(most, max(least, words.number(text)))


# Flags whose value becomes a field's.
_VALUES: dict[str, tuple[str, Callable[[str], object]]] = {
    "H": ("dhe", words.number),
    "I": ("groups", words.groups),
    "J": ("schemes", words.schemes),
    "L": ("log_seconds", lambda text: seconds if (seconds := words.number(text)) > 0 else 30),
    "M": ("processes", _bounded(1, MOST_PROCESSES)),
    "p": ("port", words.port),
    "t": ("threads", _bounded(FEWEST_THREADS, MOST_THREADS)),
    "x": ("exporters", words.exporters),
}


def parse(arguments: list[str]) -> Settings:
    """Raises BadFlags."""
    try:
        found = list(words.flags(arguments, LETTERS))
    except words.BadFlags:
        raise _hint("Unrecognized or bad option specified.", 5) from None
    if not found:
        raise words.BadFlags("", 51)
    settings = Settings()
    for flag, value in found:
        _take(settings, flag, value)
    if settings.stapling in SIGNED and not settings.stapling_ca:
        raise _hint("Selected stapling response requires the -A parameter.", 52)
    return settings


def _take(settings: Settings, flag: str, value: str) -> None:
    """One flag."""
    if _FIELDS.take(settings, flag, value):
        return
    if flag in _VALUES:
        name, read = _VALUES[flag]
        try:
            setattr(settings, name, read(value))
        except words.BadFlags as error:
            raise _hint(str(error), 5) from None
    elif flag in _TAKES:
        _TAKES[flag](settings, value)
    elif flag in _REFUSED:
        raise Quit(f"{PROGRAM}: -{flag}: {_REFUSED[flag]}", 3)
    elif flag not in _IGNORED:
        raise _hint("Unrecognized or bad option specified: ", 4)


def _nickname(settings: Settings, value: str) -> None:
    if len(settings.nicknames) == MOST_NAMES:
        say(f"{USAGE}\n{PARAMETERS}")  # and goes on, as NSS's
    else:
        settings.nicknames.append(value)


def _default_nickname(settings: Settings, value: str) -> None:
    _nickname(settings, value)
    settings.default_name = value


def _virtual_name(settings: Settings, value: str) -> None:
    if len(settings.virtual_names) == MOST_NAMES - 1:
        say(f"{USAGE}\n{PARAMETERS}")
    else:
        settings.virtual_names.append(value)


def _stapling(settings: Settings, value: str) -> None:
    if value not in MODES:
        raise _hint("Invalid OCSP stapling mode.", 53)
    if value == "ocsp":
        raise Quit(f'{PROGRAM}: stapling mode "ocsp" not implemented', 3)
    settings.stapling = value


def _versions(settings: Settings, value: str) -> None:
    settings.versions = words.version_range(value, settings.versions)


def _weak_dhe(settings: Settings, value: str) -> None:
    if words.number(value):
        raise Quit(f"{PROGRAM}: -W: weak parameters for DHE are not made here", 3)


def _password(settings: Settings, value: str) -> None:
    settings.passwords = Passwords(plain=value)


def _password_file(settings: Settings, value: str) -> None:
    settings.passwords = Passwords(file=value)


def _help(settings: Settings, value: str) -> None:
    raise Quit(f"{USAGE}\n{PARAMETERS}", 0)


def _ciphers(settings: Settings, value: str) -> None:
    raise Quit(f"{USAGE}\n{CIPHERS}", 0)


_TAKES: dict[str, Callable[[Settings, str], None]] = {
    "S": _nickname, "T": _stapling, "V": _versions, "W": _weak_dhe, "Y": _ciphers, "a": _virtual_name, "e": _nickname,
    "f": _password_file, "h": _help, "n": _default_nickname, "w": _password,
}  # fmt: skip


# --- running -----------------------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """The program; its exit status."""
    PR_Init(PR_SYSTEM_THREAD, PR_PRIORITY_NORMAL, 1)
    try:
        settings = parse(arguments)
        if settings.bind_only:
            PR_Close(_listen(settings))
            return 0
        _check(settings)
        return _run(settings, arguments)
    except words.BadFlags as error:
        say("\n".join(filter(None, (str(error), f"{USAGE}\n{PARAMETERS}" if error.usage else ""))))
        return error.status
    except Fatal as failure:
        complain(PROGRAM, failure.what, failure.error)
        return 3


def _check(settings: Settings) -> None:
    if not settings.nicknames:
        what = "Must specify at least one certificate nickname using '-n' (RSA), '-S' (DSA), or 'e' (EC)."
        raise _hint(what, 6)
    if not settings.port:
        raise Quit("Required argument 'port' must be non-zero value", 7)
    if settings.no_cache and settings.processes > 1:
        raise Quit("-M and -N options are mutually exclusive.", 14)


def _run(settings: Settings, arguments: list[str]) -> int:
    child = children.is_child()
    if settings.pid_file and not child:
        with suppress(OSError):
            Path(settings.pid_file).write_text(str(os.getpid()))
    if settings.processes > 1 and not child:
        return children.parent(arguments, settings.processes, settings.cache_entries, lambda: _listen(settings))
    _open_databases(settings)
    if settings.suites is not None:
        _choose_suites(settings.suites)
    else:
        usual_suites()
    server = Server(settings, _certificates(settings))
    if child:
        listener = children.take_over()
    else:
        listener = _listen(settings)
        PR_SetFDInheritable(listener, False)
        if not settings.no_cache:
            with step("SSL_ConfigServerSessionIDCache"):
                SSL_ConfigServerSessionIDCache(settings.cache_entries, 0, 0, None)
    server.run(listener)
    status = _verdict(server)
    SSL_ShutdownServerSessionIDCache()
    return status or _shut_down()


def _listen(settings: Settings) -> PRFileDesc:
    return listen(settings.port, settings.threads)


def _open_databases(settings: Settings) -> None:
    PK11_SetPasswordFunc(module_password)
    try:
        NSS_Initialize(settings.directory, settings.prefix, settings.prefix, SECMOD_DB, NSS_INIT_READONLY)
    except NSPRError:
        raise Quit("NSS_Init failed.", 8) from None
    NSS_SetDomesticPolicy()


_BAD_SUITES = {
    "letter": "Non-alphabetic char in cipher string (-c arg).",
    "short": "Invalid length of cipher string (-c :WXYZ).",
    "digit": "Non-hex char in cipher string (-c :WXYZ).",
    "zero": "Invalid cipher specification (-c arg).",
}


def _choose_suites(text: str) -> None:
    try:
        only_suites(words.suites(text))
    except words.BadSuite as error:
        raise Quit(_BAD_SUITES[error.kind], 9) from None
    except NSPRError as error:
        print_error(PROGRAM, "SSL_CipherPrefSetDefault()", error)
        raise Quit("", 9) from None


def _certificates(settings: Settings) -> list[Certificate]:
    """Those to serve, with their keys and what is stapled to them."""
    stapler = Stapler(settings.stapling, settings.stapling_ca, settings.passwords)
    found = []
    for nickname in settings.nicknames:
        try:
            cert = PK11_FindCertFromNickname(nickname, settings.passwords)
        except NSPRError:
            raise Quit(f"{PROGRAM}: Can't find certificate {nickname}", 10) from None
        try:
            key = PK11_FindKeyByAnyCert(cert, settings.passwords)
        except NSPRError:
            raise Quit(f"{PROGRAM}: Can't find Private Key for cert {nickname}", 11) from None
        found.append(Certificate(cert, key, stapler.responses(cert) if key.keyType != "ec" else []))
    return found


def _verdict(server: Server) -> int:
    """Statistics, and the exit status."""
    print_statistics()
    if SSL_GetStatistics().hch_sid_ticket_parse_failures:
        say(f"{PROGRAM}: Experienced ticket parse failure(s)")
        return 1
    if server.wrong_name:
        say(f"{PROGRAM}: Failed properly negotiate server name")
        return 1
    return 0


def print_statistics() -> None:
    """Hits and misses of the session cache, on standard output."""
    found = SSL_GetStatistics()
    print(
        f"{PROGRAM}: {found.hch_sid_cache_hits} cache hits; {found.hch_sid_cache_misses} cache misses,"
        f" {found.hch_sid_cache_not_ok} cache not reusable\n"
        f"          {found.hch_sid_stateless_resumes} stateless resumes,"
        f" {found.hch_sid_ticket_parse_failures} ticket parse failures"
    )


def _shut_down() -> int:
    try:
        NSS_Shutdown()
    except NSPRError as error:
        print_error(PROGRAM, "NSS_Shutdown", error)
        return 1
    finally:
        PR_Cleanup()
    print(f"{PROGRAM}: normal termination")
    sys.stdout.flush()
    return 0
