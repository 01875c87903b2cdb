"""`nss-pk11 db`: NSS database directories, for those who have no certutil at hand, or do not want to remember its letters.

Opens a database read-write only in the commands that change it; loads none of its modules.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigurationError, NotFound, PinCancelled
from .options import database_option, json_option, pin_option, pin_provider, yes_option
from .output import Text, confirm, emit_json, note

if TYPE_CHECKING:
    from ..db import CertificateRecord, Database
    from ..pins import PinProvider
    from ..slots import DatabaseToken
    from .records import Record

_NICKNAME = click.argument("nickname", metavar="NICKNAME")


@click.group(short_help="NSS databases: certificates, trust, keys and modules in a directory.")
def db() -> None:
    """NSS databases: directories with cert9.db, key4.db and pkcs11.txt, as certutil, pk12util and modutil make them."""


@contextmanager
def _opened(location: str, pin: PinProvider | None = None, *, write: bool = False) -> Iterator[DatabaseToken]:
    """The database as a token: a login goes by the rules of all tokens.  Not made where it does not exist."""
    from .. import pins
    from ..db import Database
    from ..slots import SlotManager

    Database.open(location).close()  # a mistyped directory is an error, also for who writes
    with SlotManager(pin or pins.terminal()) as manager:
        yield manager.open_database(location, read_only=not write, load_modules=False, load_roots=False).contents


# --- create, passwd --------------------------------------------------------------------------------------------------


@db.command(short_help="Make an empty database.")
@database_option(required=True)
@pin_option
@click.option("--empty-password", is_flag=True, help="Protect the keys by the file's rights alone.")
def create(database: str, pin: PinProvider | None, empty_password: bool) -> None:
    """Make an empty database, in a directory that is made too if need be, and set its password.

    \b
    Examples:
      nss-pk11 db create -d nssdb --pin prompt
      nss-pk11 db create -d nssdb -f pwfile
    """
    from ..db import Database, Location, modules
    from ..db.location import parse

    if empty_password and pin is not None:
        raise click.UsageError("--empty-password and a password exclude each other")
    where: Location = parse(database)
    if (where.directory / "key4.db").exists() or (where.directory / "cert9.db").exists():
        raise ConfigurationError(f"{where.directory} holds a database already")
    password = "" if empty_password else _new_password(pin, where.directory)
    where.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with Database.open(where, read_only=False, create=True) as made:
        made.set_password(None, password)
    modules.create(where.directory / modules.FILE, str(where))
    note(f"made {where}")


@db.command(short_help="Change the password.")
@database_option(required=True)
@pin_option
@click.option("--new-pin", callback=pin_provider, metavar="SOURCE", help="The new password. [default: prompt]")
@click.option("--empty-password", is_flag=True, help="Take the password away.")
def passwd(database: str, pin: PinProvider | None, new_pin: PinProvider | None, empty_password: bool) -> None:
    """Change the password of a database; --pin or -f is the present one. All keys are encrypted anew, or none.

    \b
    Example:
      nss-pk11 db passwd -d nssdb -f old --new-pin @new
    """
    if empty_password and new_pin is not None:
        raise click.UsageError("--empty-password and --new-pin exclude each other")
    with _opened(database, pin, write=True) as token:
        directory = token.database.directory
        old = _old_password(token, pin)
        new = "" if empty_password else _new_password(new_pin, directory)
        if token.database.has_password:
            token.change_pin(old, new)
        else:
            token.set_first_pin("", new)
    note(f"changed the password of {directory}")


def _old_password(token: DatabaseToken, pin: PinProvider | None) -> str:
    if not token.database.needs_login:
        return ""
    return _answer(pin, token.database.directory, f"present password of {token.database.directory}")


def _new_password(source: PinProvider | None, directory: Path) -> str:
    """Asked twice of a person.  Raises PinCancelled."""
    if source is not None and not source.person:
        return _answer(source, directory, "")
    return str(click.prompt(f"new password of {directory}", hide_input=True, confirmation_prompt=True, err=True))


def _answer(source: PinProvider | None, directory: Path, prompt: str) -> str:
    from ..pins import PinRequest
    from ..slots.internal.database import SLOT_NAME, TOKEN_NAME

    if source is None or source.person:
        return str(click.prompt(prompt, hide_input=True, err=True))
    password = source(PinRequest(token=TOKEN_NAME, slot=SLOT_NAME, module=str(directory)))
    if password is None:
        raise PinCancelled("nobody gave the password")
    return password


# --- list ------------------------------------------------------------------------------------------------------------


@db.command("list", short_help="List certificates with their trust, keys and CRLs.")
@database_option(required=True)
@json_option
def list_(database: str, as_json: bool) -> None:
    """List certificates with their trust flags, keys and CRLs. Needs no password.

    Trust is written as certutil does, for SSL, e-mail and object signing: C issues servers' and T clients' certificates, c is a
    CA, P a trusted peer, p a distrusted one; u: its private key is here.

    \b
    Example:
      nss-pk11 db list -d nssdb
    """
    with _opened(database) as token:
        record = _contents(token)
    if as_json:
        emit_json(record)
        return
    _show(record)


def _contents(token: DatabaseToken) -> Record:
    from .records import certificate_record, key_record

    opened = token.database
    kept = {record.der: record for record in opened.certificates()}
    return {
        "directory": str(opened.directory),
        "password": ("set" if opened.needs_login else "empty") if opened.has_password else "not set",
        "certificates": [
            certificate_record(item) | {"email": kept[item.der].email, "trust": str(opened.trust(item.der))}
            for item in token.certificates()
            if item.der in kept
        ],
        "keys": [key_record(key) for key in token.find_keys()],
        "crls": [_crl_record(crl.der) | {"url": crl.url} for crl in opened.crls()],
    }


def _crl_record(der: bytes) -> Record:
    from cryptography import x509

    try:
        crl = x509.load_der_x509_crl(der)
    except ValueError as error:
        return {"error": str(error)}
    after = crl.next_update_utc
    return {
        "issuer": crl.issuer.rfc4514_string(),
        "last_update": crl.last_update_utc.isoformat(),
        "next_update": after.isoformat() if after else None,
        "revoked": len(crl),
    }


def _show(record: Record) -> None:
    from .records import show_certificate, show_key

    text = Text()
    text.heading("database", record["directory"], f"password {record['password']}")
    for certificate in record["certificates"]:
        show_certificate(text, certificate, 1)
        text.line("trust", certificate["trust"], level=1)
    for key in record["keys"]:
        show_key(text, key, 1)
    for crl in record["crls"]:
        text.heading("CRL", crl.get("issuer", "(unreadable)"), f"{crl.get('revoked', 0)} revoked", level=1)


# --- import, export --------------------------------------------------------------------------------------------------


@db.command("import", short_help="Import certificates, keys, PKCS #12 files and CRLs.")
@click.argument("file", type=click.Path(path_type=Path))
@database_option(required=True)
@click.option("--nickname", help="Of the first certificate. [default: what PKCS #12 says, else the subject's common name]")
@click.option("--trust", "flags", metavar="FLAGS", help="Of the first certificate, as certutil writes it: CT,C,c.")
@click.option("--password", "file_password", callback=pin_provider, metavar="SOURCE", help="The file's. [default: prompt]")
@pin_option
def import_(
    file: Path, database: str, nickname: str | None, flags: str | None, file_password: PinProvider | None, pin: PinProvider | None
) -> None:
    """Import FILE: certificates or a private key (PEM, DER), a PKCS #12 file, or a CRL.

    \b
    Examples:
      nss-pk11 db import ca.pem -d nssdb -f pwfile --nickname ca --trust CT,,
      nss-pk11 db import www.p12 -d nssdb -f pwfile --password @p12password
    """
    from ..db import Trust
    from .imports import import_file

    trust = None if flags is None else Trust.parse(flags)
    with _opened(database, pin, write=True) as token:
        for line in import_file(token, file, pin, file_password, nickname, trust):
            note(line)


@db.command(short_help="Write a certificate, or with its key a PKCS #12 file.")
@_NICKNAME
@database_option(required=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write to FILE. [default: PEM to stdout]")
@click.option("--p12", is_flag=True, help="Certificate, chain and private key, as PKCS #12.")
@click.option(
    "--password", "file_password", callback=pin_provider, metavar="SOURCE", help="Of the PKCS #12 file. [default: prompt]"
)
@pin_option
def export(
    nickname: str, database: str, out: Path | None, p12: bool, file_password: PinProvider | None, pin: PinProvider | None
) -> None:
    """Write a certificate as PEM; with --p12 it, its chain and its private key as PKCS #12.

    \b
    Examples:
      nss-pk11 db export ca -d nssdb
      nss-pk11 db export www -d nssdb -f pwfile --p12 --out www.p12 --password @p12password
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from ..db import pkcs12

    if p12 and out is None:
        raise click.UsageError("--p12 needs --out FILE")
    with _opened(database, pin) as token:
        if not p12:
            found = _named(token.database, nickname)
            pem = b"".join(x509.load_der_x509_certificate(one.der).public_bytes(Encoding.PEM) for one in found)
            if out is None:
                click.echo(pem, nl=False)
                return
            out.write_bytes(pem)
        elif out is not None:
            _named(token.database, nickname)  # before anybody is asked for a password
            token.login(pin)
            _write_private(out, pkcs12.export(token.database, nickname, _new_password(file_password, out)))
    note(f"wrote {out}")


