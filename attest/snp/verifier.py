"""Is this report from a genuine SEV-SNP platform, and what does it say of the guest and of the firmware below?"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from attest import reasons
from attest.claims import Claims, Value
from attest.collateral import Collateral, Document, Need
from attest.errors import MalformedEvidence, UntrustedCollateral, UntrustedEvidence
from attest.evidence import AMD_SNP, Evidence, Nonce
from attest.memo import Memo
from attest.reasons import Reason
from attest.reasons.snp import (
    SNP_CHIP_MISMATCH,
    SNP_DOCUMENT_UNTRUSTED,
    SNP_ISSUERS_UNAVAILABLE,
    SNP_PRODUCT_MISMATCH,
    SNP_SIGNING_KEY,
    SNP_TCB_MISMATCH,
    SNP_VEK_MISSING,
    SNP_VEK_UNAVAILABLE,
)
from attest.snp import certificates, crl, report
from attest.snp.anchors import AmdAnchors
from attest.snp.certificates import Certificate
from attest.snp.chain import Authority, Vek, check_window, verify_authority, verify_vek
from attest.snp.crl import Crl
from attest.snp.needs import Wanted, wanted_by
from attest.snp.product import tcb
from attest.snp.report import Report
from attest.verify import Breach
from attest.x509 import verify_raw_signature

VEKS_REMEMBERED, AUTHORITIES_REMEMBERED, CRLS_REMEMBERED = 10_000, 100, 100

_POLICY = {"smt": 16, "migrate_ma": 18, "debug": 19, "single_socket": 20, "cxl": 21}
_POLICY_KNOWN = (1 << 26) - 1
_PLATFORM = {"smt": 0, "tsme": 1, "ecc": 2, "rapl_disabled": 3, "ciphertext_hiding": 4, "alias_check": 5, "tio": 7}


class SnpVerifier:
    """
    SEV-SNP reports of versions 2 to 5, from Milan, Genoa and Turin, signed by a VCEK or a VLEK; offline.

    What REPORT_DATA commits to is left to the binding profiles: it is a claim here, and no nonce is compared with it.
    """

    kind = AMD_SNP

    def __init__(self, anchors: AmdAnchors) -> None:
        self._arks = anchors.amd_ark
        self._loaded: Memo[tuple[Certificate, ...]] = Memo(VEKS_REMEMBERED)
        self._authorities: Memo[Authority] = Memo(AUTHORITIES_REMEMBERED)
        self._veks: Memo[Vek] = Memo(VEKS_REMEMBERED)
        self._crls: Memo[Crl] = Memo(CRLS_REMEMBERED)

    def needs(self, evidence: Evidence, have: Collateral) -> frozenset[Need]:
        parsed = report.parse(evidence.payload)
        return wanted_by(parsed, self._load(evidence.certificates)).all - have.keys()

    def verify(self, evidence: Evidence, collateral: Collateral, *, nonce: Nonce | None, now: datetime) -> Claims:
        del nonce  # see above
        parsed = report.parse(evidence.payload)
        wanted = wanted_by(parsed, self._load(evidence.certificates))
        vek = self._chain(evidence, wanted, collateral, now=now)
        with _blaming(collateral.get(wanted.vek) if wanted.vek is not None else None):
            _verify_subject(parsed, wanted, vek)
        _verify_signature(parsed, vek)
        listed = self._revocation(vek, wanted, collateral, now=now)
        used = (need for need in (wanted.vek, wanted.issuers, wanted.crl) if need is not None and need in collateral)
        return Claims(
            kind=self.kind,
            device=_device(parsed, vek),
            emulated=vek.authority.emulated,
            not_after=min(vek.not_after, listed.not_after) if listed is not None else vek.not_after,
            values=_platform(parsed, vek)
            | _guest(parsed)
            | {"revocation": "not checked" if listed is None else "good"},
            collateral={str(need): collateral[need].sha256 for need in used},
        )

    def together(self, claims: Sequence[Claims]) -> Iterable[Breach]:  # noqa: ARG002 - nothing between them
        return ()

    def _load(self, data: bytes) -> tuple[Certificate, ...]:
        found = self._loaded.get(hashlib.sha256(data).digest())
        return certificates.load(data) if found is None else found

    def _remember(self, data: bytes, loaded: tuple[Certificate, ...]) -> None:
        """Only what proved to be genuine, and by the objects that others share: a fleet has few authorities."""
        self._loaded.put(hashlib.sha256(data).digest(), loaded)

    def _chain(self, evidence: Evidence, wanted: Wanted, collateral: Collateral, *, now: datetime) -> Vek:
        """The signing key, from what the node sent and what was fetched; the blame goes to where a flaw came from."""
        carried = self._load(evidence.certificates)
        if not carried and wanted.vek is None:
            raise UntrustedEvidence(SNP_VEK_MISSING, "no certificate", "the signing key's, with the report")
        fetched_vek = _document(wanted.vek, collateral, SNP_VEK_UNAVAILABLE)
        fetched_issuers = _document(wanted.issuers, collateral, SNP_ISSUERS_UNAVAILABLE)
        with _blaming(fetched_issuers):
            issuers = carried[1:] if fetched_issuers is None else self._fetched(fetched_issuers, 2)
            authority = verify_authority(issuers, self._arks, self._authorities)
            check_window(authority.certificate, now=now)
        with _blaming(fetched_vek):
            (certificate,) = carried[:1] if fetched_vek is None else self._fetched(fetched_vek, 1)
            vek = verify_vek(certificate, authority, self._veks)
            check_window(certificate, now=now)
        self._remember(evidence.certificates, (vek.certificate, *authority.chain)[: len(carried)])
        if fetched_issuers is not None:
            self._remember(fetched_issuers.data, authority.chain)
        if fetched_vek is not None:
            self._remember(fetched_vek.data, (vek.certificate,))
        return vek

    def _fetched(self, document: Document, most: int) -> tuple[Certificate, ...]:
        loaded = self._load(document.data)
        if not 1 <= len(loaded) <= most:
            wanted = f"1 to {most}"
            raise MalformedEvidence(reasons.CERTIFICATES_MALFORMED, f"{len(loaded)} certificates", wanted)
        return loaded

    def _revocation(self, vek: Vek, wanted: Wanted, collateral: Collateral, *, now: datetime) -> Crl | None:
        """The list that clears the authority; None if there is none, which the claims say."""
        document = None if wanted.crl is None else collateral.get(wanted.crl)
        return None if document is None else crl.check(document, vek.authority, now=now, known=self._crls)


def _document(need: Need | None, collateral: Collateral, absent: Reason) -> Document | None:
    """The document for a need; None where there is no need. UntrustedCollateral if it is not at hand."""
    if need is None:
        return None
    document = collateral.get(need)
    if document is None:
        raise UntrustedCollateral(absent, "none", str(need))
    return document


@contextmanager
def _blaming(document: Document | None) -> Iterator[None]:
    """What is wrong with a fetched document is not the node's fault; with its own certificates, it is."""
    try:
        yield
    except (MalformedEvidence, UntrustedEvidence) as e:
        if document is None:
            raise
        raise UntrustedCollateral(SNP_DOCUMENT_UNTRUSTED, f"{e.reason.code}: {e.found}", e.wanted) from e


