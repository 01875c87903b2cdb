"""`nss-pk11 cert`: certificates of keys that are inside tokens, or in files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import CertificateError, NotFound
from .options import Command, json_option, module_option, open_manager, pin_option, token_option, yes_option
from .output import Text, confirm, emit_json, note

if TYPE_CHECKING:
    from ..pins import PinProvider
    from ..slots import PrivateKey, Token

USAGES = ("server", "client", "both")


@click.group(short_help="Make, request, import, list and delete certificates.")
def cert() -> None:
    """Make, request, import, list and delete certificates."""


def _subject_options(command: Command) -> Command:
    """What a certificate says about its subject; shared by `self-signed` and `request`."""
    for option in (
        click.option("--for", "usage", type=click.Choice(USAGES), default="both", show_default=True, help="TLS role."),
        click.option("--subject", metavar="NAME", help="Subject as RFC 4514 text, CN=www,O=Example. [default: the first --name]"),
        click.option("--name", "names", multiple=True, metavar="NAME", help="Host name, IP or mail address; may be repeated."),
    ):
        command = option(command)
    return command


def _out_option(command: Command) -> Command:
    return click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write PEM to FILE. [default: stdout]")(
        command
    )


@cert.command("self-signed", short_help="Make a certificate that its own key signs.")
@click.argument("source", metavar="KEY-URI|KEY-FILE")
@_subject_options
@click.option("--days", type=click.IntRange(1, 36500), default=90, show_default=True, help="How long it is good.")
@_out_option
@click.option("--import", "store", is_flag=True, help="Store it on the token, beside the key.")
@module_option
@pin_option
@yes_option
def self_signed(
    source: str,
    names: tuple[str, ...],
    subject: str | None,
    usage: str,
    days: int,
    out: Path | None,
    store: bool,
    modules: tuple[str, ...],
    pin: PinProvider | None,
    yes: bool,
) -> None:
    """Make a certificate that its own key signs, for tests and for peers that pin it; PEM on stdout or in --out.

    \b
    Examples:
      nss-pk11 cert self-signed "pkcs11:token=web;object=www" --name localhost --name 127.0.0.1 --import --pin env:PIN
      nss-pk11 cert self-signed key.pem --name localhost --out cert.pem
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from ..slots import is_uri
    from . import issue
    from .select import find_key, token_of

    _require_subject(names, subject)
    if store and not is_uri(source):
        raise click.UsageError("--import needs a key on a token")
    with open_manager(modules, source, pin=pin) as manager:
        key = find_key(manager, source, pin)
        made = issue.self_signed(key, names, now=datetime.now(UTC), days=days, subject=subject, usage=issue.Usage[usage])
        if store:
            _store(token_of(manager, key), (made.public_bytes(Encoding.DER),), key, None, yes=yes)
    _write(made.public_bytes(Encoding.PEM), out)


