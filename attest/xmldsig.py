"""
XML signatures, as strictly as reference manifests (RIMs) use them, and no more.

One enveloped signature, last child of the root, over the whole document; fixed algorithms; the key is that of the first
certificate, once the caller has chained it to a pinned root. Nothing of the document may be read before `verify`
returned, and then only below the root that it returns. C14N 1.1 and 1.0 give the same bytes for documents without
`xml:` attributes; those are refused, so libxml2's C14N 1.0 serves.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from lxml import etree

from attest.x509 import CERTIFICATES_MAX, SIGNATURE_BYTES, UNREADABLE, Loaded, verify_raw_signature

DOCUMENT_BYTES_MAX = 256 << 10
ELEMENTS_MAX = 1024
DEPTH_MAX = 16
ATTRIBUTES_MAX = 64  # of one element
NAMESPACES_MAX = 64  # declared in the whole document: canonicalisation takes time in the cube of them

DS = "{http://www.w3.org/2000/09/xmldsig#}"
C14N_11 = "http://www.w3.org/2006/12/xml-c14n11"
ECDSA_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
_ENCODINGS = ("UTF-8", "ASCII", "US-ASCII")
_XML = "{http://www.w3.org/XML/1998/namespace}"
_XSI = "{http://www.w3.org/2001/XMLSchema-instance}"


class XmlMalformed(Exception):
    """The document breaks the profile."""


class DigestMismatch(Exception):
    """The content is not what was signed."""


class SignatureMismatch(Exception):
    """The signature does not hold for the signer's key."""


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A verified document: its root without the signature, and the certificates that came with it, leaf first."""

    root: etree._Element
    certificates: tuple[Loaded, ...]


Authenticate = Callable[[Sequence[Loaded]], None]


def verify(document: bytes, authenticate: Authenticate) -> SignedDocument:
    """
    The document, if its one signature holds for the first certificate in it.

    `authenticate` must raise unless the certificates lead to a root that is trusted; it is called before anything else
    is believed.
    """
    root = _parse(document)
    signature = _only_signature(root)
    signed_info, value, key_info = _children(signature, "Signature", "SignedInfo", "SignatureValue", "KeyInfo")
    wanted = _digest_in(signed_info)
    certificates = _certificates(key_info)
    authenticate(certificates)
    key = certificates[0].certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise SignatureMismatch("the signer's key is not P-384")
    signed, signed_by = _canonical(signed_info), _base64(value, SIGNATURE_BYTES)
    _remove_keeping_tail(root, signature)
    # The digest first: it is the cheaper check by far, and neither means anything without the other.
    if not hmac.compare_digest(hashlib.sha384(_canonical(root)).digest(), wanted):
        raise DigestMismatch("the content's digest is not the signed one")
    if not verify_raw_signature(key, signed_by, signed):
        raise SignatureMismatch("SignedInfo")
    return SignedDocument(root, certificates)


def _parse(document: bytes) -> etree._Element:
    if len(document) > DOCUMENT_BYTES_MAX:
        raise XmlMalformed(f"{len(document)} bytes, at most {DOCUMENT_BYTES_MAX}")
    if b"\0" in document:  # UTF-16 and the like, in which the next line would not see what it counts
        raise XmlMalformed("another encoding than UTF-8")
    if document.count(b"xmlns") > NAMESPACES_MAX:
        raise XmlMalformed(f"more than {NAMESPACES_MAX} namespace declarations")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, recover=False
    )
    try:
        root = etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError) as e:
        raise XmlMalformed(f"no well-formed XML: {e}") from e
    tree = root.getroottree()
    if (tree.docinfo.encoding or "UTF-8").upper() not in _ENCODINGS:
        raise XmlMalformed(f"encoding {tree.docinfo.encoding}; want UTF-8")
    if tree.docinfo.doctype or tree.docinfo.internalDTD is not None:
        raise XmlMalformed("a document type declaration")
    if root.getprevious() is not None or root.getnext() is not None:
        raise XmlMalformed("content beside the root")
    _check_nodes(root)
    return root


def _check_nodes(root: etree._Element) -> None:
    """Elements only, not many, not deep, and no attribute that canonicalisation or a schema treats specially."""
    count, pending = 0, [(root, 1)]
    while pending:
        element, depth = pending.pop()
        count += 1
        if count > ELEMENTS_MAX or depth > DEPTH_MAX:
            raise XmlMalformed(f"more than {ELEMENTS_MAX} elements, or deeper than {DEPTH_MAX}")
        if not isinstance(element.tag, str):
            raise XmlMalformed("a comment, a processing instruction or an entity")
        if len(element.attrib) > ATTRIBUTES_MAX:
            raise XmlMalformed(f"an element with more than {ATTRIBUTES_MAX} attributes")
        if any(str(name).startswith((_XML, _XSI)) for name in element.attrib):
            raise XmlMalformed("an xml: or xsi: attribute")
        pending.extend((child, depth + 1) for child in element)


def _only_signature(root: etree._Element) -> etree._Element:
    signatures = list(root.iter(f"{DS}Signature"))
    if len(signatures) != 1 or len(root) == 0 or root[-1] is not signatures[0]:
        raise XmlMalformed(f"{len(signatures)} signatures; want one, the last child of the root")
    signature: etree._Element = signatures[0]
    return signature


def _digest_in(signed_info: etree._Element) -> bytes:
    """The digest of the one reference, if every algorithm is the expected one."""
    method, signature_method, reference = _children(
        signed_info, "SignedInfo", "CanonicalizationMethod", "SignatureMethod", "Reference"
    )
    _algorithm(method, C14N_11)
    _algorithm(signature_method, ECDSA_SHA384)
    if dict(reference.attrib) != {"URI": ""}:
        raise XmlMalformed("a reference to something other than the whole document")
    transforms, digest_method, digest_value = _children(
        reference, "Reference", "Transforms", "DigestMethod", "DigestValue"
    )
    enveloped, canonical = _children(transforms, "Transforms", "Transform", "Transform")
    _algorithm(enveloped, ENVELOPED)
    _algorithm(canonical, C14N_11)
    _algorithm(digest_method, SHA384)
    return _base64(digest_value, hashlib.sha384().digest_size)


def _certificates(key_info: etree._Element) -> tuple[Loaded, ...]:
    (data,) = _children(key_info, "KeyInfo", "X509Data")
    if not 1 <= len(data) <= CERTIFICATES_MAX:
        raise XmlMalformed(f"{len(data)} certificates; want 1 to {CERTIFICATES_MAX}")
    _children(data, "X509Data", *["X509Certificate"] * len(data))
    try:
        return tuple(Loaded.of(_base64(each)) for each in data)
    except UNREADABLE as e:
        raise XmlMalformed(f"a certificate that does not parse: {e}") from e


def _children(parent: etree._Element, what: str, *names: str) -> tuple[etree._Element, ...]:
    """Exactly these children of `parent`, in this order, with nothing but white space between them."""
    found = [str(child.tag) for child in parent]
    if found != [DS + name for name in names]:
        raise XmlMalformed(f"{what} holds {', '.join(found) or 'nothing'}; want {', '.join(names)}")
    if any(text and text.strip() for text in (parent.text, *(child.tail for child in parent))):
        raise XmlMalformed(f"text in {what}")
    return tuple(parent)


def _algorithm(element: etree._Element, wanted: str) -> None:
    if dict(element.attrib) != {"Algorithm": wanted} or len(element) or (element.text or "").strip():
        raise XmlMalformed(f"algorithm {dict(element.attrib)}; want {wanted}")


def _base64(element: etree._Element, size: int | None = None) -> bytes:
    if len(element):
        raise XmlMalformed(f"elements inside {element.tag}")
    try:
        data = base64.b64decode("".join((element.text or "").split()), validate=True)
    except (binascii.Error, ValueError) as e:
        raise XmlMalformed(f"no base64 in {element.tag}") from e
    if size is not None and len(data) != size:
        raise XmlMalformed(f"{len(data)} bytes in {element.tag}; want {size}")
    return data


def _canonical(element: etree._Element) -> bytes:
    """C14N of the element in the context of its document: it inherits the namespaces in scope."""
    try:
        return bytes(etree.tostring(element, method="c14n", exclusive=False, with_comments=False))
    except etree.LxmlError as e:  # relative namespace names, for one, have no canonical form
        raise XmlMalformed(f"no canonical form: {e}") from e


def _remove_keeping_tail(root: etree._Element, signature: etree._Element) -> None:
    """Take the signature out, as the enveloped transform does: the text after it belongs to the root and stays."""
    tail, before = signature.tail or "", signature.getprevious()
    root.remove(signature)
    if before is not None:
        before.tail = (before.tail or "") + tail
    else:
        root.text = (root.text or "") + tail
