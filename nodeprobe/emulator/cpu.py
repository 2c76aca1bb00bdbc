"""
The CPU TEE of an emulated node: an emulated Intel or AMD machine below the root that nodes share.

    ROOT/tdx/, ROOT/snp/     the throw-away PKIs of the shapes of Intel's and AMD's
    ROOT/anchors.pem         their roots as well, once they are prepared: before an orchestrator reads them
    ROOT/rims/intel-tdx.json what the emulated Intel publishes, beside the GPUs' reference manifests

An SEV-SNP guest hands over its certificates with the report, so that AMD need not publish anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509

from attest.evidence import Evidence
from attest.reasons import BINDING_MISMATCH
from nodeprobe.emulator.pki import EmulatorError, Pki, pem
from nodeprobe.emulator.rim import write_whole
from nodeprobe.emulator.snp import EmulatedSnp
from nodeprobe.emulator.snp_chain_defects import CHAIN_DEFECTS
from nodeprobe.emulator.snp_pki import SnpPki
from nodeprobe.emulator.snp_report_defects import REPORT_DEFECTS
from nodeprobe.emulator.tdx import EmulatedTd
from nodeprobe.emulator.tdx_collateral import CollateralDraft
from nodeprobe.emulator.tdx_defects import TDX_DEFECTS
from nodeprobe.emulator.tdx_pki import IntelPki

TDX, SNP = "tdx", "snp"
KINDS = (TDX, SNP)
TDX_COLLATERAL = "intel-tdx.json"
_SNP_PREFIX = "snp-"  # in names of defects, since GPUs have some of the same name
OTHER_GPUS = "cpu-of-other-gpus"


class Machine(Protocol):
    """One emulated CPU TEE. EmulatedTd and EmulatedSnp are."""

    def evidence(self, report_data: bytes) -> Evidence: ...


@dataclass(frozen=True, slots=True)
class CpuDefect:
    """One thing that can be wrong with the CPU TEE of a node while it runs."""

    name: str
    meaning: str
    code: str  # of the reason that a verdict gives


def defects_of(kind: str | None) -> dict[str, CpuDefect]:
    """By name; none for a node without a CPU TEE. Those of published documents are not among them."""
    if kind is None:
        return {}
    other = CpuDefect(OTHER_GPUS, "the CPU TEE vouches for other GPUs than the node shows", BINDING_MISMATCH.code)
    if kind == TDX:
        found = [CpuDefect(each.name, each.meaning, each.code) for each in TDX_DEFECTS.values() if not each.collateral]
    else:
        every = (*REPORT_DEFECTS, *CHAIN_DEFECTS)
        found = [CpuDefect(_SNP_PREFIX + each.name, each.meaning, each.reason.code) for each in every]
    return {each.name: each for each in (*found, other)}


@dataclass(frozen=True, slots=True)
class EmulatedCpu:
    """The CPU TEE of one node, as wrong as it is told to be."""

    kind: str
    machine: EmulatedTd | EmulatedSnp

    @classmethod
    def create(cls, pki: Pki, kind: str, name: str, *, now: datetime) -> EmulatedCpu:
        """The machine of this name; its PKI is prepared unless it is. EmulatorError."""
        prepare(pki, kind, now=now)
        if kind == TDX:
            return cls(kind, EmulatedTd.create(IntelPki.open(pki.path / TDX), name, now=now))
        return cls(kind, EmulatedSnp.create(SnpPki.open(pki.path / SNP), name, now=now))

    def evidence(self, report_data: bytes, *defects: str) -> Evidence:
        """Over 64 bytes, with defects of `defects_of` by name."""
        if OTHER_GPUS in defects:
            report_data = bytes(each ^ 0xFF for each in report_data[:32]) + report_data[32:]
        names = [name.removeprefix(_SNP_PREFIX) for name in defects if name != OTHER_GPUS]
        return self.machine.spoiled(*names).evidence(report_data)


def prepare(pki: Pki, kind: str, *, now: datetime) -> None:
    """
    Have the root vouch for CPU TEEs of this kind, and its vendor publish what is asked for. For SEV-SNP that takes
    seconds, the first time. EmulatorError.
    """
    if kind not in KINDS:
        raise EmulatorError(f"there is no CPU TEE {kind!r}; there are: {', '.join(KINDS)}")
    _PREPARE[kind](pki, now)


def _prepare_tdx(pki: Pki, now: datetime) -> None:
    intel = IntelPki.create(pki.path / TDX)
    _trust(pki, intel.root.certificate)
    draft = CollateralDraft.of(intel, intel.platform_ca.certificate, now=now)
    write_whole(pki.rims / TDX_COLLATERAL, draft.made())


def _prepare_snp(pki: Pki, now: datetime) -> None:
    _trust(pki, SnpPki.create(pki.path / SNP, now=now).ark.certificate)


_PREPARE: dict[str, Callable[[Pki, datetime], None]] = {TDX: _prepare_tdx, SNP: _prepare_snp}


def _trust(pki: Pki, root: x509.Certificate) -> None:
    """Add a root to the file of anchors, once."""
    known = pki.anchors.read_bytes()
    if pem([root]) not in known:
        write_whole(pki.anchors, known + pem([root]))
