"""Is this quote of a trust domain on a genuine Intel machine, how current is the machine, and what does it measure?"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from attest.claims import Claims, Value
from attest.collateral import Collateral, Need
from attest.errors import UntrustedCollateral, UntrustedEvidence
from attest.evidence import INTEL_TDX, Evidence, Nonce
from attest.memo import Memo
from attest.reasons import Reason
from attest.reasons import tdx as reasons
from attest.tdx import quote as quotes
from attest.tdx import qvl
from attest.tdx.collateral import Prepared, check_revocation, prepare
from attest.tdx.eventlog import with_event_log
from attest.tdx.pck import Pck, Upper, check_time, read_chain
from attest.tdx.quote import Attribute, Quote, TdReport
from attest.tdx.qvl import Judged
from attest.tdx.roots import WithIntelRoots
from attest.verify import Breach

PCKS_REMEMBERED, COLLATERAL_REMEMBERED, READ_REMEMBERED = 20_000, 200, 64
STALE_MAX = timedelta(days=30)  # documents that ran out longer ago are not looked at; a policy allows less, or none
_SECOND, _HOUR = timedelta(seconds=1), timedelta(hours=1)

_NAMED = sum(Attribute)
_REFUSED: tuple[tuple[int, Reason], ...] = (
    (int(Attribute.DEBUG), reasons.TDX_DEBUG),
    (int(Attribute.HGS_PLUS_PROF | Attribute.PERF_PROF | Attribute.PMT_PROF), reasons.TDX_PROFILING),
    (int(Attribute.MIGRATABLE), reasons.TDX_MIGRATABLE),
    (int(Attribute.SERVTD_EXT), reasons.TDX_SERVICE_TD),
)
_SERVICE_FIELDS = (
    "mrservicetd",
    "initial_service_td_hash",
    "initial_service_td_attributes",
    "current_service_td_hash",
    "current_service_td_attributes",
)


@dataclass(frozen=True, slots=True)
class _Read:
    """A quote that parses and a chain that ends at a pinned root: facts about bytes, at no time in particular."""

    quote: Quote
    pck: Pck


class TdxVerifier:
    """
    Quotes v4 and v5 of Intel's quoting enclave, offline. Claims are named in `attest.tdx.appraise`.

    The device is the machine, by the PPID of its PCK certificate: two trust domains of one machine are one device.
    """

    kind = INTEL_TDX

    def __init__(self, anchors: WithIntelRoots) -> None:
        self._roots = anchors.intel_sgx
        self._read: Memo[_Read] = Memo(READ_REMEMBERED)
        self._pcks: Memo[Pck] = Memo(PCKS_REMEMBERED)
        self._uppers: Memo[Upper] = Memo(COLLATERAL_REMEMBERED)
        self._collateral: Memo[Prepared] = Memo(COLLATERAL_REMEMBERED)

    def needs(self, evidence: Evidence, have: Collateral) -> frozenset[Need]:
        return frozenset(self._reading(evidence).pck.needs.all) - have.keys()

    def verify(self, evidence: Evidence, collateral: Collateral, *, nonce: Nonce | None, now: datetime) -> Claims:
        reading = self._reading(evidence)
        quote, pck = reading.quote, reading.pck
        check_time(pck, now=now)
        prepared = prepare(collateral, pck, known=self._collateral)
        check_revocation(prepared, pck)
        at = _moment_to_judge_at(prepared, pck, now)
        judged = qvl.verify(quote, prepared.library, pck.root_der, int(at.timestamp()))
        expiries = [pck.not_after, prepared.not_after, *([prepared.fresh_until] if now < prepared.fresh_until else [])]
        claims = Claims(
            kind=self.kind,
            device=f"{self.kind}-{pck.ppid.hex()}",
            emulated=pck.root.emulated,
            not_after=min(expiries),
            values=_quoted(quote)
            | _machine(judged, prepared, pck)
            | {
                "collateral_stale_hours": _stale_hours(prepared, now),
                "nonce": _nonce(quote.td, nonce),
                "rtmr_replay": "not supplied",
                "revocation": "good",
            },
            collateral={str(need): collateral[need].sha256 for need in pck.needs.all},
        )
        return with_event_log(claims, evidence.log) if evidence.log else claims

    def together(self, claims: Sequence[Claims]) -> Iterable[Breach]:  # noqa: ARG002 - nothing between them
        return ()

    def _reading(self, evidence: Evidence) -> _Read:
        """What these very bytes say, whenever: `needs` and `verify` ask in turn, and need not both read them."""
        return self._read.get(evidence.payload) or self._read.put(evidence.payload, self._read_anew(evidence))

    def _read_anew(self, evidence: Evidence) -> _Read:
        quote = quotes.parse(evidence.payload)
        _refuse_weak(quote.td)
        return _Read(quote, read_chain(quote.chain, self._roots, known=self._pcks, uppers=self._uppers))


def _refuse_weak(td: TdReport) -> None:
    """Trust domains that are none: nobody's word can make up for these, so no policy allows them."""
    attributes = int.from_bytes(td.td_attributes, "little")
    for bits, reason in _REFUSED:
        if attributes & bits:
            raise UntrustedEvidence(reason, f"attributes {td.td_attributes.hex()}", "without")
    if not attributes & int(Attribute.SEPT_VE_DISABLE):
        raise UntrustedEvidence(reasons.TDX_SEPT_VE, f"attributes {td.td_attributes.hex()}", "SEPT_VE_DISABLE")
    if attributes & ~_NAMED:
        raise UntrustedEvidence(reasons.TDX_RESERVED, f"attributes {td.td_attributes.hex()}", "no reserved bit")
    if bound := [name for name in _SERVICE_FIELDS if any(getattr(td, name))]:
        raise UntrustedEvidence(reasons.TDX_SERVICE_TD, bound[0], "all zero")


