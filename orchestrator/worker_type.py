"""
The worker type, as `nodeprobe show` prints it: `<model>-<memory>gb-x<count>-<mode>-<cpu>`.

    h100-80gb-x8-ppcie-tdx      eight H100 of 80 GB in protected-PCIe mode, in a TDX guest
    h100-nvl-94gb-x1-cc-snp     one H100 NVL in confidential-computing mode, in an SEV-SNP guest

Deployed workers call themselves by the model that they serve (`llama3.1:70b`). That is a type, too: a free string, from
which nothing is derived.
"""

from __future__ import annotations

import re

from attest.evidence import AMD_SNP, INTEL_TDX

_PROBED = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*-[1-9][0-9]{0,3}gb-x(?P<count>[1-9][0-9]{0,2})-[a-z]+-(?P<cpu>[a-z]+)")
TYPE_CHARS_MAX = 200
_CPUS = {"tdx": INTEL_TDX, "snp": AMD_SNP}


def gpu_count(worker_type: str) -> int | None:
    """How many GPUs a worker of this type must prove. None for a free string, which does not say."""
    probed = _probed(worker_type)
    return int(probed["count"]) if probed else None


def cpu_kind(worker_type: str) -> str | None:
    """Of which kind the CPU TEE is that a worker of this type must prove; None where its type names none."""
    probed = _probed(worker_type)
    return _CPUS.get(probed["cpu"]) if probed else None


def _probed(worker_type: str) -> re.Match[str] | None:
    return _PROBED.fullmatch(worker_type) if len(worker_type) <= TYPE_CHARS_MAX else None
