"""Is this report from a genuine NVIDIA GPU, does it answer our challenge, and what does it measure?"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from attest import reasons
from attest.anchors import Anchors
from attest.claims import Claims, Value
from attest.collateral import Collateral, Document, Need
from attest.errors import MalformedEvidence, NonceMismatch, UntrustedCollateral, UntrustedEvidence
from attest.evidence import NVIDIA, Evidence, Nonce
from attest.memo import Memo
from attest.nvidia import report as reports
from attest.nvidia import rim as rims
from attest.nvidia.chain import DeviceChain, KnownTexts, verify_chain, verify_time
from attest.nvidia.report import Field, Report
from attest.nvidia.rim import Rim, Role, Wanted
from attest.x509 import Path, verify_raw_signature

CHAINS_REMEMBERED, PATHS_REMEMBERED, RIMS_REMEMBERED = 20_000, 1_000, 1_000
TEXTS_REMEMBERED = 64
READ_REMEMBERED = 8  # as many as are verified at once: what is read is needed for one verdict, and stays in fast memory

GPU_MEASUREMENTS = 64
NVDEC_INDEX = 35  # counts only while the decoder is enabled
NVDEC_ENABLED, NVDEC_DISABLED = b"\xaa", b"\x55"
PPCIE_ON, PPCIE_OFF = b"\xaa", b"\x55"
_MODES = {b"\0\0": "spt", b"\1\0": "mpt", b"\2\0": "ppcie"}
_NO_FLAG_YET, _FLAG_COUNTS = b"\0\0", b"\1\0"  # versions of the opaque data; what later ones mean, nobody told us


@dataclass(frozen=True, slots=True)
class _Read:
    """A report that parses and a chain that leads to a pinned root: facts about bytes, at no time in particular."""

    parsed: Report
    chain: DeviceChain
    wanted: tuple[Wanted, Wanted]
    needs: frozenset[Need]


@dataclass(frozen=True, slots=True)
class _Reference:
    """Verified RIMs for what was wanted, not all of them perhaps, at no time in particular; and what they add up to."""

    paths: tuple[Path, ...]  # of their signers
    goldens: Mapping[int, tuple[bytes, ...]]
    documents: Mapping[str, str]  # what each was for -> SHA-256
    values: Mapping[str, Value]  # the claims that name them

    @property
    def complete(self) -> bool:
        return len(self.paths) == len(Role)


class NvidiaVerifier:
    """
    Hopper GPUs, offline. Blackwell GPUs and LS10 switches are recognised by their certificates and refused as
    unsupported; revocation is not asked about, and the claims say so.
    """

    kind = NVIDIA

    def __init__(self, anchors: Anchors) -> None:
        self._anchors = anchors
        self._chains: Memo[DeviceChain] = Memo(CHAINS_REMEMBERED)
        self._device_paths: Memo[Path] = Memo(PATHS_REMEMBERED)
        self._texts: KnownTexts = Memo(TEXTS_REMEMBERED)
        self._rim_paths: Memo[Path] = Memo(PATHS_REMEMBERED)
        self._rims: Memo[Rim] = Memo(RIMS_REMEMBERED)
        self._wanted: Memo[tuple[Wanted, Wanted]] = Memo(RIMS_REMEMBERED)
        self._references: Memo[_Reference] = Memo(RIMS_REMEMBERED)
        self._read: Memo[_Read] = Memo(READ_REMEMBERED)

    def needs(self, evidence: Evidence, have: Collateral) -> frozenset[Need]:
        # Which class of device it is, only the certificates say; their time is compared later, with everything else.
        return self._reading(evidence).needs - have.keys()

    def verify(self, evidence: Evidence, collateral: Collateral, *, nonce: Nonce | None, now: datetime) -> Claims:
        reading = self._reading(evidence)
        parsed, chain, wanted = reading.parsed, reading.chain, reading.wanted
        verify_time(chain, now=now)
        _verify_shape(parsed)
        _verify_signature(parsed, chain)
        fwid = _verify_firmware(parsed, chain)
        _verify_nonce(parsed, nonce)
        reference = self._reference(wanted, collateral)
        for path in reference.paths:
            rims.check_time(path, now=now)
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
                **_compare(parsed, reference),
            },
            collateral=reference.documents,
        )

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
        )
        wanted = rims.wanted_by(parsed, chain.device_class, known=self._wanted)
        return _Read(parsed, chain, wanted, frozenset(each.need for each in wanted))

    def _reference(self, wanted: tuple[Wanted, Wanted], collateral: Collateral) -> _Reference:
        """What these very documents say, whenever."""
        found = [(each, document) for each in wanted if (document := collateral.get(each.need)) is not None]
        key = wanted, *((each.role, document.sha256) for each, document in found)
        return self._references.get(key) or self._references.put(key, self._reference_anew(wanted, dict(found)))

    def _reference_anew(self, wanted: Sequence[Wanted], found: Mapping[Wanted, Document]) -> _Reference:
        paths: list[Path] = []
        goldens: dict[int, tuple[bytes, ...]] = {}
        for each, document in found.items():
            rim = rims.load(document, self._anchors.nvidia_rim, known=self._rims, paths=self._rim_paths)
            rims.check(rim, each)
            if both := goldens.keys() & rim.goldens.keys():
                raise UntrustedCollateral(reasons.RIM_CONFLICT, f"index {min(both)} in both", "each in one")
            paths.append(rim.path)
            goldens |= rim.goldens
        documents = {str(each.need): document.sha256 for each, document in found.items()}
        values: dict[str, Value] = {}
        for each in wanted:
            values[f"rim_{each.role}_id"] = each.need.name
            values[f"rim_{each.role}"] = "verified" if each in found else "missing"
        return _Reference(tuple(paths), goldens, documents, values)


def _verify_shape(parsed: Report) -> None:
    if len(parsed.measurements) != GPU_MEASUREMENTS:
        found = f"{len(parsed.measurements)} measurements"
        raise MalformedEvidence(reasons.REPORT_MALFORMED, found, f"{GPU_MEASUREMENTS} of a GPU")


def _verify_signature(parsed: Report, chain: DeviceChain) -> None:
    if not verify_raw_signature(chain.key, parsed.signature, parsed.signed):
        raise UntrustedEvidence(reasons.REPORT_SIGNATURE)


def _verify_firmware(parsed: Report, chain: DeviceChain) -> str:
    """The certificate endorses a key *and the firmware that holds it*; the report must agree, if it says anything."""
    named = parsed.opaque.get(Field.FWID)
    if named is None:
        return "absent"
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
    driver, vbios = (each.version for each in wanted)
    return {
        "architecture": str(chain.device_class),
        "hwmodel": chain.hwmodel,
        "ueid": chain.ueid,
        "driver": driver,
        "vbios": vbios,
        "mode": _mode(parsed),
        "revocation": "not checked",
    }


def _mode(parsed: Report) -> str:
    """
    The feature flag says it since opaque data version 1; before, protected PCIe has a status of its own. Hopper has no
    third mode, so "off" there is a single GPU.
    """
    status, flag = parsed.opaque.get(Field.PROTECTED_PCIE_STATUS), parsed.opaque.get(Field.FEATURE_FLAG)
    version = parsed.opaque.get(Field.OPAQUE_DATA_VERSION)
    if status not in (None, PPCIE_ON, PPCIE_OFF):
        raise UntrustedEvidence(reasons.REPORT_MALFORMED, f"protected PCIe status {status!r}", "0x55 or 0xaa")
    by_status = None if status is None else "ppcie" if status == PPCIE_ON else "spt"
    if flag is None or version is None or version == _NO_FLAG_YET:
        return by_status or "unstated"
    mode = _MODES.get(flag, "unknown") if version == _FLAG_COUNTS else "unknown"
    if by_status is not None and (by_status == "ppcie") != (mode == "ppcie"):
        raise UntrustedEvidence(reasons.REPORT_MALFORMED, f"mode {mode} beside protected PCIe {status!r}", "one mode")
    return mode


def _days_expired(reference: _Reference, now: datetime) -> int:
    """Days that have begun since the first of the RIMs' signers expired; 0 if none has."""
    ended = [now - path.not_after for path in reference.paths if now >= path.not_after]
    return max(ended) // timedelta(days=1) + 1 if ended else 0


def _compare(parsed: Report, reference: _Reference) -> dict[str, Value]:
    """Every reference value against the measurement of its index (index i is block i + 1)."""
    goldens, measured = reference.goldens, parsed.measurements
    skipped = None if _decoder_counts(parsed) else NVDEC_INDEX
    compared = len(goldens) - (skipped in goldens)
    # The RIMs' indices end where the report's do: both have 64, and were refused otherwise.
    differing = tuple(sorted(i for i, values in goldens.items() if measured[i] not in values and i != skipped))
    outcome = "incomplete" if not reference.complete or not compared else "mismatch" if differing else "match"
    return {"measurements": outcome, "compared": compared, "mismatching_indices": differing}


def _decoder_counts(parsed: Report) -> bool:
    status = parsed.opaque.get(Field.NVDEC0_STATUS)
    if status not in (NVDEC_ENABLED, NVDEC_DISABLED):
        raise UntrustedEvidence(reasons.NVDEC_STATUS, repr(status), "0x55 or 0xaa")
    return status == NVDEC_ENABLED
