"""The `pk11-tokens` command: serves simulated tokens and has a hand on those that are served.

Results go to standard output, everything said about them to standard error.  Uses `simulator` alone; imports nothing of the
simulation itself, so that a command in a loop is quick.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import asdict
from typing import Any, NoReturn

import click

from .description import DescriptionError
from .personalities import PERSONALITIES
from .simulator import ENVIRONMENT, Simulator, TokenStatus, find, start

EXIT_CODES = {
    0: "done",
    1: "it could not be done; standard error says why",
    2: "the command line is wrong",
    3: "the description is wrong",
    4: "no simulator runs, or several do and none is named",
}

directory_option = click.option(
    "--directory",
    metavar="DIR",
    envvar=ENVIRONMENT,
    help=f"The simulator's directory; else ${ENVIRONMENT}, else the only one running.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")


def _fail(error: object, code: int = 1) -> NoReturn:
    click.echo(f"pk11-tokens: {error}", err=True)
    sys.exit(code)


def _simulator(directory: str | None) -> Simulator:
    try:
        return find(directory)
    except RuntimeError as error:
        _fail(error, 4)


def _ask(directory: str | None, command: str, **arguments: Any) -> Any:
    try:
        return _simulator(directory).ask(command, **arguments)
    except RuntimeError as error:
        _fail(error)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nss-pk11-tokens", message="%(prog)s %(version)s")
def main() -> None:
    """Simulated PKCS #11 hardware: cards and HSMs that lock, leave, are slow and go wrong.

    \b
    Example:
      pk11-tokens serve card.toml &              # prints the module's path
      pkcs11-tool --module /tmp/pk11-tokens-xxxxxxxx/card.so --list-slots
      pk11-tokens fail card C_Sign CKR_DEVICE_ERROR --times 3
      pk11-tokens remove card
    """


@main.command(short_help="Run simulated tokens until Ctrl-C.")
@click.argument("description", type=click.Path(dir_okay=False))
@click.option("--directory", metavar="DIR", help="Where module and sockets are to be: a new directory, gone at the end.")
@click.option("--calls", type=click.Path(dir_okay=False), metavar="FILE", help="Append every call to FILE, a JSON line each.")
def serve(description: str, directory: str | None, calls: str | None) -> None:
    """Run the tokens of a TOML file until Ctrl-C or SIGTERM; print the path of their PKCS #11 module.

    \b
    Example:
      cat > card.toml <<END
      [[reader]]
      [reader.token]
      label = "card"
      personality = "smart card"
      [[reader.token.key]]
      label = "www"
      kind = "p256"
      self_signed = ["localhost"]
      END
      pk11-tokens serve card.toml
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        with start(description, directory=directory, quiet=False) as simulator:
            if calls:
                simulator.write_calls(calls)
            click.echo(simulator.module)
            sys.stdout.flush()
            simulator.wait()
    except KeyboardInterrupt:
        pass
    except DescriptionError as error:
        _fail(error, 3)
    except (RuntimeError, OSError) as error:
        _fail(error)


# --- hands -----------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("token")
@directory_option
def remove(token: str, directory: str | None) -> None:
    """Pull TOKEN out of its reader.

    \b
    Example:
      pk11-tokens remove card
    """
    _ask(directory, "remove", token=token)


@main.command()
@click.argument("token")
@click.option("--reader", metavar="NAME", help="Which: its name, the beginning of it, or the slot number; else its last one.")
@directory_option
def insert(token: str, reader: str | None, directory: str | None) -> None:
    """Put TOKEN into a reader.

    \b
    Example:
      pk11-tokens insert card --reader left
    """
    _ask(directory, "insert", token=token, reader=reader)


@main.command()
@click.argument("reader")
@click.argument("token")
@directory_option
def swap(reader: str, token: str, directory: str | None) -> None:
    """Take out what is in READER and put TOKEN in.

    \b
    Example:
      pk11-tokens swap left "other card"
    """
    _ask(directory, "swap", reader=reader, token=token)


@main.command()
@click.argument("token")
@directory_option
def lock(token: str, directory: str | None) -> None:
    """Lock the user PIN of TOKEN, as too many wrong ones do.

    \b
    Example:
      pk11-tokens lock card
    """
    _ask(directory, "lock", token=token)


