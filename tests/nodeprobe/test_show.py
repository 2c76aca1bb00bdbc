from __future__ import annotations

import subprocess
import sys

import pytest
from rich.cells import cell_len

from tests.nodeprobe.stub import ROOT, StubDriver

COLUMNS = 80


def page(driver: StubDriver) -> str:
    done = driver.run("show")
    assert done.stderr == b""
    text = done.stdout.decode()
    assert max(cell_len(line) for line in text.splitlines()) <= COLUMNS
    return text


def test_a_page_says_all_that_matters(driver: StubDriver) -> None:
    driver.set("count", 8)
    driver.set("multi_gpu", 1)
    text = page(driver)
    for wanted in (
        "h100-80gb-x8-ppcie-",
        "NVIDIA H100 80GB HBM3",
        "81559 MiB",
        "hopper",
        "protected-pcie",
        "550.90.07",
    ):
        assert wanted in text
    for gpu in range(8):  # whole, on one line: they are copied and pasted
        assert f"GPU-00000000-0000-4000-8000-{gpu:012x}" in text
        assert f"0000:{0x10 + gpu:02X}:00.0" in text


@pytest.mark.parametrize(
    "name", [b"N" * 200, b"\xff" * 60, "NVIDIA グラフィックス".encode() * 4, b"[bold red]H100[/bold red] [/]"]
)
def test_a_hostile_name_neither_breaks_the_table_nor_styles_it(driver: StubDriver, name: bytes) -> None:
    driver.set("gpu0.name", name)
    text = page(driver)
    if name.startswith(b"["):
        assert "[bold red]" in text


def test_a_problem_is_followed_by_what_to_do(driver: StubDriver) -> None:
    driver.set("count", 2)
    driver.set("gpu1.lost", 1)
    text = page(driver)
    assert "gpu-lost" in text
    assert "→ Reset it" in text
    assert "1650000000000" in text  # the other GPU is shown


@pytest.mark.parametrize(
    ("key", "value", "status"),
    [
        ("count", 1, 0),
        ("cc", 0, 0),
        ("devtools", 1, 0),
        ("ready", 0, 0),
        ("count", 0, 1),
        ("gpu0.lost", 1, 1),
        ("err.nvmlInitWithFlags", 9, 1),
    ],
)
def test_exit_status(driver: StubDriver, key: str, value: int, status: int) -> None:
    driver.set(key, value)
    assert driver.run("show").returncode == status
    assert driver.run("show", "--json").returncode == status


@pytest.mark.parametrize(
    "args",
    [
        ("show", "--timeout", "0"),
        ("show", "--timeout", "x"),
        ("show", "extra"),
        ("nothing",),
        ("show", "--timeout", "nan"),
    ],
)
def test_wrong_usage(driver: StubDriver, args: tuple[str, ...]) -> None:
    done = driver.run(*args)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_terminal_without_our_characters(driver: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    driver.set("cc", 0)
    driver.set("gpu0.name", "NVIDIA グ")
    done = driver.run("show")
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"cc-off" in done.stdout


def test_help_loads_nothing_heavy() -> None:
    """What makes a command line slow to answer is what it imports."""
    code = """
import sys
from nodeprobe.__main__ import cli
cli(["--help"], standalone_mode=False)
heavy = {"pynvml", "rich", "rfc8785", "httpx", "pydantic", "cryptography", "sqlmodel", "fastapi", "asyncio"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "show" in done.stdout
    assert "collect" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
