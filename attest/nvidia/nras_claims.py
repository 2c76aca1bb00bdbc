"""
What NRAS says of one device, as the claims that `attest.nvidia.appraise` documents. Claims versions 2.0 and 3.0.

What a local verifier would refuse, NRAS reports as a check that failed: it is refused here, with the same reason. What
NRAS does not say is "unstated", or absent; nothing is guessed. Names: spec/nvidia.md §11.1 to §11.3.

    architecture, switch, hwmodel, ueid, driver, vbios (of a switch: bios), rim_*, measurements, mismatching_indices,
    nonce            as local verification has them; `rim_*_id` is absent, NRAS does not say
    pdi              where the device's certificates came along
    mode             "ppcie" where NRAS names the switches of a GPU, else "unstated"
    fwid             "match"; "absent" for drivers before 550, of which NRAS says "match" for nothing; "unstated" by 2.0
    compared         "unstated": NRAS does not say how many reference values it compared
    revocation       "good": for the chains of device and RIMs | "unknown" | "hold": a certificate on hold was let pass,
                     as whoever asks NRAS may demand | "not checked" by 2.0, which does not say
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn

from attest import reasons
from attest.claims import Value
from attest.errors import (
    AttestError,
    MalformedEvidence,
    NonceMismatch,
    UnsupportedEvidence,
    UntrustedCollateral,
    UntrustedEvidence,
)
from attest.nvidia.appraise import FWID_SINCE_DRIVER
from attest.reasons import Reason
from attest.reasons.nras import NRAS_CHECK_FAILED, NRAS_CLAIM, NRAS_DEBUG, NRAS_VERSION

VERSIONS = ("2.0", "3.0")
PDIS_MAX = 32
_HWMODEL = re.compile(r"(GH100|GB100|LS_10)( A\d\d (GSP|FSP) BROM)?")
_UEID = re.compile(r"[1-9][0-9]{0,48}")  # a serial number of at most 20 bytes, decimal
_DRIVER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){1,7}")
_FIRMWARE = re.compile(r"[0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{2}){4}")
_PDI = re.compile(r"(0x)?[0-9A-Fa-f]{16}")
_FAMILY = {"GPU": ("GH100", "GB100"), "SWITCH": ("LS_10",)}

_Kind = type[AttestError]


@dataclass(frozen=True, slots=True)
class Judged:
    """What NRAS concluded of a device; `not_after` is when the first certificate it names expires, if it names any."""

    ueid: str
    hwmodel: str
    values: Mapping[str, Value]
    not_after: datetime | None


@dataclass(frozen=True, slots=True)
class _Chain:
    expires: datetime | None  # None: claims 2.0, which say only that it is valid
    revocation: str


def judge(says: Mapping[str, Any], name: str, version: str, *, now: datetime) -> Judged:
    """
    What the verified token of the device `name` says. AttestError where a check failed, by whose fault it is, or where
    NRAS does not say what it must.
    """
    if version not in VERSIONS:
        raise UnsupportedEvidence(NRAS_VERSION, version, " or ".join(VERSIONS))
    said = _Said(says, "gpu" if name.startswith("GPU-") else "switch", version)
    architecture, hwmodel = said.model(name.partition("-")[0])
    device = said.device()
    rims = {role: said.rim(role) for role in said.roles}
    if said.is_gpu:
        said.check("vbios-index-no-conflict", UntrustedCollateral, reasons.RIM_CONFLICT)
    said.outcome()
    expiries = [chain.expires for chain in (device, *rims.values()) if chain.expires is not None]
    values: dict[str, Value] = {
        "architecture": architecture,
        "switch": not said.is_gpu,
        "hwmodel": hwmodel,
        "ueid": said.text("ueid", _UEID),
        "mode": said.mode(),
        **said.versions(),
        **{f"rim_{role}": "verified" for role in rims},
        "rim_expired_days": _days_expired([chain.expires for chain in rims.values()], now),
        "measurements": "match",
        "mismatching_indices": (),
        "compared": "unstated",
        "revocation": said.revocation(device, *rims.values()),
        "claims_version": version,
    }
    ahead = [expires for expires in expiries if now < expires]
    return Judged(str(values["ueid"]), hwmodel, values, min(ahead) if ahead else None)


@dataclass(frozen=True, slots=True)
class _Said:
    """The claims of one device, read by what they mean."""

    says: Mapping[str, Any]
    family: str
    version: str

    @property
    def is_gpu(self) -> bool:
        return self.family == "gpu"

    @property
    def roles(self) -> tuple[str, ...]:
        return ("driver", "vbios") if self.is_gpu else ("bios",)

    def named(self, suffix: str) -> str:
        return f"x-nvidia-{self.family}-{suffix}"

    def text(self, name: str, form: re.Pattern[str]) -> str:
        found = self.says.get(name)
        if not isinstance(found, str) or not form.fullmatch(found):
            _garbled(name, found, f"text like {form.pattern}")
        return found

    def check(self, suffix: str, kind: _Kind, reason: Reason) -> None:
        """That NRAS says in so many words that this holds."""
        name = self.named(suffix)
        found = self.says.get(name)
        if not isinstance(found, bool):
            _garbled(name, found, "true or false")
        if not found:
            raise kind(reason, f"{name} false, as NRAS says", "true")

    def model(self, kind: str) -> tuple[str, str]:
        """Architecture and model: v3 of the service writes the former only."""
        hwmodel = self.text("hwmodel", _HWMODEL)
        architecture = hwmodel.partition(" ")[0]
        if architecture not in _FAMILY[kind]:
            raise UntrustedEvidence(reasons.CHAIN_CLASS, f"{hwmodel} named {kind}", " or ".join(_FAMILY[kind]))
        return architecture, hwmodel

    def device(self) -> _Chain:
        """Everything about the report, and the chain that it hangs on."""
        report = "attestation-report"
        self.check("arch-check", UntrustedEvidence, reasons.CHAIN_CLASS)
        self.check(f"{report}-parsed", MalformedEvidence, reasons.REPORT_MALFORMED)
        chain = self._chain(f"{report}-cert-chain", UntrustedEvidence, NRAS_CHECK_FAILED, may_expire=False)
        self.check(f"{report}-signature-verified", UntrustedEvidence, reasons.REPORT_SIGNATURE)
        self.check(f"{report}-nonce-match", NonceMismatch, reasons.NONCE_MISMATCH)
        if self.version == "3.0":
            self.check(f"{report}-cert-chain-fwid-match", UntrustedEvidence, reasons.FWID_MISMATCH)
        return chain

    def rim(self, role: str) -> _Chain:
        """Everything about one reference manifest; what is wrong with it is not the node's fault."""
        bad = UntrustedCollateral
        self.check(f"{role}-rim-fetched", bad, reasons.RIM_UNAVAILABLE)
        self.check(f"{role}-rim-schema-validated", bad, reasons.RIM_MALFORMED)
        chain = self._chain(f"{role}-rim-cert", bad, reasons.RIM_CHAIN, may_expire=True)
        self.check(f"{role}-rim-signature-verified", bad, reasons.RIM_SIGNATURE)
        if self.version == "3.0":
            self.check(f"{role}-rim-version-match", bad, reasons.RIM_BINDING)
        self.check(f"{role}-rim-measurements-available", bad, reasons.RIM_MALFORMED)
        return chain

    def outcome(self) -> None:
        """That the measurements are the manifests', and no debugging is on."""
        measured = self.says.get("measres")
        if measured not in ("success", "fail"):
            _garbled("measres", measured, "success or fail")
        if measured != "success":
            raise UntrustedEvidence(reasons.MEASUREMENTS_MISMATCH, f"measres {measured}, as NRAS says", "success")
        debug, secure = self.says.get("dbgstat"), self.says.get("secboot")
        if debug != "disabled" or secure is not True:
            raise UntrustedEvidence(NRAS_DEBUG, f"dbgstat {debug!r}, secboot {secure!r}", "disabled, true")

    def versions(self) -> dict[str, Value]:
        if not self.is_gpu:
            return {"bios": self.text(self.named("bios-version"), _FIRMWARE), "fwid": "unstated"}
        driver = self.text(self.named("driver-version"), _DRIVER)
        return {
            "driver": driver,
            "vbios": self.text(self.named("vbios-version"), _FIRMWARE),
            "fwid": self._fwid(driver),
        }

    def mode(self) -> str:
        """Reports name switches in protected PCIe only; a place without a link is all zeros."""
        pdis = self.says.get(self.named("switch-pdis"))
        if pdis is None or not self.is_gpu:
            return "unstated"
        if not isinstance(pdis, list) or len(pdis) > PDIS_MAX or not all(map(_is_pdi, pdis)):
            _garbled(self.named("switch-pdis"), pdis, f"up to {PDIS_MAX} identities of 16 hex digits")
        return "ppcie" if any(int(pdi, 16) for pdi in pdis) else "unstated"

    def revocation(self, *chains: _Chain) -> str:
        """The weakest word. A warning is how NRAS tells that it let a certificate on hold pass."""
        if self.says.get("x-nvidia-attestation-warning") is not None:
            return "hold"
        words = {chain.revocation for chain in chains}
        return words.pop() if len(words) == 1 else "unknown"

    def _fwid(self, driver: str) -> str:
        """Reports of older drivers name no firmware, and NRAS says "match" nonetheless (spec/nvidia.md §7)."""
        if self.version != "3.0":
            return "unstated"
        release = tuple(int(part) for part in driver.split("."))
        return "match" if release >= FWID_SINCE_DRIVER else "absent"

    def _chain(self, prefix: str, kind: _Kind, reason: Reason, *, may_expire: bool) -> _Chain:
        """
        One certificate chain. Claims 2.0 have one word for it, which includes the dates; 3.0 says status, revocation
        and the earliest expiry, and leaves to us whether an expired one will do.
        """
        if self.version == "2.0":
            self.check(f"{prefix}-validated", kind, reason)
            return _Chain(None, "not checked")
        name = self.named(prefix if prefix.endswith("-chain") else f"{prefix}-chain")
        chain = self.says.get(name)
        if not isinstance(chain, dict):
            _garbled(name, chain, "an object")
        status, ocsp = chain.get("x-nvidia-cert-status"), chain.get("x-nvidia-cert-ocsp-status")
        if status != "valid" and not (may_expire and status == "expired"):
            raise kind(reason, f"{name} is {status}, as NRAS says", "valid")
        if ocsp == "revoked" or chain.get("x-nvidia-cert-revocation-reason") is not None:
            raise kind(reason, f"{name} is revoked, as NRAS says", "not revoked")
        if ocsp not in ("good", "unknown"):
            _garbled(name, ocsp, "an OCSP status")
        return _Chain(_moment(name, chain.get("x-nvidia-cert-expiration-date")), ocsp)


def _moment(name: str, found: object) -> datetime:
    try:
        moment = datetime.fromisoformat(found) if isinstance(found, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        _garbled(name, found, "an ISO 8601 date with its zone")
    return moment


def _days_expired(expiries: list[datetime | None], now: datetime) -> int:
    """Whole days since the first of these, begun ones counted; 0 where none has expired, or none is named."""
    ended = [now - expires for expires in expiries if expires is not None and now >= expires]
    return max(ended) // timedelta(days=1) + 1 if ended else 0


def _is_pdi(value: object) -> bool:
    return isinstance(value, str) and _PDI.fullmatch(value) is not None


def _garbled(name: str, found: object, wanted: str) -> NoReturn:
    raise MalformedEvidence(NRAS_CLAIM, f"{name} {found!r}", wanted)
