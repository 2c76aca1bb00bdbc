"""
`orchestrator collateral`: the vendors' documents that verdicts rest on.

These commands open the registry's file, whether or not an orchestrator runs; one that does sees the change within a
minute.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.commands.options import settings_of
from orchestrator.commands.output import ERROR, Output
from orchestrator.settings import Settings, SettingsError, make_state_dir

if TYPE_CHECKING:
    from orchestrator.cached import Cached
    from orchestrator.store import Store

NAME_SHOWN_CHARS_MAX = 40
_PLACE = ("state_dir", "database")
_SERVICES = ("rim_url", "ocsp_url", "nras_url", "intel_pcs_url", "intel_certificates_url", "amd_kds_url")
_FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@click.group()
def collateral() -> None:
    """Collateral: vendors' documents that verdicts rest on (RIMs, OCSP, CRLs, TCB info, VCEKs)."""


@collateral.command("list")
@settings_of(*_PLACE)
def list_(out: Output, settings: Settings) -> None:
    """What is cached, how old it is, and what could not be fetched."""
    with _store(settings) as store, store.reading() as view:
        _show(out, list(view.all_collateral()), "Nothing is cached. `orchestrator collateral warm` fetches.")


@collateral.command()
@click.argument("rim_ids", nargs=-1, metavar="[RIM_ID]...")
@settings_of(*_PLACE, "trust_root", "collateral", *_SERVICES, "mirror_ranges")
def warm(out: Output, settings: Settings, rim_ids: tuple[str, ...]) -> None:
    """
    Fetch what the whole fleet rests on, where it is absent, stale or due, and the RIMs named RIM_ID.

    Exit status: 0 if all of it is fresh, else 1.
    """
    from attest.collateral import CollateralKind, Need
    from orchestrator.cached import State
    from orchestrator.parts import anchors_of, broker_of

    with _store(settings) as store, _quiet_log():
        broker = broker_of(settings, store, anchors_of(settings), _now)
        named = {Need(CollateralKind.NVIDIA_RIM, each) for each in rim_ids}
        needs = sorted(named.union(broker.wanted()))
        found = list(_with_progress(broker.warm(needs), len(needs)))
    _show(out, found, "No worker rests on anything yet.")
    if any(each.state(_now()) is not State.FRESH for each in found):
        raise click.exceptions.Exit(ERROR)


@collateral.command()
@_FOLDER
@settings_of(*_PLACE)
def export(out: Output, settings: Settings, folder: Path) -> None:
    """Write all that is cached to FOLDER, for `import` elsewhere, or for `attest verify --collateral`."""
    from attest.folder import FolderError
    from orchestrator.collateral_folder import export_to

    try:
        with _store(settings) as store, store.reading() as view:
            entries = export_to(folder, view.all_collateral(), _now())
    except FolderError as e:
        raise out.fail(str(e)) from None
    listed = [{"kind": str(e.need.kind), "name": e.need.name, "file": e.file, "sha256": e.sha256} for e in entries]
    if not out.document({"folder": str(folder), "documents": listed}) and not out.names([e.file for e in entries]):
        out.say(f"{len(entries)} documents are in {folder}")


@collateral.command("import")
@_FOLDER
@settings_of(*_PLACE, "trust_root")
def import_(out: Output, settings: Settings, folder: Path) -> None:
    """
    Take in what `export` wrote to FOLDER. Every document is checked first; what we have newer, stays.

    Exit status: 0, or 1 if any document was refused.
    """
    from attest.folder import FolderError
    from orchestrator.collateral_checks import Checker
    from orchestrator.collateral_folder import Outcome, import_from
    from orchestrator.parts import anchors_of

    make_state_dir(settings.state_dir)
    try:
        with _store(settings, make=True) as store:
            taken = import_from(folder, store, Checker(anchors_of(settings)), _now())
    except FolderError as e:
        raise out.fail(str(e)) from None
    told = [{"kind": str(e.need.kind), "name": e.need.name, "outcome": str(e.outcome), "why": e.why} for e in taken]
    if not out.document({"documents": told}) and not out.names([f"{e['outcome']} {e['kind']}" for e in told]):
        rows = [(e["kind"], _shown(e["name"]), e["outcome"], e["why"]) for e in told]
        out.table(("KIND", "NAME", "OUTCOME", "WHY"), rows, "")
    if any(each.outcome is Outcome.REFUSED for each in taken):
        raise click.exceptions.Exit(ERROR)


# --- what they share --------------------------------------------------------------------------------------------------
@contextmanager
def _store(settings: Settings, *, make: bool = False) -> Iterator[Store]:
    if not make and not settings.database_path.exists():
        raise SettingsError(f"there is no registry {settings.database_path}: name its state directory by --state")
    from orchestrator.parts import store_of

    with closing(store_of(settings)) as store:
        yield store


def _show(out: Output, found: Sequence[Cached], empty: str) -> None:
    now = _now()
    if out.document({"collateral": [_as_document(each, now) for each in found]}):
        return
    if _whole_names(out, found):
        return
    rows = [
        (
            str(each.need.kind),
            _shown(each.need.name),
            "-" if each.fetched_at is None else _span(now - each.fetched_at),
            _expiry(each, now),
            str(each.state(now)),
            each.error,
        )
        for each in found
    ]
    out.table(("KIND", "NAME", "AGE", "EXPIRES", "STATE", "LAST ERROR"), rows, empty)


def _whole_names(out: Output, found: Iterable[Cached]) -> bool:
    """Names of questions are longer than what `Output.names` prints of a line."""
    if out.quiet:
        for each in found:
            click.echo(f"{each.need}")
    return out.quiet


def _as_document(cached: Cached, now: datetime) -> dict[str, Any]:
    document = cached.document
    return {
        "kind": str(cached.need.kind),
        "name": cached.need.name,
        "state": str(cached.state(now)),
        "sha256": None if document is None else document.sha256,
        "bytes": None if document is None else len(document.data),
        "fetched_at": _moment(cached.fetched_at),
        "renew_at": _moment(cached.renew_at),
        "expires_at": _moment(cached.expires_at),
        "retry_at": _moment(cached.retry_at),
        "failures": cached.failures,
        "error": cached.error or None,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _expiry(cached: Cached, now: datetime) -> str:
    if cached.document is None:
        return "-"
    if cached.expires_at is None:
        return "never"
    left = cached.expires_at - now
    return f"in {_span(left)}" if left > timedelta(0) else f"{_span(-left)} ago"


def _span(span: timedelta) -> str:
    """Roughly, as people say it."""
    seconds = int(span.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


def _shown(name: str) -> str:
    """Questions and chips have names that no terminal fits; programs get them whole."""
    if not sys.stdout.isatty() or len(name) <= NAME_SHOWN_CHARS_MAX:
        return name
    half = NAME_SHOWN_CHARS_MAX // 2
    return f"{name[: half - 1]}…{name[-half:]}"


def _with_progress(found: Iterable[Cached], total: int) -> Iterable[Cached]:
    if not sys.stderr.isatty():
        return found
    from rich.console import Console
    from rich.progress import track

    return track(found, "Fetching", total, console=Console(stderr=True), transient=True)


@contextmanager
def _quiet_log() -> Iterator[None]:
    """What could not be fetched stands in the table; no log line need say it, too."""
    import logging

    import structlog

    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def _now() -> datetime:
    return datetime.now(UTC)
