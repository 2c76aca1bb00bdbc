"""One emulated SEV-SNP guest on a chip that keeps its identity over restarts; reports for any 64 bytes."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from attest.evidence import AMD_SNP, Evidence
from nodeprobe.emulator.pki import EmulatorError, move_into_place, new_key, read_key
from nodeprobe.emulator.snp_defect import SnpDefect
from nodeprobe.emulator.snp_defects import named
from nodeprobe.emulator.snp_draft import Parts, ReportDraft, SnpDraft, VekDraft
from nodeprobe.emulator.snp_pki import SnpPki, revocation_list, write_private, years_from

REPORT_DATA_BYTES = 64
MEASUREMENT = hashlib.sha384(b"emulated guest image").digest()
HOST_DATA = hashlib.sha256(b"emulated host data").digest()
CSP = "CN=cc-emulated.example.invalid"
TCB: dict[str, Parts] = {
    "Milan": {"bl": 4, "tee": 0, "snp": 24, "ucode": 219},
    "Genoa": {"bl": 10, "tee": 0, "snp": 23, "ucode": 84},
    "Turin": {"fmc": 1, "bl": 1, "tee": 1, "snp": 4, "ucode": 81},
}
_CPUID = {"Milan": (0x19, 0x01, 0x01), "Genoa": (0x19, 0x11, 0x01), "Turin": (0x1A, 0x02, 0x01)}
_STEPPING = {"Milan": "Milan-B0", "Genoa": "Genoa-B1", "Turin": "Turin"}
_CHIP_BYTES = {"Milan": 64, "Genoa": 64, "Turin": 8}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class EmulatedSnp:
    """
    A guest of the emulator. Frozen: `spoiled("debug-allowed")` gives another one, with the same identity and that
    defect. The key of a genuine chip changes with its TCB; here it stays, so that each defect stands alone.
    """

    name: str
    pki: SnpPki = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    chip: bytes  # 64 bytes, or 8 on Turin
    now: datetime  # when its certificates and the revocation list were issued
    signing_key: str = "vcek"  # or "vlek": a provider's, behind a masked chip id
    version: int = 5
    carries: int = 3  # certificates that come with the report: signing key, authority, root
    defects: tuple[SnpDefect, ...] = ()

    @classmethod
    def create(cls, pki: SnpPki, name: str, *, now: datetime) -> EmulatedSnp:
        """The guest of this name in the PKI, its chip made now unless it is there. Raises EmulatorError."""
        if not _NAME.fullmatch(name):
            raise EmulatorError(f"{name!r} names no chip: use up to 64 of a-z, 0-9, dot, dash and underscore")
        folder = pki.chips / name
        if not folder.exists():
            move_into_place(folder, lambda aside: _lay_down(aside, _CHIP_BYTES[pki.product]))
        try:
            return cls(name, pki, read_key(folder / "vek.key"), (folder / "chip.id").read_bytes(), now)
        except (OSError, ValueError, TypeError) as e:
            raise EmulatorError(f"{folder} holds no chip ({e}): remove that folder, and it is made anew") from e

    def spoiled(self, *names: str) -> EmulatedSnp:
        """The same guest with these defects, and no others. Raises EmulatorError for a name that is none."""
        defects = tuple(map(named, names))
        return replace(self, defects=defects, carries=min([self.carries, *(each.carries for each in defects)]))

    def evidence(self, report_data: bytes) -> Evidence:
        """Report for 64 bytes, and the certificates that it carries (DER), as a node hands them over."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"report data of {len(report_data)} bytes, not {REPORT_DATA_BYTES}")
        draft = self._draft(report_data)
        certificates = _certificates(draft)
        for edit in draft.edit_certificates:
            certificates = edit(certificates)
        return Evidence(AMD_SNP, draft.report.signed(), b"".join(certificates[: draft.carries]))

    def documents(self) -> dict[str, bytes]:
        """What AMD's key distribution service would serve for this guest, by path."""
        draft = self._draft(bytes(REPORT_DATA_BYTES))
        vek, authority, ark = _certificates(draft)
        path = f"{self.signing_key}/v1/{self.pki.product}"
        window, issuer = draft.crl_window, self.pki.ark.certificate.subject
        served = {
            f"{path}/cert_chain": authority + ark,
            f"{path}/crl": revocation_list(draft.crl_by, issuer, window, draft.revoked, delta=draft.crl_delta),
        }
        if self.signing_key == "vcek":
            served[f"{path}/{self._key_name()}"] = vek
        for edit in draft.edit_documents:
            edit(served)
        return served

    def _key_name(self) -> str:
        parts = TCB[self.pki.product]
        order = [part for part in ("fmc", "bl", "tee", "snp", "ucode") if part in parts]
        return f"{self.chip.hex()}?" + "&".join(f"{part}SPL={parts[part]:02d}" for part in order)

    def _draft(self, report_data: bytes) -> SnpDraft:
        provider = self.signing_key == "vlek"
        authority = self.pki.authority(self.signing_key)
        draft = SnpDraft(
            report=self._report(report_data),
            vek=VekDraft(
                issuer=authority,
                key=self.key.public_key(),
                window=years_from(self.now, 1 if provider else 7),
                common="SEV-VLEK" if provider else "SEV-VCEK",
                product=self.pki.product if provider else _STEPPING[self.pki.product],
                parts=dict(TCB[self.pki.product]),
                hwid=b"" if provider else self.chip,
                csp=CSP if provider else "",
            ),
            ark=self.pki.ark,
            authority=authority,
            now=self.now,
            carries=self.carries,
            revoked=[],
            crl_by=self.pki.ark,
            crl_window=years_from(self.now, 1),
        )
        for defect in self.defects:
            defect.spoil(draft)
        return draft

    def _report(self, report_data: bytes) -> ReportDraft:
        provider, product = self.signing_key == "vlek", self.pki.product
        return ReportDraft(
            product=product,
            key=self.key,
            report_data=report_data,
            chip_id=bytes(64) if provider else self.chip.ljust(64, b"\0"),
            reported=dict(TCB[product]),
            committed=dict(TCB[product]),
            current=dict(TCB[product]),
            launch=dict(TCB[product]),
            measurement=MEASUREMENT,
            host_data=HOST_DATA,
            report_id=hashlib.sha256(b"report id" + self.chip).digest(),
            cpuid=_CPUID[product],
            version=self.version,
            flags=int(provider) << 2,
        )


def _certificates(draft: SnpDraft) -> list[bytes]:
    above = [each.certificate.public_bytes(Encoding.DER) for each in (draft.authority, draft.ark)]
    return [draft.vek.der(), *above]


def _lay_down(folder: Path, chip_bytes: int) -> None:
    write_private(folder / "vek.key", new_key())
    (folder / "chip.id").write_bytes(os.urandom(chip_bytes))
