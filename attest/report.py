"""A verdict for people and for programs: one document, and the same as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from attest.binding import CPUS
from attest.errors import AttestError
from attest.reasons import KIND_UNSUPPORTED, Reason, Stage
from attest.result import AttestationResult, Finding, Tier
from attest.verify import Refusal


def as_document(result: AttestationResult, refusals: Sequence[Refusal]) -> dict[str, Any]:
    """The whole verdict as JSON types. `status` is accepted, refused, unsupported or malformed."""
    accepted = result.tier is Tier.AFFIRMING
    return {
        "status": "accepted" if accepted else _status(refusal.reason for refusal in refusals),
        "tier": str(result.tier),
        "emulated": result.emulated,
        "revocation": result.revocation,
        "freshness": result.freshness,
        "binding": {"profile": result.binding, "strength": result.strength},
        "cpu": result.cpu,
        "policy": {"name": result.policy, "sha256": result.policy_sha256},
        "evidence_sha256": result.evidence_sha256,
        "nonce": result.nonce,
        "issued_at": _time(result.issued_at),
        "expires_at": _time(result.expires_at),
        "devices": [
            {
                "device": claim.device,
                "kind": claim.kind,
                "emulated": claim.emulated,
                "not_after": _time(claim.not_after),
                "claims": dict(claim.values),
                "collateral": dict(claim.collateral),
            }
            for claim in result.claims
        ],
        "refusals": [_finding(finding) for finding in result.failed],
        "findings": [_finding(finding) for finding in result.findings],
    }


def of_error(error: AttestError) -> dict[str, Any]:
    """The same document for evidence that could not even be read."""
    finding = Finding("node", "the evidence can be read", error.reason, False, error.found, error.wanted)
    return {
        "status": _status([error.reason]),
        "tier": str(Tier.CONTRAINDICATED),
        "devices": [],
        "refusals": [_finding(finding)],
        "findings": [_finding(finding)],
    }


def _status(reasons: Iterable[Reason]) -> str:
    """What kind of no it is. A device that was seen and refused weighs more than one that could not be read."""
    said = {
        "unsupported" if r is KIND_UNSUPPORTED else "malformed" if r.stage is Stage.PARSE else "refused"
        for r in reasons
    }
    return next((status for status in ("refused", "malformed", "unsupported") if status in said), "refused")


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "device": finding.device,
        "stage": str(finding.reason.stage),
        "rule": finding.rule,
        "code": finding.reason.code,
        "holds": finding.holds,
        "found": finding.found,
        "wanted": finding.wanted,
    } | ({} if finding.holds else {"meaning": finding.reason.meaning, "fix": finding.reason.remedy})


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def as_text(document: Mapping[str, Any]) -> str:
    """For a terminal: the verdict in a line, what it rests on, and of each refusal what to do."""
    lines = [_headline(document)]
    for device in document["devices"]:
        lines += _device(device)
    if "policy" in document:
        binding, policy = document["binding"], document["policy"]["name"]
        lines += [
            f"  revocation: {document['revocation']}    freshness: {document['freshness']}",
            f"  binding: {binding['profile']} ({binding['strength']})    CPU TEE: {document['cpu']}",
            f"  policy: {policy}    as of {document['issued_at']}    until {document['expires_at']}",
        ]
    if "preflight" in document:
        lines += _preflight(document["preflight"])
    for refusal, devices in _grouped(document["refusals"]):
        lines += ["", *_refusal(refusal, devices)]
    return "\n".join(lines)


def _preflight(told: Mapping[str, Any]) -> list[str]:
    lines = ["", "  a preflight, no verdict: judged as if it had just answered a challenge"]
    if told["falls_away"]:
        lines.append(f"    falls away then: {', '.join(told['falls_away'])}")
    if told["to_be_fetched"]:
        lines.append(f"    rests on documents that an orchestrator fetches itself: {', '.join(told['to_be_fetched'])}")
    return lines


def _headline(document: Mapping[str, Any]) -> str:
    mark = " — EMULATED, not real hardware" if document.get("emulated") else ""
    count = len(document["refusals"])
    reasons = "" if document["status"] == "accepted" else f" ({count} reason{'s' if count != 1 else ''})"
    return f"{str(document['status']).upper()}{reasons}{mark}"


def _device(device: Mapping[str, Any]) -> list[str]:
    claims = device["claims"]
    if device["kind"] in CPUS:
        return [*_cpu(device), *_documents(device)]
    told = [
        f"  {device['device']}: {claims.get('hwmodel', device['kind'])}",
        f"    {_versions(claims)}",
        f"    measurements: {claims.get('measurements')} ({claims.get('compared')} compared)",
        f"    firmware identity: {claims.get('fwid')}",
    ]
    return [*told, *_documents(device)]


def _versions(claims: Mapping[str, Any]) -> str:
    """Of a GPU driver and VBIOS, of a switch its BIOS."""
    if "bios" in claims:
        return f"BIOS {claims['bios']}, mode {claims.get('mode')}"
    return f"driver {claims.get('driver')}, VBIOS {claims.get('vbios')}, mode {claims.get('mode')}"


def _cpu(device: Mapping[str, Any]) -> list[str]:
    """Of TDX the status by Intel's word; of SEV-SNP the product; and what the guest is measured by."""
    claims = device["claims"]
    advisories = f" ({claims['advisories']})" if claims.get("advisories") else ""
    return [
        f"  {device['device']}: {claims.get('product', device['kind'])}",
        f"    TCB {claims.get('tcb_status', claims.get('tcb_reported'))}{advisories}",
        f"    measured: {str(claims.get('mrtd', claims.get('measurement')))[:32]}…",
    ]


def _documents(device: Mapping[str, Any]) -> list[str]:
    return [f"    {name}: sha256 {sha256[:16]}…" for name, sha256 in device["collateral"].items()]


def _grouped(refusals: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], str]]:
    """The same refusal of many devices is told once, with all their names."""
    devices: dict[tuple[str, ...], list[str]] = {}
    first: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for refusal in refusals:
        key = tuple(str(refusal[name]) for name in ("code", "found", "wanted"))
        names = devices.setdefault(key, [])
        if refusal["device"] not in names:
            names.append(refusal["device"])
        first.setdefault(key, refusal)
    return [(refusal, _named(devices[key])) for key, refusal in first.items()]


def _named(devices: Sequence[str]) -> str:
    return ", ".join(devices) if len(devices) <= 2 else f"{devices[0]} and {len(devices) - 1} more devices"


def _refusal(refusal: Mapping[str, Any], devices: str) -> list[str]:
    lines = [f"  {refusal['stage']}: {refusal['code']} ({devices})", f"    {refusal['meaning']}"]
    if refusal["found"]:
        lines.append(f"    found:  {refusal['found']}")
    if refusal["wanted"]:
        lines.append(f"    wanted: {refusal['wanted']}")
    return [*lines, f"    do:     {refusal['fix']}"]
