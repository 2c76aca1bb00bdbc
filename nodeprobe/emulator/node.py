"""
An emulated node: emulated GPUs, an inference server's face, and the real agent, in one process.

    ROOT/                   the throw-away PKI that several nodes share (`nodeprobe.emulator.pki`)
    ROOT/nodes/NAME/        this node: the worker's key, its unreported work, the certificate that it serves
    ROOT/nodes/NAME/defects what is wrong with it, by name: read anew whenever evidence is collected

The last file is how a node is spoiled from outside while it runs: `echo NAME > ROOT/nodes/NAME/defects`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from attest.evidence import DEVICES_MAX, Bundle, Evidence, Nonce
from nodeprobe import details, gathering
from nodeprobe.emulator import DEFECTS, MODELS, Defect, EmulatedGpu, EmulatorError, Pki, publish
from nodeprobe.emulator import cpu as cpus
from nodeprobe.emulator.cpu import EmulatedCpu
from nodeprobe.emulator.serving import Certificate, InferenceFace, make_certificate
from nodeprobe.inference import InferenceServer
from nodeprobe.problems import Problem, ProblemError
from nodeprobe.running import State, real_world, trusting
from nodeprobe.telling import Tell
from nodeprobe.worklog import Memory
from nodeprobe.world import Node, World

DEFECTS_FILE, CERTIFICATE_FILE = "defects", "serving.pem"
DEFECTS_BYTES_MAX = 4096
REPLAY = "replay"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to emulate."""

    root: Path
    server: str
    ip: str
    name: str
    gpu_model: str  # a name of `nodeprobe.emulator.MODELS`
    gpus: int
    serve: tuple[str, ...]
    port: int = 0
    plain_http: bool = False
    wallet: str | None = None
    admin_key: Path | None = None
    cpu: str | None = None  # a name of `nodeprobe.emulator.cpu.KINDS`


@dataclass(frozen=True, slots=True)
class EmulatedNode:
    """A node that serves already, and an agent's world around it."""

    plan: Plan
    node: Node
    world: World
    memory: Memory
    gpus: EmulatedGpus
    url: str


class EmulatedGpus:
    """The node's GPUs, and its CPU TEE if it has one, as wrong as the defects file says at the moment."""

    def __init__(self, gpus: tuple[EmulatedGpu, ...], file: Path, tell: Tell, cpu: EmulatedCpu | None = None) -> None:
        self.gpus, self.file, self.cpu = gpus, file, cpu
        self._of_cpu = cpus.defects_of(cpu.kind if cpu else None)
        self._tell = tell
        self._told: tuple[str, ...] = ()

    def evidence(self, nonce: Nonce) -> Bundle:
        """The reports of all GPUs. ProblemError where the defects file cannot be obeyed."""
        try:
            names = read_defects(self.file)
            spoiled = tuple(self._spoiled(tuple(name for name in names if name not in self._of_cpu)))
        except EmulatorError as e:
            raise self._unreadable(e) from None
        if names != self._told:
            self._told = names
            self._tell("defects", f"Emulated defects: {', '.join(names) or 'none'}.", defects=list(names))
        return tuple(gpu.evidence(nonce) for gpu in spoiled)

    def cpu_evidence(self, report_data: bytes) -> Evidence:
        """The report of the CPU TEE. ProblemError where there is none, or the defects file cannot be obeyed."""
        try:
            if self.cpu is None:
                raise EmulatorError("this node has no CPU TEE")
            return self.cpu.evidence(report_data, *(name for name in read_defects(self.file) if name in self._of_cpu))
        except EmulatorError as e:
            raise self._unreadable(e) from None

    def _unreadable(self, e: EmulatorError) -> ProblemError:
        return ProblemError(Problem("defects-unreadable", f"{e}.", f"Correct {self.file}, or remove it."))

    def _spoiled(self, names: tuple[str, ...]) -> list[EmulatedGpu]:
        """The first GPU has the defects; but a node that replays has recorded all of them."""
        chosen = [defect.name for defect in map(defect_named, names)]
        replayed = [each for each in chosen if DEFECTS[each].replays]
        first, *others = self.gpus
        return [first.spoiled(*chosen), *(each.spoiled(*replayed) for each in others)]


def node_defects() -> dict[str, Defect]:
    """The defects that a node can have while it runs, by name; those of reference manifests are not among them."""
    return {name: each for name, each in sorted(DEFECTS.items()) if each.manifest is None}


