"""
Reference manifests (RIM) of emulated drivers and VBIOSes: SWID tags in XML, signed as genuine ones are.

Structure: spec/nvidia.md §9.3; signature: §9.4. A draft holds what a manifest is about to say; a defect changes it, or
adds an edit of the tree before it is signed, of the signed tree, or of the finished bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from nodeprobe.emulator.families import HOPPER, Family
from nodeprobe.emulator.models import MEASUREMENTS, ZERO, Goldens, GpuModel, Model, Reference
from nodeprobe.emulator.pki import ORGANISATION, Pki
from nodeprobe.emulator.spdm import sign

SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
HASH = "http://www.w3.org/2001/04/xmlenc#sha384"
RIMIM = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
DS = "http://www.w3.org/2000/09/xmldsig#"
C14N = "http://www.w3.org/2006/12/xml-c14n11"
ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
ECDSA_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"

OEM_ID = "5703"  # the manufacturer's number that genuine manifests give
_LINE = 64  # characters of a certificate in one line

Tree = Any  # an lxml element; lxml ships no types
TreeEdit = Callable[[Tree], None]
Edit = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Resource:
    """One measurement in a manifest."""

    index: int
    active: bool
    hashes: tuple[str, ...]  # lower hex


@dataclass(slots=True)
class ManifestDraft:
    """A manifest that is about to be written and signed."""

    version: str
    resources: list[Resource]
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificates: list[x509.Certificate]  # leaf first
    pki: Pki
    family: Family
    product: str
    edition: str
    before_signing: list[TreeEdit] = field(default_factory=list)
    after_signing: list[TreeEdit] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)

    @classmethod
    def of(cls, version: str, goldens: Goldens, pki: Pki, family: Family = HOPPER) -> ManifestDraft:
        """A good manifest of these reference values."""
        unused = (ZERO,)
        resources = [
            Resource(index, index in goldens, tuple(each.hex() for each in goldens.get(index, unused)))
            for index in range(MEASUREMENTS)
        ]
        branch = pki.branches[family]
        chain = [each.certificate for each in (branch.rim_l4, branch.rim_l3, branch.rim_ca, pki.rim_root)]
        key = branch.rim_l4.key
        return cls(version, resources, key, chain, pki, family, family.product, family.edition)

    def signed(self) -> bytes:
        """The document, with its enveloped signature as the last child of its root."""
        root = self._tree()
        for tree_edit in self.before_signing:
            tree_edit(root)
        _sign(root, self.key, self.certificates)
        for tree_edit in self.after_signing:
            tree_edit(root)
        data: bytes = etree.tostring(root.getroottree(), encoding="utf-8")
        for edit in self.edits:
            data = edit(data)
        return data

    def _tree(self) -> Tree:
        root = etree.Element(f"{{{SWID}}}SoftwareIdentity", nsmap={None: SWID, "digest": HASH})
        tag = hashlib.sha384(f"{ORGANISATION} {self.product} {self.version}".encode()).hexdigest()
        no = dict.fromkeys(("corpus", "patch", "supplemental"), "false")
        _set(root, {"name": self.product, **no, "tagId": tag, "version": "1.0", "tagVersion": "0"})
        entity = etree.SubElement(root, f"{{{SWID}}}Entity")
        _set(entity, {"name": ORGANISATION, "role": "softwareCreator tagCreator"})
        _set(etree.SubElement(root, f"{{{SWID}}}Meta", nsmap={"rim": RIMIM}), self._meta())
        payload = etree.SubElement(root, f"{{{SWID}}}Payload")
        for each in self.resources:
            _set(etree.SubElement(payload, f"{{{SWID}}}Resource"), _resource(each))
        etree.indent(root, "    ")
        return root

    def _meta(self) -> dict[str, str]:
        return {
            "colloquialVersion": self.version,
            "edition": self.edition,
            "product": self.product,
            "revision": "r1",
            "PayloadType": "direct",
            f"{{{RIMIM}}}BindingSpec": "RIMIM",
            f"{{{RIMIM}}}BindingSpecVersion": "1.01",
            f"{{{RIMIM}}}PlatformManufacturerId": OEM_ID,
            f"{{{RIMIM}}}PlatformManufacturerStr": ORGANISATION,
            f"{{{RIMIM}}}PlatformModel": self.product,
            f"{{{RIMIM}}}FirmwareManufacturer": ORGANISATION,
            f"{{{RIMIM}}}FirmwareManufacturerId": OEM_ID,
        }


Spoil = Callable[[ManifestDraft], None]


def manifest(reference: Reference, pki: Pki, *spoils: Spoil) -> bytes:
    """The manifest of these reference values, spoiled as asked."""
    draft = ManifestDraft.of(reference.version, reference.goldens, pki, reference.family)
    for spoil in spoils:
        spoil(draft)
    return draft.signed()


def driver_rim(model: GpuModel, pki: Pki, *spoils: Spoil) -> bytes:
    """The manifest of a model's driver, spoiled as asked."""
    return manifest(model.references[0], pki, *spoils)


