"""
What each class of device says in its report: how many measurements, which of them count, its mode and its neighbours.

Field numbers are shared between the classes and mean different things: whoever reads one, knows the class.
"""

from __future__ import annotations

from attest import reasons
from attest.claims import Value
from attest.errors import MalformedEvidence, UntrustedEvidence
from attest.nvidia.chain import PDI_BYTES, DeviceClass
from attest.nvidia.report import Field, Report

MEASUREMENTS = {DeviceClass.GH100: 64, DeviceClass.GB100: 64, DeviceClass.LS10: 31}
NVLINKS, BOX_GPUS = 18, 8

NVDEC_INDEX = 35  # of a GPU: counts only while the decoder is enabled
NVDEC_ENABLED, NVDEC_DISABLED = b"\xaa", b"\x55"
PPCIE_ON, PPCIE_OFF = b"\xaa", b"\x55"
SWITCH_LOCKED, SWITCH_OPEN = b"\1\0", b"\0\0"
_MODES = {b"\0\0": "spt", b"\1\0": "mpt", b"\2\0": "ppcie"}
_NO_FLAG_YET, _FLAG_COUNTS = b"\0\0", b"\1\0"  # versions of the opaque data; what later ones mean, nobody told us


def check_shape(parsed: Report, device_class: DeviceClass) -> None:
    """That there are as many measurements as a device of this class has. MalformedEvidence otherwise."""
    if len(parsed.measurements) != MEASUREMENTS[device_class]:
        found = f"{len(parsed.measurements)} measurements"
        raise MalformedEvidence(reasons.REPORT_MALFORMED, found, f"{MEASUREMENTS[device_class]} of a {device_class}")


def mode(parsed: Report, device_class: DeviceClass) -> str:
    """The confidential-computing mode: spt, mpt, ppcie, or `unstated`; a switch is in ppcie once it is locked."""
    if device_class is DeviceClass.LS10:
        return _switch_mode(parsed)
    status, flag = parsed.opaque.get(Field.PROTECTED_PCIE_STATUS), parsed.opaque.get(Field.FEATURE_FLAG)
    version = parsed.opaque.get(Field.OPAQUE_DATA_VERSION)
    if status not in (None, PPCIE_ON, PPCIE_OFF):
        raise UntrustedEvidence(reasons.REPORT_MALFORMED, f"protected PCIe status {status!r}", "0x55 or 0xaa")
    # The feature flag says it since opaque data version 1; before, protected PCIe has a status of its own. Hopper has
    # no third mode, so "off" there is a single GPU.
    by_status = None if status is None else "ppcie" if status == PPCIE_ON else "spt"
    if flag is None or version is None or version == _NO_FLAG_YET:
        return by_status or "unstated"
    said = _MODES.get(flag, "unknown") if version == _FLAG_COUNTS else "unknown"
    if by_status is not None and (by_status == "ppcie") != (said == "ppcie"):
        raise UntrustedEvidence(reasons.REPORT_MALFORMED, f"mode {said} beside protected PCIe {status!r}", "one mode")
    return said


def _switch_mode(parsed: Report) -> str:
    lock = parsed.opaque.get(Field.SWITCH_LOCK)
    if lock not in (None, SWITCH_LOCKED, SWITCH_OPEN):
        raise UntrustedEvidence(reasons.REPORT_MALFORMED, f"lock status {lock!r}", "0 or 1")
    return "ppcie" if lock == SWITCH_LOCKED else "unlocked"


def skipped_index(parsed: Report, device_class: DeviceClass) -> int | None:
    """The measurement that does not count: 35 of a GPU whose decoder is off. UntrustedEvidence if that is unclear."""
    if device_class is DeviceClass.LS10:
        return None
    status = parsed.opaque.get(Field.NVDEC0_STATUS)
    if status not in (NVDEC_ENABLED, NVDEC_DISABLED):
        raise UntrustedEvidence(reasons.NVDEC_STATUS, repr(status), "0x55 or 0xaa")
    return None if status == NVDEC_ENABLED else NVDEC_INDEX


def neighbours(parsed: Report, device_class: DeviceClass) -> dict[str, Value]:
    """
    Whom a device of an HGX box names, as hex identities: `switch_pdis` of a GPU, `own_pdi` and `gpu_pdis` of a switch.

    Nothing, where the report does not say. MalformedEvidence if it says it in another layout.
    """
    said = parsed.opaque.get(Field.PDIS)
    if device_class is DeviceClass.LS10:
        gpus = parsed.opaque.get(Field.SWITCH_GPUS)
        if said is None or gpus is None:
            return {}
        if len(said) != PDI_BYTES or len(gpus) < BOX_GPUS * PDI_BYTES:
            raise MalformedEvidence(
                reasons.REPORT_MALFORMED, f"identities of {len(said)} and {len(gpus)} bytes", "8, 64"
            )
        return {"own_pdi": said.hex(), "gpu_pdis": _pdis(gpus[: BOX_GPUS * PDI_BYTES])}
    if said is None:
        return {}
    if len(said) != NVLINKS * PDI_BYTES:
        raise MalformedEvidence(reasons.REPORT_MALFORMED, f"identities of {len(said)} bytes", f"{NVLINKS} of 8")
    # A GPU writes each with its bytes reversed, so all of them backwards are as the switches write themselves.
    return {"switch_pdis": _pdis(said[::-1])}


def _pdis(data: bytes) -> tuple[str, ...]:
    """The identities in `data`, each once, sorted, without the zeros of links that are off."""
    found = {data[at : at + PDI_BYTES].hex() for at in range(0, len(data), PDI_BYTES)}
    return tuple(sorted(found - {bytes(PDI_BYTES).hex()}))