def defect_named(name: str) -> Defect:
    """The defect of that name; `replay` is short for the one that replays. EmulatorError where there is none."""
    known = node_defects()
    found = next((each for each in known.values() if each.replays), None) if name == REPLAY else known.get(name)
    if found is None:
        raise EmulatorError(f"a node has no defect {name!r}; there are: {', '.join((REPLAY, *known))}")
    return found


def read_defects(file: Path) -> tuple[str, ...]:
    """The names in a defects file, separated by spaces, commas or lines; none where there is no file."""
    try:
        with file.open("rb") as opened:
            text = opened.read(DEFECTS_BYTES_MAX).decode(errors="replace")
    except FileNotFoundError:
        return ()
    except OSError as e:
        raise EmulatorError(f"{file} cannot be read ({e.strerror})") from None
    return tuple(dict.fromkeys(re.split(r"[\s,]+", text.strip()))) if text.strip() else ()


def worker_type(model: str, gpus: tuple[EmulatedGpu, ...], cpu: str | None = None) -> str:
    """What `nodeprobe show` would call a node of these GPUs in confidential-computing mode."""
    listed = tuple(
        details.Gpu(index, name=MODELS[model].name, memory_mib=MODELS[model].memory_mib, uuid=gpu.uuid)
        for index, gpu in enumerate(gpus)
    )
    state = details.ConfComputeState(feature=True, environment="production", dev_tools=False, ready=True)
    driver = details.DriverDetails(MODELS[model].driver, listed, state)
    tee = details.CpuTee() if cpu is None else details.CpuTee(details.Tee(cpu), quotes=True)
    return details.worker_type(details.node_details(socket.gethostname(), driver, tee))


def start(
    plan: Plan, opened: ExitStack, *, tell: Tell, wait: Callable[[float], bool], now: datetime, defects: tuple[str, ...]
) -> EmulatedNode:
    """
    Start the node; `opened` ends it. `defects` replace what its file says. EmulatorError and ProblemError say what is
    wrong with the plan.
    """
    if not _NAME.fullmatch(plan.name):
        raise EmulatorError(f"{plan.name!r} names no node: use up to 40 of a-z, 0-9, dot and dash")
    if plan.gpu_model not in MODELS:
        raise EmulatorError(f"there is no GPU model {plan.gpu_model!r}; there are: {', '.join(MODELS)}")
    if not 1 <= plan.gpus <= DEVICES_MAX:
        raise EmulatorError(f"a node has 1 to {DEVICES_MAX} GPUs")
    for name in defects:
        if name not in cpus.defects_of(plan.cpu):
            defect_named(name)
    pki, model = Pki.create(plan.root, now=now), MODELS[plan.gpu_model]
    publish(pki, model)
    state = opened.enter_context(State(plan.root / "nodes" / plan.name))
    file = state.path / DEFECTS_FILE
    if defects:
        file.write_text("\n".join(defects) + "\n")
    gpus = tuple(EmulatedGpu.create(pki, f"{plan.name}-gpu{index}", model) for index in range(plan.gpus))
    cpu = None if plan.cpu is None else EmulatedCpu.create(pki, plan.cpu, plan.name, now=now)
    emulated = EmulatedGpus(gpus, file, tell, cpu)
    certificate = None if plan.plain_http else make_certificate(state.path / CERTIFICATE_FILE, plan.ip, now=now)
    face = opened.enter_context(_serve(plan, certificate))
    world, memory = real_world(
        opened,
        state,
        server=plan.server,
        ip=plan.ip,
        admin_key=plan.admin_key,
        evidence=gathering.of_node(emulated.evidence, None if cpu is None else emulated.cpu_evidence),
        tls_spki_sha256=lambda: certificate.spki_sha256 if certificate else None,
        inference=opened.enter_context(
            InferenceServer(face.url, verify=trusting(certificate.path if certificate else None))
        ),
        tell=tell,
        wait=wait,
    )
    node = Node(
        ip_address=plan.ip,
        worker_key=state.key().public_hex,
        worker_type=worker_type(plan.gpu_model, gpus, plan.cpu),
        public_url=face.url,
        wallet=plan.wallet,
    )
    return EmulatedNode(plan, node, world, memory, emulated, face.url)


def _serve(plan: Plan, certificate: Certificate | None) -> InferenceFace:
    try:
        return InferenceFace(plan.serve, plan.ip, plan.port, certificate=certificate)
    except OSError as e:
        where = f"{plan.ip} port {plan.port}"
        raise EmulatorError(f"{where} cannot be listened on ({e.strerror}): use a 127.x.y.z of this machine") from None
