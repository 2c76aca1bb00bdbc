"""Parts that the server and the commands put together alike, as the settings say. SettingsError says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from attest.anchors import VENDORS, Anchors, load_emulated
from attest.folder import FolderError
from orchestrator.addresses import Ranges, parse_ranges
from orchestrator.broker import CachingBroker, FolderBroker
from orchestrator.collateral_checks import Checker
from orchestrator.outbound import Outbound
from orchestrator.reasons import Refused
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
    urls = {each: url for each in Service if (url := getattr(settings, f"{each.replace('-', '_')}_url"))}
    try:
        folder = FolderBroker(settings.collateral)
    except FolderError as e:
        raise SettingsError(f"--collateral: {e}") from e
    try:
        sources = Sources.of(urls)
    except ValueError as e:
        raise SettingsError(f"base URL of a service: {e}") from e
    allowed = ranges_of(settings.mirror_ranges, "--mirror-range")
    send = Outbound(allowed=allowed).send if settings.fetch else None
    return CachingBroker(folder, store, Checker(anchors), sources, send=send, clock=clock)
