"""
Rules for the claims of a TDX trust domain, and the names of those claims.

    quote_version, body   4 | 5; "td-1.0" | "td-1.5" | "td-1.5ex"
    quote_sha256          of header and body: the quote's own name, to find replays by
    tcb_status            Intel's word for machine, TDX module and quoting enclave together: "UpToDate", "OutOfDate", …
    advisories            ids that apply, sorted, with commas between; empty if none
    tcb_evaluation        the lower evaluation number of TCB info and QE identity
    collateral_stale_hours  whole hours since the first of Intel's documents ran out, rounded up; 0 if none has
    fmspc, ca             family of the machine; "platform" | "processor": which CA issued its PCK certificate
    platform_instance     set up anew when processors are exchanged; empty where the PCK certificate has none
    dynamic_platform, cached_keys, smt_enabled    "yes" | "no" | "unstated"
    td_attributes, attributes, xfam   hex; the names of the bits that are set, sorted, with commas between; hex
    tee_tcb_svn, mrseam   version and measurement of the TDX module, hex
    mrtd, rtmr0 … rtmr3, mrconfigid, mrowner, mrownerconfig, report_data    hex
    td_id, dev_info       hex, of td-1.5ex only: another one at each launch; devices bound by TDX Connect
    nonce                 "match" | "absent" | "not asked": whether a half of REPORTDATA is the nonce itself
    rtmr_replay           "match" | "partial" | "mismatch" | "not supplied": the node's event log against the registers;
                          partial if it leaves a register out that is not zero
    rtmr_replayed         indices of the registers that the log speaks of
    event.NAME            payload of an application event in RTMR3, hex; only of a log that holds
    revocation            "good"
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from attest.claims import Claims
from attest.reasons import Reason
from attest.reasons import tdx as reasons
from attest.result import Finding
from attest.tdx.rules import TdxRules

RTMRS = 4
PLATFORM_FLAGS = ("dynamic_platform", "cached_keys", "smt_enabled")


class WithTdxRules(Protocol):
    """A policy that has rules for TDX."""

    @property
    def tdx(self) -> TdxRules: ...


def appraise_tdx(claims: Claims, policy: WithTdxRules, _now: datetime, *, bound: bool = False) -> Iterator[Finding]:
    """
    Every rule of `policy.tdx`, tried on one trust domain.

    `bound`: a binding profile has tied REPORTDATA to the challenge. Without one, REPORTDATA must hold the challenge
    itself, if there was one.
    """
    rules = policy.tdx
    yield from _tcb(claims, rules)
    yield from _collateral(claims, rules)
    yield from _platform(claims, rules)
    yield _attributes(claims, rules)
    yield _listed(claims, "mrtd", rules.mrtd, reasons.TDX_MRTD)
    for index in range(RTMRS):
        yield _listed(claims, f"rtmr{index}", getattr(rules, f"rtmr{index}"), reasons.TDX_RTMR)
    yield _listed(claims, "mrconfigid", rules.mrconfigid, reasons.TDX_MRCONFIGID)
    yield _event_log(claims, rules)
    for name, allowed in sorted(rules.events.items()):
        yield _listed(claims, f"event.{name}", allowed, reasons.TDX_EVENT)
    yield _nonce(claims, bound)


def _tcb(claims: Claims, rules: TdxRules) -> Iterator[Finding]:
    wanted, status = " or ".join(sorted(rules.statuses)), claims.values.get("tcb_status")
    rule = "has a TCB status that we accept"
    yield _rule(claims, rule, reasons.TDX_TCB_STATUS, status in rules.statuses, str(status), wanted)
    said = claims.values.get("advisories")
    unaccepted = sorted(set(said.split(",")) - rules.advisories - {""}) if isinstance(said, str) else ["unstated"]
    accepted = ", ".join(sorted(rules.advisories)) or "none"
    rule = "has no advisory that we do not accept"
    yield _rule(claims, rule, reasons.TDX_ADVISORY, not unaccepted, ", ".join(unaccepted) or "none", accepted)


def _collateral(claims: Claims, rules: TdxRules) -> Iterator[Finding]:
    number, least = claims.values.get("tcb_evaluation"), rules.tcb_evaluation_min
    rule = "was judged by a current evaluation"
    recent = type(number) is int and number >= least
    yield _rule(claims, rule, reasons.TDX_TCB_EVALUATION, recent, str(number), f"at least {least}")
    hours, most = claims.values.get("collateral_stale_hours"), rules.collateral_stale_hours_max
    fresh = type(hours) is int and hours <= most
    rule = "has current collateral"
    yield _rule(claims, rule, reasons.TDX_COLLATERAL_STALE, fresh, f"{hours} hours ago", f"at most {most}")


def _platform(claims: Claims, rules: TdxRules) -> Iterator[Finding]:
    """A machine that does not say whether it has a property may have it."""
    for flag in PLATFORM_FLAGS:
        found = claims.values.get(flag)
        holds = flag in rules.platform or found == "no"
        yield _rule(claims, f"may have {flag}", reasons.TDX_PLATFORM, holds, str(found), "no")


def _attributes(claims: Claims, rules: TdxRules) -> Finding:
    said = claims.values.get("attributes")
    found = set(said.split(",")) if isinstance(said, str) else set()
    holds = "sept_ve_disable" in found and found <= rules.attributes | {"sept_ve_disable"}
    wanted = ", ".join(["sept_ve_disable", *sorted(rules.attributes)])
    return _rule(claims, "has attributes that we accept", reasons.TDX_ATTRIBUTES, holds, str(said), wanted)


def _listed(claims: Claims, claim: str, allowed: frozenset[str] | None, reason: Reason) -> Finding:
    found = claims.values.get(claim)
    holds = isinstance(found, str) and (allowed is None or found in allowed)
    wanted = "any" if allowed is None else " or ".join(sorted(allowed)) or "nothing"
    return _rule(claims, f"has a {claim} that we accept", reason, holds, str(found), wanted)


def _event_log(claims: Claims, rules: TdxRules) -> Finding:
    found = claims.values.get("rtmr_replay")
    if rules.event_log == "required":
        accepted: tuple[str, ...] = ("match",)
    else:  # rules on events ask for the events themselves, which only a log that holds makes claims of
        accepted = ("match", "partial", "not supplied")
    rule = "has an event log that matches"
    return _rule(claims, rule, reasons.TDX_EVENT_LOG, found in accepted, str(found), " or ".join(accepted))


def _nonce(claims: Claims, bound: bool) -> Finding:
    found = claims.values.get("nonce")
    holds = bound or found in ("match", "not asked")
    rule = "answers the challenge, if there was one"
    return _rule(claims, rule, reasons.TDX_NONCE, holds, "bound" if bound else str(found), "match")


def _rule(claims: Claims, rule: str, reason: Reason, holds: bool, found: str, wanted: str) -> Finding:
    return Finding(claims.device, rule, reason, holds, found, wanted)
