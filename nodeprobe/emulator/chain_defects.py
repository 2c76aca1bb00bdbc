"""What may be wrong with a device's certificates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from attest.reasons import (
    CERTIFICATES_MALFORMED,
    CHAIN_CLASS,
    CHAIN_DUPLICATE,
    CHAIN_LENGTH,
    CHAIN_LINK,
    CHAIN_PROFILE,
    CHAIN_ROOT,
    CHAIN_TIME,
    FWID_MALFORMED,
    FWID_MISMATCH,
    REPORT_MALFORMED,
    REPORT_SIGNATURE,
    RIM_BINDING,
)
from nodeprobe.emulator.chain import (
    Certificates,
    ChainDraft,
    TcbInfo,
    brom_profile,
    leaf_profile,
    pdi_of,
)
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.families import BLACKWELL, GPUS, HOPPER, LS10, Family
from nodeprobe.emulator.models import value
from nodeprobe.emulator.pki import (
    CERT_SIGN,
    DEVICE_ROOT,
    DIGITAL_SIGNATURE,
    Authority,
    identity_profile,
    new_key,
    provisioner_profile,
)

PAST = datetime(2024, 1, 1, tzinfo=UTC)
FUTURE = datetime(9000, 1, 1, tzinfo=UTC)
_LEAF, _BROM, _PROVISIONER, _IDENTITY, _ROOT = range(5)

Spoil = Callable[[ChainDraft], None]


def _edit(edit: Callable[[Certificates], Certificates]) -> Spoil:
    return lambda draft: draft.edits.append(edit)


def _another_device(draft: ChainDraft) -> None:
    """A good chain, of a device that is not this one: its keys are made here and then lost."""
    draft.brom_key, draft.leaf_key = new_key(), new_key()
    draft.pdi = pdi_of(draft.brom_key)
    draft.brom, draft.leaf = brom_profile(draft.family, draft.pdi), leaf_profile(draft.family, draft.leaf_key)


def _upper_of_another_device(draft: ChainDraft) -> None:
    """The leaf is the device's own; the device certificate above it is another device's."""
    other = replace(draft, edits=[])
    _another_device(other)
    strange = other.issued()[_BROM]
    draft.edits.append(lambda chain: [chain[_LEAF], strange, *chain[_PROVISIONER:]])


def _foreign_root(draft: ChainDraft) -> None:
    """Every name is right, and every signature; the root's key is somebody else's."""
    draft.root = Authority.root(DEVICE_ROOT)
    draft.identity = draft.root.below(identity_profile(draft.family))
    draft.provisioner = draft.identity.below(provisioner_profile(draft.family))


def _foreign_root_swapped(draft: ChainDraft) -> None:
    """As above, with the pinned root put behind it."""
    pinned = draft.root.certificate
    _foreign_root(draft)
    draft.edits.append(lambda chain: [*chain[:_ROOT], pinned])


def _switch(draft: ChainDraft) -> None:
    """The chain of an NVSwitch: it has GH100's identity certificate above it, so that its links hold."""
    draft.provisioner = draft.identity.below(provisioner_profile(LS10))
    _becomes(draft, LS10)


def _blackwell(draft: ChainDraft) -> None:
    draft.identity = draft.root.below(identity_profile(BLACKWELL))
    draft.provisioner = draft.identity.below(provisioner_profile(BLACKWELL))
    draft.tcb = TcbInfo()
    _becomes(draft, BLACKWELL)


def _becomes(draft: ChainDraft, family: Family) -> None:
    draft.brom, draft.leaf = brom_profile(family, draft.pdi), leaf_profile(family, draft.leaf_key)
    draft.product = family.chip


def _switch_leaf(draft: ChainDraft) -> None:
    draft.leaf = leaf_profile(draft.family, draft.leaf_key, LS10.leaf)


def _unknown_class(draft: ChainDraft) -> None:
    draft.leaf = leaf_profile(draft.family, draft.leaf_key, "GX999 A01 GSP FMC LF")


def _leaf_is_ca(draft: ChainDraft) -> None:
    draft.leaf = replace(draft.leaf, ca=True, usage=DIGITAL_SIGNATURE | CERT_SIGN)


def _brom_no_ca(draft: ChainDraft) -> None:
    draft.brom = replace(draft.brom, ca=False)


def _brom_no_cert_sign(draft: ChainDraft) -> None:
    draft.brom = replace(draft.brom, usage=DIGITAL_SIGNATURE)


def _leaf_usage(draft: ChainDraft) -> None:
    draft.leaf = replace(draft.leaf, usage=frozenset({"key_agreement"}))


def _brom_curve(draft: ChainDraft) -> None:
    draft.brom_key = new_key(ec.SECP256R1())


def _brom_serial(draft: ChainDraft) -> None:
    """The serial number says another device than the name does."""
    other = (draft.brom.serial or 0) ^ 1
    draft.brom = replace(draft.brom, serial=other)


def _expired(draft: ChainDraft) -> None:
    draft.brom = replace(draft.brom, not_after=PAST)


def _leaf_expired(draft: ChainDraft) -> None:
    draft.leaf = replace(draft.leaf, not_after=PAST)


def _not_yet(draft: ChainDraft) -> None:
    draft.brom = replace(draft.brom, not_before=FUTURE)


def _provisioner_expired(draft: ChainDraft) -> None:
    profile = provisioner_profile(draft.family)
    draft.provisioner = draft.identity.below(replace(profile, not_after=profile.not_before + timedelta(days=365)))


def _no_fwid(draft: ChainDraft) -> None:
    draft.fwid = None


