"""
The families of emulated devices: what Hopper GPUs, Blackwell GPUs and LS10 switches call themselves in certificates.

Names and dates: spec/nvidia.md §5 and §6.2. They are those of genuine certificates, since the class of a device is read
from them; who issued these, the organisation in every name and the name of the root say.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Family:
    """What the devices of one chip have in common."""

    chip: str  # in the names of certificates
    product: str  # in reference manifests
    edition: str  # likewise
    processor: str  # which of the chip's processors attests
    serial_prefix: int  # before the PDI, in the serial number of the device certificate
    not_before: datetime  # of the device's own certificates, a constant in genuine ones
    measurements: int
    identity: str
    identity_not_before: datetime
    provisioner: str
    provisioner_not_before: datetime
    crl: str  # of the identity certificate
    rim_ca: str
    rim_l3: str
    rim_l4: str
    tcb_info: bool = False  # the leaf endorses its firmware by a DiceTcbInfo
    brom_ocsp: bool = False  # the device certificate names a responder

    @property
    def leaf(self) -> str:
        """Common name of the attestation key's certificate."""
        return f"{self.chip} A01 {self.processor} FMC LF"

    @property
    def brom(self) -> str:
        """Common name of the device certificate."""
        return f"{self.chip} A01 {self.processor} BROM"


HOPPER = Family(
    chip="GH100",
    product="GH100",
    edition="GPU",
    processor="GSP",
    serial_prefix=0x41,
    not_before=datetime(2020, 10, 17, tzinfo=UTC),
    measurements=64,
    identity="NVIDIA GH100 Identity",
    identity_not_before=datetime(2022, 1, 12, tzinfo=UTC),
    provisioner="NVIDIA GH100 Provisioner ICA 1",
    provisioner_not_before=datetime(2022, 3, 1, tzinfo=UTC),
    crl="l2-gh100.crl",
    rim_ca="NVIDIA Reference Value GH100 CA",
    rim_l3="NVIDIA Reference Value L3 GH100 001",
    rim_l4="HCC RIM L4 Signer",
)
BLACKWELL = Family(
    chip="GB100",
    product="GB100",
    edition="GPU",
    processor="GSP",
    serial_prefix=0x41,
    not_before=datetime(2023, 6, 20, tzinfo=UTC),
    measurements=64,
    identity="NVIDIA GB100 Identity",
    identity_not_before=datetime(2023, 1, 1, tzinfo=UTC),
    provisioner="NVIDIA GB100 Provisioner ICA 00000",
    provisioner_not_before=datetime(2023, 6, 20, tzinfo=UTC),
    crl="l2-gb100.crl",
    rim_ca="NVIDIA Reference Value GB1XX CA 001",
    rim_l3="NVIDIA Reference Value L3 GB100-CC 001",
    rim_l4="RIM L4 Signer",
    tcb_info=True,
    brom_ocsp=True,
)
LS10 = Family(
    chip="LS_10",
    product="LS10",
    edition="SWITCH",
    processor="FSP",
    serial_prefix=0x50,
    not_before=datetime(2020, 10, 17, tzinfo=UTC),
    measurements=31,
    identity=HOPPER.identity,  # the very certificate of Hopper GPUs
    identity_not_before=HOPPER.identity_not_before,
    provisioner="NVIDIA LS_10 Provisioner ICA 1",
    provisioner_not_before=datetime(2022, 3, 1, tzinfo=UTC),
    crl="l2-gh100.crl",
    rim_ca="NVIDIA Reference Value LS10 CA",
    rim_l3="NVIDIA Reference Value L3 LS10 001",
    rim_l4="NVIDIA Reference Value L4 LS10",
)
FAMILIES = (HOPPER, BLACKWELL, LS10)
GPUS = frozenset({HOPPER, BLACKWELL})
ANY = frozenset(FAMILIES)
