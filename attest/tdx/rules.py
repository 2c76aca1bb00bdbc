"""What a TDX trust domain and its machine must be, as data: the table `[tdx]` of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

STATUSES_MAX, VALUES_MAX, EVENTS_MAX = 16, 1000, 32
STALE_HOURS_MAX = 30 * 24

Status = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
]
Advisory = Annotated[str, StringConstraints(pattern=r"^INTEL-SA-[0-9]{5}$")]
Measured = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{96}$")]  # SHA-384, lower hex
EventName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
EventValue = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}){0,4096}$")]
Allowed = Annotated[frozenset[Measured], Field(min_length=1, max_length=VALUES_MAX)]


class TdxRules(BaseModel):
    """
    The strictest where nothing is written, except that measured values are anybody's: which firmware and software are
    right, only the operator knows. Debug, profiled and migratable domains are refused whatever is written here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    statuses: Annotated[frozenset[Status], Field(min_length=1, max_length=STATUSES_MAX)] = frozenset({"UpToDate"})
    advisories: Annotated[frozenset[Advisory], Field(max_length=VALUES_MAX)] = (
        frozenset()
    )  # accepted although they apply
    tcb_evaluation_min: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 0
    collateral_stale_hours_max: Annotated[int, Field(strict=True, ge=0, le=STALE_HOURS_MAX)] = 0
    # Every hosted machine has all three, and none is a weakness by itself; a list without one refuses machines with it.
    platform: frozenset[Literal["dynamic_platform", "cached_keys", "smt_enabled"]] = frozenset(
        {"dynamic_platform", "cached_keys", "smt_enabled"}
    )
    # Beside sept_ve_disable, which is always demanded.
    attributes: frozenset[Literal["icssd", "lass", "pks", "kl", "tpa", "perfmon"]] = frozenset()
    mrtd: Allowed | None = None
    rtmr0: Allowed | None = None
    rtmr1: Allowed | None = None
    rtmr2: Allowed | None = None
    rtmr3: Allowed | None = None
    mrconfigid: Allowed | None = None
    event_log: Literal["required", "optional"] = "optional"
    # Application events of the log by name, and the values that each may have, as lower hex. Naming one requires a log.
    events: Annotated[Mapping[EventName, frozenset[EventValue]], Field(max_length=EVENTS_MAX)] = {}
