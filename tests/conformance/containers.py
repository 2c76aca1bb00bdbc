"""Vectors of evidence that cannot be read: cut, padded, nested, too large, or of no known form."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attest.evidence import AMD_SNP, BUNDLE_BYTES_MAX, DEVICES_MAX, INTEL_TDX, LOG_BYTES_MAX, NVIDIA, Evidence, dumps
from tests.conformance.draft import Draft
from tests.conformance.gpu import NONCE, World

AT = datetime(2030, 1, 2, tzinfo=UTC)
_TDX_START = bytes.fromhex("0400020081000000")


def drafts(folder: Path) -> Iterator[Draft]:
    """All of them; the good evidence is of a PKI made below `folder`."""
    world = World.made(folder)
    good = world.gpu.evidence(NONCE)
    for name, made, files, code in _files(good):
        yield Draft(f"container-{name}", made, files, AT, (code,), attacks=(10,), nonce=NONCE)
    for name, made, files in _forms(good):
        more: dict[str, Any] = {"nonce": NONCE, "anchors": world.anchors, "collateral": world.rims}
        yield Draft(f"container-{name}", made, files, AT, attacks=(10,), **more)
    for name, made, evidence, code in _lengths(good):
        yield world.draft(f"container-{name}", made, (evidence,), codes=(code,), attacks=(10,), exactly=False)


def _forms(good: Evidence) -> Iterator[tuple[str, str, dict[str, bytes]]]:
    """The same good evidence as others hand it over."""
    text = base64.b64encode(good.payload).decode()
    item = {"arch": "HOPPER", "nonce": NONCE.hex(), "evidence": text}
    item["certificate"] = base64.b64encode(good.certificates).decode()
    request = {"nonce": NONCE.hex(), "arch": "HOPPER", "evidence_list": [item]}
    yield "files", "report and chain", {"report.bin": good.payload, "chain.pem": good.certificates}
    yield "hex", "the report as hex", {"report.txt": good.payload.hex().encode(), "chain.pem": good.certificates}
    yield "base64", "the report as base64", {"report.txt": text.encode(), "chain.pem": good.certificates}
    yield "nvattest", "as nvattest writes it", {"evidence.json": _json([item])}
    yield "request", "as NRAS is asked", {"evidence.json": _json(request)}
    yield "string", "as a JSON string of that", {"evidence.json": _json(json.dumps(request))}


def _files(good: Evidence) -> Iterator[tuple[str, str, dict[str, bytes], str]]:
    """Name, what it is, the files, and the code."""
    one = dumps((good,))
    malformed, large = "evidence-malformed", "evidence-too-large"
    item = json.loads(one)["evidence"][0]
    named = {"format": "workermanager/evidence-v1"}
    yield "empty", "no byte at all", {"evidence.json": b""}, malformed
    yield "no-device", "a bundle of nothing", {"evidence.json": _json({**named, "evidence": []})}, "evidence-empty"
    yield "cut", "half a bundle", {"evidence.json": one[: len(one) // 2]}, malformed
    yield (
        "name-twice",
        "a name twice",
        {"evidence.json": one.replace(b'"format"', b'"evidence":[],"format"')},
        malformed,
    )
    yield "other-format", "another version", {"evidence.json": one.replace(b"evidence-v1", b"evidence-v9")}, malformed
    yield "nested", "ten thousand brackets", {"evidence.json": b"[" * 10_000 + b"]" * 10_000}, malformed
    yield "not-utf-8", "no text", {"evidence.json": b'{"format":"\xff\xfe"}'}, malformed
    yield "number", "a number of a million digits", {"evidence.json": b'{"a":' + b"9" * 1_000_000 + b"}"}, malformed
    yield "no-json", "an answer of a web server", {"evidence.json": b"<html>not found</html>"}, malformed
    yield "hex-odd", "an odd number of hex digits", {"report.hex": b"11e001f"}, malformed
    yield "no-chain", "a report without certificates", {"report.bin": good.payload}, malformed
    yield "chain-only", "certificates without a report", {"chain.pem": good.certificates}, malformed
    yield (
        "no-base64",
        "a report that is no base64",
        {"evidence.json": _json({**named, "evidence": [{**item, "payload": "%"}]})},
        malformed,
    )
    yield (
        "wrapped",
        "a JSON string in a string in a string",
        {"evidence.json": _json(json.dumps(json.dumps(json.dumps(one.decode()))))},
        malformed,
    )
    devices = DEVICES_MAX + 1
    yield "too-many", f"{devices} devices", {"evidence.json": dumps((good,) * devices)}, large
    yield (
        "a-million",
        "a million devices",
        {
            "evidence.json": b'{"evidence":[' + b"0," * (BUNDLE_BYTES_MAX // 2 - 100) + b"0],"
            b'"format":"workermanager/evidence-v1"}'
        },
        large,
    )
    yield "too-large", "one byte too many", {"evidence.json": b"[" + b" " * BUNDLE_BYTES_MAX}, large
    yield (
        "log-too-large",
        "a log of more than any",
        {"evidence.json": dumps((Evidence(INTEL_TDX, _TDX_START, log=bytes(LOG_BYTES_MAX + 1)),))},
        large,
    )
    yield (
        "many-files",
        "more files than a node can have",
        {**{f"report-{n}.bin": good.payload[:64] for n in range(2 * DEVICES_MAX + 1)}},
        large,
    )


def _lengths(good: Evidence) -> Iterator[tuple[str, str, Evidence, str]]:
    """Lengths inside that lie."""
    report = good.payload
    huge = report[:-2] + b"\xff\xff"
    opaque = report.replace(b"\x06\x00\x08\x00", b"\x06\x00\xff\xff", 1)
    yield "report-opaque", "an opaque field of 65,535 bytes", replace(good, payload=opaque), "report-malformed"
    yield "report-signature", "another signature", replace(good, payload=huge), "report-signature"
    yield "report-empty", "a report of nothing", Evidence(NVIDIA, b"", good.certificates), "report-malformed"
    quote = _TDX_START + bytes(40 + 584) + b"\xff" * 4
    yield "quote-length", "signature data of 4 GiB", Evidence(INTEL_TDX, quote), "tdx-quote-unsupported"
    yield "quote-cut", "eight bytes of a quote", Evidence(INTEL_TDX, _TDX_START), "tdx-quote-malformed"
    yield "report-of-zeros", "a report of zeros", Evidence(AMD_SNP, bytes(1184)), "snp-version-unsupported"
    yield "tokens-none", "no tokens", Evidence("nvidia-nras", b"{}"), "nras-eat-malformed"
    binary = replace(good, certificates=b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----\n")
    yield "chain-binary", "certificates that are no text", binary, "certificates-malformed"
    large = replace(good, certificates=good.certificates + b"\n" * (0x1400))
    yield "chain-large", "certificates behind five KiB of white space", large, "certificates-malformed"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
