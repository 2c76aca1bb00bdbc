"""What the demo plays: a fleet, how each of its members is spoiled, and by which reason it must disappear."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.client import Client, ServerRefused
from orchestrator.demo.processes import DemoError, Program, Stage
from orchestrator.messages import RegisterWorker, RemoveWorker, Url, Worker
from orchestrator.wallets import Wallet

LIVELINESS_SECONDS = 3
ATTEST_EVERY_SECONDS = 2.0
WAIT_SECONDS_MAX = 30.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Member:
    """One node of the fleet as it is planned."""

    name: str
    ip: str
    gpu: str
    gpus: int
    models: tuple[str, ...]


FLEET = (
    Member("atlas", "127.0.1.1", "h100-80gb", 8, ("llama3.1:70b", "deepseek-r1:671b")),
    Member("boreas", "127.0.1.2", "h200", 4, ("llama3.1:70b",)),
    Member("calypso", "127.0.1.3", "h100-nvl", 2, ("llama3.1:70b",)),
    Member("dione", "127.0.1.4", "h100-pcie", 1, ("whisper-large-v3",)),
    Member("europa", "127.0.1.5", "h200-nvl", 2, ("llama3.1:70b",)),
)


@dataclass(frozen=True, slots=True)
class Player:
    """A node that runs: what it said when it was ready, and its owner's wallet."""

    member: Member
    program: Program
    wallet: Wallet
    ready: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that goes wrong, and the code by which the registry must say so."""

    member: str
    what: str
    code: str
    spoil: Callable[[Player, Client, str], None]  # the node, the admin's client, the server's URL


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """How an act ended."""

    act: Act
    worker: str
    milliseconds: int
    why: tuple[str, ...]


def start_orchestrator(stage: Stage) -> tuple[Program, dict[str, Any], dict[str, Any]]:
    """The throw-away root, and an orchestrator that is told to believe it. Their own words about themselves."""
    root = stage.run("nodeprobe", "emulate-root", str(stage.folder / "root"), "--json")
    program = stage.start(
        "orchestrator",
        [
            *("orchestrator", "serve", "--json", "--state", str(stage.folder / "state"), "--port", "0"),
            *("--policy", "lab", "--trust-root", root["anchors"], "--collateral", root["collateral"], "--no-fetch"),
            *("--allow-range", "127.0.0.0/8", "--liveliness-seconds", str(LIVELINESS_SECONDS)),
        ],
    )
    return program, program.ready_line(), root


def start_fleet(stage: Stage, url: str) -> list[Player]:
    """All nodes, started together; each is ready once it serves its models."""
    programs = [(member, stage.start(member.name, _emulate(stage, member, url))) for member in FLEET]
    return [Player(member, program, Wallet.generate(), program.ready_line()) for member, program in programs]


def _emulate(stage: Stage, member: Member, url: str) -> list[str]:
    served = [argument for model in member.models for argument in ("--serve", model)]
    return [
        *("nodeprobe", "emulate", "--json", "--root", str(stage.folder / "root"), "--server", url),
        *("--name", member.name, "--ip", member.ip, "--model-gpu", member.gpu, "--gpus", str(member.gpus)),
        *("--attest-every", str(ATTEST_EVERY_SECONDS), "--work-every", "5"),
        *served,
    ]


def register(player: Player, admin: Client) -> None:
    """The admin lets a node in. It is known now, and not trusted: its agent attests next."""
    message = RegisterWorker(
        ip_address=player.member.ip,
        payment_wallet=player.wallet.address,
        worker_type=player.ready["worker_type"],
        worker_key=player.ready["worker_key"],
    )
    admin.execute("register_worker", message)


def wait_for_urls(client: Client, workers: set[str]) -> tuple[Url, ...]:
    """Until exactly these workers are handed out."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        urls = client.urls().urls
        if {url.worker for url in urls} == workers:
            return urls
        if time.monotonic() > deadline:
            handed = sorted({url.worker for url in urls})
            raise DemoError(f"after {WAIT_SECONDS_MAX:.0f} s the URLs are of {handed}, not of {sorted(workers)}")
        time.sleep(POLL_SECONDS)


def play(act: Act, player: Player, admin: Client, url: str) -> Withdrawal:
    """Spoil one node, and watch until no URL of it is handed out."""
    began = time.monotonic()
    act.spoil(player, admin, url)
    while any(each.worker == player.member.ip for each in admin.urls().urls):
        if time.monotonic() - began > WAIT_SECONDS_MAX:
            raise DemoError(f"{player.member.name} is still handed out after {WAIT_SECONDS_MAX:.0f} s: {act.what}")
        time.sleep(POLL_SECONDS)
    milliseconds = round((time.monotonic() - began) * 1000)
    why = _why(admin, player.member.ip)
    if act.code not in why:
        raise DemoError(f"{player.member.name} went for {', '.join(why)}, and should have for {act.code}")
    return Withdrawal(act, player.member.ip, milliseconds, why)


def _why(client: Client, ip: str) -> tuple[str, ...]:
    try:
        worker: Worker = client.worker(ip)
    except ServerRefused as e:
        return (e.code,)
    return worker.why


def _write_defect(name: str) -> Callable[[Player, Client, str], None]:
    def spoil(player: Player, _admin: Client, _url: str) -> None:
        Path(player.ready["defects_file"]).write_text(name + "\n")

    return spoil


def _freeze(player: Player, _admin: Client, _url: str) -> None:
    player.program.freeze()


def _remove(player: Player, _admin: Client, url: str) -> None:
    """Signed by the owner's wallet: the admin could not."""
    with Client(url, wallet=player.wallet) as owner:
        owner.execute("remove_worker", RemoveWorker(ip_address=player.member.ip))


ACTS = (
    Act(
        "boreas",
        "its firmware changes: measurement 9 of one GPU is none that NVIDIA's manifest would know",
        "contraindicated:measurements-mismatch",
        _write_defect("measurement-changed"),
    ),
    Act(
        "calypso",
        "it replays old evidence, genuine in every byte, instead of answering the new challenge",
        "contraindicated:nonce-mismatch",
        _write_defect("replayed"),
    ),
    Act("dione", "it stops answering", "liveliness-expired", _freeze),
    Act("europa", "its wallet's owner removes it", "worker-unknown", _remove),
)
