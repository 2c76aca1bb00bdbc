"""
Reference Integrity Manifests (RIMs): which measurements a driver or VBIOS version must have.

A RIM is a signed SWID tag (ISO/IEC 19770-2, TCG RIM information model). Its names are derived from the report; its
content is read only after its signature holds and its signer chains to the pinned RIM root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lxml import etree

from attest import reasons
from attest.anchors import Anchor
from attest.collateral import CollateralKind, Document, Need
from attest.errors import MalformedEvidence, UntrustedCollateral
from attest.memo import Memo
from attest.nvidia.chain import DeviceClass
from attest.nvidia.report import Field, Report
from attest.nvidia.revocation import Inquiry, KnownQuestions, inquiries
from attest.reasons import Reason
from attest.x509 import KnownPaths, Loaded, Path, PathError, verify_path
from attest.xmldsig import DOCUMENT_BYTES_MAX, DigestMismatch, SignatureMismatch, XmlMalformed, verify

RIM_CERTIFICATES_MIN = 3
RESOURCES = 64
ALTERNATIVES_MAX = 16
VALUE_HEX = 96  # SHA-384

_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_HASH = "{http://www.w3.org/2001/04/xmlenc#sha384}Hash"
# What may stand between the underscores of an id, by their number: it ends up in file names and addresses.
_COMPONENTS = {n: re.compile("_".join(["[A-Z0-9.]{1,64}"] * n)) for n in (2, 4)}
_SWITCH = ("5612", "0002", "890")  # project, SKU and chip SKU of every LS10
_DRIVER = re.compile(r"\d+(\.\d+)+")
_VBIOS = re.compile(r"[0-9A-F]{2}(\.[0-9A-F]{2}){4}")
_NAMING = (
    Field.DRIVER_VERSION, Field.VBIOS_VERSION, Field.PROJECT, Field.PROJECT_SKU, Field.CHIP_SKU, Field.CHIP_INFO
)  # fmt: skip
_EDITION = {DeviceClass.GH100: "GPU", DeviceClass.GB100: "GPU", DeviceClass.LS10: "SWITCH"}
# As RIMs write it: the product, and what stands in the common name of the signer's issuer.
_PRODUCT = {DeviceClass.GH100: "GH100", DeviceClass.GB100: "GB100", DeviceClass.LS10: "LS10"}


class Role(StrEnum):
    """Which RIM it is: a GPU has two, a switch one."""

    DRIVER = "driver"
    VBIOS = "vbios"
    BIOS = "bios"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The RIM that a report calls for: its name, and what the document must say of itself."""

    role: Role
    need: Need
    version: str
    device_class: DeviceClass

    def __hash__(self) -> int:
        return hash(self.need)


@dataclass(frozen=True, slots=True)
class Rim:
    """A verified RIM. `goldens` maps an active index to the values that are right for it, 48 bytes each."""

    product: str
    edition: str
    version: str
    signer: str  # common name of the signer's issuer
    goldens: Mapping[int, tuple[bytes, ...]]
    path: Path
    inquiries: tuple[Inquiry, ...]  # about revocation


KnownRims = Memo[Rim]
KnownWanted = Memo[tuple[Wanted, ...]]


def wanted_by(report: Report, device_class: DeviceClass, *, known: KnownWanted) -> tuple[Wanted, ...]:
    """Driver RIM and VBIOS RIM of a GPU, or the BIOS RIM of a switch, named as NVIDIA's RIM service names them."""
    key = device_class, *(report.opaque.get(field) for field in _NAMING)
    return known.get(key) or known.put(key, _wanted_by(report, device_class))


def _wanted_by(report: Report, device_class: DeviceClass) -> tuple[Wanted, ...]:
    if device_class is DeviceClass.LS10:
        bios = bios_version(report)
        need = _need("NV_SWITCH_BIOS", *_SWITCH, bios.replace(".", ""))
        return (Wanted(Role.BIOS, need, bios, device_class),)
    driver, vbios = driver_version(report), vbios_version(report)
    project, sku, chip = (_text(report, f) for f in (Field.PROJECT, Field.PROJECT_SKU, Field.CHIP_SKU))
    return (
        Wanted(Role.DRIVER, _driver_need(report, device_class, driver), driver, device_class),
        Wanted(Role.VBIOS, _need("NV_GPU_VBIOS", project, sku, chip, vbios.replace(".", "")), vbios, device_class),
    )


