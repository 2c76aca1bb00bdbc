"""The bytes of an emulated TDX quote, v4 and v5, before and after they are signed. Layout: spec/cpu-tee.md §1."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from nodeprobe.emulator.pki import pem
from nodeprobe.emulator.tdx_collateral import QE_SVN, TD_QE_MRSIGNER, TEE_TCB_SVN, raw_signature
from nodeprobe.emulator.tdx_pki import IntelPki, PckDraft

HEADER_BYTES = 48
REPORT_DATA_BYTES = 64
TDX_TEE, P256_KEY, QE_REPORT_DATA, PEM_CHAIN = 0x81, 2, 6, 5
TD_1_0, TD_1_5, TD_1_5_EX = 2, 3, 4
SEPT_VE_DISABLE = 1 << 28
INTEL_QE = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_XFAM = bytes.fromhex("e702060000000000")


def register(*digests: bytes) -> bytes:
    """What a run-time measurement register holds after these SHA-384 digests, from zero."""
    value = bytes(48)
    for each in digests:
        value = hashlib.sha384(value + each).digest()
    return value


EVENTS = tuple(hashlib.sha384(f"emulated event {index}".encode()).digest() for index in range(4))


@dataclass(slots=True)
class QuoteDraft:
    """A quote before it is signed; a defect may change any of it. The body's fields stand in their order."""

    version: int
    body_type: int
    body: dict[str, bytes]
    header: dict[str, bytes]
    key: ec.EllipticCurvePrivateKey  # the attestation key
    pck_key: ec.EllipticCurvePrivateKey
    chain: list[x509.Certificate]
    pki: IntelPki
    pck: PckDraft
    ca: str
    qe: dict[str, bytes] = field(default_factory=dict)
    auth_data: bytes = bytes(range(32))
    certification: int = PEM_CHAIN
    signer: ec.EllipticCurvePrivateKey | None = None  # of header and body, where it is not the attestation key
    qe_signer: ec.EllipticCurvePrivateKey | None = None  # of the QE report, where it is not the PCK
    qe_hash: bytes | None = None
    tail: bytes = b""  # after the signature data
    after_signing: dict[int, bytes] = field(default_factory=dict)  # offset -> bytes that replace what was signed

    def signed(self) -> bytes:
        """The quote, signed by everybody who has to."""
        body = b"".join(self.body.values())
        described = struct.pack("<HI", self.body_type, len(body)) if self.version == 5 else b""
        quote = b"".join(self.header.values()) + described + body
        public = self.key.public_key().public_numbers()
        key = public.x.to_bytes(32, "big") + public.y.to_bytes(32, "big")
        qe_report = self._qe_report(hashlib.sha256(key + self.auth_data).digest())
        chain = pem(self.chain) + b"\0"
        certification = (
            qe_report
            + raw_signature(self.qe_signer or self.pck_key, qe_report)
            + struct.pack("<H", len(self.auth_data))
            + self.auth_data
            + struct.pack("<HI", self.certification, len(chain))
            + chain
        )
        signature = raw_signature(self.signer or self.key, quote)
        for at, changed in self.after_signing.items():
            quote = quote[:at] + changed + quote[at + len(changed) :]
        data = signature + key + struct.pack("<HI", QE_REPORT_DATA, len(certification)) + certification
        return quote + struct.pack("<I", len(data)) + data + self.tail

    def _qe_report(self, binding: bytes) -> bytes:
        fields = {
            "cpu_svn": bytes(16),
            "misc_select": bytes(4),
            "reserved1": bytes(28),
            "attributes": bytes.fromhex("1500000000000000e700000000000000"),
            "mr_enclave": hashlib.sha256(b"emulated TD quoting enclave").digest(),
            "reserved2": bytes(32),
            "mr_signer": TD_QE_MRSIGNER,
            "reserved3": bytes(96),
            "isv_prod_id": struct.pack("<H", 2),
            "isv_svn": struct.pack("<H", QE_SVN),
            "reserved4": bytes(60),
            "report_data": (self.qe_hash or binding) + bytes(32),
        }
        return b"".join((fields | self.qe).values())


def body_of(body_type: int, report_data: bytes, name: str) -> dict[str, bytes]:
    body = {
        "tee_tcb_svn": TEE_TCB_SVN,
        "mr_seam": hashlib.sha384(b"emulated TDX module").digest(),
        "mr_signer_seam": bytes(48),
        "seam_attributes": bytes(8),
        "td_attributes": struct.pack("<Q", SEPT_VE_DISABLE),
        "xfam": _XFAM,
        "mr_td": hashlib.sha384(b"emulated firmware").digest(),
        "mr_config_id": bytes(48),
        "mr_owner": bytes(48),
        "mr_owner_config": bytes(48),
        **{f"rtmr{index}": register(event) for index, event in enumerate(EVENTS)},
        "report_data": report_data,
    }
    if body_type in (TD_1_5, TD_1_5_EX):
        body |= {"tee_tcb_svn2": TEE_TCB_SVN, "mr_service_td": bytes(48)}
    if body_type == TD_1_5_EX:
        launch = hashlib.sha256(b"launch" + name.encode()).digest()
        body |= {"vm": bytes(1), "td_id": launch, "dev_info": bytes(48), "service_tds": bytes(156)}
    return body