def _moment_to_judge_at(prepared: Prepared, pck: Pck, now: datetime) -> datetime:
    """
    Now; or the last moment at which all documents were current, if they have run out since: then the claims say how
    long ago, and the policy decides. Certificates are held to the true time all the same.
    """
    if now < prepared.issued_at or now >= prepared.not_after:
        found = f"issued {prepared.issued_at:%Y-%m-%d %H:%M}, certificates until {prepared.not_after:%Y-%m-%d}"
        raise UntrustedCollateral(reasons.TDX_COLLATERAL_TIME, found, f"valid at {now:%Y-%m-%d %H:%M}")
    if now < prepared.fresh_until:
        return now
    then = prepared.fresh_until - _SECOND
    if now - prepared.fresh_until > STALE_MAX or then < max(prepared.issued_at, pck.not_before):
        found = f"ran out {prepared.fresh_until:%Y-%m-%d %H:%M}"
        raise UntrustedCollateral(reasons.TDX_COLLATERAL_STALE, found, f"current at {now:%Y-%m-%d %H:%M}")
    return then


def _stale_hours(prepared: Prepared, now: datetime) -> int:
    """Whole hours since the first document ran out, rounded up; 0 if none has. The instant itself is too late."""
    return 0 if now < prepared.fresh_until else (now - prepared.fresh_until) // _HOUR + 1


def _quoted(quote: Quote) -> dict[str, Value]:
    td = quote.td
    values: dict[str, Value] = {
        "quote_version": quote.version,
        "body": quote.body.claim,
        "quote_sha256": quote.replay_key,
        "attributes": ",".join(sorted(each.name.lower() for each in td.attributes if each.name)),
    }
    shown = ("tee_tcb_svn", "mrseam", "td_attributes", "xfam", "mrtd", "mrconfigid", "mrowner", "mrownerconfig")
    later = ("td_id", "dev_info")
    values |= {name: getattr(td, name).hex() for name in (*shown, "report_data")}
    values |= {f"rtmr{index}": value.hex() for index, value in enumerate(td.rtmrs)}
    return values | {name: getattr(td, name).hex() for name in later if getattr(td, name)}


def _machine(judged: Judged, prepared: Prepared, pck: Pck) -> dict[str, Value]:
    return {
        "tcb_status": judged.status,
        "advisories": ",".join(sorted(set(judged.advisories))),
        "tcb_evaluation": prepared.evaluation,
        "fmspc": pck.fmspc,
        "ca": pck.ca,
        "platform_instance": pck.instance.hex() if pck.instance else "",
        **pck.flags,
    }


def _nonce(td: TdReport, nonce: Nonce | None) -> str:
    """Whether REPORTDATA holds the nonce itself, in either half. Other layouts are binding profiles' to read."""
    if nonce is None:
        return "not asked"
    halves = td.report_data[:32], td.report_data[32:]
    return "match" if any(hmac.compare_digest(half, nonce) for half in halves) else "absent"