def _short_fwid(draft: ChainDraft) -> None:
    draft.fwid = (draft.fwid or b"")[:-1]


def _other_fwid(draft: ChainDraft) -> None:
    draft.fwid = value("other firmware")


def _strange_endorsement(draft: ChainDraft) -> None:
    draft.endorsed = new_key().public_key()


def _bad_signature(chain: Certificates) -> Certificates:
    """The device certificate with the last bit of its signature turned."""
    der = chain[_BROM].public_bytes(Encoding.DER)
    spoiled = x509.load_der_x509_certificate(der[:-1] + bytes([der[-1] ^ 1]))
    return [chain[_LEAF], spoiled, *chain[_PROVISIONER:]]


CHAIN_DEFECTS = (
    Defect(
        "chain-of-another-device", "Report of one device, chain of another.", REPORT_SIGNATURE, chain=_another_device
    ),
    Defect(
        "chain-mixed", "Leaf of one device, device certificate of another.", CHAIN_LINK, chain=_upper_of_another_device
    ),
    Defect(
        "chain-signature",
        "The signature of the device certificate is wrong by one bit.",
        CHAIN_LINK,
        chain=_edit(_bad_signature),
    ),
    Defect("chain-reversed", "Root first.", CHAIN_ROOT, chain=_edit(lambda chain: chain[::-1])),
    Defect("chain-absent", "No certificate at all.", CERTIFICATES_MALFORMED, chain=_edit(lambda _chain: [])),
    Defect(
        "leaf-removed",
        "The chain begins at the device certificate.",
        CHAIN_LENGTH,
        chain=_edit(lambda chain: chain[1:]),
    ),
    Defect(
        "root-removed",
        "The chain ends at the identity certificate.",
        CHAIN_LENGTH,
        chain=_edit(lambda chain: chain[:-1]),
    ),
    Defect("root-only", "The root and nothing else.", CHAIN_LENGTH, chain=_edit(lambda chain: chain[-1:])),
    Defect("root-padded", "Five times the root.", CHAIN_DUPLICATE, chain=_edit(lambda chain: chain[-1:] * 5)),
    Defect(
        "certificate-duplicate",
        "The provisioner twice, the identity never.",
        CHAIN_DUPLICATE,
        chain=_edit(lambda chain: [*chain[:_IDENTITY], chain[_PROVISIONER], chain[_ROOT]]),
    ),
    Defect(
        "certificate-extra",
        "Six certificates, which are more than the driver has room for.",
        CERTIFICATES_MALFORMED,
        chain=_edit(lambda chain: [*chain, chain[_ROOT]]),
    ),
    Defect("foreign-root", "All names right, under somebody else's root.", CHAIN_ROOT, chain=_foreign_root),
    Defect(
        "foreign-root-swapped",
        "A chain under somebody else's root, with the pinned root behind it.",
        CHAIN_LINK,
        chain=_foreign_root_swapped,
    ),
    Defect("leaf-is-ca", "The attestation key's certificate is a CA.", CHAIN_PROFILE, chain=_leaf_is_ca),
    Defect("leaf-usage", "The attestation key may not sign.", CHAIN_PROFILE, chain=_leaf_usage),
    Defect("brom-is-no-ca", "The device certificate is no CA.", CHAIN_PROFILE, chain=_brom_no_ca),
    Defect("brom-usage", "The device certificate may not sign certificates.", CHAIN_PROFILE, chain=_brom_no_cert_sign),
    Defect("brom-curve", "The device key is on P-256.", CHAIN_PROFILE, chain=_brom_curve),
    Defect(
        "brom-serial",
        "Serial number and name of the device certificate name different devices.",
        CHAIN_PROFILE,
        chain=_brom_serial,
    ),
    Defect(
        "class-switch",
        "A whole chain of an NVSwitch, which shares GH100's identity certificate.",
        REPORT_MALFORMED,  # a switch has 31 measurements
        chain=_switch,
        families=frozenset({HOPPER}),
    ),
    Defect(
        "class-blackwell",
        "A whole chain of a GB100.",
        RIM_BINDING,  # the VBIOS's manifest is a Hopper's
        chain=_blackwell,
        families=frozenset({HOPPER}),
    ),
    Defect(
        "class-mixed",
        "A switch's leaf below a GPU's device certificate.",
        CHAIN_CLASS,
        chain=_switch_leaf,
        families=GPUS,
    ),
    Defect("class-unknown", "A leaf of a class that nobody knows.", CHAIN_CLASS, chain=_unknown_class),
    Defect("brom-expired", "The device certificate expired.", CHAIN_TIME, chain=_expired),
    Defect("leaf-expired", "The attestation key's certificate expired.", CHAIN_TIME, chain=_leaf_expired),
    Defect("brom-not-yet-valid", "The device certificate is not valid yet.", CHAIN_TIME, chain=_not_yet),
    Defect("provisioner-expired", "The provisioner's certificate expired.", CHAIN_TIME, chain=_provisioner_expired),
    Defect("fwid-certificate-absent", "The leaf endorses no firmware.", FWID_MALFORMED, chain=_no_fwid),
    Defect("fwid-certificate-short", "The leaf's firmware identity has 47 bytes.", FWID_MALFORMED, chain=_short_fwid),
    Defect(
        "fwid-certificate-other",
        "The leaf endorses other firmware than the report names.",
        FWID_MISMATCH,
        chain=_other_fwid,
        families=GPUS,  # reports of switches name none
    ),
    Defect(
        "fwid-endorses-another",
        "The leaf's firmware identity is for another device's key.",
        FWID_MALFORMED,
        chain=_strange_endorsement,
        families=frozenset({HOPPER, LS10}),
    ),
)
