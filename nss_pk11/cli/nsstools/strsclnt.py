"""`strsclnt`: many connections to one server, most of which resume a session; exit status 0 when as many did as should have.

This is its beginning and end: flags, address, databases.  `stressing` has the connections, `identity` the client's certificate.
`nss_pk11.nss` by its public names only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from ...nss.nss import NSS_INIT_READONLY, NSS_Initialize, NSS_Shutdown
from ...nss.pk11pub import PK11_SetPasswordFunc
from ...nss.prerror import NSPRError
from ...nss.prinit import PR_PRIORITY_NORMAL, PR_SYSTEM_THREAD, PR_Cleanup, PR_Init
from ...nss.ssl import (
    SSL_ENABLE_OCSP_STAPLING,
    SSL_ENABLE_SESSION_TICKETS,
    SSL_NO_CACHE,
    NSS_SetDomesticPolicy,
    SSL_CipherPrefSetDefault,
    SSL_ClearSessionCache,
    SSL_VersionRangeGetSupported,
    SSLProtocolVariant,
    SSLSignatureScheme,
    SSLVersionRange,
)
from . import report, words
from .hosts import known, look_up, no_suites, usual_suites
from .passwords import Passwords, module_password
from .report import Fatal, print_error, say, warn
from .stressing import Client

PROGRAM = "strsclnt"
LETTERS = "46C:DJ:NP:TUV:W:a:c:d:f:gin:op:qst:uvw:z"
MOST_THREADS = 128

USAGE = f"""\
Usage: {PROGRAM} [-n nickname] [-p port] [-d dbdir] [-c connections]
          [-46DNTgoqsuv] [-f filename] [-N | -P percentage]
          [-w dbpasswd] [-C cipher(s)] [-t threads] [-W pwfile]
          [-V [min-version]:[max-version]] [-a sniHostName]
          [-J signatureschemes] hostname
 -o once: whatever is wrong with the server's certificate is overlooked; twice: it is not looked at
 -D no delays in TCP        -q give up when the server has gone      -N no session reuse
 -P percentage of full handshakes (0-100)                            -T OCSP stapling
 -u session tickets         -i go on after failures                  -v verbose
 -a name to ask for by SNI, in place of the host's                   -n client's certificate, or none
 -J signature schemes       -g, -z, -s, -U: not done here, or mean nothing
 -f send a file while reading (full duplex)
 -C letters or :XXXX, as selfserv's -c"""


@dataclass
class Settings:
    """What the flags say.  `options`: what is switched on, and how NSS's program calls that."""

    host: str = ""
    port: int = 443
    directory: str = "."
    connections: int = 1
    threads: int = 8
    versions: SSLVersionRange = field(default_factory=lambda: SSL_VersionRangeGetSupported(SSLProtocolVariant.ssl_variant_stream))
    suites: str | None = None
    schemes: list[SSLSignatureScheme] | None = None
    nickname: str | None = None
    sni: str | None = None
    file: str | None = None
    full_percentage: int | None = None
    options: dict[int, str] = field(default_factory=dict)
    no_delay: bool = False
    quit_when_gone: bool = False
    go_on: bool = False
    overlook: int = 0
    verbose: int = 0
    families: set[str] = field(default_factory=lambda: {"4", "6"})
    passwords: Passwords = field(default_factory=Passwords)

    @property
    def no_reuse(self) -> bool:
        return SSL_NO_CACHE in self.options


_OPTIONS = {
    "N": (SSL_NO_CACHE, "SSL_OptionSet SSL_NO_CACHE"),
    "T": (SSL_ENABLE_OCSP_STAPLING, "SSL_OptionSet SSL_ENABLE_OCSP_STAPLING"),
    "u": (SSL_ENABLE_SESSION_TICKETS, "SSL_OptionSet SSL_ENABLE_SESSION_TICKETS"),
}
_FIELDS = words.Fields(
    switches={"D": "no_delay", "i": "go_on", "q": "quit_when_gone"},
    texts={"C": "suites", "a": "sni", "d": "directory", "f": "file", "n": "nickname", "": "host"},
    numbers={"P": "full_percentage", "c": "connections", "t": "threads"},
    counts={"o": "overlook", "v": "verbose"},
)  # fmt: skip
_NOTED = {
    "g": "false start is not done here; requests wait for the handshake",
    "z": "compression is not done here",
}