@main.command()
@click.argument("token")
@directory_option
def unlock(token: str, directory: str | None) -> None:
    """Give TOKEN all its PIN tries back.

    \b
    Example:
      pk11-tokens unlock card
    """
    _ask(directory, "unlock", token=token)


@main.command()
@click.argument("token")
@click.option("--delay", type=float, default=0.0, metavar="SECONDS", help="Until the PIN is typed.")
@click.option("--mistakes", type=int, default=0, metavar="N", help="Type a wrong PIN so often first.")
@click.option("--cancel", is_flag=True, help="Press Cancel.")
@directory_option
def person(token: str, delay: float, mistakes: int, cancel: bool, directory: str | None) -> None:
    """Say who stands at the keypad of TOKEN (with a protected authentication path).

    \b
    Example:
      pk11-tokens person card --delay 3 --mistakes 1
    """
    _ask(directory, "person", token=token, delay=delay, mistakes=mistakes, cancels=cancel)


@main.command()
@click.argument("token")
@click.argument("mechanisms", nargs=-1, metavar="[CKM]...")
@directory_option
def offer(token: str, mechanisms: tuple[str, ...], directory: str | None) -> None:
    """Have TOKEN offer these mechanisms and no other.  Hosts ask when it is put in, so remove it before.

    Mechanisms that it cannot compute it only lists.

    \b
    Example:
      pk11-tokens remove card
      pk11-tokens offer card CKM_RSA_PKCS CKM_AES_CBC
      pk11-tokens insert card
    """
    _ask(directory, "offer", token=token, mechanisms=list(mechanisms))


# --- misfortunes -----------------------------------------------------------------------------------------------------


@main.command()
@click.argument("token")
@directory_option
def disconnect(token: str, directory: str | None) -> None:
    """End every session and login with TOKEN, as a lost link does.

    \b
    Example:
      pk11-tokens disconnect hsm
    """
    _ask(directory, "disconnect", token=token)


@main.command()
@click.argument("token")
@click.argument("seconds", type=float)
@click.option("--function", default="*", metavar="NAME", help="A C_ function; else every operation of the token.")
@directory_option
def slow(token: str, seconds: float, function: str, directory: str | None) -> None:
    """Let operations of TOKEN take SECONDS; 0 makes it quick again.

    \b
    Example:
      pk11-tokens slow hsm 0.05 --function C_Sign
    """
    _ask(directory, "slow", token=token, seconds=seconds, function=function)


@main.command()
@click.argument("token")
@click.argument("function")
@click.argument("result")
@click.option("--times", type=int, default=1, metavar="N", help="How often (default 1); 0: until `clear`.")
@click.option("--after", is_flag=True, help="Do the operation, and lose the answer.")
@click.option("--disconnect", is_flag=True, help="All sessions and logins die with it.")
@directory_option
def fail(token: str, function: str, result: str, times: int, after: bool, disconnect: bool, directory: str | None) -> None:
    """Let the next calls of FUNCTION ("*": any) on TOKEN answer RESULT.

    \b
    Example:
      pk11-tokens fail card C_Sign CKR_DEVICE_ERROR --times 3
    """
    when = "after" if after else "before"
    _ask(directory, "fail", token=token, function=function, result=result, times=times, when=when, disconnect=disconnect)


@main.command("random-failures")
@click.argument("token")
@click.argument("rate", type=float)
@click.option("--seed", type=int, default=0, metavar="N", help="The same seed fails the same calls.")
@click.option("--result", "results", multiple=True, metavar="CKR", help="Fail with these; may be repeated.")
@directory_option
def random_failures(token: str, rate: float, seed: int, results: tuple[str, ...], directory: str | None) -> None:
    """Let calls of TOKEN fail by chance at RATE, 0 to 1; 0 ends it.

    Without --result: CKR_DEVICE_ERROR, CKR_DEVICE_REMOVED, CKR_SESSION_HANDLE_INVALID and CKR_USER_NOT_LOGGED_IN, and what
    they name is really gone.

    \b
    Example:
      pk11-tokens random-failures hsm 0.01 --seed 7
    """
    _ask(directory, "fail_randomly", token=token, rate=rate, seed=seed, results=list(results))


@main.command("wrong-signatures")
@click.argument("token")
@click.argument("rate", type=float)
@click.option("--seed", type=int, default=0, metavar="N", help="The same seed spoils the same signatures.")
@directory_option
def wrong_signatures(token: str, rate: float, seed: int, directory: str | None) -> None:
    """Let signatures of TOKEN be wrong at RATE, 0 to 1; 0 ends it.

    \b
    Example:
      pk11-tokens wrong-signatures hsm 0.1
    """
    _ask(directory, "wrong_signatures", token=token, rate=rate, seed=seed)


