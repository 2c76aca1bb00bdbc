"""Reports of the CPU TEE through configfs-tsm: a kernel in memory with every fault, and real calls on plain files."""

from __future__ import annotations

import errno
import os
import struct
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from attest.binding import Statement, gpu_nonce, report_data
from attest.evidence import AMD_SNP, INTEL_TDX, NVIDIA, Evidence
from nodeprobe import gathering
from nodeprobe.problems import ProblemError
from nodeprobe.quotes import OUTBLOB_BYTES_MAX, TRIES, Configfs, Quoter, certificates_in
from nodeprobe.tsm import REPORTS

DATA = bytes(range(64))
VCEK, VLEK = "63da758d-e664-4564-adc5-f4b93be8accd", "a8074bc2-a25a-483e-aae6-39c045a0b8a1"
ASK, ARK = "4ab7b379-bbac-4fe4-a02f-05aef327c782", "c0b406a4-a803-4952-9743-3fb6014cd0ae"


@dataclass
class Kernel:
    """configfs-tsm as the kernel keeps it. `faults` are raised one by one, by attribute."""

    provider: str = "tdx_guest"
    auxblob: bytes | None = None
    faults: dict[str, list[int]] = field(default_factory=dict)
    others: list[int] = field(default_factory=list)  # how many writes of others come in between, at each report
    outblob: bytes | None = None
    entries: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    at_once: int = 0

    def _fault(self, what: str) -> None:
        if self.faults.get(what):
            number = self.faults[what].pop(0)
            if number:
                raise OSError(number, os.strerror(number))

    def make(self, entry: str) -> None:
        self._fault("make")
        if entry in self.entries:
            raise FileExistsError(errno.EEXIST, "there already")
        self.entries[entry] = (0, b"")
        self.seen.add(entry)
        self.at_once = max(self.at_once, len(self.entries))

    def write(self, entry: str, attribute: str, data: bytes) -> None:
        assert attribute == "inblob"
        assert len(data) <= 64
        self._fault("inblob")
        self.entries[entry] = (self.entries[entry][0] + 1, data)

    def read(self, entry: str, attribute: str, limit: int) -> bytes:
        self._fault(attribute)
        generation, data = self.entries[entry]
        if attribute == "outblob":
            more = self.others.pop(0) if self.others else 0
            self.entries[entry] = (generation + more, data)
            return (b"signed:" + data if self.outblob is None else self.outblob)[:limit]
        if attribute == "auxblob":
            if self.auxblob is None:
                raise FileNotFoundError(errno.ENOENT, "no such file")
            return self.auxblob[:limit]
        return {"provider": f"{self.provider}\n", "generation": f"{generation}\n"}[attribute].encode()[:limit]

    def remove(self, entry: str) -> None:
        self._fault("remove")
        if entry not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "no such entry")
        del self.entries[entry]


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    """Tries as often as ever, without the pauses."""
    with stamina.set_testing(True, attempts=TRIES):
        yield


def table(**parts: bytes) -> bytes:
    guids = {"vcek": VCEK, "vlek": VLEK, "ask": ASK, "ark": ARK, "other": str(uuid.UUID(int=7))}
    head, body, start = b"", b"", 24 * (len(parts) + 1)
    for name, data in parts.items():
        head += struct.pack("<16sII", uuid.UUID(guids[name]).bytes_le, start + len(body), len(data))
        body += data
    return head + bytes(24) + body


def test_a_quote_over_these_very_bytes() -> None:
    kernel = Kernel()
    assert Quoter(kernel).evidence(DATA) == Evidence(INTEL_TDX, b"signed:" + DATA)
    assert kernel.seen == {f"nodeprobe-{os.getpid()}"}
    assert kernel.entries == {}


def test_a_report_and_its_certificates_in_the_order_of_a_chain() -> None:
    kernel = Kernel("sev_guest", table(ark=b"ARK", other=b"?", ask=b"ASK", vcek=b"VCEK"))
    assert Quoter(kernel).evidence(DATA) == Evidence(AMD_SNP, b"signed:" + DATA, b"VCEKASKARK")
    for auxblob in (None, b""):
        assert Quoter(Kernel("sev_guest", auxblob)).evidence(DATA).certificates == b""


@pytest.mark.parametrize("attribute", ["inblob", "outblob", "auxblob", "provider", "generation"])
@pytest.mark.parametrize("number", [errno.EBUSY, errno.EINTR, errno.EWOULDBLOCK])
def test_a_busy_firmware_is_asked_again(attribute: str, number: int) -> None:
    kernel = Kernel("sev_guest", b"", {attribute: [number] * (TRIES - 1)})
    assert Quoter(kernel).evidence(DATA).payload == b"signed:" + DATA


def test_who_raced_with_another_writer_asks_again() -> None:
    assert Quoter(Kernel(others=[1, 2, 0])).evidence(DATA).payload == b"signed:" + DATA
    kernel = Kernel(others=[1] * TRIES)
    assert problem(kernel) == "cpu-tee-failed"
    assert kernel.entries == {}


