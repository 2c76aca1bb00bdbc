"""Parts that the server and the commands put together alike, as the settings say. SettingsError says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from attest.anchors import VENDORS, Anchors, load_emulated
from attest.evidence import NVIDIA, NVIDIA_NRAS
from attest.folder import FolderError
from attest.policy import Policy
from orchestrator.addresses import Ranges, parse_ranges
from orchestrator.broker import CachingBroker, FolderBroker
from orchestrator.collateral_checks import Checker
from orchestrator.outbound import Outbound
from orchestrator.reasons import Refused
from orchestrator.remote import Remote
from orchestrator.settings import Settings, SettingsError
from orchestrator.sources import Service, Sources
from orchestrator.store import Store, StoreError


def store_of(settings: Settings) -> Store:
    try:
        return Store(settings.database_path)
    except StoreError as e:
        raise SettingsError(str(e)) from e


def anchors_of(settings: Settings) -> Anchors:
    path = settings.trust_root
    if path is None:
        return VENDORS
    try:
        return VENDORS.trusting(load_emulated(path.read_bytes()))
    except (OSError, ValueError) as e:
        raise SettingsError(f"--trust-root {path}: {e}") from e


def ranges_of(texts: tuple[str, ...], option: str) -> Ranges:
    try:
        return parse_ranges(texts)
    except Refused as e:
        raise SettingsError(f"{option} {e.got}: want {e.want}") from e


def broker_of(settings: Settings, store: Store, anchors: Anchors, clock: Callable[[], datetime]) -> CachingBroker:
    """The broker over the operator's folder, the store's cache and, if `settings.fetch`, the vendors or mirrors."""
    try:
        folder = FolderBroker(settings.collateral)
    except FolderError as e:
        raise SettingsError(f"--collateral: {e}") from e
    sources, outbound = _sources_of(settings), _outbound_of(settings)
    send = outbound.send if settings.fetch else None
    return CachingBroker(folder, store, Checker(anchors), sources, send=send, clock=clock)


def remote_of(settings: Settings, anchors: Anchors, policy: Policy) -> Remote | None:
    """Who asks NVIDIA's service, if `settings.remote_verification`, so that `policy` may believe what it says."""
    if not settings.remote_verification:
        return None
    if not settings.fetch:
        raise SettingsError("--remote-verification asks NVIDIA's service, and --no-fetch asks nobody: choose one")
    if NVIDIA_NRAS not in policy.kinds or NVIDIA in policy.required:
        want = f"one with {NVIDIA_NRAS!r} in `kinds`, and not {NVIDIA!r} in `required`"
        raise SettingsError(f"--remote-verification: policy {policy.name} believes nobody so verified: name {want}")
    base = _sources_of(settings).bases[Service.NRAS]
    return Remote(base, _outbound_of(settings).send, anchors.nvidia_device)


def _sources_of(settings: Settings) -> Sources:
    urls = {each: url for each in Service if (url := getattr(settings, f"{each.replace('-', '_')}_url"))}
    try:
        return Sources.of(urls)
    except ValueError as e:
        raise SettingsError(f"base URL of a service: {e}") from e


def _outbound_of(settings: Settings) -> Outbound:
    return Outbound(allowed=ranges_of(settings.mirror_ranges, "--mirror-range"))
