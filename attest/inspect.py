"""What evidence says of itself. Nothing here is verified, and nothing here is used by anything that decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attest.errors import AttestError, printable
from attest.evidence import NVIDIA, Bundle, Evidence, digest
from attest.nvidia import report as reports
from attest.nvidia.report import Field, Report
from attest.nvidia.rim import driver_version, vbios_version
from attest.x509 import UNREADABLE, load_pem

WARNING = "not verified: this is what the evidence says, not what is true"


def inspect_bundle(bundle: Bundle) -> dict[str, Any]:
    """Every device of a bundle as JSON types. AttestError if a report does not parse."""
    return {"warning": WARNING, "evidence_sha256": digest(bundle), "devices": [_device(e) for e in bundle]}


def _device(evidence: Evidence) -> dict[str, Any]:
    said: dict[str, Any] = {
        "kind": evidence.kind,
        "bytes": len(evidence.payload),
        "certificates": _certificates(evidence),
    }
    return said | (_report(reports.parse(evidence.payload)) if evidence.kind == NVIDIA else {})


def _certificates(evidence: Evidence) -> list[str]:
    try:
        return [printable(each.certificate.subject.rfc4514_string()) for each in load_pem(evidence.certificates)]
    except UNREADABLE as e:
        return [f"unreadable: {printable(str(e))}"] if evidence.certificates else []


def _report(report: Report) -> dict[str, Any]:
    said: dict[str, Any] = {"nonce": report.nonce.hex()}
    for name, read in (("driver", driver_version), ("vbios", vbios_version)):
        try:
            said[name] = read(report)
        except AttestError as e:  # a switch has no driver; look on
            said[name] = f"none ({e.reason.code})"
    names = {field.value: field.name.lower() for field in Field}
    said["fields"] = {names.get(key, f"field_{key}"): value.hex() for key, value in sorted(report.opaque.items())}
    said["measurements"] = {str(index): value.hex() for index, value in enumerate(report.measurements) if any(value)}
    return said


def as_text(said: Mapping[str, Any]) -> str:
    """For a terminal; measurements abridged to what can be compared by eye."""
    lines = [f"({said['warning']})"]
    for number, device in enumerate(said["devices"]):
        lines.append(f"device {number}: {device['kind']}, {device['bytes']} bytes")
        lines += [f"  certificate {height}: {subject}" for height, subject in enumerate(device["certificates"])]
        lines += [f"  {name}: {device[name]}" for name in ("nonce", "driver", "vbios") if name in device]
        fields = device.get("fields", {})
        lines += [f"  {name}: {value if len(value) <= 64 else value[:61] + '…'}" for name, value in fields.items()]
        lines += [f"  measurement {index:>2}: {value[:48]}…" for index, value in device.get("measurements", {}).items()]
    return "\n".join(lines)
