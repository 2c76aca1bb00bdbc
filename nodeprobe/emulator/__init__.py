"""
A node without hardware: GPUs that make evidence in the exact formats of genuine ones, under a throw-away PKI.

    pki       the roots and intermediates, in a folder that several processes share
    models    the catalogue of GPU models, and what their firmware measures
    chain     the certificates of one device
    spdm      the report of one device
    rim       the reference manifests (RIM) that go with them
    device    one GPU that puts these together
    defects   every way in which a test may ask a GPU or a RIM to be wrong, by name

Nothing here comes from NVIDIA, and nothing of it verifies under NVIDIA's roots: who wants to believe it must name the
`anchors.pem` of the PKI. It shares no code with the verifier, so that a mistake in one is not mirrored by the other.
"""

from nodeprobe.emulator.defect import Defect
from nodeprobe.emulator.defects import DEFECTS
from nodeprobe.emulator.device import EmulatedGpu
from nodeprobe.emulator.models import MODELS, GpuModel
from nodeprobe.emulator.pki import EmulatorError, Pki
from nodeprobe.emulator.rim import publish

__all__ = ["DEFECTS", "MODELS", "Defect", "EmulatedGpu", "EmulatorError", "GpuModel", "Pki", "publish"]
