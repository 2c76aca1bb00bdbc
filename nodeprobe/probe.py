"""Reading this node: driver, CPU TEE and name, put together. The one place where nodeprobe looks at its machine."""

from __future__ import annotations

import socket
from pathlib import Path

from nodeprobe import nvml, tsm
from nodeprobe.details import NodeDetails, node_details
from nodeprobe.timelimit import LIMIT_SECONDS


def probe(limit_seconds: float = LIMIT_SECONDS, root: Path = Path("/")) -> NodeDetails:
    """What this node says it is, within little more than `limit_seconds`. Faults are its problems, not raised."""
    return node_details(socket.gethostname(), nvml.details(limit_seconds), tsm.detect(root))
