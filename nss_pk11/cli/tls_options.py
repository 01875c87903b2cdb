"""Options that `serve` and `connect` share: versions, suites, groups, ALPN, renegotiation, and addresses.

What is there for old peers alone is never enabled but by name, and then said on stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

from ..errors import ConfigurationError
from ..tls.codepoints import Group, SignatureScheme, Version
from ..tls.suites import BY_NAME, DEFAULT_SUITES, FORTEZZA_SUITES, LEGACY_SUITES, SSL2_SUITES, SUITES, Suite
from .output import note

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")

VERSIONS = dict(zip(("ssl2", "ssl3", "tls1.0", "tls1.1", "tls1.2", "tls1.3"), Version, strict=True))
MAX_NAMED = 4  # suites that a warning lists
RENEGOTIATIONS = ("never", "secure", "legacy")

_GROUP_NAMES = {group.name.lower(): group for group in Group} | {
    "p-256": Group.secp256r1,
    "p-384": Group.secp384r1,
    "p-521": Group.secp521r1,
    "prime256v1": Group.secp256r1,
}
_SCHEME_NAMES = {scheme.name.lower(): scheme for scheme in SignatureScheme}
_SUITE_NAMES = {name.lower(): (suite,) for name, suite in BY_NAME.items()} | {
    "legacy": tuple(dict.fromkeys(SUITES + LEGACY_SUITES)),
    "ssl2": SSL2_SUITES,
    "fortezza": FORTEZZA_SUITES,
}
_BROKEN_SUITES = LEGACY_SUITES + SSL2_SUITES + FORTEZZA_SUITES
# What peers before TLS 1.2 know that is not LEGACY: AES with SHA-1.
_OLD_SUITES = tuple(suite for suite in SUITES if suite.min_version < Version.tls1_2)


class Address(NamedTuple):
    """`host`: a name or an address without brackets, "" for every address of this machine."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, default_port: int | None = None) -> Address:
    """HOST:PORT, [ADDRESS]:PORT, *:PORT; with a default port also HOST.  Raises click.BadParameter."""
    host, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")) or (":" in host and not host.startswith("[")):
        host, port = text, ""
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else "" if host == "*" else host
    if not port and default_port is not None and host:
        return Address(host, default_port)
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise click.BadParameter(f"{text!r} is not HOST:PORT, with brackets round an IPv6 address: [::1]:8443")
    return Address(host, int(port))


def _named(table: Mapping[str, T], value: str, help: str, ctx: click.Context, param: click.Parameter) -> tuple[T, ...]:
    """What the words of `value` name, in order, each once; `table` is keyed in lower case.

    Raises click.BadParameter with `help`."""
    words = [word for word in value.replace(":", ",").replace(" ", ",").split(",") if word]
    unknown = [word for word in words if word.lower() not in table]
    if unknown or not words:
        raise click.BadParameter(f"unknown: {', '.join(unknown) or 'nothing'}. {help}", ctx, param)
    return tuple(dict.fromkeys(table[word.lower()] for word in words))


def _suites(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[Suite, ...] | None:
    if value is None:
        return None
    known = ", ".join(suite.openssl for suite in DEFAULT_SUITES)
    found = _named(_SUITE_NAMES, value, f"The modern ones are {known}; LEGACY is all but SSL2's, FORTEZZA's", ctx, param)
    old = [named[0].openssl for named in found if len(named) == 1 and not named[0].modern and named[0] not in _BROKEN_SUITES]
    if old:
        note(f"not modern, use only where a peer needs them: {', '.join(old)}", style="yellow")
    return tuple(dict.fromkeys(suite for named in found for suite in named))


def _groups(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[Group, ...] | None:
    if value is None:
        return None
    return _named(_GROUP_NAMES, value, f"There are {', '.join(group.name for group in Group)}", ctx, param)


def _schemes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[SignatureScheme, ...] | None:
    if value is None:
        return None
    known = ", ".join(scheme.name for scheme in SignatureScheme)
    schemes = _named(_SCHEME_NAMES, value, f"There are {known}", ctx, param)
    old = [scheme.name for scheme in schemes if scheme.name.endswith("_sha1")]
    if old:
        note(f"broken hash, use only where a peer needs it: {', '.join(old)}", style="yellow")
    return schemes


def _alpn(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    protocols = tuple(word.strip() for word in value.split(",") if word.strip())
    if any(not 0 < len(protocol.encode()) < 256 for protocol in protocols):
        raise click.BadParameter("a protocol's name has 1 to 255 bytes (RFC 7301 section 3.1)", ctx, param)
    return protocols


def negotiation_options(command: Command) -> Command:
    """--min, --max, --suites, --groups, --schemes, --alpn, --renegotiation, --v2-hello; see `negotiation`."""
    versions = click.Choice(list(VERSIONS))
    options = (
        click.option("--min", "oldest", type=versions, default="tls1.2", show_default=True, help="Oldest version."),
        click.option("--max", "newest", type=versions, default="tls1.3", show_default=True, help="Newest version."),
        click.option("--suites", callback=_suites, metavar="NAMES",
                     help="Cipher suites by IANA's, OpenSSL's or NSS's names, in order; LEGACY: all, the old ones last; SSL2: "
                     "those of SSL 2.0, which LEGACY leaves out."),
        click.option("--groups", callback=_groups, metavar="NAMES", help="Key exchange groups in order: X25519MLKEM768,x25519,…"),
        click.option("--schemes", callback=_schemes, metavar="NAMES", help="Signature schemes: ed25519,rsa_pss_rsae_sha256,…"),
        click.option("--alpn", callback=_alpn, metavar="NAMES", help="Application protocols, in order: h2,http/1.1,…"),
        click.option("--renegotiation", type=click.Choice(RENEGOTIATIONS), default="never", show_default=True,
                     help="Below TLS 1.3: with nobody, with peers that know RFC 5746, with all."),
        click.option("--v2-hello", is_flag=True, help="Below TLS 1.3: hellos in the form of SSL 2.0."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def negotiation(
    oldest: str,
    newest: str,
    suites: tuple[Suite, ...] | None,
    groups: tuple[Group, ...] | None,
    schemes: tuple[SignatureScheme, ...] | None,
    alpn: tuple[str, ...] | None,
    renegotiation: str,
    v2_hello: bool = False,
) -> dict[str, Any]:
    """The options as fields of a `tls.config.Config`.  Versions for which no suite was named are out; to a version before
    TLS 1.2 belong suites that it knows.  What is broken is said.

    Raises ConfigurationError where none is left.
    """
    first, last = VERSIONS[oldest], VERSIONS[newest]
    if suites is None and first < Version.tls1_2:
        suites = tuple(dict.fromkeys(DEFAULT_SUITES + _OLD_SUITES))
    if suites is not None:
        last = min(last, max(suite.max_version for suite in suites))
        first = max(first, min(suite.min_version for suite in suites))
    if first > last:
        raise ConfigurationError(
            f"no version is left: the oldest is {first.label}, the newest {last.label}", name="SSL_ERROR_INVALID_VERSION_RANGE"
        )
    _warn_of_legacy(first, last, suites or (), renegotiation)
    from ..tls.messages.certificate import available_compressions

    fields: dict[str, Any] = {
        "min_version": first,
        "max_version": last,
        "certificate_compression": available_compressions(),
        "renegotiation": renegotiation,
        "v2_hello": v2_hello,
    }
    given = {"suites": suites, "groups": groups, "schemes": schemes, "alpn": alpn}
    return fields | {name: value for name, value in given.items() if value is not None}


def _warn_of_legacy(first: Version, last: Version, suites: tuple[Suite, ...], renegotiation: str) -> None:
    """One line about everything enabled that is known to be broken."""
    broken = [version.label for version in Version if first <= version <= last and version < Version.tls1_2]
    old = [
        suite.openssl for suite in suites if suite in _BROKEN_SUITES and suite.min_version <= last and suite.max_version >= first
    ]
    if old:
        broken.append(", ".join(old) if len(old) <= MAX_NAMED else f"{len(old)} suites for old peers")
    if renegotiation == "legacy":
        broken.append("renegotiation without RFC 5746")
    if broken:
        note(f"known to be broken, enable it only where a peer knows nothing better: {', '.join(broken)}", style="yellow")


def key_log(path: str) -> Callable[[str], None]:
    """Appends NSS key log lines to a file that only its owner reads (SSLKEYLOGFILE)."""
    import os

    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    note(f"whoever reads {path} can read these connections", style="yellow")
    return lambda line: void(os.write(fd, line.encode("ascii") + b"\n"))


def void(_: object) -> None:
    """For a callback whose result nobody wants."""