def problem(kernel: Kernel) -> str:
    with pytest.raises(ProblemError) as error:
        Quoter(kernel).evidence(DATA)
    return error.value.problem.code


@pytest.mark.parametrize(
    ("kernel", "code"),
    [
        (Kernel(faults={"outblob": [errno.EBUSY] * TRIES}), "cpu-tee-failed"),
        (Kernel(faults={"outblob": [errno.ENXIO]}), "cpu-tee-failed"),
        (Kernel(faults={"make": [errno.EACCES]}), "cpu-tee-no-permission"),
        (Kernel(faults={"inblob": [errno.EPERM]}), "cpu-tee-no-permission"),
        (Kernel("arm_cca_guest"), "cpu-tee-failed"),
        (Kernel(outblob=b""), "cpu-tee-failed"),
        (Kernel(outblob=bytes(OUTBLOB_BYTES_MAX + 1)), "cpu-tee-failed"),
    ],
)
def test_what_cannot_be_had_is_said_and_the_entry_is_gone(kernel: Kernel, code: str) -> None:
    assert problem(kernel) == code
    assert kernel.entries == {}


def test_a_generation_that_is_no_number() -> None:
    kernel = Kernel()
    kernel.read = lambda entry, attribute, limit: b"\xff"  # type: ignore[method-assign]
    assert problem(kernel) == "cpu-tee-failed"


def test_what_a_dead_process_left_is_removed() -> None:
    kernel = Kernel(entries={f"nodeprobe-{os.getpid()}": (3, b"old")})
    assert Quoter(kernel).evidence(DATA).payload == b"signed:" + DATA
    assert kernel.entries == {}


def test_an_entry_that_stays_hides_no_report() -> None:
    assert Quoter(Kernel(faults={"remove": [0, errno.EBUSY]})).evidence(DATA).payload == b"signed:" + DATA


def test_one_report_at_a_time() -> None:
    kernel = Kernel()
    quoter, found = Quoter(kernel), []
    threads = [
        threading.Thread(target=lambda n=n: found.append(quoter.evidence(bytes([n]) * 64).payload)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(found) == [b"signed:" + bytes([n]) * 64 for n in range(8)]
    assert kernel.at_once == 1


@pytest.mark.parametrize("data", [b"", bytes(63), bytes(65)])
def test_report_data_of_another_size(data: bytes) -> None:
    with pytest.raises(ValueError, match="64"):
        Quoter(Kernel()).evidence(data)


@given(st.binary(max_size=200))
def test_any_table_is_read(data: bytes) -> None:
    assert isinstance(certificates_in(data), bytes)


def test_a_table_that_points_outside_or_lacks_the_key_is_none() -> None:
    good = table(vlek=b"VLEK", ask=b"ASK")
    assert certificates_in(good) == b"VLEKASK"
    assert certificates_in(good[:-1]) == b""
    assert certificates_in(table(ask=b"ASK", ark=b"ARK")) == b""
    assert certificates_in(good + bytes(1 << 17)) == b""


# --- the real calls, on plain files -----------------------------------------------------------------------------------
def test_configfs_reads_and_writes_whole_values(tmp_path: Path) -> None:
    reports = Configfs(tmp_path)
    reports.make("e")
    with pytest.raises(FileExistsError):
        reports.make("e")
    with pytest.raises(FileNotFoundError):
        reports.write("e", "inblob", DATA)  # the kernel makes the files; we never do
    (tmp_path / "e" / "inblob").touch()
    reports.write("e", "inblob", DATA)
    assert reports.read("e", "inblob", 1000) == DATA
    assert reports.read("e", "inblob", 3) == DATA[:3]
    (tmp_path / "e" / "inblob").unlink()
    reports.remove("e")
    assert list(tmp_path.iterdir()) == []


# --- a whole node -----------------------------------------------------------------------------------------------------
STATEMENT = Statement("11" * 32, "192.0.2.7", "secret1wallet", "02" + "ab" * 32)


def test_a_node_answers_with_gpus_and_a_quote_that_covers_them() -> None:
    asked = []

    def gpus(nonce: bytes) -> tuple[Evidence, ...]:
        asked.append(nonce)
        return (Evidence(NVIDIA, b"a report"),)

    both = gathering.of_node(gpus, Quoter(Kernel()).evidence)(STATEMENT)
    assert asked == [gpu_nonce(STATEMENT)]
    assert [each.kind for each in both] == [NVIDIA, INTEL_TDX]
    assert both[1].payload == b"signed:" + report_data(STATEMENT, both[:1])
    assert gathering.of_node(gpus, None)(STATEMENT) == both[:1]


def test_a_machine_without_reports_has_no_cpu_to_ask(tmp_path: Path) -> None:
    assert gathering.cpu_of(tmp_path) is None
    (tmp_path / REPORTS).mkdir(parents=True)
    assert gathering.cpu_of(tmp_path) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "tdx_guest").touch()
    assert gathering.cpu_of(tmp_path) is not None