def _write_private(path: Path, data: bytes) -> None:
    """A new file that only its owner can read."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists; a file with a key is never overwritten") from None
    with open(descriptor, "wb") as stream:
        stream.write(data)


def _named(opened: Database, nickname: str) -> list[CertificateRecord]:
    found = opened.certificates(nickname=nickname)
    if not found:
        raise NotFound(f"{opened.directory} has no certificate with the nickname {nickname!r}", name="SEC_ERROR_UNKNOWN_CERT")
    return found


# --- trust, delete ---------------------------------------------------------------------------------------------------


@db.command(short_help="Set the trust of a certificate.")
@_NICKNAME
@click.argument("flags", metavar="FLAGS")
@database_option(required=True)
@pin_option
def trust(nickname: str, flags: str, database: str, pin: PinProvider | None) -> None:
    """Set the trust of a certificate; FLAGS as certutil writes them: CT,C,c for SSL, e-mail and object signing.

    \b
    Example:
      nss-pk11 db trust ca CT,, -d nssdb -f pwfile
    """
    from ..db import Trust

    wanted = Trust.parse(flags)
    with _opened(database, pin, write=True) as token:
        found = _named(token.database, nickname)
        token.login(pin)
        for record in found:
            token.database.set_trust(record.der, wanted)


@db.command(short_help="Delete a certificate, or with --key its private key too.")
@_NICKNAME
@database_option(required=True)
@click.option("--key", "with_key", is_flag=True, help="Its private key too. Nothing brings that back.")
@pin_option
@yes_option
def delete(nickname: str, database: str, with_key: bool, pin: PinProvider | None, yes: bool) -> None:
    """Delete every certificate with a nickname and what is said of its trust; the private key stays unless --key is given.

    \b
    Example:
      nss-pk11 db delete www -d nssdb --key
    """
    with _opened(database, pin, write=True) as token:
        opened = token.database
        found = _named(opened, nickname)
        ids = {one.key_id for one in found} if with_key else set()
        keys = [key for key in opened.keys() if key.key_id in ids]  # noqa: SIM118 - no dict
        what = f"certificate {nickname!r} and its private key" if keys else f"certificate {nickname!r}"
        confirm(f"Delete {what} from {opened.directory}?", yes=yes)
        if keys:
            token.login(pin)  # whoever knows the password may throw the key away
        with opened.writing():
            for record in found:
                opened.delete_certificate(record)
            for key in keys:
                opened.delete_key(key)
    note(f"deleted {what}")


# --- modules ---------------------------------------------------------------------------------------------------------


@db.command(short_help="List, add and delete modules of pkcs11.txt.")
@database_option(required=True)
@click.option("--add", metavar="NAME", help="Add a module, or replace the one of that name.")
@click.option("--library", type=click.Path(), metavar="PATH", help="Its library.")
@click.option("--parameters", metavar="TEXT", default="", help="What its C_Initialize gets.")
@click.option("--delete", "remove", metavar="NAME", help="Take a module out of the list.")
@json_option
def modules(database: str, add: str | None, library: str | None, parameters: str, remove: str | None, as_json: bool) -> None:
    """List the modules of a database, which every NSS program that opens it loads; add and delete some. Loads none itself.

    \b
    Examples:
      nss-pk11 db modules -d nssdb
      nss-pk11 db modules -d nssdb --add softhsm --library /usr/lib/softhsm/libsofthsm2.so
    """
    from ..db import modules as lists
    from ..db.location import parse

    if (add is None) != (library is None):
        raise click.UsageError("--add and --library go together")
    directory = parse(database).directory
    path = directory / lists.FILE
    if not path.exists() and not (directory / "cert9.db").exists():
        raise ConfigurationError(f"{directory} holds no database")
    if add is not None:
        lists.create(path, str(parse(database)))  # certutil makes the list at its first use only
        lists.add(path, lists.external(add, str(library), parameters))
        note(f"added {add!r}")
    if remove is not None:
        lists.delete(path, remove)
        note(f"deleted {remove!r}")
    if as_json or (add is None and remove is None):
        _show_modules(lists.read(path), as_json)


def _show_modules(entries: list[Any], as_json: bool) -> None:
    records = [
        {
            "name": entry.name,
            "library": entry.library,
            "parameters": entry.parameters,
            "flags": sorted(entry.flags),
            "trust_order": entry.trust_order,
            "cipher_order": entry.cipher_order,
            "slots": {id: {"flags": [f.name for f in its.flags], "askpw": its.askpw} for id, its in entry.slots.items()},
        }
        for entry in entries
    ]
    if as_json:
        emit_json(records)
        return
    text = Text()
    for record in records:
        text.heading("module", record["name"], record["library"] or "(internal)", " ".join(record["flags"]))
        if record["parameters"].strip():
            text.line("parameters", record["parameters"].strip())
