"""`nodeprobe agent` and `nodeprobe register`: this node as a worker of an orchestrator."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from contextlib import ExitStack

    from nodeprobe.telling import Tell
    from nodeprobe.worklog import Memory
    from nodeprobe.world import Inference, Node, World
    from orchestrator.messages import Endpoint, Verdict

T = TypeVar("T")
KEY_CHARS_MAX = 4096
INFERENCE_URL = "http://127.0.0.1:8000"
NO_INFERENCE = "none"
EXIT_PROBLEM, EXIT_REFUSED, EXIT_UNREACHABLE = 1, 4, 5
FILE = click.Path(dir_okay=False, path_type=Path)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """What both commands need to know of the node."""
    for option in reversed(
        (
            click.option("--server", required=True, metavar="URL", help="The orchestrator."),
            click.option(
                "--ip", metavar="IP", help="This worker's address. Default: the one that leads to the server."
            ),
            click.option(
                "--state",
                type=click.Path(file_okay=False, path_type=Path),
                metavar="DIR",
                help="Where the worker's key and its unreported work are kept.",
            ),
            click.option(
                "--inference",
                default=INFERENCE_URL,
                show_default=True,
                metavar="URL",
                help=f"The inference server beside the node; `{NO_INFERENCE}` for none.",
            ),
            click.option("--inference-key-file", type=FILE, metavar="FILE", help="Its API key, if it wants one."),
            click.option("--public-url", metavar="URL", help="Where users reach it. Default: https://IP:PORT."),
            click.option(
                "--endpoint",
                "endpoint",
                multiple=True,
                metavar="MODEL=URL",
                help="A model served elsewhere. Repeatable.",
            ),
            click.option(
                "--tls-certificate",
                type=FILE,
                metavar="FILE",
                help="The certificate that the endpoints serve: its key is bound.",
            ),
            click.option("--worker-type", metavar="TYPE", help="Default: as `nodeprobe show` says."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON, one line an event."),
        )
    ):
        command = option(command)
    return command


@click.command()
@_options
@click.option("--admin-key", type=FILE, metavar="FILE", help="The admin's wallet key: register this node if need be.")
@click.option("--wallet", metavar="ADDRESS", help="With --admin-key: the wallet that the worker's pay goes to.")
@click.option("--work-every", type=click.FloatRange(1, 3600), default=60.0, show_default=True, metavar="SECONDS")
@click.option("--attest-every", type=click.FloatRange(1), metavar="SECONDS", help="Attest at least so often.")
@click.option("--once", is_flag=True, help="Attest once, and leave.")
@click.pass_context
def agent(
    ctx: click.Context,
    /,
    as_json: bool,
    work_every: float,
    attest_every: float | None,
    once: bool,
    **given: Any,
) -> None:
    """Keep this node registered as a worker, until told to stop.

    It attests, attests again before that expires, answers liveliness challenges, tells which models the inference
    server serves, and reports its work. Nothing has to be prepared: if the orchestrator does not know this node yet,
    the command for its admin is printed, and the agent goes on by itself once that is done.

    SIGTERM drains: no new users are sent here, the last work is reported. A second one ends at once.

    Exit status: 0 stopped when told to (with --once: attested), 1 a problem of this node, 2 wrong usage, 4 with
    --once: refused, 5 with --once: the orchestrator cannot be reached.
    """
    from contextlib import ExitStack

    from nodeprobe.agent import Agent
    from nodeprobe.problems import ProblemError
    from nodeprobe.running import Stop
    from nodeprobe.world import Pace

    if (given["admin_key"] is None) != (given["wallet"] is None):
        raise click.UsageError("--admin-key and --wallet go together.")
    tell = _teller(as_json)
    try:
        with ExitStack() as opened:
            stop = opened.enter_context(Stop())
            node, world, memory = _open(opened, given, tell, stop.wait)
            pace = Pace(work=work_every, attest_longest=attest_every or math.inf)
            it = Agent(node, world, log=memory.load(), pace=pace)
            if once:
                ctx.exit(_verdict_status(_or_leave(ctx, it.once, as_json)))
            it.run()
    except ProblemError as e:
        fail(ctx, e.problem.code, e.problem.what, e.problem.fix, EXIT_PROBLEM, as_json)


@click.command()
@_options
@click.option("--admin-key", type=FILE, required=True, metavar="FILE", help="The admin's wallet key.")
@click.option("--wallet", required=True, metavar="ADDRESS", help="The wallet that the worker's pay goes to.")
@click.pass_context
def register(ctx: click.Context, /, as_json: bool, **given: Any) -> None:
    """Register this node as a worker, with its evidence, by the admin's signature.

    Prints the verdict. `nodeprobe agent` then keeps it registered.

    Exit status: 0 registered and affirmed, 1 a problem of this node, 2 wrong usage, 4 refused, or the evidence not
    accepted, 5 the orchestrator cannot be reached.
    """
    from contextlib import ExitStack

    from nodeprobe import answering
    from nodeprobe.problems import ProblemError
    from nodeprobe.served import Served

    try:
        with ExitStack() as opened:
            node, world, _ = _open(opened, given, _teller(as_json), lambda _: False)

            def do() -> Verdict | None:
                says = answering.Says(world.tls_spki_sha256(), Served(node, world).endpoints())
                return answering.register(world.server, node, says, world.evidence).verdict

            verdict = _or_leave(ctx, do, as_json)
    except ProblemError as e:
        fail(ctx, e.problem.code, e.problem.what, e.problem.fix, EXIT_PROBLEM, as_json)
    _print_verdict(verdict, node.ip_address, as_json)
    ctx.exit(_verdict_status(verdict))


def _open(
    opened: ExitStack, given: dict[str, Any], tell: Tell, wait: Callable[[float], bool]
) -> tuple[Node, World, Memory]:
    """The real world of this node, as the options say. Raises ProblemError where it is not as it must be."""
    from nodeprobe import gathering
    from nodeprobe.running import State, default_state_dir, real_world, source_address, spki_sha256
    from nodeprobe.world import Node

    certificate: Path | None = given["tls_certificate"]
    if certificate is not None:
        spki_sha256(certificate)  # better now than in the middle
    endpoints = _endpoints(given["endpoint"])
    _check(given)
    state = opened.enter_context(State(given["state"] or default_state_dir(os.environ)))
    key, ip = state.key(), given["ip"] or source_address(given["server"])
    node = Node(
        ip_address=ip,
        worker_key=key.public_hex,
        worker_type=given["worker_type"] or _probed_type(tell),
        public_url=_public_url(given["public_url"], given["inference"], ip),
        endpoints=endpoints,
        wallet=given["wallet"],
    )
    world, memory = real_world(
        opened,
        state,
        server=given["server"],
        ip=ip,
        admin_key=given["admin_key"],
        evidence=gathering.of_node(gathering.board(), gathering.cpu_of(Path("/"))),
        tls_spki_sha256=lambda: None if certificate is None else spki_sha256(certificate),
        inference=_inference(opened, given),
        tell=tell,
        wait=wait,
    )
    tell(
        "started",
        f"Worker {ip} ({node.worker_type or 'of no known type'}), key {key.public_hex}, for {given['server']}.",
        ip_address=ip,
        worker_type=node.worker_type,
        worker_key=key.public_hex,
        server=given["server"],
    )
    return node, world, memory


def _inference(opened: ExitStack, given: dict[str, Any]) -> Inference | None:
    from nodeprobe.inference import InferenceServer
    from nodeprobe.running import trusting

    if given["inference"] == NO_INFERENCE:
        return None
    key_file: Path | None = given["inference_key_file"]
    try:
        api_key = None if key_file is None else key_file.read_text()[:KEY_CHARS_MAX].strip()
        tls = trusting(given["tls_certificate"])
    except (OSError, ValueError) as e:
        raise click.UsageError(f"a file for the inference server cannot be read: {e}") from None
    return opened.enter_context(InferenceServer(given["inference"], verify=tls, api_key=api_key))


def _public_url(said: str | None, inference: str, ip: str) -> str | None:
    """Where users reach what the inference server serves: as said, else https at this worker and its port."""
    if said or inference == NO_INFERENCE:
        return said
    try:
        parts = urlsplit(inference)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        raise click.BadParameter("write it as http://HOST:PORT.", param_hint="--inference") from None
    return f"https://{f'[{ip}]' if ':' in ip else ip}:{port}"


def _check(given: dict[str, Any]) -> None:
    """That what is given could stand in a message at all; whether it is right, the orchestrator says."""
    from pydantic import TypeAdapter, ValidationError

    from orchestrator.messages import Address, Endpoint, Text, WalletAddress

    for name, kind in (("ip", Address), ("wallet", WalletAddress), ("worker_type", Text)):
        try:
            TypeAdapter[str](kind).validate_python(given[name] or "placeholder")
        except ValidationError as e:
            raise click.BadParameter(e.errors()[0]["msg"], param_hint=f"--{name.replace('_', '-')}") from None
    try:
        Endpoint(model="m", url=given["public_url"] or "https://host")
    except ValidationError:
        raise click.BadParameter("write it as https://HOST:PORT.", param_hint="--public-url") from None


def _endpoints(texts: tuple[str, ...]) -> tuple[Endpoint, ...]:
    from pydantic import ValidationError

    from orchestrator.messages import Endpoint

    found = []
    for text in texts:
        model, _, url = text.partition("=http")
        try:
            found.append(Endpoint(model=model, url=f"http{url}"))
        except ValidationError:
            wanted = "write it as MODEL=https://HOST:PORT."
            raise click.BadParameter(f"{text!r} is no endpoint; {wanted}", param_hint="--endpoint") from None
    return tuple(found)


def _probed_type(tell: Tell) -> str | None:
    from nodeprobe.details import worker_type_or_none
    from nodeprobe.probe import probe

    details = probe()
    for problem in details.problems:
        tell("problem", f"{problem.what} {problem.fix}", code=problem.code)
    return worker_type_or_none(details)


def _teller(as_json: bool) -> Tell:
    from datetime import UTC, datetime

    from nodeprobe.telling import teller

    return teller(sys.stderr, as_json=as_json, now=lambda: datetime.now(UTC))


def _or_leave(ctx: click.Context, do: Callable[[], T], as_json: bool) -> T:
    """What `do` returns; where the orchestrator refuses or does not answer, that is said, and we leave."""
    from orchestrator.client import ServerRefused, Unreachable

    try:
        return do()
    except ServerRefused as e:
        fail(ctx, e.code, f"{e}.", e.fix, EXIT_REFUSED, as_json)
    except Unreachable as e:
        fail(ctx, "unreachable", f"{e}.", "Check --server, and that the orchestrator runs.", EXIT_UNREACHABLE, as_json)


def _verdict_status(verdict: Verdict | None) -> int:
    return 0 if verdict is not None and verdict.tier == "affirming" else EXIT_REFUSED


def _print_verdict(verdict: Verdict | None, ip: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"ip_address": ip, "verdict": verdict and verdict.model_dump(mode="json")}, indent=2))
        return
    if verdict is None:
        click.echo(f"{ip} is registered, but not attested: no verdict came back. Run `nodeprobe agent`.")
        return
    emulated = " (emulated)" if verdict.emulated else ""
    click.echo(f"{ip}: {verdict.tier}{emulated}, policy {verdict.policy}, until {verdict.not_after:%Y-%m-%d %H:%M} UTC")
    for finding in verdict.reasons:
        if not finding.holds:
            click.echo(f"  {finding.device} {finding.code}: found {finding.found}, wanted {finding.wanted}")
            click.echo(f"    {finding.fix}")


def fail(ctx: click.Context, code: str, what: str, fix: str, status: int, as_json: bool) -> NoReturn:
    """Say what is wrong and what to do, and leave with that status."""
    if as_json:
        click.echo(json.dumps({"problems": [{"code": code, "what": what, "fix": fix}]}))
    else:
        click.echo(f"nodeprobe: {what} ({code})\n  {fix}", err=True)
    ctx.exit(status)
