from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeprobe.details import (
    GPUS_MAX,
    MEMORY_GB_MAX,
    MODEL_CHARS_MAX,
    NO_FUNCTION,
    NOT_SUPPORTED,
    NVLE,
    PROTECTED_PCIE,
    SIMULATION,
    ConfComputeState,
    CpuTee,
    DriverDetails,
    Gpu,
    GpuState,
    Mode,
    NodeDetails,
    Tee,
    WorkerType,
    memory_gb,
    model_slug,
    node_details,
    parse_worker_type,
    printable,
    worker_type,
    worker_type_or_none,
)
from nodeprobe.problems import NO_DRIVER, ProblemError

H100 = Gpu(0, name="NVIDIA H100 80GB HBM3", memory_mib=81559)
CC = ConfComputeState(
    feature=True,
    environment="production",
    dev_tools=False,
    ready=True,
    multi_gpu_mode="none",
    cpu_capability="intel-tdx",
)
TDX = CpuTee(Tee.TDX, quotes=True, seen=("/dev/tdx_guest",))


def node(*gpus: Gpu, cc: ConfComputeState = CC, cpu_tee: CpuTee = TDX) -> NodeDetails:
    return node_details("gpu-1", DriverDetails("550.90.07", gpus, cc), cpu_tee)


def codes(details: NodeDetails) -> list[str]:
    return [problem.code for problem in details.problems]


# --- worker type ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mib", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, "h100-80gb"),
        ("NVIDIA H100 PCIe", 81559, "h100-pcie-80gb"),
        ("NVIDIA H100 NVL", 95830, "h100-nvl-94gb"),
        ("NVIDIA H200", 143771, "h200-141gb"),
        ("NVIDIA H200 NVL", 143771, "h200-nvl-141gb"),
        ("NVIDIA H20", 97871, "h20-96gb"),
        ("NVIDIA GH200 480GB", 97871, "gh200-96gb"),  # 480 GB is the CPU's memory
        ("NVIDIA B200", 183359, "b200-180gb"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-sxm4-80gb"),
        ("NVIDIA L40S", 46068, "l40s-48gb"),  # 48 GB of GDDR6, a sixteenth of it taken by ECC
        ("NVIDIA L4", 23034, "l4-24gb"),
        ("Tesla T4", 15360, "t4-16gb"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, "rtx-pro-6000-blackwell-server-edition-96gb"),
    ],
)
def test_model_and_memory_are_named_as_sold(name: str, mib: int, expected: str) -> None:
    assert worker_type(node(replace(H100, name=name, memory_mib=mib))) == f"{expected}-x1-cc-tdx"


@pytest.mark.parametrize(
    ("spoilt", "expected"),
    [
        ({}, "cc"),
        ({"multi_gpu_mode": PROTECTED_PCIE}, "ppcie"),
        ({"multi_gpu_mode": PROTECTED_PCIE, "feature": False}, "ppcie"),
        ({"multi_gpu_mode": NVLE}, "nvle"),
        ({"feature": False}, "off"),
        ({"feature": None, "unsaid": {"feature": NOT_SUPPORTED}}, "off"),
        ({"feature": None, "unsaid": {"feature": NO_FUNCTION}}, "off"),
        ({"dev_tools": True}, "devtools"),
        ({"dev_tools": True, "multi_gpu_mode": PROTECTED_PCIE}, "devtools"),
        ({"environment": SIMULATION}, "simulated"),
    ],
)
def test_mode(spoilt: dict[str, Any], expected: str) -> None:
    assert worker_type(node(H100, cc=replace(CC, **spoilt))) == f"h100-80gb-x1-{expected}-tdx"


def test_count_and_cpu_tee() -> None:
    assert worker_type(node(*(replace(H100, index=i) for i in range(8)), cpu_tee=CpuTee())) == "h100-80gb-x8-cc-none"


worker_types = st.builds(
    WorkerType,
    model=st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,5}", fullmatch=True).filter(lambda m: model_slug(m) == m),
    memory_gb=st.integers(1, MEMORY_GB_MAX),
    count=st.integers(1, GPUS_MAX),
    mode=st.sampled_from(Mode),
    tee=st.sampled_from(Tee),
)


@given(worker_types)
def test_a_worker_type_is_parsed_back(kind: WorkerType) -> None:
    assert parse_worker_type(str(kind)) == kind


@given(st.text() | st.from_regex(r"[a-z0-9]+-[0-9]+gb-x[0-9]+-[a-z]+-[a-z]+"))
def test_what_parses_is_a_name_that_we_give(text: str) -> None:
    try:
        kind = parse_worker_type(text)
    except ValueError:
        return
    assert str(kind) == text


