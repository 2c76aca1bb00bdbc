"""What may be wrong with Blackwell GPUs, or with NVSwitches, and with no other device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from attest.reasons import (
    CHAIN_PROFILE,
    FWID_MALFORMED,
    FWID_MISMATCH,
    MODE_NOT_ACCEPTED,
    REPORT_MALFORMED,
    RIM_BINDING,
    RIM_ID_MALFORMED,
    RIM_UNAVAILABLE,
)
from nodeprobe.emulator import spdm
from nodeprobe.emulator.chain import ChainDraft, TcbInfo, brom_profile, leaf_profile
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.families import BLACKWELL, HOPPER, LS10
from nodeprobe.emulator.models import value
from nodeprobe.emulator.pki import identity_profile, provisioner_profile
from nodeprobe.emulator.spdm import ReportDraft

DEBUG_FLAGS = bytes.fromhex("0090000001")  # bit 3, beside those of production parts
UNKNOWN_LOCK = b"\2\0"


def _tcb(info: TcbInfo) -> Callable[[ChainDraft], None]:
    def spoil(draft: ChainDraft) -> None:
        draft.tcb = info

    return spoil


def _second_entry(draft: ChainDraft) -> None:
    """The right firmware stands where nobody looks."""
    draft.tcb = TcbInfo(fwids=(value("other firmware"), draft.fwid or b""))


def _composite(draft: ChainDraft) -> None:
    """The extension of a Hopper instead."""
    draft.tcb = None


def _hopper_chain(draft: ChainDraft) -> None:
    draft.identity = draft.root.below(identity_profile(HOPPER))
    draft.provisioner = draft.identity.below(provisioner_profile(HOPPER))
    draft.brom, draft.leaf = brom_profile(HOPPER, draft.pdi), leaf_profile(HOPPER, draft.leaf_key)
    draft.product, draft.tcb = HOPPER.chip, None


def _gpu_prefix(draft: ChainDraft) -> None:
    """The serial number, and the name, of a GPU below a switch's provisioner."""
    strange = brom_profile(replace(LS10, serial_prefix=HOPPER.serial_prefix), draft.pdi)
    draft.brom = strange


def _put(kind: int, new: bytes) -> Callable[[ReportDraft], None]:
    return lambda draft: draft.put(kind, new)


def _as_many_blocks_as_a_gpu(draft: ReportDraft) -> None:
    draft.measurements += [bytes(48)] * (HOPPER.measurements - len(draft.measurements))


_OF_BLACKWELL = (
    Defect(
        "tcb-debug", "The leaf's part is open for debugging.", FWID_MALFORMED, chain=_tcb(TcbInfo(flags=DEBUG_FLAGS))
    ),
    Defect("tcb-vendor", "The leaf's part is of another vendor.", FWID_MALFORMED, chain=_tcb(TcbInfo(vendor="OTHERS"))),
    Defect(
        "tcb-model", "The leaf's part is of another chip.", FWID_MALFORMED, chain=_tcb(TcbInfo(model="GH100 A01 GSP"))
    ),
    Defect(
        "tcb-cut", "The last field of the leaf's part is missing.", FWID_MALFORMED, chain=_tcb(TcbInfo(whole=False))
    ),
    Defect("tcb-no-firmware", "A list of no firmware at all.", FWID_MALFORMED, chain=_tcb(TcbInfo(fwids=()))),
    Defect("tcb-second-entry", "The right firmware is the second of the list.", FWID_MISMATCH, chain=_second_entry),
    Defect("tcb-absent", "The firmware identity is of the shape of a Hopper's.", FWID_MALFORMED, chain=_composite),
    Defect("class-hopper", "A whole chain of a GH100.", RIM_BINDING, chain=_hopper_chain),
    Defect(
        "chip-other",
        "The report names another chip, for which there is no driver manifest.",
        RIM_UNAVAILABLE,
        report=_put(spdm.CHIP_INFO, spdm.text("GB102")),
    ),
    Defect(
        "mode-unknown",
        "The feature flag names a mode that nobody knows.",
        MODE_NOT_ACCEPTED,
        report=_put(spdm.FEATURE_FLAG, b"\7\0"),
    ),
)
BLACKWELL_DEFECTS = tuple(replace(each, families=frozenset({BLACKWELL})) for each in _OF_BLACKWELL)

_OF_SWITCHES = (
    Defect(
        "switch-unlocked",
        "The switch is not locked: whoever has the host may rewire it.",
        MODE_NOT_ACCEPTED,
        report=_put(spdm.SWITCH_LOCK_STATUS, spdm.UNLOCKED),
    ),
    Defect(
        "switch-lock-unknown",
        "The lock is neither open nor closed.",
        REPORT_MALFORMED,
        report=_put(spdm.SWITCH_LOCK_STATUS, UNKNOWN_LOCK),
    ),
    Defect(
        "switch-lock-absent",
        "The report does not say whether the switch is locked.",
        MODE_NOT_ACCEPTED,
        report=lambda draft: draft.drop(spdm.SWITCH_LOCK_STATUS),
    ),
    Defect(
        "switch-pdi-short",
        "The switch's own identity has 7 bytes.",
        REPORT_MALFORMED,
        report=_put(spdm.DEVICE_PDI, bytes(7)),
    ),
    Defect(
        "switch-gpus-cut",
        "The list of GPUs ends in its middle.",
        REPORT_MALFORMED,
        report=_put(spdm.SWITCH_GPU_PDIS, bytes(32)),
    ),
    Defect(
        "switch-measures-as-gpu",
        "64 measurements instead of 31.",
        REPORT_MALFORMED,
        report=_as_many_blocks_as_a_gpu,
    ),
    Defect(
        "bios-unreleased",
        "A BIOS version that no manifest is for.",
        RIM_UNAVAILABLE,
        report=_put(spdm.VBIOS_VERSION, b"96.10.FE.00.99"),
    ),
    Defect(
        "bios-hostile",
        "A BIOS version that would climb out of a folder.",
        RIM_ID_MALFORMED,
        report=_put(spdm.VBIOS_VERSION, b"../96.10.FE.01"),
    ),
    Defect("class-gpu", "A whole chain of a GH100.", REPORT_MALFORMED, chain=_hopper_chain),
    Defect("serial-of-gpu", "The device certificate has a GPU's serial number.", CHAIN_PROFILE, chain=_gpu_prefix),
)
SWITCH_DEFECTS = tuple(replace(each, families=frozenset({LS10})) for each in _OF_SWITCHES)
