"""
A node without hardware: devices that make evidence in the exact formats of genuine ones, under a throw-away PKI.

    families  what Hopper GPUs, Blackwell GPUs and LS10 switches call themselves
    pki       the roots and intermediates, in a folder that several processes share
    models    the catalogue of GPU models and switches, and what their firmware measures
    chain     the certificates of one device
    spdm      the report of one device
    rim       the reference manifests (RIM) that go with them
    ocsp      the revocation answers about all their certificates
    device    one device that puts these together; gpu, switch: of what it reports
    box       eight GPUs and four switches, which name each other
    defects   every way in which a test may ask a device or a RIM to be wrong, by name; also box, ocsp_defects

Nothing here comes from NVIDIA, and nothing of it verifies under NVIDIA's roots: who wants to believe it must name the
`anchors.pem` of the PKI. It shares no code with the verifier, so that a mistake in one is not mirrored by the other.
"""

from nodeprobe.emulator.box import BOX_DEFECTS, EmulatedBox
from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.defects import DEFECTS
from nodeprobe.emulator.gpu import EmulatedGpu
from nodeprobe.emulator.models import MODELS, SWITCH, GpuModel, SwitchModel
from nodeprobe.emulator.pki import EmulatorError, Pki
from nodeprobe.emulator.rim import publish
from nodeprobe.emulator.switch import EmulatedSwitch

__all__ = [
    "BOX_DEFECTS",
    "DEFECTS",
    "MODELS",
    "SWITCH",
    "Defect",
    "EmulatedBox",
    "EmulatedGpu",
    "EmulatedSwitch",
    "EmulatorError",
    "GpuModel",
    "Pki",
    "SwitchModel",
    "publish",
]
