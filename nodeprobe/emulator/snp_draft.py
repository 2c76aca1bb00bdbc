"""
What an emulated SEV-SNP platform is about to say: a report, the certificates with it, the revocation list. A defect
changes one draft before it is signed.

Layout of the report: AMD 56860, ATTESTATION_REPORT; of the certificate's extensions: AMD 57230. Written apart from the
verifier, with which it shares no code.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA384

from nodeprobe.emulator.snp_pki import RsaAuthority, name, sign_certificate

Edit = Callable[[bytes], bytes]
Parts = dict[str, int]  # security versions by part: fmc (Turin only), bl, tee, snp, ucode

_ORDER = {
    "Milan": ("bl", "tee", "", "", "", "", "snp", "ucode"),
    "Genoa": ("bl", "tee", "", "", "", "", "snp", "ucode"),
    "Turin": ("fmc", "bl", "tee", "snp", "", "", "", "ucode"),
}
_EXTENSION_OF = {"bl": "3.1", "tee": "3.2", "snp": "3.3", "ucode": "3.8", "fmc": "3.9"}
_ARC = "1.3.6.1.4.1.3704.1"
_BODY = struct.Struct("<IIQ32sIIQQII64s48s32s48s48s32s32sQ3s21s64sQ4s4sQ16s152s")


@dataclass(slots=True)
class ReportDraft:
    """One report; `key` signs it."""

    product: str
    key: ec.EllipticCurvePrivateKey
    report_data: bytes
    chip_id: bytes  # 64 bytes
    reported: Parts
    committed: Parts
    current: Parts
    launch: Parts
    measurement: bytes
    host_data: bytes
    report_id: bytes
    cpuid: tuple[int, int, int]
    version: int = 5
    guest_svn: int = 2
    policy: int = 0x3001F  # ABI 0.31, SMT, must-be-one
    vmpl: int = 0
    algorithm: int = 1
    platform: int = 0x25  # SMT, ECC, alias check
    flags: int = 0  # signing key << 2
    firmware: tuple[int, int, int] = (1, 55, 29)
    after_signing: list[Edit] = field(default_factory=list)

    def signed(self) -> bytes:
        body = self._body()
        r, s = utils.decode_dss_signature(self.key.sign(body, ec.ECDSA(SHA384())))
        data = body + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)
        for edit in self.after_signing:
            data = edit(data)
        return data

    def _body(self) -> bytes:
        major, minor, build = self.firmware
        running = bytes([build, minor, major, 0])
        tcbs = {
            each: self._tcb(parts)
            for each, parts in (
                ("current", self.current),
                ("reported", self.reported),
                ("committed", self.committed),
                ("launch", self.launch),
            )
        }
        return _BODY.pack(
            *(self.version, self.guest_svn, self.policy, bytes(32), self.vmpl, self.algorithm),
            *(tcbs["current"], self.platform, self.flags, 0, self.report_data, self.measurement, self.host_data),
            *(bytes(48), bytes(48), self.report_id, b"\xff" * 32, tcbs["reported"]),
            bytes(self.cpuid) if self.version >= 3 else bytes(3),
            *(bytes(21), self.chip_id, tcbs["committed"], running, running, tcbs["launch"]),
            bytes.fromhex("3f000000000000003f00000000000000") if self.version >= 5 else bytes(16),
            bytes(152),
        )

    def _tcb(self, parts: Parts) -> int:
        return int.from_bytes(bytes(parts.get(part, 0) for part in _ORDER[self.product]), "little")


@dataclass(slots=True)
class VekDraft:
    """The certificate of a signing key; `issuer` signs it."""

    issuer: RsaAuthority
    key: ec.EllipticCurvePublicKey
    window: tuple[datetime, datetime]
    common: str  # "SEV-VCEK" or "SEV-VLEK"
    product: str  # "Milan-B0"
    parts: Parts
    hwid: bytes  # empty for a VLEK
    csp: str = ""
    extra: list[tuple[x509.ExtensionType, bool]] = field(default_factory=list)  # and whether it is critical
    replaced: dict[str, bytes | None] = field(default_factory=dict)  # extension below the arc to content; None: absent

    def der(self) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(self.common))
            .issuer_name(self.issuer.certificate.subject)
            .not_valid_before(self.window[0])
            .not_valid_after(self.window[1])
            .public_key(self.key)
        )
        for arc, content in self._contents():
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{_ARC}.{arc}"), content)
            builder = builder.add_extension(extension, critical=False)
        for extra, critical in self.extra:
            builder = builder.add_extension(extra, critical)
        return sign_certificate(builder, self.issuer.key)

    def _contents(self) -> Iterable[tuple[str, bytes]]:
        contents = {"1": integer(0), "2": ia5(self.product)}
        contents |= {_EXTENSION_OF[part]: integer(version) for part, version in self.parts.items()}
        contents |= {"3.5": integer(0), "3.6": integer(0), "3.7": integer(0)}
        if "fmc" not in self.parts:
            contents["3.4"] = integer(0)
        if self.hwid:
            contents["4"] = self.hwid
        if self.csp:
            contents["5"] = ia5(self.csp)
        for arc, content in self.replaced.items():
            contents.pop(arc, None)
            if content is not None:
                contents[arc] = content
        return contents.items()


@dataclass(slots=True)
class SnpDraft:
    """All that a platform hands over or has fetched for it."""

    report: ReportDraft
    vek: VekDraft
    ark: RsaAuthority
    authority: RsaAuthority  # above the VEK: ASK or ASVK
    now: datetime
    carries: int  # how many certificates come with the report: signing key, authority, root
    revoked: list[int]
    crl_by: RsaAuthority
    crl_window: tuple[datetime, datetime]
    crl_delta: bool = False
    edit_certificates: list[Callable[[list[bytes]], list[bytes]]] = field(default_factory=list)
    edit_documents: list[Callable[[dict[str, bytes]], None]] = field(default_factory=list)


def integer(value: int) -> bytes:
    """DER INTEGER from 0 to 255."""
    return bytes([2, 1, value] if value < 0x80 else [2, 2, 0, value])


def ia5(text: str) -> bytes:
    """DER IA5String, up to 127 characters."""
    return bytes([0x16, len(text)]) + text.encode("ascii")
