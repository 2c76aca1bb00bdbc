"""
Every setting of the orchestrator, in one frozen value. What is not set has a default that is safe on one machine.

Where a value comes from is the command line's matter: flag, else environment (`ORCHESTRATOR_…`), else file, else this.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

DEFAULT_PORT = 8470
DEFAULT_SERVER = f"http://127.0.0.1:{DEFAULT_PORT}"
ADMIN_KEY_FILE = "admin.key"
RESULT_KEY_FILE = "result.key"
DATABASE_FILE = "registry.sqlite"
LogFormat = Literal["auto", "json", "text"]


class SettingsError(Exception):
    """A setting cannot be used. The message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator can choose. Times are in seconds, `epoch_zero` is in UTC."""

    state_dir: Path = field(metadata={"help": "Folder of the database and the admin's key."})
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on."})
    port: int = field(default=DEFAULT_PORT, metadata={"help": "Port to listen on; 0 takes a free one.", "max": 65535})
    domain: str = field(
        default="",
        metadata={"help": "Name that wallets sign for, so that replicas share it. Default: the registry's own."},
    )
    database: Path | None = field(default=None, metadata={"help": f"SQLite file. Default: {DATABASE_FILE} in there."})
    admin_address: str = field(
        default="", metadata={"help": f"Wallet address of the admin. Default: that of {ADMIN_KEY_FILE}."}
    )
    policy: str = field(
        default="production",
        metadata={"help": "Appraisal policy until one is activated: strict, production, lab, or a TOML file."},
    )
    trust_root: Path | None = field(
        default=None, metadata={"help": "Roots of emulated nodes to trust (a file of `nodeprobe emulate`)."}
    )
    collateral: Path | None = field(
        default=None, metadata={"help": "Folder of collateral: RIMs, or what `collateral export` wrote. Asked first."}
    )
    fetch: bool = field(
        default=True, metadata={"help": "Fetch collateral from the vendors, or their mirrors below; or never fetch."}
    )
    remote_verification: bool = field(
        default=False,
        metadata={"help": "Have NVIDIA's service verify GPUs and switches; the policy must accept nvidia-nras."},
    )
    rim_url: str = field(default="", metadata={"help": "Mirror of NVIDIA's RIM service."})
    ocsp_url: str = field(default="", metadata={"help": "Mirror of NVIDIA's OCSP responder."})
    nras_url: str = field(default="", metadata={"help": "Mirror of NVIDIA's remote attestation service."})
    intel_pcs_url: str = field(default="", metadata={"help": "Mirror of Intel's provisioning certification service."})
    intel_certificates_url: str = field(default="", metadata={"help": "Mirror of Intel's root revocation list."})
    amd_kds_url: str = field(default="", metadata={"help": "Mirror of AMD's key distribution service."})
    mirror_ranges: tuple[str, ...] = field(
        default=(), metadata={"help": "Address range (CIDR) that a mirror's name may lead to though it is not public."}
    )
    allow_ranges: tuple[str, ...] = field(
        default=(), metadata={"help": "Address range (CIDR) that workers may have though it is not public. Repeatable."}
    )
    liveliness_seconds: int = field(
        default=90, metadata={"help": "How long one proof of liveliness holds.", "min": 1, "max": 86_400}
    )
    challenge_seconds: int = field(
        default=120, metadata={"help": "How long a challenge can be answered.", "min": 1, "max": 3600}
    )
    epoch_zero: datetime = field(
        default=datetime(2026, 1, 5, tzinfo=UTC), metadata={"help": "Begin of payout epoch 0, in UTC."}
    )
    epoch_seconds: int = field(
        default=7 * 86_400, metadata={"help": "Length of a payout epoch.", "min": 1, "max": 366 * 86_400}
    )
    drain_seconds: float = field(
        default=0.5, metadata={"help": "How long /readyz says 503 before the port closes.", "min": 0, "max": 600}
    )
    log_format: LogFormat = field(
        default="auto", metadata={"help": "Log lines: json, text, or text on a terminal only.", "of": LogFormat}
    )

    @property
    def database_path(self) -> Path:
        return self.database or self.state_dir / DATABASE_FILE

    @property
    def admin_key_path(self) -> Path:
        return self.state_dir / ADMIN_KEY_FILE

    @property
    def result_key_path(self) -> Path:
        """The key that signs results; made at first start."""
        return self.state_dir / RESULT_KEY_FILE


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """$ORCHESTRATOR_STATE, else $XDG_STATE_HOME/workermanager, else ~/.local/state/workermanager."""
    if chosen := environment.get("ORCHESTRATOR_STATE"):
        return Path(chosen)
    if xdg := environment.get("XDG_STATE_HOME"):
        return Path(xdg) / "workermanager"
    return Path.home() / ".local" / "state" / "workermanager"


def make_state_dir(path: Path) -> None:
    """Create the state directory, open to its owner only. SettingsError says why it cannot be."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise SettingsError(f"the state directory {path} cannot be made ({e.strerror}): name another by --state") from e
    if not os.access(path, os.W_OK | os.X_OK):
        raise SettingsError(
            f"the state directory {path} cannot be written: change its owner, or name another by --state"
        )
