"""Reading this node: driver, switches, CPU TEE and name put together. Where nodeprobe looks at its machine."""

from __future__ import annotations

import socket
from pathlib import Path

from nodeprobe import nscq, nvml, tsm
from nodeprobe.details import NodeDetails, node_details
from nodeprobe.timelimit import LIMIT_SECONDS


def probe(limit_seconds: float = LIMIT_SECONDS, root: Path = Path("/")) -> NodeDetails:
    """
    What this node says it is. Faults are its problems, not raised.

    Driver and switches have `limit_seconds` each; without a driver that answers, switches are not asked.
    """
    driver = nvml.details(limit_seconds)
    fabric = None if driver.conf_compute is None else nscq.switches(limit_seconds)
    return node_details(socket.gethostname(), driver, tsm.detect(root), fabric)
