from __future__ import annotations

from pathlib import Path

import pytest

from nodeprobe import tsm
from nodeprobe.details import CpuTee, Tee

TDX_CPU = "processor\t: 0\nflags\t\t: fpu hypervisor tdx_guest\n"
SNP_CPU = "processor\t: 0\nflags\t\t: fpu hypervisor sev sev_es sev_snp\n"
SNP_HOST = "processor\t: 0\nflags\t\t: fpu sev sev_es sev_snp\n"
PROVIDER = "sys/kernel/config/tsm/report/agent/provider"


def machine(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "kind", "quotes"),
    [
        ({}, Tee.NONE, False),
        ({"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu hypervisor\n"}, Tee.NONE, False),
        ({"proc/cpuinfo": SNP_HOST}, Tee.NONE, False),
        ({"dev/tdx_guest": ""}, Tee.TDX, True),
        ({"dev/tdx-guest": ""}, Tee.TDX, True),
        ({"dev/sev-guest": ""}, Tee.SNP, True),
        ({"dev/sev-guest": "", "proc/cpuinfo": SNP_CPU}, Tee.SNP, True),
        ({"dev/tdx_guest": "", "proc/cpuinfo": TDX_CPU}, Tee.TDX, True),
        ({PROVIDER: "tdx_guest\n"}, Tee.TDX, True),
        ({PROVIDER: "sev_guest\n"}, Tee.SNP, True),
        ({PROVIDER: "arm_cca_guest\n"}, Tee.NONE, False),
        ({PROVIDER: "x" * 10_000}, Tee.NONE, False),
    ],
)
def test_detection(tmp_path: Path, files: dict[str, str], kind: Tee, quotes: bool) -> None:
    found = tsm.detect(machine(tmp_path, files))
    assert (found.kind, found.quotes, found.problems) == (kind, quotes, ())
    assert bool(found.seen) == (kind is not Tee.NONE)


@pytest.mark.parametrize(("cpu", "kind"), [(TDX_CPU, Tee.TDX), (SNP_CPU, Tee.SNP)])
def test_a_tee_that_cannot_be_asked_is_a_problem(tmp_path: Path, cpu: str, kind: Tee) -> None:
    found = tsm.detect(machine(tmp_path, {"proc/cpuinfo": cpu}))
    assert (found.kind, found.quotes) == (kind, False)
    assert [problem.code for problem in found.problems] == ["cpu-tee-silent"]


@pytest.mark.parametrize(
    "files",
    [
        {"dev/tdx_guest": "", "dev/sev-guest": ""},
        {"dev/tdx_guest": "", "proc/cpuinfo": SNP_CPU},
        {PROVIDER: "tdx_guest\n", "dev/sev-guest": ""},
    ],
)
def test_signs_of_two_tees_count_as_none(tmp_path: Path, files: dict[str, str]) -> None:
    found = tsm.detect(machine(tmp_path, files))
    assert (found.kind, found.quotes) == (Tee.NONE, False)
    assert [problem.code for problem in found.problems] == ["cpu-tee-ambiguous"]


def test_only_the_beginning_of_cpuinfo_is_read(tmp_path: Path) -> None:
    late = "processor\t: 0\n" * (tsm.CPUINFO_BYTES_MAX // 10) + TDX_CPU
    assert tsm.detect(machine(tmp_path, {"proc/cpuinfo": late})) == CpuTee()


def test_bytes_that_are_no_text_are_no_sign(tmp_path: Path) -> None:
    machine(tmp_path, {"proc/cpuinfo": "", PROVIDER: ""})
    (tmp_path / "proc/cpuinfo").write_bytes(b"\xff\xfe flags")
    (tmp_path / PROVIDER).write_bytes(b"\xff\xfe")
    assert tsm.detect(tmp_path) == CpuTee()