def _driver_need(report: Report, device_class: DeviceClass, driver: str) -> Need:
    if device_class is DeviceClass.GH100:
        return _need("NV_GPU_DRIVER", device_class, driver)
    chip = _text(report, Field.CHIP_INFO) if Field.CHIP_INFO in report.opaque else str(device_class)
    return _need("NV_GPU_CC_DRIVER", chip, driver)


def bios_version(report: Report) -> str:
    """A switch writes its version as text."""
    version = _text(report, Field.VBIOS_VERSION).upper()
    if not _VBIOS.fullmatch(version):
        raise MalformedEvidence(reasons.RIM_ID_MALFORMED, f"BIOS version {version!r}", "five groups of two hex digits")
    return version


def driver_version(report: Report) -> str:
    version = _text(report, Field.DRIVER_VERSION)
    if not _DRIVER.fullmatch(version):
        raise MalformedEvidence(reasons.RIM_ID_MALFORMED, f"driver version {version!r}", "numbers and dots")
    return version


def vbios_version(report: Report) -> str:
    """Eight bytes b0…b7 are written b3.b2.b1.b0.b4, each as two upper-case hex digits."""
    raw = _field(report, Field.VBIOS_VERSION)
    if len(raw) != 8:
        raise MalformedEvidence(reasons.REPORT_MALFORMED, f"a VBIOS version of {len(raw)} bytes", "8")
    return ".".join(f"{raw[at]:02X}" for at in (3, 2, 1, 0, 4))


def _need(prefix: str, *components: str) -> Need:
    named = "_".join(components).upper()
    if not _COMPONENTS[len(components)].fullmatch(named):
        raise MalformedEvidence(reasons.RIM_ID_MALFORMED, repr(named), "letters, digits and dots")
    return Need(CollateralKind.NVIDIA_RIM, f"{prefix}_{named}")


def _field(report: Report, field: Field) -> bytes:
    if (raw := report.opaque.get(field)) is None:
        raise MalformedEvidence(reasons.REPORT_FIELD_MISSING, "", field.name)
    return raw


def _text(report: Report, field: Field) -> str:
    raw = _field(report, field).rstrip(b"\0 ")
    if not raw or not raw.isascii():
        raise MalformedEvidence(reasons.RIM_ID_MALFORMED, f"{field.name} {raw!r}", "ASCII text")
    return raw.decode("ascii")


def load(
    document: Document,
    anchors: Sequence[Anchor],
    *,
    known: KnownRims,
    paths: KnownPaths,
    questions: KnownQuestions | None = None,
) -> Rim:
    """The content of a RIM whose signature holds and whose signer chains to a pinned root; times are not compared."""
    found = known.get(document.sha256)
    return found or known.put(document.sha256, _load(document.data, anchors, paths, questions or KnownQuestions()))


def check(rim: Rim, wanted: Wanted) -> None:
    """That a RIM is for this very product and version. UntrustedCollateral otherwise."""
    says = (rim.product, rim.edition, rim.version.upper())
    product = _PRODUCT[wanted.device_class]
    must = (product, _EDITION[wanted.device_class], wanted.version.upper())
    if says != must:
        raise UntrustedCollateral(reasons.RIM_BINDING, " ".join(says), " ".join(must))
    shape = _DRIVER if wanted.role is Role.DRIVER else _VBIOS
    if not shape.fullmatch(rim.version.upper()):
        raise UntrustedCollateral(reasons.RIM_BINDING, f"version {rim.version}", f"that of a {wanted.role}")
    if product not in rim.signer:
        raise UntrustedCollateral(reasons.RIM_BINDING, f"signer under {rim.signer}", product)


def check_time(path: Path, *, now: datetime) -> None:
    """That a RIM's signer existed at `now`, or UntrustedCollateral. How long ago it expired, a policy judges."""
    if now < path.not_before:
        found = f"valid from {path.not_before:%Y-%m-%dT%H:%M:%SZ}"
        raise UntrustedCollateral(reasons.RIM_TIME, found, f"{now:%Y-%m-%dT%H:%M:%SZ}")


