"""Is this report from a genuine NVIDIA device, does it answer our challenge, and what does it measure?"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from attest import reasons
from attest.anchors import Anchors
from attest.claims import Claims, Value
from attest.collateral import Collateral, Document, Need
from attest.errors import NonceMismatch, UntrustedCollateral, UntrustedEvidence
from attest.evidence import NVIDIA, Evidence, Nonce
from attest.memo import Memo
from attest.nvidia import devices, topology
from attest.nvidia import report as reports
from attest.nvidia import rim as rims
from attest.nvidia.chain import DeviceChain, DeviceClass, KnownTexts, verify_chain, verify_time
from attest.nvidia.report import Field, Report
from attest.nvidia.revocation import Inquiry, KnownAnswers, KnownQuestions, judge
from attest.nvidia.rim import Rim, Wanted
from attest.verify import Breach
from attest.x509 import Path, verify_raw_signature

CHAINS_REMEMBERED, PATHS_REMEMBERED, RIMS_REMEMBERED = 20_000, 1_000, 1_000
TEXTS_REMEMBERED, ANSWERS_REMEMBERED = 64, 50_000
READ_REMEMBERED = 8  # as many as are verified at once: what is read is needed for one verdict, and stays in fast memory

# Claims that the GPUs of one node must agree on.
SHARED = ("mode", "driver", "architecture")


@dataclass(frozen=True, slots=True)
class _Read:
    """A report that parses and a chain that leads to a pinned root: facts about bytes, at no time in particular."""

    parsed: Report
    chain: DeviceChain
    wanted: tuple[Wanted, ...]
    needs: frozenset[Need]


@dataclass(frozen=True, slots=True)
class _Reference:
    """Verified RIMs for what was wanted, not all of them perhaps, at no time in particular; and what they add up to."""

    paths: tuple[Path, ...]  # of their signers
    goldens: Mapping[int, tuple[bytes, ...]]
    documents: Mapping[str, str]  # what each was for -> SHA-256
    values: Mapping[str, Value]  # the claims that name them
    inquiries: tuple[Inquiry, ...]  # about revocation of their signers
    needs: frozenset[Need]  # of those
    complete: bool


class NvidiaVerifier:
    """Hopper and Blackwell GPUs and LS10 switches. Which of them a device is, its certificates say."""

    kind = NVIDIA

    def __init__(self, anchors: Anchors) -> None:
        self._anchors = anchors
        self._chains: Memo[DeviceChain] = Memo(CHAINS_REMEMBERED)
        self._device_paths: Memo[Path] = Memo(PATHS_REMEMBERED)
        self._texts: KnownTexts = Memo(TEXTS_REMEMBERED)
        self._rim_paths: Memo[Path] = Memo(PATHS_REMEMBERED)
        self._rims: Memo[Rim] = Memo(RIMS_REMEMBERED)
        self._wanted: Memo[tuple[Wanted, ...]] = Memo(RIMS_REMEMBERED)
        self._references: Memo[_Reference] = Memo(RIMS_REMEMBERED)
        self._answers: KnownAnswers = Memo(ANSWERS_REMEMBERED)
        self._questions = KnownQuestions()
        self._read: Memo[_Read] = Memo(READ_REMEMBERED)

    def needs(self, evidence: Evidence, have: Collateral) -> frozenset[Need]:
        """First the RIMs and what to ask about the device; once a RIM is there, what to ask about its signer."""
        reading = self._reading(evidence)
        needs = reading.needs
        if have:
            needs |= self._reference(reading.wanted, have).needs
        return needs - have.keys()

    def verify(self, evidence: Evidence, collateral: Collateral, *, nonce: Nonce | None, now: datetime) -> Claims:
        reading = self._reading(evidence)
        parsed, chain, wanted = reading.parsed, reading.chain, reading.wanted
        verify_time(chain, now=now)
        _verify_signature(parsed, chain)
        fwid = _verify_firmware(parsed, chain)
        _verify_nonce(parsed, nonce)
        reference = self._reference(wanted, collateral)
        for path in reference.paths:
            rims.check_time(path, now=now)
        asked = (*chain.inquiries, *reference.inquiries)
        revocation = judge(asked, collateral, now=now, known=self._answers)
        answered = _answered(asked, collateral) if revocation["revocation_asked"] else {}
        return Claims(
            kind=self.kind,
            device=f"nvidia-{chain.device_class.lower()}-{chain.pdi}",
            emulated=_origin(chain, reference),
            not_after=min([chain.path.not_after, *(path.not_after for path in reference.paths if path.covers(now))]),
            values={
                **_identity(parsed, chain, wanted),
                "fwid": fwid,
                **reference.values,
                "rim_expired_days": _days_expired(reference, now),
                **_compare(parsed, chain.device_class, reference),
                **revocation,
            },
            collateral={**reference.documents, **answered},
        )

    def together(self, claims: Sequence[Claims]) -> Iterable[Breach]:
        """GPUs of one node are alike, and those of an HGX box are wired to the switches beside them."""
        ours = [claim for claim in claims if claim.kind == self.kind]
        if len(ours) < 2:
            return
        gpus = [claim for claim in ours if claim.values.get("switch") is not True]
        for name in SHARED:
            said = {str(claim.values.get(name, "")) for claim in gpus}
            if len(said) > 1:
                yield reasons.DEVICES_DIFFER, f"{name} {' and '.join(sorted(said))}", "the same for all"
        yield from topology.check(ours)

    def _reading(self, evidence: Evidence) -> _Read:
        """What these very bytes say, whenever: `needs` and `verify` ask in turn, and need not both read them."""
        return self._read.get(evidence) or self._read.put(evidence, self._read_anew(evidence))

    def _read_anew(self, evidence: Evidence) -> _Read:
        parsed = reports.parse(evidence.payload)
        chain = verify_chain(
            evidence.certificates,
            self._anchors.nvidia_device,
            known=self._chains,
            paths=self._device_paths,
            texts=self._texts,
            questions=self._questions,
        )
        devices.check_shape(parsed, chain.device_class)
        wanted = rims.wanted_by(parsed, chain.device_class, known=self._wanted)
        needs = frozenset([*(each.need for each in wanted), *(inquiry.need for inquiry in chain.inquiries)])
        return _Read(parsed, chain, wanted, needs)

    def _reference(self, wanted: tuple[Wanted, ...], collateral: Collateral) -> _Reference:
        """What these very documents say, whenever."""
        found = [(each, document) for each in wanted if (document := collateral.get(each.need)) is not None]
        key = wanted, *((each.role, document.sha256) for each, document in found)
        return self._references.get(key) or self._references.put(key, self._reference_anew(wanted, dict(found)))

    def _reference_anew(self, wanted: Sequence[Wanted], found: Mapping[Wanted, Document]) -> _Reference:
        paths: list[Path] = []
        inquiries: dict[Inquiry, None] = {}  # RIMs share signers
        goldens: dict[int, tuple[bytes, ...]] = {}
        for each, document in found.items():
            rim = rims.load(
                document,
                self._anchors.nvidia_rim,
                known=self._rims,
                paths=self._rim_paths,
                questions=self._questions,
            )
            rims.check(rim, each)
            if both := goldens.keys() & rim.goldens.keys():
                raise UntrustedCollateral(reasons.RIM_CONFLICT, f"index {min(both)} in both", "each in one")
            paths.append(rim.path)
            inquiries |= dict.fromkeys(rim.inquiries)
            goldens |= rim.goldens
        documents = {str(each.need): document.sha256 for each, document in found.items()}
        values: dict[str, Value] = {}
        for each in wanted:
            values[f"rim_{each.role}_id"] = each.need.name
            values[f"rim_{each.role}"] = "verified" if each in found else "missing"
        complete = bool(found) and len(found) == len(wanted)
        needs = frozenset(inquiry.need for inquiry in inquiries)
        return _Reference(tuple(paths), goldens, documents, values, tuple(inquiries), needs, complete)


def _verify_signature(parsed: Report, chain: DeviceChain) -> None:
    if not verify_raw_signature(chain.key, parsed.signature, parsed.signed):
        raise UntrustedEvidence(reasons.REPORT_SIGNATURE)


def _verify_firmware(parsed: Report, chain: DeviceChain) -> str:
    """The certificate endorses a key *and the firmware that holds it*; the report must agree, if it says anything."""
    named = parsed.opaque.get(Field.FWID)
    if named is None:
        # Reports of switches have no such field: their firmware is known by its measurements alone.
        return "not reported" if chain.device_class is DeviceClass.LS10 else "absent"
    if not hmac.compare_digest(named, chain.fwid):
        raise UntrustedEvidence(reasons.FWID_MISMATCH, named.hex()[:16] + "…", chain.fwid.hex()[:16] + "…")
    return "match"


def _verify_nonce(parsed: Report, nonce: Nonce | None) -> None:
    if nonce is not None and not hmac.compare_digest(parsed.nonce, nonce):
        raise NonceMismatch(reasons.NONCE_MISMATCH, parsed.nonce.hex(), nonce.hex())


def _origin(chain: DeviceChain, reference: _Reference) -> bool:
    """Whether it is emulated. A vendor's device is never measured by an emulator's RIM, nor the other way round."""
    origins = {chain.path.anchor.emulated, *(path.anchor.emulated for path in reference.paths)}
    if len(origins) != 1:
        raise UntrustedCollateral(reasons.ROOTS_MIXED, "a vendor's and an emulated one", "one origin")
    return origins.pop()


def _identity(parsed: Report, chain: DeviceChain, wanted: Sequence[Wanted]) -> dict[str, Value]:
    return {
        "architecture": str(chain.device_class),
        "switch": chain.device_class is DeviceClass.LS10,
        "hwmodel": chain.hwmodel,
        "pdi": chain.pdi,
        "ueid": chain.ueid,
        "nonce": parsed.nonce.hex(),
        **{str(each.role): each.version for each in wanted},
        "mode": devices.mode(parsed, chain.device_class),
        **devices.neighbours(parsed, chain.device_class),
    }


def _days_expired(reference: _Reference, now: datetime) -> int:
    """Days that have begun since the first of the RIMs' signers expired; 0 if none has."""
    ended = [now - path.not_after for path in reference.paths if now >= path.not_after]
    return max(ended) // timedelta(days=1) + 1 if ended else 0


def _compare(parsed: Report, device_class: DeviceClass, reference: _Reference) -> dict[str, Value]:
    """Every reference value against the measurement of its index (index i is block i + 1)."""
    goldens, measured = reference.goldens, parsed.measurements
    skipped = devices.skipped_index(parsed, device_class)
    compared, most = len(goldens) - (skipped in goldens), len(measured)
    differing = tuple(
        sorted([i for i, values in goldens.items() if (i >= most or measured[i] not in values) and i != skipped])
    )
    outcome = "incomplete" if not reference.complete or not compared else "mismatch" if differing else "match"
    return {"measurements": outcome, "compared": compared, "mismatching_indices": differing}


def _answered(asked: Iterable[Inquiry], collateral: Collateral) -> dict[str, str]:
    return {str(each.need): collateral[each.need].sha256 for each in asked if each.need in collateral}
