"""
The collateral of the emulated Intel: TCB info, QE identity, revocation lists, in the JSON that PCCS clients exchange.

The JSON is that of dcap-qvl's QuoteCollateralV3: texts, PEM chains, and hex for signatures and lists. Texts are signed
as they stand, so they are written once and never formatted again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from nodeprobe.emulator.pki import Authority, pem
from nodeprobe.emulator.tdx_pki import CPU_SVN, FMSPC, PCE_ID, PCE_SVN, CrlDraft, IntelPki

LIFE, ROOT_CRL_LIFE = timedelta(days=30), timedelta(days=365)
EVALUATION = 20  # tcbEvaluationDataNumber
TD_QE_MRSIGNER = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
MODULE_SVN = 13  # TEE_TCB_SVN[0]: of the TDX module
TEE_TCB_SVN = bytes([MODULE_SVN, 1, 4, *[0] * 13])
QE_SVN = 7
_TDX_SVN = (5, 0, 4, *[0] * 13)
_OLD_CPU_SVN = (2, 2, *CPU_SVN[2:])
_ZERO_MR = "00" * 48


@dataclass(slots=True)
class CollateralDraft:
    """Everything that the emulated Intel publishes for one family of machines; a defect may change any of it."""

    pki: IntelPki
    ca: str
    tcb_info: dict[str, Any]
    qe_identity: dict[str, Any]
    root_crl: CrlDraft
    pck_crl: CrlDraft
    tcb_signer: Authority
    qe_signer: Authority
    tcb_chain: list[x509.Certificate]
    qe_chain: list[x509.Certificate]
    pck_crl_chain: list[x509.Certificate]
    pck: x509.Certificate  # of the machine it is asked for, so that a defect can revoke it
    edit: Callable[[dict[str, Any]], None] | None = None  # of the finished JSON

    @classmethod
    def of(cls, pki: IntelPki, pck: x509.Certificate, *, now: datetime, ca: str = "platform") -> CollateralDraft:
        """Good collateral, issued a moment before `now`."""
        issued = now - timedelta(minutes=1)
        authority, root = pki.ca(ca), pki.root.certificate
        return cls(
            pki=pki,
            ca=ca,
            tcb_info=_tcb_info(issued),
            qe_identity=_qe_identity(issued),
            root_crl=CrlDraft(pki.root, issued, issued + ROOT_CRL_LIFE),
            pck_crl=CrlDraft(authority, issued, issued + LIFE),
            tcb_signer=pki.tcb_signing,
            qe_signer=pki.tcb_signing,
            tcb_chain=[pki.tcb_signing.certificate, root],
            qe_chain=[pki.tcb_signing.certificate, root],
            pck_crl_chain=[authority.certificate, root],
            pck=pck,
        )

    def made(self) -> bytes:
        """The collateral as JSON."""
        tcb_info, qe_identity = (json.dumps(each, separators=(",", ":")) for each in (self.tcb_info, self.qe_identity))
        made: dict[str, Any] = {
            "pck_crl_issuer_chain": pem(self.pck_crl_chain).decode(),
            "root_ca_crl": self.root_crl.signed().hex(),
            "pck_crl": self.pck_crl.signed().hex(),
            "tcb_info_issuer_chain": pem(self.tcb_chain).decode(),
            "tcb_info": tcb_info,
            "tcb_info_signature": raw_signature(self.tcb_signer.key, tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": pem(self.qe_chain).decode(),
            "qe_identity": qe_identity,
            "qe_identity_signature": raw_signature(self.qe_signer.key, qe_identity.encode()).hex(),
        }
        if self.edit is not None:
            self.edit(made)
        return json.dumps(made).encode()


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """ECDSA P-256 over SHA-256(data), r || s, 64 bytes big-endian."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def stamp(moment: datetime) -> str:
    """A time as Intel writes it: whole seconds, Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _components(svns: tuple[int, ...]) -> list[dict[str, int]]:
    return [{"svn": svn} for svn in svns]


def _tcb_info(issued: datetime) -> dict[str, Any]:
    date = stamp(issued - timedelta(days=90))
    levels = [
        {
            "tcb": {
                "sgxtcbcomponents": _components(svns),
                "pcesvn": pce_svn,
                "tdxtcbcomponents": _components(_TDX_SVN),
            },
            "tcbDate": date,
            "tcbStatus": status,
            **advisories,
        }
        for svns, pce_svn, status, advisories in (
            (CPU_SVN, PCE_SVN, "UpToDate", {}),
            (_OLD_CPU_SVN, PCE_SVN, "OutOfDate", {"advisoryIDs": ["INTEL-SA-00001", "INTEL-SA-00002"]}),
        )
    ]
    module = [
        {"tcb": {"isvsvn": MODULE_SVN}, "tcbDate": date, "tcbStatus": "UpToDate"},
        {"tcb": {"isvsvn": 4}, "tcbDate": date, "tcbStatus": "OutOfDate", "advisoryIDs": ["INTEL-SA-00003"]},
    ]
    return {
        "id": "TDX",
        "version": 3,
        "issueDate": stamp(issued),
        "nextUpdate": stamp(issued + LIFE),
        "fmspc": FMSPC.hex().upper(),
        "pceId": PCE_ID.hex(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": EVALUATION,
        "tdxModule": _module(),
        "tdxModuleIdentities": [{"id": "TDX_01", **_module(), "tcbLevels": module}],
        "tcbLevels": levels,
    }


def _module() -> dict[str, str]:
    return {"mrsigner": _ZERO_MR, "attributes": "00" * 8, "attributesMask": "FF" * 8}


def _qe_identity(issued: datetime) -> dict[str, Any]:
    date = stamp(issued - timedelta(days=90))
    return {
        "id": "TD_QE",
        "version": 2,
        "issueDate": stamp(issued),
        "nextUpdate": stamp(issued + LIFE),
        "tcbEvaluationDataNumber": EVALUATION,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8,
        "mrsigner": TD_QE_MRSIGNER.hex().upper(),
        "isvprodid": 2,
        "tcbLevels": [{"tcb": {"isvsvn": 4}, "tcbDate": date, "tcbStatus": "UpToDate"}],
    }
