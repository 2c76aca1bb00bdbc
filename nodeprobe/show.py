"""`nodeprobe show`: what this node is, what its worker type is called, and what is wrong with it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from nodeprobe.cli import timeout_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nodeprobe.details import ConfComputeState, Gpu, NodeDetails, Switch


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON; its form is stable.")
@timeout_option
@click.pass_context
def show(ctx: click.Context, as_json: bool, timeout: float) -> None:
    """Show this node's hardware and its worker type.

    GPUs, NVSwitches, confidential-computing state, CPU TEE, and what is wrong with them. All of it is what driver and
    kernel claim; only evidence proves it (`nodeprobe collect`).

    \b
    The worker type: MODEL-MEMORYgb-xCOUNT-MODE-TEE, as in h100-80gb-x8-ppcie-tdx.
      MODE  off, cc, ppcie, nvle; devtools, simulated (on, but protecting nothing)
      TEE   of the CPU: tdx, snp, none

    \b
    --json prints one object; null is not known, and `unsaid` has the reason:
      format       "workermanager/node-details-v1"
      hostname     text
      worker_type  text, or null if the node has none
      driver       text or null
      unsaid       {field: reason}
      gpus         [{index, state: ok|lost|failed, name, uuid, serial, memory_mib,
                   architecture, vbios, pci_bus_id, mig, nvlinks, unsaid}]
      switches     [{uuid, architecture, pcie_mode, unsaid}], only if there are any
      conf_compute {feature, environment, dev_tools, ready, multi_gpu_mode,
                   cpu_capability, unsaid}, or null without a driver
      cpu_tee      {kind: tdx|snp|none, quotes, seen}
      problems     [{code, what, fix}]

    Exit status: 0 if the node has a worker type (there may be problems), 1 if not, 2 wrong usage.
    """
    from nodeprobe.probe import probe

    if sys.stderr.isatty():
        click.echo("Asking the driver …", err=True)
    details = probe(timeout)
    document = details.to_json()
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print(details, document["worker_type"])
    ctx.exit(0 if document["worker_type"] else 1)


def _print(details: NodeDetails, worker_type: str | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for part in render(details, worker_type):
        console.print(part)


def render(details: NodeDetails, worker_type: str | None) -> list[RenderableType]:
    """The parts of the page, for a rich console of 80 columns or more."""
    from rich.text import Text

    parts: list[RenderableType] = [
        _facts(
            {
                "Node": details.hostname,
                "Worker type": worker_type or "none",
                "Driver": details.driver,
                "CPU TEE": _cpu_tee(details),
            }
        )
    ]
    if details.gpus:
        parts += [Text(), _gpus(details.gpus), Text(), _identities(details.gpus)]
    if details.switches:
        parts += [Text(), _switches(details.switches)]
    if details.conf_compute is not None:
        parts += [Text("\nConfidential computing", style="bold"), _conf_compute(details.conf_compute)]
    if details.problems:
        parts += [Text("\nProblems", style="bold"), _problems(details)]
    return parts


def _facts(facts: dict[str, str | None]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(name, style="dim"), Text("-" if value is None else value, overflow="fold"))
    return table


def _gpus(gpus: tuple[Gpu, ...]) -> RenderableType:
    rows = [
        (
            gpu.index,
            gpu.name,
            _unit(gpu.memory_mib, "MiB"),
            gpu.architecture,
            gpu.pci_bus_id and gpu.pci_bus_id.removeprefix("0000"),  # as lspci prints it
            gpu.mig,
            gpu.nvlinks,
            gpu.state,
        )
        for gpu in gpus
    ]
    return _table(("GPU", "Model", "Memory", "Arch", "PCI", "MIG", "Links", "State"), rows)


def _identities(gpus: tuple[Gpu, ...]) -> RenderableType:
    rows = [(gpu.index, gpu.uuid, gpu.serial, gpu.vbios) for gpu in gpus]
    return _table(("GPU", "UUID", "Serial", "VBIOS"), rows)


def _switches(switches: tuple[Switch, ...]) -> RenderableType:
    rows = [(index, each.uuid, each.architecture, each.pcie_mode) for index, each in enumerate(switches)]
    return _table(("Switch", "UUID", "Arch", "PCIe mode"), rows)


def _table(titles: tuple[str, ...], rows: list[tuple[Any, ...]]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(value)) for value in row))  # Text: a GPU's name is not markup
    return table


def _conf_compute(cc: ConfComputeState) -> RenderableType:
    def said(name: str) -> str:
        value = getattr(cc, name)
        return f"- ({cc.unsaid.get(name, 'not said')})" if value is None else _shown(value)

    return _facts(
        {
            "Feature": said("feature"),
            "Environment": said("environment"),
            "Dev-tools mode": said("dev_tools"),
            "Ready": said("ready"),
            "Multi-GPU mode": said("multi_gpu_mode"),
            "CPU capability": said("cpu_capability"),
        }
    )


def _cpu_tee(details: NodeDetails) -> str:
    tee = details.cpu_tee
    return f"{tee.kind} ({', '.join(tee.seen)})" if tee.seen else str(tee.kind)


def _problems(details: NodeDetails) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for problem in details.problems:
        table.add_row(Text(problem.code, style="yellow"), Text(f"{problem.what}\n→ {problem.fix}"))
    return table


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _unit(value: int | None, unit: str) -> str | None:
    return None if value is None else f"{value} {unit}"
