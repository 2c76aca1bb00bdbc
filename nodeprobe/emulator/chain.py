"""
The certificates of one device, leaf first: attestation key, device (boot ROM), provisioner, identity, root.

Shapes: spec/nvidia.md §6.2 and §7. A draft holds what is about to be certified; a defect changes it, or adds an edit of
the finished list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nodeprobe.emulator.der import INTEGER, OCTET_STRING, SEQUENCE, SHA384, UTF8_STRING, context, der
from nodeprobe.emulator.families import HOPPER, Family
from nodeprobe.emulator.pki import CERT_SIGN, DIGITAL_SIGNATURE, FOREVER, Authority, Pki, Profile, end_name

PDI_BYTES = 8

DEVICE_INFO_OID = x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1")
FWID_OID = x509.ObjectIdentifier("2.23.133.5.4.1")
TCB_INFO_OID = x509.ObjectIdentifier("2.23.133.5.4.1.1")

Certificates = list[x509.Certificate]


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """What a Blackwell's leaf says beside its firmware identity. Bits 0 and 31 are set on production parts."""

    vendor: str = "NVIDIA"
    model: str = "GB100 A01 GSP"
    flags: bytes = bytes.fromhex("0080000001")  # DER bit string: unused bits, then four octets
    fwids: tuple[bytes, ...] | None = None  # None: the firmware's, and zeros, as in genuine ones
    whole: bool = True  # with all its fields


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
    family: Family = HOPPER
    endorsed: ec.EllipticCurvePublicKey | None = None  # the key in that extension; None: the device's, as it must be
    tcb: TcbInfo | None = None  # None: firmware and device key instead
    product: str = ""  # in the leaf's device information
    edits: list[Callable[[Certificates], Certificates]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        pki: Pki,
        brom_key: ec.EllipticCurvePrivateKey,
        leaf_key: ec.EllipticCurvePrivateKey,
        fwid: bytes,
        family: Family = HOPPER,
    ) -> ChainDraft:
        """The chain of a good device with these keys; its PDI follows from the device key."""
        pdi, branch = pdi_of(brom_key), pki.branches[family]
        return cls(
            pdi=pdi,
            brom=brom_profile(family, pdi),
            leaf=leaf_profile(family, leaf_key),
            brom_key=brom_key,
            leaf_key=leaf_key,
            provisioner=branch.provisioner,
            identity=branch.identity,
            root=pki.device_root,
            fwid=fwid,
            family=family,
            tcb=TcbInfo() if family.tcb_info else None,
            product=family.chip,
        )

    def issued(self) -> Certificates:
        """Issue the two certificates of the device, and put the shared three behind them."""
        brom = self.provisioner.below(self.brom, self.brom_key)
        extensions: list[x509.ExtensionType] = [device_info(self.product, self.pdi)]
        if self.fwid is not None and self.tcb is not None:
            extensions.append(tcb_extension(self.tcb, self.fwid))
        elif self.fwid is not None:
            extensions.append(fwid_extension(self.endorsed or self.brom_key.public_key(), self.fwid))
        leaf = brom.below(replace(self.leaf, extensions=tuple(extensions)), self.leaf_key)
        chain = [each.certificate for each in (leaf, brom, self.provisioner, self.identity, self.root)]
        for edit in self.edits:
            chain = edit(chain)
        return chain


def pdi_of(brom_key: ec.EllipticCurvePrivateKey) -> bytes:
    """The identity of a device, from its key's identifier, so that it lasts as long as the key. 8 bytes."""
    return x509.SubjectKeyIdentifier.from_public_key(brom_key.public_key()).digest[:PDI_BYTES]


def brom_profile(family: Family, pdi: bytes) -> Profile:
    """A device certificate: its serial number, prefix and PDI, stands in its name as well."""
    serial = bytes([family.serial_prefix]) + pdi
    subject = end_name(family.brom, serial.hex().upper())
    number = int.from_bytes(serial, "big")
    return Profile(subject, family.not_before, FOREVER, CERT_SIGN, serial=number, ocsp=family.brom_ocsp)


def leaf_profile(family: Family, key: ec.EllipticCurvePrivateKey, common_name: str | None = None) -> Profile:
    """An attestation key's certificate: its serial number, in its name as well, is the key's identifier (top bit 0)."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    # 0x40 keeps the number 20 bytes long, whatever the identifier begins with.
    serial = bytes([identifier[0] & 0x7F | 0x40]) + identifier[1:]
    subject = end_name(common_name or family.leaf, serial.hex().upper())
    number = int.from_bytes(serial, "big")
    return Profile(subject, family.not_before, FOREVER, DIGITAL_SIGNATURE, ca=None, serial=number)


def device_info(product: str, pdi: bytes) -> x509.SubjectAlternativeName:
    """DMTF's device information: manufacturer, product and serial as UTF-8 text."""
    label = f"NVIDIA:{product}:{pdi.hex().upper()}".encode()
    return x509.SubjectAlternativeName([x509.OtherName(DEVICE_INFO_OID, der(UTF8_STRING, label))])


def fwid_extension(endorsed: ec.EllipticCurvePublicKey, fwid: bytes) -> x509.UnrecognizedExtension:
    """SEQUENCE { INTEGER 1, device key, SEQUENCE { OID sha384, OCTET STRING fwid } } (§7)."""
    spki = endorsed.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return x509.UnrecognizedExtension(FWID_OID, der(SEQUENCE, der(INTEGER, b"\x01"), spki, _digest(fwid)))


def tcb_extension(info: TcbInfo, fwid: bytes) -> x509.UnrecognizedExtension:
    """DiceTcbInfo: vendor, model, version, svn, layer, index, firmware ids, flags, vendor info, type (§7)."""
    named = (fwid, bytes(len(fwid))) if info.fwids is None else info.fwids
    fields = [
        context(0, info.vendor.encode()),
        context(1, info.model.encode()),
        context(2, b"01"),
        context(3, b"\x01"),
        context(4, b"\x00"),
        context(5, b"\x00"),
        context(6, *map(_digest, named), constructed=True),
        context(7, info.flags),
        context(8, b"\xc0"),
        context(9, b"\x00"),
    ]
    return x509.UnrecognizedExtension(TCB_INFO_OID, der(SEQUENCE, *(fields if info.whole else fields[:-1])))


def _digest(value: bytes) -> bytes:
    """SEQUENCE { OID sha384, OCTET STRING }."""
    return der(SEQUENCE, SHA384, der(OCTET_STRING, value))
