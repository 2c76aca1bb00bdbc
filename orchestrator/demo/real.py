"""Real H100 evidence, verified offline: recorded by NVIDIA and published inside the wheel of its own verifier."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attest.anchors import VENDORS
from attest.appraise import appraise
from attest.collateral import Document, Need
from attest.containers import read
from attest.evidence import Bundle, Nonce
from attest.policy import shipped
from attest.report import as_document
from attest.verify import installed, verify

# The recording is of an H100 with driver 545.00. Its RIMs were signed for 2023 to 2025, so it is verified as of then.
AT = datetime(2024, 1, 1, tzinfo=UTC)
_FOLDER = "verifier/samples/"
_REPORT, _CHAIN = "attestationReport.txt", "gpuAkCertChain.txt"
_RIMS = {
    "NV_GPU_DRIVER_GH100_545.00": "Driver_RIM_test_no_gpu.swidtag",
    "NV_GPU_VBIOS_1010_0200_882_96005E0001": "1010_0200_882_96005E0001_test_no_gpu.swidtag",
}
MEMBER_BYTES_MAX = 256 << 10
CHANGED_BYTE = 2000  # within a measurement


def verified(path: Path | None) -> dict[str, Any]:
    """
    Verdicts on the recording as it is, and with one byte changed. `skipped` says why, if there is none.

    `path` is the wheel, or a folder that holds it.
    """
    wheel = next(iter(sorted(path.glob("nv_local_gpu_verifier-*.whl"))), None) if path and path.is_dir() else path
    if wheel is None:
        return {"skipped": "no real evidence at hand; `make demo` fetches it and passes --real-evidence"}
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = {name: _member(archive, name) for name in (_REPORT, _CHAIN, *_RIMS.values())}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as e:
        return {"skipped": f"{wheel.name} is not the expected wheel ({e})"}
    bundle = read([files[_REPORT], files[_CHAIN]])
    changed = bytearray(bundle[0].payload)
    changed[CHANGED_BYTE] ^= 1
    rims = {rim: files[name] for rim, name in _RIMS.items()}
    return {
        "source": wheel.name,
        "as_of": AT.isoformat().replace("+00:00", "Z"),
        "as_recorded": _judged(bundle, rims),
        "one_byte_changed": _judged((replace(bundle[0], payload=bytes(changed)),), rims),
    }


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(_FOLDER + name)
    if info.file_size > MEMBER_BYTES_MAX:
        raise ValueError(f"{name} is too large")
    return archive.read(info)


def _judged(bundle: Bundle, rims: dict[str, bytes]) -> dict[str, Any]:
    def fetch(need: Need) -> Document | None:
        return Document.of(rims[need.name]) if need.name in rims else None

    nonce = Nonce(bundle[0].payload[4:36])  # of a recording, nobody issued the challenge: it is known from itself
    verification = verify(bundle, installed(VENDORS), fetch, nonce=nonce, now=AT)
    result = appraise(verification, shipped("lab"), bundle=bundle, nonce=nonce, now=AT)
    return as_document(result, verification.refusals)
