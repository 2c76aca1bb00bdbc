"""AMD's processor lines that run SEV-SNP: how a report names one, and how each lays out its TCB version."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

TCB_BYTES = 8
_ZEN_3_4, _ZEN_5 = 0x19, 0x1A  # CPUID families


class Product(StrEnum):
    """The line, named as AMD's key distribution service and root certificates name it."""

    MILAN = "Milan"
    GENOA = "Genoa"  # Bergamo and Siena too: they hang below Genoa's root
    TURIN = "Turin"


class Tcb(NamedTuple):
    """Security versions of the firmware parts, 0 to 255 each. Only Turin has an FMC."""

    fmc: int
    bootloader: int
    tee: int
    snp: int
    microcode: int


# What certificates call the members of a line, before a dash and the stepping: "Milan-B0".
MARKET_NAMES = {
    "Milan": Product.MILAN,
    "Genoa": Product.GENOA,
    "Bergamo": Product.GENOA,
    "Siena": Product.GENOA,
    "Turin": Product.TURIN,
}


def by_cpuid(family: int, model: int) -> Product | None:
    """The line that a CPUID family and model belong to, both combined with their extended parts; None if unknown."""
    if family == _ZEN_3_4 and model <= 0x0F:
        return Product.MILAN
    if family == _ZEN_3_4 and (0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF):
        return Product.GENOA
    if family == _ZEN_5 and model <= 0x11:  # higher models are another line, whose root is not pinned
        return Product.TURIN
    return None


def tcb(product: Product, raw: bytes) -> Tcb:
    """The parts of a TCB version of 8 bytes, as this line lays it out (AMD 56860, TCB_VERSION)."""
    if product is Product.TURIN:
        return Tcb(raw[0], raw[1], raw[2], raw[3], raw[7])
    return Tcb(0, raw[0], raw[1], raw[6], raw[7])
