"""
Narrowing: a policy for one owner or one worker that asks for more than the fleet's, and never for less.

Of each rule it is known which of two values is the narrower: whatever passes it, passes the wider one, too. A rule that
is not written in the narrower policy stays as it is in the wider one. A rule that nobody gave an order cannot change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from attest.policy import Asked, Policy, PolicyError

FREE = frozenset({"name"})  # tells of nothing that evidence must be


class Widened(PolicyError):
    """The policy that was to be narrower is wider somewhere; the message names the key and both values."""


def narrowed(base: Policy, extra: Policy) -> Policy:
    """
    `base` with the rules that are written in `extra`, under the name of `extra`.

    Whatever the outcome affirms, `base` affirms. Raise Widened, naming every key, if any rule would ask for less.
    """
    wider: list[str] = []
    changed = _merged(base, extra, "", wider)
    if wider:
        raise Widened("; ".join(wider))
    return Policy.model_validate(changed)


def _merged(base: BaseModel, extra: BaseModel, above: str, wider: list[str]) -> dict[str, Any]:
    """The rules of both, and into `wider` why any of them cannot be."""
    rules: dict[str, Any] = {}
    for name in type(base).model_fields:
        key, before, after = f"{above}{name}", getattr(base, name), getattr(extra, name)
        if name not in extra.model_fields_set:
            rules[name] = before
        elif isinstance(before, BaseModel):
            rules[name] = _merged(before, after, f"{key}.", wider)
        else:
            rules[name] = after
            if key not in FREE and not is_narrower(key, after, before):
                wider.append(f"{key}: {_shown(after)} is wider than {_shown(before)}")
    return rules


def is_narrower(key: str, value: object, than: object) -> bool:
    """Whether a rule that has `value` accepts nothing that it would not accept with `than`; True for equal values."""
    order = ORDERS.get(key)
    return value == than or (order is not None and order(value, than))


def _shown(value: object) -> str:
    if isinstance(value, frozenset | set):
        return f"[{', '.join(sorted(map(str, value)))}]"
    return "nothing" if value is None else str(value)


# --- orders: whether the first value is narrower than the second, which is another one --------------------------------
def _fewer(value: Any, than: Any) -> bool:
    return bool(value <= than)


def _more(value: Any, than: Any) -> bool:
    return bool(value >= than)


def _off(value: Any, _: Any) -> bool:
    return value is False


def _on(value: Any, _: Any) -> bool:
    return value is True


def _required(value: Any, _: Any) -> bool:
    return bool(value == Asked.REQUIRED)


def _stronger(value: Any, than: Any) -> bool:
    return bool(value.reaches(than))


def _some_of(value: Any, than: Any) -> bool:
    """Of lists of which None accepts anything."""
    return value is not None and (than is None or value <= than)


def _version(base: int) -> Callable[[Any, Any], bool]:
    """Of minimum versions of which None accepts any; their parts are numbers to this base, compared as such."""

    def order(value: Any, than: Any) -> bool:
        return value is not None and (than is None or _parts(value, base) >= _parts(than, base))

    return order


def _parts(version: str, base: int) -> list[int]:
    return [int(part, base) for part in version.split(".")]


def _events(value: Any, than: Any) -> bool:
    """Every event that had to be there still has to, with some of the values that it might have."""
    return all(name in value and value[name] <= allowed for name, allowed in than.items())


ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "kinds": _fewer,
    "required": _more,
    "origins": _fewer,
    "devices_min": _more,
    "devices_max": _fewer,
    "nonce": _required,
    "revocation": _required,
    "revocation_stale_hours_max": _fewer,
    "allow_hold": _off,
    "collateral_stale_hours_max": _fewer,
    "binding_min": _stronger,
    "lifetime_seconds": _fewer,
    "nvidia.architectures": _fewer,
    "nvidia.modes": _fewer,
    "nvidia.gpus_min": _more,
    "nvidia.topology": _required,
    "nvidia.driver_min": _version(10),
    "nvidia.vbios_min": _version(16),
    "nvidia.fwid": _required,
    "nvidia.allowed_mismatching_indices": _fewer,
    "nvidia.rim_expired_days_max": _fewer,
    "nras.certificates_required": _on,
    "tdx.statuses": _fewer,
    "tdx.advisories": _fewer,
    "tdx.tcb_evaluation_min": _more,
    "tdx.collateral_stale_hours_max": _fewer,
    "tdx.platform": _fewer,
    "tdx.attributes": _fewer,
    "tdx.mrtd": _some_of,
    "tdx.rtmr0": _some_of,
    "tdx.rtmr1": _some_of,
    "tdx.rtmr2": _some_of,
    "tdx.rtmr3": _some_of,
    "tdx.mrconfigid": _some_of,
    "tdx.event_log": _required,
    "tdx.events": _events,
    "snp.products": _fewer,
    "snp.signing_keys": _fewer,
    "snp.masked_chip_id": _off,
    "snp.debug": _off,
    "snp.migrate_ma": _off,
    "snp.smt": _off,
    "snp.cxl": _off,
    "snp.vmpl": _fewer,
    "snp.alias_check_required": _on,
    **{
        f"snp.tcb_min.{product}.{part}": _more
        for product in ("milan", "genoa", "turin")
        for part in ("fmc", "bootloader", "tee", "snp", "microcode")
    },
    "snp.firmware_min": _version(10),
    "snp.abi_min": _version(10),
    "snp.guest_svn_min": _more,
    "snp.measurements": _some_of,
    "snp.host_data": _some_of,
}
