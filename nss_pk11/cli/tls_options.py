"""Options that `serve` and `connect` share: versions, suites, groups, ALPN, and addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

from ..errors import ConfigurationError
from ..tls.codepoints import Group, SignatureScheme, Version
from ..tls.suites import BY_NAME, DEFAULT_SUITES, Suite
from .output import note

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")

VERSIONS = {"tls1.2": Version.tls1_2, "tls1.3": Version.tls1_3}

_GROUP_NAMES = {group.name.lower(): group for group in Group} | {
    "p-256": Group.secp256r1,
    "p-384": Group.secp384r1,
    "p-521": Group.secp521r1,
    "prime256v1": Group.secp256r1,
}
_SCHEME_NAMES = {scheme.name.lower(): scheme for scheme in SignatureScheme}
_SUITE_NAMES = {name.lower(): suite for name, suite in BY_NAME.items()}


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
    suites = _named(_SUITE_NAMES, value, f"The modern ones are {known}", ctx, param)
    old = [suite.openssl for suite in suites if not suite.modern]
    if old:
        note(f"not modern, use only where a peer needs them: {', '.join(old)}", style="yellow")
    return suites


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
    """--min, --max, --suites, --groups, --schemes, --alpn; see `negotiation`."""
    versions = click.Choice(list(VERSIONS))
    options = (
        click.option("--min", "oldest", type=versions, default="tls1.2", show_default=True, help="Oldest version."),
        click.option("--max", "newest", type=versions, default="tls1.3", show_default=True, help="Newest version."),
        click.option("--suites", callback=_suites, metavar="NAMES", help="Cipher suites by IANA's or OpenSSL's names, in order."),
        click.option("--groups", callback=_groups, metavar="NAMES", help="Key exchange groups in order: X25519MLKEM768,x25519,…"),
        click.option("--schemes", callback=_schemes, metavar="NAMES", help="Signature schemes: ed25519,rsa_pss_rsae_sha256,…"),
        click.option("--alpn", callback=_alpn, metavar="NAMES", help="Application protocols, in order: h2,http/1.1,…"),
    )
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
) -> dict[str, Any]:
    """The options as fields of a `tls.config.Config`.  Versions for which no suite was named are out.

    Raises ConfigurationError where none is left.
    """
    first, last = VERSIONS[oldest], VERSIONS[newest]
    if suites is not None:
        last = min(last, max(suite.max_version for suite in suites))
        first = max(first, min(suite.min_version for suite in suites))
    if first > last:
        raise ConfigurationError(
            f"no version is left: the oldest is {first.label}, the newest {last.label}", name="SSL_ERROR_INVALID_VERSION_RANGE"
        )
    from ..tls.messages.certificate import available_compressions

    fields: dict[str, Any] = {"min_version": first, "max_version": last, "certificate_compression": available_compressions()}
    given = {"suites": suites, "groups": groups, "schemes": schemes, "alpn": alpn}
    return fields | {name: value for name, value in given.items() if value is not None}


def key_log(path: str) -> Callable[[str], None]:
    """Appends NSS key log lines to a file that only its owner reads (SSLKEYLOGFILE)."""
    import os

    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    note(f"whoever reads {path} can read these connections", style="yellow")
    return lambda line: void(os.write(fd, line.encode("ascii") + b"\n"))


def void(_: object) -> None:
    """For a callback whose result nobody wants."""
