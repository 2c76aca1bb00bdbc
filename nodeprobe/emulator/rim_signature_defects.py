"""
What may be wrong with the signature of a reference manifest, and with the certificates beside it.

These changes come after signing, or concern the signer; the content is good but where it is said.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from attest.reasons import RIM_CHAIN, RIM_DIGEST, RIM_EXPIRED, RIM_MALFORMED, RIM_SIGNATURE, RIM_TIME
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.pki import Authority, Profile, new_key, rim_profiles
from nodeprobe.emulator.rim import DS, HASH, SWID, ManifestDraft, Tree, TreeEdit, digest_again

PAST = datetime(2024, 1, 1, tzinfo=UTC)
FUTURE = datetime(9000, 1, 1, tzinfo=UTC)

Spoil = Callable[[ManifestDraft], None]


def _after(edit: TreeEdit) -> Spoil:
    return lambda draft: draft.after_signing.append(edit)


# --- signature ----------------------------------------------------------------------------------------------------
def _find(root: Tree, *path: str) -> Tree:
    for tag in path:
        root = root.find(f"{{{DS}}}{tag}")
    return root


def _edit_content(data: bytes) -> bytes:
    """Another value for the first measurement that counts and is not zero."""
    return re.sub(rb'(active="True"[^>]*Hash0=")(?!0{96})[0-9a-f]{96}', rb"\g<1>" + b"ab" * 48, data, count=1)


def _edited(draft: ManifestDraft) -> None:
    draft.edits.append(_edit_content)


def _spoil_signature(root: Tree) -> None:
    text = _find(root, "Signature", "SignatureValue")
    text.text = ("B" if text.text[0] != "B" else "C") + text.text[1:]


def _edit_with_digest(root: Tree) -> None:
    """The content is edited and the digest follows, so that only the signature tells."""
    edited = next(each for each in root.find(f"{{{SWID}}}Payload") if each.get("active") == "True")
    edited.set(f"{{{HASH}}}Hash0", "ab" * 48)
    digest_again(root)


def _other_key(draft: ManifestDraft) -> None:
    draft.key = new_key()


def _second_signature(root: Tree) -> None:
    root.append(copy.deepcopy(_find(root, "Signature")))


def _signature_first(root: Tree) -> None:
    root.insert(0, _find(root, "Signature"))


def _signature_absent(root: Tree) -> None:
    root.remove(_find(root, "Signature"))


def _object(root: Tree) -> None:
    """The measurements once more, below the signature, where a search of the whole document finds them."""
    signature = _find(root, "Signature")
    holder = signature.makeelement(f"{{{DS}}}Object")
    holder.append(copy.deepcopy(root.find(f"{{{SWID}}}Payload")))
    signature.append(holder)


def _key_value(root: Tree) -> None:
    key_info = _find(root, "Signature", "KeyInfo")
    key_info.append(key_info.makeelement(f"{{{DS}}}KeyValue"))


def _key_name(root: Tree) -> None:
    key_info = _find(root, "Signature", "KeyInfo")
    named = key_info.makeelement(f"{{{DS}}}KeyName")
    named.text = "anyone"
    key_info.insert(0, named)


def _algorithm(element: str, uri: str) -> TreeEdit:
    def edit(root: Tree) -> None:
        next(_find(root, "Signature").iter(f"{{{DS}}}{element}")).set("Algorithm", uri)

    return edit


def _reference_part(root: Tree) -> None:
    _find(root, "Signature", "SignedInfo", "Reference").set("URI", "#payload")


def _second_reference(root: Tree) -> None:
    info = _find(root, "Signature", "SignedInfo")
    info.append(copy.deepcopy(_find(info, "Reference")))


# --- certificates -------------------------------------------------------------------------------------------------
def _certified(draft: ManifestDraft, root: Authority, profiles: tuple[Profile, Profile, Profile]) -> None:
    """Sign with a new signer, certified through these three below the root."""
    chain = [root]
    for profile in profiles:
        chain.append(chain[-1].below(profile))
    draft.key = chain[-1].key
    draft.certificates = [each.certificate for each in reversed(chain)]


def _profiles(draft: ManifestDraft) -> tuple[Profile, Profile, Profile, Profile]:
    """Those of the PKI, with their dates."""
    start = draft.pki.rim_root.certificate.not_valid_before_utc
    return rim_profiles(start + timedelta(days=1), draft.family)


def _foreign_root(draft: ManifestDraft) -> None:
    root, ca, l3, l4 = _profiles(draft)
    _certified(draft, Authority.root(root), (ca, l3, l4))


def _device_root(draft: ManifestDraft) -> None:
    """A signer below the root of devices, which says nothing about manifests."""
    _, ca, l3, l4 = _profiles(draft)
    _certified(draft, draft.pki.device_root, (ca, l3, l4))


def _dated(**dates: datetime) -> Spoil:
    def spoil(draft: ManifestDraft) -> None:
        _, ca, l3, l4 = _profiles(draft)
        _certified(draft, draft.pki.rim_root, (ca, l3, replace(l4, **dates)))  # type: ignore[arg-type]

    return spoil


def _signer_removed(draft: ManifestDraft) -> None:
    draft.certificates = draft.certificates[1:]


def _signer_only(draft: ManifestDraft) -> None:
    draft.certificates = draft.certificates[:1]


RIM_SIGNATURE_DEFECTS = (
    Defect(
        "rim-edited",
        "A measurement was changed after signing.",
        RIM_DIGEST,
        manifest=_edited,
    ),
    Defect("rim-signature-bad", "The signature is wrong.", RIM_SIGNATURE, manifest=_after(_spoil_signature)),
    Defect(
        "rim-digest-edited",
        "A measurement was changed after signing, and the digest with it.",
        RIM_SIGNATURE,
        manifest=_after(_edit_with_digest),
    ),
    Defect(
        "rim-other-key", "Signed by another key than that of the first certificate.", RIM_SIGNATURE, manifest=_other_key
    ),
    Defect("rim-signer-removed", "The signer's certificate is left out.", RIM_CHAIN, manifest=_signer_removed),
    Defect("rim-signer-only", "The signer's certificate stands alone.", RIM_CHAIN, manifest=_signer_only),
    Defect("rim-foreign-root", "All names right, under somebody else's root.", RIM_CHAIN, manifest=_foreign_root),
    Defect("rim-device-root", "The signer chains to the root of devices.", RIM_CHAIN, manifest=_device_root),
    Defect(
        "rim-expired",
        "The signer expired.",
        RIM_EXPIRED,
        manifest=_dated(not_before=PAST, not_after=PAST + timedelta(days=30)),
    ),
    Defect(
        "rim-not-yet-valid",
        "The signer is not valid yet.",
        RIM_TIME,
        manifest=_dated(not_before=FUTURE, not_after=FUTURE + timedelta(days=30)),
    ),
    Defect("rim-unsigned", "There is no signature.", RIM_MALFORMED, manifest=_after(_signature_absent)),
    Defect("rim-second-signature", "The signature stands twice.", RIM_MALFORMED, manifest=_after(_second_signature)),
    Defect(
        "rim-signature-first", "The signature is the first child.", RIM_MALFORMED, manifest=_after(_signature_first)
    ),
    Defect("rim-object", "Measurements below the signature, in ds:Object.", RIM_MALFORMED, manifest=_after(_object)),
    Defect("rim-key-value", "A KeyValue beside the certificates.", RIM_MALFORMED, manifest=_after(_key_value)),
    Defect("rim-key-name", "A KeyName beside the certificates.", RIM_MALFORMED, manifest=_after(_key_name)),
    Defect(
        "rim-signature-method",
        "The signature claims to be RSA with SHA-1.",
        RIM_MALFORMED,
        manifest=_after(_algorithm("SignatureMethod", f"{DS}rsa-sha1")),
    ),
    Defect(
        "rim-digest-method",
        "The digest claims to be SHA-1.",
        RIM_MALFORMED,
        manifest=_after(_algorithm("DigestMethod", f"{DS}sha1")),
    ),
    Defect(
        "rim-canonicalisation",
        "The canonicalisation claims to keep comments.",
        RIM_MALFORMED,
        manifest=_after(_algorithm("CanonicalizationMethod", "http://www.w3.org/2006/12/xml-c14n11#WithComments")),
    ),
    Defect(
        "rim-transform",
        "A transform by XSLT.",
        RIM_MALFORMED,
        manifest=_after(_algorithm("Transform", "http://www.w3.org/TR/1999/REC-xslt-19991116")),
    ),
    Defect(
        "rim-reference-part",
        "The signature covers a part of the document only.",
        RIM_MALFORMED,
        manifest=_after(_reference_part),
    ),
    Defect(
        "rim-second-reference", "The signature covers two things.", RIM_MALFORMED, manifest=_after(_second_reference)
    ),
)