def _load(data: bytes, anchors: Sequence[Anchor], paths: KnownPaths, questions: KnownQuestions) -> Rim:
    if len(data) > DOCUMENT_BYTES_MAX:
        raise UntrustedCollateral(reasons.RIM_TOO_LARGE, f"{len(data)} bytes", f"at most {DOCUMENT_BYTES_MAX}")
    found: list[Path] = []

    def authenticate(certificates: Sequence[Loaded]) -> None:
        if len(certificates) < RIM_CERTIFICATES_MIN:
            raise UntrustedCollateral(
                reasons.RIM_CHAIN, f"{len(certificates)} certificates", "the signer's whole chain"
            )
        try:
            found.append(verify_path(certificates, anchors, paths))
        except PathError as e:
            raise UntrustedCollateral(reasons.RIM_CHAIN, e.found, e.wanted) from e

    try:
        signed = verify(data, authenticate)
        issuer = signed.certificates[0].certificate.issuer.rfc4514_string()
        return _read(
            signed.root,
            issuer,
            found[0],
            inquiries(signed.certificates, found[0], of_device=False, known=questions),
        )
    except XmlMalformed as e:
        raise UntrustedCollateral(reasons.RIM_MALFORMED, str(e)) from e
    except DigestMismatch as e:
        raise UntrustedCollateral(reasons.RIM_DIGEST, str(e)) from e
    except SignatureMismatch as e:
        raise UntrustedCollateral(reasons.RIM_SIGNATURE, str(e)) from e


def _read(root: etree._Element, signer: str, path: Path, asked: tuple[Inquiry, ...]) -> Rim:
    """Direct children of the verified root only, in their one order."""
    names = [str(child.tag) for child in root]
    if root.tag != f"{_SWID}SoftwareIdentity" or names != [_SWID + name for name in ("Entity", "Meta", "Payload")]:
        raise _malformed(f"{root.tag} of {', '.join(names)}", "a SWID tag of Entity, Meta and Payload")
    meta, payload = root[1], root[2]
    says = [str(meta.get(name, "")) for name in ("product", "edition", "colloquialVersion")]
    if not all(says):
        raise _malformed(f"Meta with {says}", "product, edition and colloquialVersion")
    return Rim(says[0], says[1], says[2], signer, _goldens(payload), path, asked)


def _goldens(payload: etree._Element) -> Mapping[int, tuple[bytes, ...]]:
    if len(payload) != RESOURCES:
        raise _malformed(f"{len(payload)} resources", str(RESOURCES))
    seen: set[int] = set()
    goldens: dict[int, tuple[bytes, ...]] = {}
    for resource in payload:
        index, active, values = _resource(resource)
        if index in seen:
            raise _malformed(f"index {index} twice", "once")
        seen.add(index)
        if active:
            goldens[index] = values
    if not goldens:
        raise _malformed("no active measurement", "at least one")
    return goldens


def _resource(resource: etree._Element) -> tuple[int, bool, tuple[bytes, ...]]:
    """One measurement: its index, whether it counts, and its alternatives."""
    if resource.tag != f"{_SWID}Resource" or resource.get("type") != "Measurement" or len(resource):
        raise _malformed(f"{resource.tag} of type {resource.get('type')}", "a Resource of type Measurement")
    index, alternatives = (_small(resource, name) for name in ("index", "alternatives"))
    active = {"True": True, "False": False}.get(str(resource.get("active")))
    hashes = {str(name) for name in resource.attrib if str(name).startswith(_HASH)}
    in_bounds = index < RESOURCES and 1 <= alternatives <= ALTERNATIVES_MAX
    if active is None or not in_bounds or hashes != {f"{_HASH}{n}" for n in range(alternatives)}:
        found = f"index {index}, active {resource.get('active')}, {len(hashes)} values for {alternatives} alternatives"
        raise _malformed(found, "index 0 to 63, active True or False, one value for each alternative")
    if resource.get("size") != str(VALUE_HEX // 2):
        raise _malformed(f"size {resource.get('size')}", str(VALUE_HEX // 2))
    return index, active, tuple(_value(str(resource.get(f"{_HASH}{n}"))) for n in range(alternatives))


def _small(resource: etree._Element, name: str) -> int:
    text = str(resource.get(name, ""))
    if not re.fullmatch(r"[0-9]{1,3}", text):
        raise _malformed(f"{name} {text!r}", "a small number")
    return int(text)


def _value(text: str) -> bytes:
    if not re.fullmatch(r"[0-9a-f]{96}", text):
        raise _malformed(f"a value of {len(text)} characters", f"{VALUE_HEX} lower hex digits")
    return bytes.fromhex(text)


def _malformed(found: str, wanted: str, reason: Reason = reasons.RIM_MALFORMED) -> UntrustedCollateral:
    return UntrustedCollateral(reason, found, wanted)
