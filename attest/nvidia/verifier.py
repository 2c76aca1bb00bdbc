"""Is this report from a genuine NVIDIA GPU, does it answer our challenge, and what does it measure?"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from attest import reasons
from attest.anchors import Anchors
from attest.claims import Claims, Value
from attest.collateral import Collateral, Need
from attest.errors import MalformedEvidence, NonceMismatch, UntrustedCollateral, UntrustedEvidence
from attest.evidence import NVIDIA, Evidence, Nonce
from attest.memo import Memo
from attest.nvidia import report as reports
from attest.nvidia import rim as rims
from attest.nvidia.chain import DeviceChain, verify_chain
from attest.nvidia.report import Field, Report
from attest.nvidia.rim import Rim, Wanted
from attest.x509 import Path, verify_raw_signature

CHAINS_REMEMBERED, PATHS_REMEMBERED, RIMS_REMEMBERED = 20_000, 1_000, 1_000

GPU_MEASUREMENTS = 64
NVDEC_INDEX = 35  # counts only while the decoder is enabled
NVDEC_ENABLED, NVDEC_DISABLED = b"\xaa", b"\x55"
PPCIE_ON, PPCIE_OFF = b"\xaa", b"\x55"
_MODES = {0: "spt", 1: "mpt", 2: "ppcie"}


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
        self._rim_paths: Memo[Path] = Memo(PATHS_REMEMBERED)
        self._rims: Memo[Rim] = Memo(RIMS_REMEMBERED)

    def needs(self, evidence: Evidence, have: Collateral) -> frozenset[Need]:
        parsed = reports.parse(evidence.payload)
        # Which class of device it is, only the certificates say; their time is compared later, with everything else.
        chain = self._chain(evidence, now=None)
        return frozenset(wanted.need for wanted in rims.wanted_by(parsed, chain.device_class)) - have.keys()

    def verify(self, evidence: Evidence, collateral: Collateral, *, nonce: Nonce | None, now: datetime) -> Claims:
        parsed = reports.parse(evidence.payload)
        chain = self._chain(evidence, now=now)
        _verify_shape(parsed)
        _verify_signature(parsed, chain)
        fwid = _verify_firmware(parsed, chain)
        _verify_nonce(parsed, nonce)
        wanted = rims.wanted_by(parsed, chain.device_class)
        found = self._rims_for(wanted, collateral, now=now)
        return Claims(
            kind=self.kind,
            device=f"nvidia-{chain.device_class.lower()}-{chain.pdi}",
            emulated=_origin(chain, found),
            not_after=min(
                [chain.path.not_after, *(rim.path.not_after for rim in found.values() if rim.path.covers(now))]
            ),
            values=_identity(parsed, chain)
            | {"fwid": fwid}
            | _references(wanted, found, now)
            | _compare(parsed, found),
            collateral={str(each.need): collateral[each.need].sha256 for each in wanted if each in found},
        )

    def _chain(self, evidence: Evidence, *, now: datetime | None) -> DeviceChain:
        anchors = self._anchors.nvidia_device
        return verify_chain(evidence.certificates, anchors, now=now, known=self._chains, paths=self._device_paths)

    def _rims_for(self, wanted: Sequence[Wanted], collateral: Collateral, *, now: datetime) -> dict[Wanted, Rim]:
        found: dict[Wanted, Rim] = {}
        for each in wanted:
            if (document := collateral.get(each.need)) is not None:
                rim = rims.load(document, self._anchors.nvidia_rim, known=self._rims, paths=self._rim_paths)
                rims.check(rim, each, now=now)
                found[each] = rim
        return found


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


def _origin(chain: DeviceChain, found: Mapping[Wanted, Rim]) -> bool:
    """Whether it is emulated. A vendor's device is never measured by an emulator's RIM, nor the other way round."""
    origins = {chain.path.anchor.emulated, *(rim.path.anchor.emulated for rim in found.values())}
    if len(origins) != 1:
        raise UntrustedCollateral(reasons.ROOTS_MIXED, "a vendor's and an emulated one", "one origin")
    return origins.pop()


def _identity(parsed: Report, chain: DeviceChain) -> dict[str, Value]:
    return {
        "architecture": str(chain.device_class),
        "hwmodel": chain.hwmodel,
        "ueid": chain.ueid,
        "driver": rims.driver_version(parsed),
        "vbios": rims.vbios_version(parsed),
        "mode": _mode(parsed),
        "revocation": "not checked",
    }


def _mode(parsed: Report) -> str:
    """
    The feature flag says it since opaque data version 1; before, protected PCIe has a status of its own. Hopper has no
    third mode, so "off" there is a single GPU.
    """
    status, flag = parsed.opaque.get(Field.PROTECTED_PCIE_STATUS), parsed.opaque.get(Field.FEATURE_FLAG)
    version = int.from_bytes(parsed.opaque.get(Field.OPAQUE_DATA_VERSION, b""), "little")
    if status not in (None, PPCIE_ON, PPCIE_OFF):
        raise UntrustedEvidence(reasons.REPORT_MALFORMED, f"protected PCIe status {status!r}", "0x55 or 0xaa")
    by_status = None if status is None else "ppcie" if status == PPCIE_ON else "spt"
    if flag is None or version < 1:
        return by_status or "unstated"
    mode = _MODES.get(int.from_bytes(flag, "little"), f"unknown-{flag.hex()}")
    if by_status is not None and (by_status == "ppcie") != (mode == "ppcie"):
        raise UntrustedEvidence(reasons.REPORT_MALFORMED, f"mode {mode} beside protected PCIe {status!r}", "one mode")
    return mode


def _references(wanted: Sequence[Wanted], found: Mapping[Wanted, Rim], now: datetime) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for each in wanted:
        values[f"rim_{each.role}_id"] = each.id
        values[f"rim_{each.role}"] = "verified" if each in found else "missing"
    ended = [now - rim.path.not_after for rim in found.values() if now > rim.path.not_after]
    values["rim_expired_days"] = -(-max(ended) // timedelta(days=1)) if ended else 0
    return values


def _compare(parsed: Report, found: Mapping[Wanted, Rim]) -> dict[str, Value]:
    """Every reference value against the measurement of its index (index i is block i + 1)."""
    goldens: dict[int, tuple[bytes, ...]] = {}
    for rim in found.values():
        if both := goldens.keys() & rim.goldens.keys():
            raise UntrustedCollateral(reasons.RIM_CONFLICT, f"index {min(both)} in both", "each in one")
        goldens |= rim.goldens
    if not _decoder_counts(parsed):
        goldens.pop(NVDEC_INDEX, None)
    measured = parsed.measurements
    differing = tuple(sorted(i for i, values in goldens.items() if i >= len(measured) or measured[i] not in values))
    complete = len(found) == len(rims.Role) and bool(goldens)
    outcome = "incomplete" if not complete else "mismatch" if differing else "match"
    return {"measurements": outcome, "compared": len(goldens), "mismatching_indices": differing}


def _decoder_counts(parsed: Report) -> bool:
    status = parsed.opaque.get(Field.NVDEC0_STATUS)
    if status not in (NVDEC_ENABLED, NVDEC_DISABLED):
        raise UntrustedEvidence(reasons.NVDEC_STATUS, repr(status), "0x55 or 0xaa")
    return status == NVDEC_ENABLED