@given(st.text(max_size=200), st.integers(-1, 1 << 50), st.integers(0, GPUS_MAX + 2))
def test_any_name_and_size_gives_a_parseable_worker_type_or_none(name: str, mib: int, count: int) -> None:
    details = node(*(replace(H100, index=i, name=name, memory_mib=mib) for i in range(count)))
    named = worker_type_or_none(details)
    assert (named is None) == any(c in codes(details) for c in ("no-gpu", "gpu-incomplete", "too-many-gpus"))
    if named is not None:
        assert parse_worker_type(named).count == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h100",
        "h100-80gb-x0-cc-tdx",
        "h100-80gb-x08-cc-tdx",
        "h100-80gb-x33-cc-tdx",
        "h100-080gb-x8-cc-tdx",
        "h100-80gb-x8-on-tdx",
        "h100-80gb-x8-cc-sgx",
        "h100-80gb-x8-cc",
        "H100-80gb-x8-cc-tdx",
        "h100--80gb-x8-cc-tdx",
        "-80gb-x8-cc-tdx",
        "nvidia-h100-80gb-x8-cc-tdx",
        "h100-80gb-80gb-x8-cc-tdx",
        "h100-80gb-x8-cc-tdx\n",
        " h100-80gb-x8-cc-tdx",
        "h100-80gb-x8-cc-tdx-tdx",
        "h100-80gb-x٨-cc-tdx",
        "h" * (MODEL_CHARS_MAX + 1) + "-80gb-x8-cc-tdx",
        "h100-80gb-x8-cc-tdx" * 1000,
    ],
)
def test_garbage_is_no_worker_type(text: str) -> None:
    with pytest.raises(ValueError, match="worker type"):
        parse_worker_type(text)


@given(st.integers(1, 1 << 20), st.integers(0, 1 << 20))
def test_more_memory_is_never_named_less(mib: int, more: int) -> None:
    assert mib <= memory_gb(mib) * 1024
    assert memory_gb(mib) <= memory_gb(mib + more)


# --- problems -----------------------------------------------------------------------------------------------------


def test_a_good_node_has_no_problems() -> None:
    assert codes(node(H100)) == []


@pytest.mark.parametrize(
    ("spoilt", "code"),
    [
        ({"feature": False}, "cc-off"),
        ({"dev_tools": True}, "cc-devtools"),
        ({"environment": SIMULATION}, "cc-simulated"),
        ({"ready": False}, "cc-not-ready"),
    ],
)
def test_a_mode_that_protects_nothing_is_a_problem_and_has_a_name(spoilt: dict[str, Any], code: str) -> None:
    details = node(H100, cc=replace(CC, **spoilt))
    assert codes(details) == [code]
    assert worker_type_or_none(details) is not None


@pytest.mark.parametrize("unsaid", [{}, {"feature": "no permission (NVML error 4)"}])
def test_an_unknown_mode_has_no_worker_type(unsaid: dict[str, str]) -> None:
    details = node(H100, cc=ConfComputeState(unsaid=unsaid))
    assert codes(details) == ["cc-unknown"]
    assert worker_type_or_none(details) is None


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (Gpu(1, GpuState.LOST), "gpu-lost"),
        (Gpu(1, GpuState.FAILED, unsaid={"handle": "no permission (NVML error 4)"}), "gpu-failed"),
        (replace(H100, index=1, name="NVIDIA H200", memory_mib=143771), "gpus-differ"),
        (replace(H100, index=1, memory_mib=95830), "gpus-differ"),
        (replace(H100, index=1, name=None, unsaid={"name": NOT_SUPPORTED}), "gpu-incomplete"),
        (replace(H100, index=1, name="NVIDIA"), "gpu-incomplete"),
        (replace(H100, index=1, memory_mib=None), "gpu-incomplete"),
        (replace(H100, index=1, memory_mib=0), "gpu-incomplete"),
    ],
)
def test_one_odd_gpu_leaves_the_node_without_worker_type(second: Gpu, code: str) -> None:
    details = node(H100, second)
    assert codes(details) == [code]
    with pytest.raises(ProblemError) as refused:
        worker_type(details)
    assert refused.value.problem.code == code


def test_a_lost_gpu_hides_no_other_problem() -> None:
    details = node(H100, Gpu(1, GpuState.LOST), Gpu(2, GpuState.LOST), cc=replace(CC, feature=False))
    assert codes(details) == ["gpu-lost", "gpu-lost", "cc-off"]


def test_no_gpu_and_too_many() -> None:
    assert codes(node()) == ["no-gpu"]
    assert codes(node(*(replace(H100, index=i) for i in range(GPUS_MAX)))) == []
    assert codes(node(*(replace(H100, index=i) for i in range(GPUS_MAX + 1)))) == ["too-many-gpus"]


def test_without_cpu_tee_the_gpus_are_protected_alone() -> None:
    assert codes(node(H100, cpu_tee=CpuTee())) == ["cpu-tee-none"]
    assert codes(node(H100, cpu_tee=CpuTee(), cc=replace(CC, feature=False))) == ["cc-off"]


def test_without_driver_only_that_is_said() -> None:
    details = node_details("gpu-1", DriverDetails(problems=(NO_DRIVER,)), CpuTee())
    assert codes(details) == ["no-driver"]
    assert worker_type_or_none(details) is None
    assert details.to_json()["conf_compute"] is None


# --- wire form and text -----------------------------------------------------------------------------------------------


def test_the_wire_form_is_plain_json() -> None:
    document = node(H100, replace(H100, index=1, serial=None, unsaid={"serial": NOT_SUPPORTED})).to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["format"] == "workermanager/node-details-v1"
    assert document["worker_type"] == "h100-80gb-x2-cc-tdx"
    assert document["gpus"][1]["unsaid"] == {"serial": NOT_SUPPORTED}
    assert document["cpu_tee"] == {"kind": "tdx", "quotes": True, "seen": ["/dev/tdx_guest"]}


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_text_from_outside_is_safe_to_show(raw: str | bytes) -> None:
    assert all(c.isprintable() for c in printable(raw))


def test_control_characters_and_bad_bytes_are_escaped() -> None:
    assert printable(b"H100\xff\x1b[31m") == "H100\\xff\\x1b[31m"