def _verify_subject(parsed: Report, wanted: Wanted, vek: Vek) -> None:
    """That the certificate is for this report: its kind of key, processor line, firmware versions and chip."""
    if vek.authority.signing_key is not wanted.signing_key:
        raise UntrustedEvidence(SNP_SIGNING_KEY, f"certificate of a {vek.authority.signing_key}", wanted.signing_key)
    if vek.product is not wanted.product:
        raise UntrustedEvidence(SNP_PRODUCT_MISMATCH, f"certificates of {vek.product}", f"{wanted.product}")
    if vek.tcb != parsed.reported_tcb:
        raise UntrustedEvidence(SNP_TCB_MISMATCH, vek.tcb.hex(), parsed.reported_tcb.hex())
    if vek.hwid and not parsed.chip_masked:
        named = vek.hwid.ljust(len(parsed.chip_id), b"\0")
        if not hmac.compare_digest(named, parsed.chip_id):
            raise UntrustedEvidence(SNP_CHIP_MISMATCH, f"{vek.hwid.hex()[:16]}…", f"{parsed.chip_id.hex()[:16]}…")


def _verify_signature(parsed: Report, vek: Vek) -> None:
    if not verify_raw_signature(vek.key, parsed.signature, parsed.signed):
        raise UntrustedEvidence(reasons.REPORT_SIGNATURE)


def _device(parsed: Report, vek: Vek) -> str:
    """
    The chip: by the VCEK's certificate, or by the report where that names it. A provider's key behind a masked chip id
    leaves only the guest's report id, which firmware draws anew at each launch: no chip can be told from another.
    """
    chip = vek.hwid or (b"" if parsed.chip_masked else parsed.chip_id.rstrip(b"\0"))
    if chip:
        return f"amd-snp-{chip.hex()}"
    provider = hashlib.sha256(vek.csp.encode()).hexdigest()[:16]
    return f"amd-snp-guest-{provider}-{parsed.report_id.hex()}"


def _platform(parsed: Report, vek: Vek) -> dict[str, Value]:
    values: dict[str, Value] = {
        "product": str(vek.product),
        "signing_key": str(vek.authority.signing_key),
        "chip_id": "masked" if parsed.chip_masked else "match" if vek.hwid else "stated",
        "csp": vek.csp,
        "tcb_reported": tuple(tcb(vek.product, parsed.reported_tcb)),
        "tcb_committed": tuple(tcb(vek.product, parsed.committed_tcb)),
        "tcb_current": tuple(tcb(vek.product, parsed.current_tcb)),
        "tcb_launch": tuple(tcb(vek.product, parsed.launch_tcb)),
        "firmware": parsed.committed_firmware,
        "firmware_current": parsed.current_firmware,
    }
    return values | {f"platform_{name}": bool(parsed.platform >> bit & 1) for name, bit in _PLATFORM.items()}


def _guest(parsed: Report) -> dict[str, Value]:
    values: dict[str, Value] = {
        "report_version": parsed.version,
        "report_id": parsed.report_id.hex(),
        "report_data": parsed.report_data.hex(),
        "measurement": parsed.measurement.hex(),
        "host_data": parsed.host_data.hex(),
        "id_key_digest": parsed.id_key_digest.hex(),
        "author_key_digest": parsed.author_key_digest.hex(),
        "guest_svn": parsed.guest_svn,
        "vmpl": parsed.vmpl,
        "abi_min": f"{parsed.policy >> 8 & 0xFF}.{parsed.policy & 0xFF}",
        "policy_unknown_bits": parsed.policy & ~_POLICY_KNOWN,
    }
    return values | {f"allows_{name}": bool(parsed.policy >> bit & 1) for name, bit in _POLICY.items()}
