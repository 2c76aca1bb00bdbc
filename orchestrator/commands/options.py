"""Options that commands share: where the orchestrator is, which key signs, how to answer, and every setting."""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from attest.cli import Instant
from orchestrator.commands.output import Output
from orchestrator.settings import ADMIN_KEY_FILE, DEFAULT_SERVER, LogFormat, Settings, default_state_dir

if TYPE_CHECKING:
    from orchestrator.client import Client

CONFIG_BYTES_MAX = 64 << 10
_Command = TypeVar("_Command", bound=Callable[..., Any])
# By the annotation of a field of Settings.
_TYPES: dict[str, Any] = {
    "str": str,
    "bool": bool,
    "int": int,
    "float": float,
    "Path": click.Path(path_type=Path),
    "Path | None": click.Path(path_type=Path),
    "tuple[str, ...]": str,
    "datetime": Instant(),
    "LogFormat": click.Choice(get_args(LogFormat)),
}


def output(command: _Command) -> Callable[..., Any]:
    """--json and --quiet; the command gets an `Output` as its first argument, and its errors become exit statuses."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only what a script needs.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> Any:
        out = Output(as_json, quiet)
        with out.errors():
            return command(out, *args, **kwargs)

    return wrapped


@dataclass(frozen=True, slots=True)
class Remote:
    """Where an orchestrator is, and the file of the wallet that signs for it."""

    server: str
    key: Path
    key_was_named: bool

    @contextmanager
    def client(self, *, signing: bool = False) -> Iterator[Client]:
        """A client for it. KeyFileError if it must sign and the key cannot be read."""
        from attest.keyfiles import KeyFileError
        from orchestrator.client import Client
        from orchestrator.wallets import Wallet

        if signing and not self.key_was_named and not self.key.exists():
            raise KeyFileError(f"there is no {self.key} to sign with: name a wallet's file by --key")
        wallet = Wallet.load(self.key) if signing else None
        with _without_retry_log(), Client(self.server, wallet=wallet) as client:
            yield client


def remote(command: _Command) -> Callable[..., Any]:
    """--server, --key and --state; the command gets a `Remote` after its `Output`."""

    @click.option("--server", envvar="ORCHESTRATOR_SERVER", default=DEFAULT_SERVER, show_default=True, metavar="URL")
    @click.option(
        "--key",
        envvar="ORCHESTRATOR_KEY",
        type=click.Path(path_type=Path),
        help=f"Wallet that signs. Default: {ADMIN_KEY_FILE} of the state directory.",
    )
    @click.option("--state", envvar="ORCHESTRATOR_STATE", type=click.Path(path_type=Path), help="State directory.")
    @functools.wraps(command)
    def wrapped(out: Output, /, *args: Any, server: str, key: Path | None, state: Path | None, **kwargs: Any) -> Any:
        named = key or (state or default_state_dir(os.environ)) / ADMIN_KEY_FILE
        return command(out, Remote(server, named, key is not None), *args, **kwargs)

    return output(wrapped)


def settings_of(*names: str) -> Callable[[_Command], Callable[..., Any]]:
    """An option and environment variable for each of these settings, and --config; the command gets `Settings`."""
    wanted = [each for each in fields(Settings) if each.name in names]

    def decorate(command: _Command) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapped(out: Output, /, *args: Any, **kwargs: Any) -> Any:
            given = {each.name: kwargs.pop(each.name) for each in wanted}
            given["state_dir"] = given["state_dir"] or default_state_dir(os.environ)
            return command(out, Settings(**given), *args, **kwargs)

        decorated: Callable[..., Any] = output(wrapped)
        for each in reversed(wanted):
            decorated = _option_of(each)(decorated)
        return click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            envvar="ORCHESTRATOR_CONFIG",
            is_eager=True,
            expose_value=False,
            callback=_read_config,
            help="TOML file of settings, named as the options are. Flags and environment come first.",
        )(decorated)

    return decorate


def all_settings(command: _Command) -> Callable[..., Any]:
    """`settings_of` every setting there is."""
    return settings_of(*(each.name for each in fields(Settings)))(command)


def _option_of(field: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    flag = "--state" if field.name == "state_dir" else "--" + field.name.replace("_", "-").replace("-ranges", "-range")
    variable = "ORCHESTRATOR_STATE" if field.name == "state_dir" else "ORCHESTRATOR_" + field.name.upper()
    if field.type == "bool":
        flag = f"{flag}/--no-{field.name.replace('_', '-')}"
    repeated = field.type == "tuple[str, ...]"
    kind = _TYPES[field.type]
    if "max" in field.metadata or "min" in field.metadata:
        ranged: Any = click.IntRange if kind is int else click.FloatRange
        kind = ranged(field.metadata.get("min", 0), field.metadata.get("max"))
    plain = field.default not in (MISSING, None, "", ())
    return click.option(
        flag,
        field.name,
        type=kind,
        multiple=repeated,
        envvar=variable,
        default=None if field.default is MISSING else field.default,
        show_default=plain,
        help=field.metadata["help"],
    )


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Settings from a file become defaults, below flags and environment. A key that is none is an error."""
    if path is None:
        return
    text = path.read_bytes()[: CONFIG_BYTES_MAX + 1]
    if len(text) > CONFIG_BYTES_MAX:
        raise click.UsageError(f"--config {path}: more than {CONFIG_BYTES_MAX} bytes")
    try:
        given = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise click.UsageError(f"--config {path}: not TOML: {e}") from None
    known = {each.name for each in fields(Settings)}
    if unknown := sorted(given.keys() - known):
        raise click.UsageError(f"--config {path}: no setting {unknown[0]!r}; there are {', '.join(sorted(known))}")
    ctx.default_map = {**(ctx.default_map or {}), **given}


@contextmanager
def _without_retry_log() -> Iterator[None]:
    """A command that is tried again says so by its answer, not by lines of log."""
    from stamina import instrumentation

    before = instrumentation.get_on_retry_hooks()
    instrumentation.set_on_retry_hooks(())
    try:
        yield
    finally:
        instrumentation.set_on_retry_hooks(before)