@main.command()
@click.argument("token")
@directory_option
def clear(token: str, directory: str | None) -> None:
    """Forget the failures of TOKEN that were to come, and the random ones.

    \b
    Example:
      pk11-tokens clear card
    """
    _ask(directory, "clear", token=token)


# --- questions -------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("token", required=False)
@directory_option
@json_option
def status(token: str | None, directory: str | None, as_json: bool) -> None:
    """Show readers and tokens: sessions, logins, PIN tries, calls.

    \b
    Example:
      pk11-tokens status card --json
    """
    simulator = _simulator(directory)
    try:
        names = [token] if token else simulator.tokens()
        found = [simulator.ask("status", token=name) for name in names]
        readers = simulator.readers()
    except RuntimeError as error:
        _fail(error)
    if as_json:
        where = {"directory": str(simulator.directory), "module": simulator.module}
        click.echo(json.dumps(found[0] if token else {**where, "readers": readers, "tokens": found}, indent=2))
        return
    if not token:
        click.echo(f"module  {simulator.module}")
        for reader in readers:
            click.echo(f"slot {reader['slot']}  {reader['name']}: {reader['token'] or 'empty'}")
    for each in found:
        _show(TokenStatus(**each))


def _show(token: TokenStatus) -> None:
    tries = "PIN locked" if token.locked else "never locks"
    if token.tries_left:
        tries = f"{_counted(token.tries_left, 'PIN try', 'PIN tries')} left"
    where = f'in "{token.reader}"' if token.present else "in no reader"
    login = "logged in" if token.logged_in else "nobody logged in"
    running = _counted(token.operations_running, "operation")
    busiest = sorted(token.calls.items(), key=lambda each: -each[1])[:5]
    click.echo(f"{token.name} ({token.personality}), {where}")
    click.echo(f"  {_counted(token.sessions, 'session')}, {login}, {tries}, {_counted(token.pin_attempts, 'PIN')} given")
    click.echo(f"  {_counted(token.objects, 'object')}, {running} running, {token.operations_waiting} waiting")
    click.echo("  calls: " + (", ".join(f"{function} {count}" for function, count in busiest) or "none"))


def _counted(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


@main.command()
@click.option("--token", metavar="TOKEN", help="Only of this token.")
@click.option("--last", type=click.IntRange(min=0), default=0, metavar="N", help="Only the last N so far.")
@click.option("--follow", is_flag=True, help="Go on with new ones, until Ctrl-C.")
@directory_option
@json_option
def calls(token: str | None, last: int, follow: bool, directory: str | None, as_json: bool) -> None:
    """Show the calls of all hosts, with --json as JSON lines.  PINs are not among what is kept.

    \b
    Example:
      pk11-tokens calls --token card --last 20
    """
    simulator = _simulator(directory)
    seen = 0
    try:
        while True:
            found = [call for call in simulator.calls(since=seen) if not token or call.get("token") == token]
            for call in found[-last:]:
                click.echo(json.dumps(call) if as_json else _line(call))
                seen, last = call["number"], 0
            if not follow:
                return
            sys.stdout.flush()
            time.sleep(0.2)
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        _fail(error)


def _line(call: dict[str, Any]) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(call["time"])) + f".{int(call['time'] % 1 * 1000):03}"
    arguments = " ".join(f"{name}={value}" for name, value in call.get("arguments", {}).items())
    who = f"{moment} {call['host']:>7} {call.get('token', '-'):<10}"
    return f"{who} {call['function']:<22} {call['result']:<28} {call['ms']:>9.3f} ms  {arguments}".rstrip()


@main.command()
@json_option
def personalities(as_json: bool) -> None:
    """Show the kinds of token that a description can name.

    \b
    Example:
      pk11-tokens personalities
    """
    if as_json:
        click.echo(json.dumps({name: _plain(name) for name in PERSONALITIES}, indent=2))
        return
    for name, each in PERSONALITIES.items():
        click.echo(f"{name:<16} {each.model}: {', '.join(each.mechanisms[:4])}, … {len(each.mechanisms)} mechanisms")


def _plain(name: str) -> dict[str, Any]:
    return asdict(PERSONALITIES[name])