def vbios_rim(model: GpuModel, pki: Pki, *spoils: Spoil) -> bytes:
    """The manifest of a model's VBIOS, spoiled as asked."""
    return manifest(model.references[1], pki, *spoils)


def publish(pki: Pki, model: Model) -> None:
    """Lay all manifests of a model down in the PKI's folder, unless they are there. Safe between processes."""
    for each in model.references:
        path = pki.rims / f"{each.rim_id}.xml"
        if not path.exists():
            write_whole(path, manifest(each, pki))


def digest_again(root: Tree) -> None:
    """Make the digest fit the content again, and leave the signature as it is: a defect's edit."""
    signature = root[-1]
    root.remove(signature)
    digest = hashlib.sha384(_canonical(root)).digest()
    root.append(signature)
    next(signature.iter(f"{{{DS}}}DigestValue")).text = base64.b64encode(digest).decode()


def add_instruction(root: Tree) -> None:
    """Put a processing instruction before the first child: a defect's edit, here because it needs lxml."""
    root.insert(0, etree.ProcessingInstruction("emulator", "not data"))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever reads half of it."""
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        os.fchmod(handle, 0o644)  # nothing here is secret
    Path(aside).replace(path)


def _resource(each: Resource) -> dict[str, str]:
    return {
        "type": "Measurement",
        "index": str(each.index),
        "active": str(each.active),
        "alternatives": str(len(each.hashes)),
        **{f"{{{HASH}}}Hash{n}": text for n, text in enumerate(each.hashes)},
        "name": f"Measurement_{each.index}",
        "size": "48",
    }


def _set(element: Tree, attributes: dict[str, str]) -> None:
    for key, text in attributes.items():
        element.set(key, text)


def _sign(root: Tree, key: ec.EllipticCurvePrivateKey, certificates: list[x509.Certificate]) -> None:
    """
    Append ds:Signature over the whole document but itself.

    libxml2 knows canonicalisation 1.0 only. Without xml: attributes 1.1 gives the same bytes (§9.4).
    """
    digest = hashlib.sha384(_canonical(root)).digest()
    signature = _ds(root, "Signature")
    info = _ds(signature, "SignedInfo")
    _ds(info, "CanonicalizationMethod", Algorithm=C14N)
    _ds(info, "SignatureMethod", Algorithm=ECDSA_SHA384)
    reference = _ds(info, "Reference", URI="")
    transforms = _ds(reference, "Transforms")
    _ds(transforms, "Transform", Algorithm=ENVELOPED)
    _ds(transforms, "Transform", Algorithm=C14N)
    _ds(reference, "DigestMethod", Algorithm=SHA384)
    _ds(reference, "DigestValue").text = base64.b64encode(digest).decode()
    _ds(signature, "SignatureValue").text = base64.b64encode(sign(key, _canonical(info))).decode()
    data = _ds(_ds(signature, "KeyInfo"), "X509Data")
    for certificate in certificates:
        _ds(data, "X509Certificate").text = _lines(certificate.public_bytes(Encoding.DER))


def _ds(parent: Tree, tag: str, **attributes: str) -> Tree:
    nsmap = {"ds": DS} if tag == "Signature" else None
    return etree.SubElement(parent, f"{{{DS}}}{tag}", attributes, nsmap)


def _canonical(element: Tree) -> bytes:
    data: bytes = etree.tostring(element, method="c14n", with_comments=False)
    return data


def _lines(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    return "".join(text[at : at + _LINE] + "\n" for at in range(0, len(text), _LINE))
