"""`nss-pk11 key`: keys inside tokens, or in files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ConfigurationError
from .options import hex_bytes, json_option, module_option, open_manager, pin_option, token_option, yes_option
from .output import Text, confirm, emit_json, note

if TYPE_CHECKING:
    from ..pins import PinProvider

KEY_TYPES = ("rsa2048", "rsa3072", "rsa4096", "dsa1024", "dsa2048", "p256", "p384", "p521", "ed25519")
FAMILIES = {"rsa": 2048, "dsa": 2048}  # whose size --bits tells, and what it is unless told


@click.group(short_help="Generate, list and delete keys.")
def key() -> None:
    """Generate, list and delete keys."""


@key.command(short_help="Generate a key pair inside a token, or in a file.")
@module_option
@token_option()
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write a PKCS#8 PEM file instead of using a token.")
@click.option(
    "--type",
    "kind",
    type=click.Choice((*KEY_TYPES, *FAMILIES)),
    default="p256",
    show_default=True,
    help="Type and size; DSA is for the DHE_DSS suites of old peers only.",
)
@click.option("--bits", type=int, metavar="N", help="Size for --type rsa (2048, 3072, 4096) or dsa (1024, 2048). [default: 2048]")
@click.option("--label", help="The key's label (CKA_LABEL). [required with --token]")
@click.option(
    "--id", "key_id", callback=hex_bytes, metavar="HEX", help="The key's CKA_ID. [default: SHA-1 of the public key's bits]"
)
@pin_option
@json_option
def generate(
    modules: tuple[str, ...],
    token: str | None,
    out: Path | None,
    kind: str,
    bits: int | None,
    label: str | None,
    key_id: bytes | None,
    pin: PinProvider | None,
    as_json: bool,
) -> None:
    """Generate a key pair inside a token, where it stays: sensitive and not extractable.

    The key's URI, alone on stdout, names it for every other command.

    \b
    Examples:
      nss-pk11 key generate --token web --type p256 --label www --pin env:PIN
      nss-pk11 key generate --type ed25519 --out key.pem
    """
    if (token is None) == (out is None):
        raise click.UsageError("give one of --token and --out")
    kind = _sized(kind, bits)
    if out is not None:
        _generate_file(kind, out)
        note(f"wrote {out}, readable by you alone")
        return
    if not label:
        raise click.UsageError("a key on a token needs a --label")
    from .records import key_record
    from .select import find_token, pin_for

    with open_manager(modules, token, pin=pin) as manager:
        chosen = find_token(manager, str(token))
        chosen.login(pin_for(token, pin))
        made = chosen.generate_key(kind, label, key_id or b"")
        if as_json:
            emit_json(key_record(made))
        else:
            click.echo(made.uri)


def _sized(kind: str, bits: int | None) -> str:
    """One of KEY_TYPES.  Raises UsageError for a size that is not made."""
    if kind in FAMILIES:
        kind = f"{kind}{bits or FAMILIES[kind]}"
    elif bits is not None:
        raise click.UsageError(f"--bits goes with --type rsa or dsa; {kind} has its size already")
    if kind not in KEY_TYPES:
        raise click.UsageError(f"a key is one of {', '.join(KEY_TYPES)}, not {kind}")
    return kind


def _generate_file(kind: str, path: Path) -> None:
    """Write a new private key to a file that did not exist and that only its owner can read."""
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    curves = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
    made: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey | rsa.RSAPrivateKey
    if kind in curves:
        made = ec.generate_private_key(curves[kind])
    elif kind == "ed25519":
        made = ed25519.Ed25519PrivateKey.generate()
    elif kind.startswith("dsa"):
        made = dsa.generate_private_key(int(kind.removeprefix("dsa")))
    else:
        made = rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists; a key is never overwritten") from None
    with open(file, "wb") as stream:
        stream.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@key.command("list", short_help="List the private keys of tokens.")
@module_option
@token_option()
@pin_option
@json_option
def list_keys(modules: tuple[str, ...], token: str | None, pin: PinProvider | None, as_json: bool) -> None:
    """List the private keys of one token, or of all.

    Most tokens show their private keys only after login: name the token and give --pin.

    \b
    Example:
      nss-pk11 key list --token web --pin env:PIN
    """
    from .records import key_record, show_key
    from .select import log_in_all, named_tokens, pin_for

    with open_manager(modules, token, pin=pin) as manager:
        tokens = named_tokens(manager, token)
        hidden = log_in_all(tokens, pin_for(token, pin))
        records = [record for one in tokens for record in map(key_record, one.keys())]
    if as_json:
        emit_json(records)
        return
    text = Text()
    for record in records:
        show_key(text, record)
    if hidden:
        note(f"private keys may be hidden on {', '.join(hidden)}; --pin SOURCE logs in")


@key.command(short_help="Delete a key pair from its token.")
@click.argument("uri", metavar="KEY-URI")
@module_option
@pin_option
@yes_option
def delete(uri: str, modules: tuple[str, ...], pin: PinProvider | None, yes: bool) -> None:
    """Delete a key pair from its token.  Nothing brings it back.  Its certificate stays.

    \b
    Example:
      nss-pk11 key delete "pkcs11:token=web;object=www" --pin env:PIN
    """
    from ..slots import is_uri
    from .select import find_key, require_type, token_of

    if not is_uri(uri):
        raise click.UsageError("a key to delete is named by its pkcs11: URI")
    require_type(uri, "private")
    with open_manager(modules, uri, pin=pin) as manager:
        found = find_key(manager, uri, pin)
        confirm(f"Delete key {found.label!r} from token {found.token.label!r} for good?", yes=yes)
        token_of(manager, found).delete(found)
    note(f"deleted key {found.label!r} from token {found.token.label!r}")
