"""
Real recordings, described by cases/*.toml: files that lie outside the project, put together when they are run.

    base          folder below ../shared/vectors; or "wheel", the samples in NVIDIA's wheel that `make test` fetches
    evidence      files, in their order; `keep` are the devices of it to hand over, by number, where not all
    rims          manifests, recognised by content; or, as a table, by the name to lay them down under
    ocsp          folder of OCSP answers (DER)
    tdx           Intel's documents, as PCCS clients exchange them
    documents     other documents: kind, name, file

and `made`, `at`, `nonce`, `bind_tls`, `policy`, `exit_status`, `reasons`, `attacks`, `says` as in every case.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.x509 import ocsp

from attest.collateral import CollateralKind, Need
from attest.containers import read
from attest.tdx.documents import split
from tests.conformance.draft import Draft
from tests.conformance.vector import OPTIONS
from tests.evidence import VECTORS, WHEEL_FOLDER, wheel_member

CASES = Path(__file__).parent / "cases"
WHEEL = "wheel"


def absent() -> str | None:
    """Why some recordings cannot be run here; None if all can."""
    missing = []
    if not VECTORS.is_dir():
        missing.append("the recordings of ../shared/vectors are not here")
    if not any(WHEEL_FOLDER.glob("*.whl")):
        missing.append("real evidence was not fetched; `make conformance` does it")
    return "; ".join(missing) or None


def drafts(_folder: Path) -> Iterator[Draft]:
    """All whose files are here."""
    for path in sorted(CASES.glob("*.toml")):
        case: dict[str, Any] = tomllib.loads(path.read_text())
        here = any(WHEEL_FOLDER.glob("*.whl")) if case["base"] == WHEEL else (VECTORS / case["base"]).is_dir()
        if here:
            yield _draft(path.stem, case)


def _draft(name: str, case: Mapping[str, Any]) -> Draft:
    def data(file: str) -> bytes:
        return wheel_member(file) if case["base"] == WHEEL else (VECTORS / case["base"] / file).read_bytes()

    files = {file.replace("/", "-").replace("..", "up"): data(file) for file in case["evidence"]}
    bundle = read(list(files.values())) if "keep" in case else ()
    rims = case.get("rims", {})
    collateral: dict[Need, bytes] = {
        Need(CollateralKind(d["kind"]), d["name"]): data(d["file"]) for d in case.get("documents", ())
    }
    if "ocsp" in case:
        answers = sorted((VECTORS / case["base"] / case["ocsp"]).glob("*.der"))
        collateral |= {_question(path.read_bytes()): path.read_bytes() for path in answers}
    if "tdx" in case:
        collateral |= {need: document.data for need, document in split(data(case["tdx"])).items()}
    return Draft(
        name=name,
        made=case["made"],
        evidence=tuple(bundle[at] for at in case["keep"]) if "keep" in case else files,
        at=case["at"],
        codes=tuple(case["reasons"]),
        status=case["exit_status"],
        policy=case["policy"],
        nonce=bytes.fromhex(case["nonce"]) if "nonce" in case else None,
        collateral=collateral,
        loose={under: data(file) for under, file in (rims.items() if isinstance(rims, dict) else _numbered(rims))},
        options={option: case[option] for option in OPTIONS if option in case},
        attacks=tuple(case.get("attacks", ())),
        says=case.get("says", {}),
    )


def _numbered(files: list[str]) -> Iterator[tuple[str, str]]:
    """Names from which nothing follows, so that the content must tell."""
    return ((f"rim-{number}", file) for number, file in enumerate(files))


def _question(response: bytes) -> Need:
    """What an answer is about, by the answer's own word: SHA-384 of issuer name and key, and the serial number."""
    (single,) = ocsp.load_der_ocsp_response(response).responses
    hashes = single.issuer_name_hash.hex(), single.issuer_key_hash.hex()
    return Need(CollateralKind.NVIDIA_OCSP, f"{hashes[0]}:{hashes[1]}:{single.serial_number:x}")
