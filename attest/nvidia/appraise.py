"""
Rules for the claims of an NVIDIA GPU or switch, and the names of those claims.

    architecture          "GH100" | "GB100" | "LS_10", from the certificates; `switch` is true for the last
    hwmodel, ueid         subject of the device certificate; attestation key serial, decimal
    pdi                   identity of the device, from its certificate, hex
    driver, vbios, bios   versions, from the signed report: the first two of a GPU, the third of a switch
    mode                  "spt" one GPU, "mpt" several, "ppcie" protected PCIe, "unstated" by drivers that do not say;
                          a switch is in "ppcie" or "unlocked"
    switch_pdis           of a GPU in an HGX box: the switches at its links; of a switch: `gpu_pdis` and `own_pdi`
    nonce                 the challenge that the report answers, hex
    fwid                  "match" | "absent" | "not reported" (by switches): firmware named by report and certificate
    rim_driver, rim_vbios, rim_bios    "verified" | "missing": the reference manifests; their ids are rim_driver_id, …
    rim_expired_days      whole days since the first of the RIMs' certificates expired, begun ones too; 0 if none has
    measurements          "match" | "mismatch" | "incomplete"; `compared` says how many reference values were compared
    mismatching_indices   RIM indices that differ
    revocation            "good" | "hold" | "not checked", of all certificates together; `revocation_asked` says of how
                          many there were answers
    revocation_until      when the first answer runs out, seconds since 1970
    revocation_stale_hours    whole hours since it did, begun ones too; 0 if none has
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache

from attest import reasons
from attest.claims import Claims
from attest.policy import Asked, Policy, one_of
from attest.reasons import Reason
from attest.result import Finding

FWID_SINCE_DRIVER = (550,)  # older drivers' reports have no firmware identity (seen absent in 535.86.09 and 545.00)
GPU_RIMS, SWITCH_RIMS = ("driver", "vbios"), ("bios",)
_NEVER = (1 << 64,)  # a minimum that no version reaches


def appraise_gpu(claims: Claims, policy: Policy, _now: datetime) -> Iterator[Finding]:
    """Every rule of `policy.nvidia`, tried on one GPU or switch."""
    switch = claims.values.get("switch") is True
    yield _architecture(claims, policy)
    yield _mode(claims, policy)
    if not switch:  # whose one version the RIM pins
        yield _version(claims, "driver", policy.nvidia.driver_min, 10, reasons.DRIVER_TOO_OLD)
        yield _version(claims, "vbios", policy.nvidia.vbios_min, 16, reasons.VBIOS_NOT_ACCEPTED)
        yield _fwid(claims, policy)
    for role in SWITCH_RIMS if switch else GPU_RIMS:
        state, name = claims.values.get(f"rim_{role}"), str(claims.values.get(f"rim_{role}_id", "unnamed"))
        yield _rule(claims, f"has the {role} RIM", reasons.RIM_UNAVAILABLE, state == "verified", str(state), name)
    yield _rim_age(claims, policy)
    yield _measurements(claims, policy)


def _architecture(claims: Claims, policy: Policy) -> Finding:
    found, allowed = claims.values.get("architecture"), policy.nvidia.architectures
    wanted = one_of(allowed)
    reason = reasons.ARCHITECTURE_NOT_ACCEPTED
    return _rule(claims, "is of an accepted architecture", reason, found in allowed, str(found), wanted)


def _mode(claims: Claims, policy: Policy) -> Finding:
    found, allowed = claims.values.get("mode"), policy.nvidia.modes
    wanted = one_of(allowed)
    return _rule(claims, "is in an accepted mode", reasons.MODE_NOT_ACCEPTED, found in allowed, str(found), wanted)


def _version(claims: Claims, claim: str, minimum: str | None, base: int, reason: Reason) -> Finding:
    found = claims.values.get(claim)
    version = _numbers(found, base)
    holds = version is not None and (minimum is None or version >= (_numbers(minimum, base) or _NEVER))
    return _rule(claims, f"names a {claim} version that is new enough", reason, holds, str(found), minimum or "any")


@lru_cache(maxsize=1024)
def _numbers(version: object, base: int) -> tuple[int, ...] | None:
    """The parts of a version as numbers. None for what is none: it is neither new enough nor old."""
    try:
        return tuple(int(part, base) for part in version.split(".")) if isinstance(version, str) else None
    except ValueError:
        return None


def _fwid(claims: Claims, policy: Policy) -> Finding:
    found = claims.values.get("fwid")
    driver = _numbers(claims.values.get("driver"), 10)
    old = driver is not None and driver < FWID_SINCE_DRIVER
    excused = found == "absent" and old and policy.nvidia.fwid is Asked.OPTIONAL
    rule = "runs the firmware that its certificate endorses"
    return _rule(claims, rule, reasons.FWID_ABSENT, found == "match" or excused, str(found), "match")


def _rim_age(claims: Claims, policy: Policy) -> Finding:
    days, most = claims.values.get("rim_expired_days"), policy.nvidia.rim_expired_days_max
    holds = type(days) is int and 0 <= days <= most
    return _rule(claims, "has unexpired RIMs", reasons.RIM_EXPIRED, holds, f"{days} days ago", f"at most {most}")


def _measurements(claims: Claims, policy: Policy) -> Finding:
    state, compared = claims.values.get("measurements"), claims.values.get("compared")
    differing = claims.values.get("mismatching_indices")
    some = type(compared) is int and compared > 0  # nothing compared is nothing matched
    tolerated = (
        isinstance(differing, tuple)
        and bool(differing)
        and policy.nvidia.allowed_mismatching_indices.issuperset(differing)
    )
    blind = state == "incomplete" and differing == ()  # nothing differs as far as we could see
    reason = reasons.RIM_UNAVAILABLE if blind else reasons.MEASUREMENTS_MISMATCH
    holds = some and ((state == "match" and differing == ()) or (state == "mismatch" and tolerated))
    shown = f"{state} at {', '.join(map(str, differing))}" if isinstance(differing, tuple) and differing else str(state)
    return _rule(claims, "measures what the RIMs say", reason, holds, shown, "match")


def _rule(claims: Claims, rule: str, reason: Reason, holds: bool, found: str, wanted: str) -> Finding:
    return Finding(claims.device, rule, reason, holds, found, wanted)