@cert.command(short_help="Make a certificate request (CSR) for a CA to sign.")
@click.argument("source", metavar="KEY-URI|KEY-FILE")
@_subject_options
@_out_option
@module_option
@pin_option
def request(
    source: str,
    names: tuple[str, ...],
    subject: str | None,
    usage: str,
    out: Path | None,
    modules: tuple[str, ...],
    pin: PinProvider | None,
) -> None:
    """Make a certificate request (PKCS #10) for a CA to sign.

    \b
    Example:
      nss-pk11 cert request "pkcs11:token=web;object=www" --name www.example.com --out www.csr --pin env:PIN
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from . import issue
    from .select import find_key

    _require_subject(names, subject)
    with open_manager(modules, source, pin=pin) as manager:
        key = find_key(manager, source, pin)
        made = issue.request(key, names, subject=subject, usage=issue.Usage[usage])
    _write(made.public_bytes(Encoding.PEM), out)


@cert.command("import", short_help="Store a certificate and its chain on a token.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", "key_uri", metavar="KEY-URI", help="The key it belongs to: stored beside it, with its id and label.")
@token_option()
@click.option("--label", help="The label of the first certificate. [default: the key's, else the subject's common name]")
@module_option
@pin_option
@yes_option
def import_(
    file: Path,
    key_uri: str | None,
    token: str | None,
    label: str | None,
    modules: tuple[str, ...],
    pin: PinProvider | None,
    yes: bool,
) -> None:
    """Store the certificates of FILE (PEM or DER; a leaf with its chain) on a token.

    An older certificate of the same key is replaced, after a confirmation.

    \b
    Examples:
      nss-pk11 cert import www.pem --key "pkcs11:token=web;object=www" --pin env:PIN
      nss-pk11 cert import intermediate.pem --token web --pin env:PIN
    """
    from .. import certs
    from .select import find_key, find_token, pin_for, token_of

    if (key_uri is None) == (token is None):
        raise click.UsageError("give one of --key and --token")
    chain = certs.load_pem_chain(file)
    with open_manager(modules, key_uri or token, pin=pin) as manager:
        key: PrivateKey | None
        if key_uri is not None:
            key = find_key(manager, key_uri, pin)
            if not certs.matches_key(chain[0], key.public_key):
                raise CertificateError(f"{file} is not a certificate of key {key.label!r}", name="SEC_ERROR_NO_KEY")
            chosen = token_of(manager, key)
        else:
            chosen = find_token(manager, str(token))
            chosen.login(pin_for(token, pin))
            key = _key_of(chosen, chain[0])
        _store(chosen, chain, key, label, yes=yes)


def _key_of(token: Token, der: bytes) -> PrivateKey | None:
    """The key on `token` that a certificate belongs to, if there is one."""
    from .. import certs

    for key in token.keys():  # noqa: SIM118 - a token is no dict
        try:
            if certs.matches_key(der, key.public_key):
                return key
        except NotFound:  # a key that shows no public half
            continue
    return None


def _store(token: Token, chain: tuple[bytes, ...], key: PrivateKey | None, label: str | None, *, yes: bool) -> None:
    """The leaf beside its key (the same CKA_ID links them) in place of older ones, the rest by their subjects' names."""
    present = token.certificates()
    stored = {certificate.der for certificate in present}
    older = [one for one in present if key is not None and key.id and one.id == key.id and one.der != chain[0]]
    if key is not None and older:
        what = "the certificate" if len(older) == 1 else f"{len(older)} certificates"
        confirm(f"Replace {what} of key {key.label!r} on token {token.info.label!r}?", yes=yes)
    for i, der in enumerate(chain):
        owner = key if i == 0 else None
        name = (label if i == 0 else None) or (owner.label if owner else "") or _common_name(der)
        if der in stored:
            note(f"{_common_name(der)!r} is already on token {token.info.label!r}")
            continue
        token.import_certificate(der, name, owner.id if owner else b"")
        note(f"stored {_common_name(der)!r} on token {token.info.label!r} as {name!r}")
    for certificate in older:
        token.delete(certificate)


@cert.command("list", short_help="List the certificates of tokens.")
@module_option
@token_option()
@pin_option
@json_option
def list_certificates(modules: tuple[str, ...], token: str | None, pin: PinProvider | None, as_json: bool) -> None:
    """List the certificates of one token, or of all.

    \b
    Example:
      nss-pk11 cert list --token web
    """
    from .records import certificate_record, show_certificate
    from .select import log_in_all, named_tokens, pin_for

    with open_manager(modules, token, pin=pin) as manager:
        tokens = named_tokens(manager, token)
        log_in_all(tokens, pin_for(token, pin))
        records = [record for one in tokens for record in map(certificate_record, one.certificates())]
    if as_json:
        emit_json(records)
        return
    text = Text()
    for record in records:
        show_certificate(text, record)


@cert.command(short_help="Delete a certificate from its token.")
@click.argument("uri", metavar="CERT-URI")
@module_option
@pin_option
@yes_option
def delete(uri: str, modules: tuple[str, ...], pin: PinProvider | None, yes: bool) -> None:
    """Delete a certificate from its token.  Its key stays.

    \b
    Example:
      nss-pk11 cert delete "pkcs11:token=web;object=www;type=cert" --pin env:PIN
    """
    from ..slots import is_uri
    from .select import find_certificate, pin_for, require_type, token_of

    if not is_uri(uri):
        raise click.UsageError("a certificate to delete is named by its pkcs11: URI")
    require_type(uri, "cert")
    with open_manager(modules, uri, pin=pin) as manager:
        found = find_certificate(manager, uri, pin)
        holder = token_of(manager, found)
        confirm(f"Delete certificate {found.label!r} from token {found.token.label!r}?", yes=yes)
        holder.login(pin_for(uri, pin))
        holder.delete(found)
    note(f"deleted certificate {found.label!r} from token {found.token.label!r}")


# --- files and names -------------------------------------------------------------------------------------------------


def _require_subject(names: tuple[str, ...], subject: str | None) -> None:
    if not names and not subject:
        raise click.UsageError("a certificate needs a --name (or a --subject)")


def _common_name(der: bytes) -> str:
    """What to call a certificate: its subject's common name, or the whole subject."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_der_x509_certificate(der).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else subject.rfc4514_string()


def _write(pem: bytes, out: Path | None) -> None:
    if out is None:
        click.echo(pem, nl=False)
    else:
        out.write_bytes(pem)
        note(f"wrote {out}")
