"""
The certificates of one device, leaf first: attestation key, device (boot ROM), provisioner, identity, root.

Shapes: spec/nvidia.md §6.2 and §7. A draft holds what is about to be certified; a defect changes it, or adds an edit of
the finished list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nodeprobe.emulator.pki import CERT_SIGN, DIGITAL_SIGNATURE, FOREVER, Authority, Pki, Profile, end_name

GPU_PREFIX = 0x41  # before the PDI, in the serial number of a GPU's device certificate
PDI_BYTES = 8
DEVICE_NOT_BEFORE = datetime(2020, 10, 17, tzinfo=UTC)

DEVICE_INFO_OID = x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1")
FWID_OID = x509.ObjectIdentifier("2.23.133.5.4.1")
_SHA384_OID_DER = bytes.fromhex("0609608648016503040202")

Certificates = list[x509.Certificate]


@dataclass(slots=True)
class ChainDraft:
    """A device chain that is about to be issued."""

    pdi: bytes
    brom: Profile
    leaf: Profile
    brom_key: ec.EllipticCurvePrivateKey = field(repr=False)
    leaf_key: ec.EllipticCurvePrivateKey = field(repr=False)
    provisioner: Authority
    identity: Authority
    root: Authority
    fwid: bytes | None  # None: the leaf has no such extension
    endorsed: ec.EllipticCurvePublicKey | None = None  # the key in that extension; None: the device's, as it must be
    product: str = "GH100"  # in the leaf's device information
    edits: list[Callable[[Certificates], Certificates]] = field(default_factory=list)

    @classmethod
    def of(
        cls, pki: Pki, brom_key: ec.EllipticCurvePrivateKey, leaf_key: ec.EllipticCurvePrivateKey, fwid: bytes
    ) -> ChainDraft:
        """The chain of a good device with these keys; its PDI follows from the device key."""
        pdi = pdi_of(brom_key)
        return cls(
            pdi=pdi,
            brom=brom_profile("GH100 A01 GSP BROM", bytes([GPU_PREFIX]) + pdi),
            leaf=leaf_profile("GH100 A01 GSP FMC LF", leaf_key),
            brom_key=brom_key,
            leaf_key=leaf_key,
            provisioner=pki.provisioner,
            identity=pki.identity,
            root=pki.device_root,
            fwid=fwid,
        )

    def issued(self) -> Certificates:
        """Issue the two certificates of the device, and put the shared three behind them."""
        brom = self.provisioner.below(self.brom, self.brom_key)
        extensions: list[x509.ExtensionType] = [device_info(self.product, self.pdi)]
        if self.fwid is not None:
            extensions.append(fwid_extension(self.endorsed or self.brom_key.public_key(), self.fwid))
        leaf = brom.below(replace(self.leaf, extensions=tuple(extensions)), self.leaf_key)
        chain = [each.certificate for each in (leaf, brom, self.provisioner, self.identity, self.root)]
        for edit in self.edits:
            chain = edit(chain)
        return chain


def pdi_of(brom_key: ec.EllipticCurvePrivateKey) -> bytes:
    """The identity of a device, from its key's identifier, so that it lasts as long as the key. 8 bytes."""
    return x509.SubjectKeyIdentifier.from_public_key(brom_key.public_key()).digest[:PDI_BYTES]


def brom_profile(common_name: str, serial: bytes) -> Profile:
    """A device certificate: its serial number, prefix and PDI, stands in its name as well."""
    subject = end_name(common_name, serial.hex().upper())
    return Profile(subject, DEVICE_NOT_BEFORE, FOREVER, CERT_SIGN, serial=int.from_bytes(serial, "big"))


def leaf_profile(common_name: str, key: ec.EllipticCurvePrivateKey) -> Profile:
    """An attestation key's certificate: its serial number, in its name as well, is the key's identifier (top bit 0)."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    # 0x40 keeps the number 20 bytes long, whatever the identifier begins with.
    serial = bytes([identifier[0] & 0x7F | 0x40]) + identifier[1:]
    subject = end_name(common_name, serial.hex().upper())
    return Profile(
        subject, DEVICE_NOT_BEFORE, FOREVER, DIGITAL_SIGNATURE, ca=None, serial=int.from_bytes(serial, "big")
    )


def device_info(product: str, pdi: bytes) -> x509.SubjectAlternativeName:
    """DMTF's device information: manufacturer, product and serial as UTF-8 text."""
    label = f"NVIDIA:{product}:{pdi.hex().upper()}".encode()
    return x509.SubjectAlternativeName([x509.OtherName(DEVICE_INFO_OID, _der(0x0C, label))])


def fwid_extension(endorsed: ec.EllipticCurvePublicKey, fwid: bytes) -> x509.UnrecognizedExtension:
    """SEQUENCE { INTEGER 1, device key, SEQUENCE { OID sha384, OCTET STRING fwid } } (§7)."""
    spki = endorsed.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = _der(0x30, _SHA384_OID_DER, _der(0x04, fwid))
    return x509.UnrecognizedExtension(FWID_OID, _der(0x30, _der(0x02, b"\x01"), spki, digest))


def _der(tag: int, *parts: bytes) -> bytes:
    """One DER element of less than 256 bytes."""
    body = b"".join(parts)
    length = bytes([len(body)]) if len(body) < 0x80 else bytes([0x81, len(body)])
    return bytes([tag]) + length + body