def parse(arguments: list[str]) -> Settings:
    """Raises BadFlags."""
    settings = Settings()
    for flag, value in words.flags(arguments, LETTERS):
        if flag == "" and settings.host:
            raise words.BadFlags("")
        _take(settings, flag, value)
    share = settings.full_percentage
    if not settings.host or not settings.port or (share is not None and (not 0 <= share <= 100 or settings.no_reuse)):
        raise words.BadFlags("")
    if not 0 < settings.threads < MOST_THREADS:
        settings.threads = Settings.threads
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
    elif flag in _NOTED:
        say(f"{PROGRAM}: -{flag}: {_NOTED[flag]}")


ONE_FAMILY = "Only one of [-4, -6] can be specified."
# Flags whose value becomes a field's.
_VALUES: dict[str, tuple[str, Callable[[Settings, str], object]]] = {
    "4": ("families", lambda settings, _: words.only_family(settings.families, "4", ONE_FAMILY)),
    "6": ("families", lambda settings, _: words.only_family(settings.families, "6", ONE_FAMILY)),
    "J": ("schemes", lambda _, text: words.schemes(text)),
    "V": ("versions", lambda settings, text: words.version_range(text, settings.versions)),
    "W": ("passwords", lambda _, text: Passwords(file=text)),
    "p": ("port", lambda _, text: words.port(text)),
    "w": ("passwords", lambda _, text: Passwords(plain=text)),
}


def main(arguments: list[str]) -> int:
    """The program; its exit status."""
    try:
        settings = parse(arguments)
    except words.BadFlags as error:
        say("\n".join(filter(None, (str(error), USAGE if error.usage else ""))))
        return error.status
    PR_Init(PR_SYSTEM_THREAD, PR_PRIORITY_NORMAL, 1)
    PK11_SetPasswordFunc(module_password)
    try:
        NSS_Initialize(settings.directory, "", "", "secmod.db", NSS_INIT_READONLY)
    except NSPRError:
        say("NSS_Init failed.")
        return 1
    status = _run(settings)
    SSL_ClearSessionCache()
    try:
        NSS_Shutdown()
    except NSPRError:
        print(f"{PROGRAM}: NSS_Shutdown() failed.")
        return 1
    PR_Cleanup()
    return status


def _run(settings: Settings) -> int:
    """The exit status."""
    NSS_SetDomesticPolicy()
    try:
        client = Client(settings)
    except words.BadFlags as error:
        say(str(error))
        return 1
    try:
        _connect_all(client)
    except Fatal as failure:
        warn(PROGRAM, failure.what, failure.error)
        return 1
    finally:
        client.forget()
    print(report.cache_statistics(PROGRAM))
    status = client.verdict()
    sys.stdout.flush()
    return status


def _connect_all(client: Client) -> None:
    """Or else say why not, for which the statistics are told nevertheless.  Raises Fatal."""
    settings = client.settings
    client.failed = True
    try:
        address = look_up(settings.host, settings.port, settings.families)
        if settings.suites is None:
            usual_suites()
        else:
            _choose_suites(settings.suites)
    except words.BadFlags as error:
        say(str(error))
    except NSPRError as error:
        print_error(PROGRAM, "error looking up host", error)
    else:
        client.failed = False
        client.run(address)


def _choose_suites(text: str) -> None:
    """Raises BadFlags."""
    try:
        suites = words.suites(text)
    except words.BadSuite as error:
        what = f"letter: {error.what}" if error.kind == "letter" else f"value: {error.what:<5}"
        raise words.BadFlags(f"{PROGRAM}: Invalid cipher {what}") from None
    no_suites()
    for suite in suites:
        try:
            known([suite])
            SSL_CipherPrefSetDefault(suite, True)
        except NSPRError:
            raise words.BadFlags(f"{PROGRAM}: SSL_CipherPrefSetDefault(0x{suite:04x}) failed") from None
