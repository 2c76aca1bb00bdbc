"""
Appraisal policy as data: what must hold before a worker is believed. Read from TOML; an unknown key is an error.

Three ship with us: `strict`, `production` (the default) and `lab`. A policy is never empty: every rule has a value, and
the values that are not written are the strictest.
"""

from __future__ import annotations

import hashlib
import tomllib
from datetime import timedelta
from enum import StrEnum
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from attest.binding import Strength
from attest.evidence import DEVICES_MAX, NVIDIA
from attest.nvidia.nras_rules import NrasRules
from attest.snp.rules import SnpRules
from attest.tdx.rules import TdxRules

POLICY_BYTES_MAX = 64 << 10
SHIPPED = ("strict", "production", "lab")
DEFAULT = "production"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Driver = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,7}$")]
Vbios = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{1,6}(\.[0-9A-Fa-f]{1,6}){0,7}$")]
Hours = Annotated[int, Field(strict=True, ge=0, le=30 * 24)]
Index = Annotated[int, Field(strict=True, ge=0, le=63)]


class PolicyError(Exception):
    """The text is no valid policy; the message names the key and what is wrong with it."""


class Asked(StrEnum):
    """Whether a check that may be impossible must have been made."""

    REQUIRED = "required"
    OPTIONAL = "optional"  # its absence is accepted, and the verdict says so


class Origin(StrEnum):
    """Whose root the evidence rests on."""

    VENDOR = "vendor"
    EMULATED = "emulated"


class _Rules(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NvidiaRules(_Rules):
    """What an NVIDIA GPU must be."""

    architectures: frozenset[Literal["GH100", "GB100", "LS_10"]] = frozenset({"GH100", "GB100", "LS_10"})
    modes: frozenset[Literal["spt", "mpt", "ppcie", "unstated"]] = frozenset({"spt", "mpt", "ppcie", "unstated"})
    gpus_min: Annotated[int, Field(strict=True, ge=0, le=DEVICES_MAX)] = 1  # switches do not count
    topology: Asked = Asked.REQUIRED  # optional: GPUs in protected-PCIe mode may come without their switches
    driver_min: Driver | None = None  # numeric parts compared as numbers: "550.54"
    vbios_min: Vbios | None = None  # groups compared as hexadecimal numbers: "96.00.9F.00.01"
    fwid: Asked = Asked.REQUIRED  # optional: absence is accepted of drivers before 550, which do not report it
    allowed_mismatching_indices: frozenset[Index] = frozenset()
    rim_expired_days_max: Annotated[int, Field(strict=True, ge=0, le=3650)] = 0


class Policy(_Rules):
    """
    What a node must be. `required` kinds must be present, so that a node cannot leave its GPUs out; only a policy that
    says so openly requires none.
    """

    name: Name
    kinds: Annotated[frozenset[str], Field(min_length=1)] = frozenset({NVIDIA})
    required: frozenset[str] = frozenset({NVIDIA})
    origins: Annotated[frozenset[Origin], Field(min_length=1)] = frozenset({Origin.VENDOR})
    devices_min: Annotated[int, Field(strict=True, ge=1, le=DEVICES_MAX)] = 1
    devices_max: Annotated[int, Field(strict=True, ge=1, le=DEVICES_MAX)] = DEVICES_MAX
    nonce: Asked = Asked.REQUIRED
    revocation: Asked = Asked.REQUIRED
    revocation_stale_hours_max: Hours = 0  # how long ago an answer may have run out
    allow_hold: bool = False  # accept certificates that the vendor put on hold
    collateral_stale_hours_max: Hours = 0  # how long ago a document should have been fetched anew
    binding_min: Strength = Strength.NONE
    lifetime_seconds: Annotated[int, Field(strict=True, ge=1, le=7 * 24 * 3600)] = 3600
    nvidia: NvidiaRules = NvidiaRules()
    nras: NrasRules = NrasRules()
    tdx: TdxRules = TdxRules()
    snp: SnpRules = SnpRules()

    @property
    def lifetime(self) -> timedelta:
        return timedelta(seconds=self.lifetime_seconds)

    @cached_property
    def sha256(self) -> str:
        """Digest of the rules themselves, whatever the file looked like: canonical JSON, sets sorted."""
        rules: Any = _sorted(self.model_dump(mode="json"))
        return hashlib.sha256(rfc8785.dumps(rules)).hexdigest()


def parse(text: str) -> Policy:
    """Read a policy from TOML. Raise PolicyError, naming the key, for anything unknown, missing or out of range."""
    if len(text) > POLICY_BYTES_MAX:
        raise PolicyError(f"a policy has at most {POLICY_BYTES_MAX} characters, this has {len(text)}")
    try:
        rules = tomllib.loads(text)
    except (ValueError, RecursionError) as e:  # ValueError also for numbers of more digits than Python reads
        raise PolicyError(f"not TOML: {e}") from e
    try:
        return Policy.model_validate(rules)
    except ValidationError as e:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'policy'}: {each['msg']}" for each in e.errors())
        raise PolicyError(wrong) from e


def shipped(name: str) -> Policy:
    """One of the policies that ship with us, by name."""
    if name not in SHIPPED:
        raise PolicyError(f"no policy {name!r} ships with us; there are {', '.join(SHIPPED)}")
    return parse(files("attest").joinpath("policies", f"{name}.toml").read_text())


@lru_cache(maxsize=256)
def one_of(values: frozenset[str]) -> str:
    """How findings tell what a policy wants."""
    return " or ".join(sorted(values))


def _sorted(value: object) -> object:
    """Sets come out of pydantic as lists in no order."""
    if isinstance(value, dict):
        return {key: _sorted(each) for key, each in value.items()}
    return sorted(value) if isinstance(value, list) else value
