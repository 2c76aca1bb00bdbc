"""Reports work: reads the counters, cuts reports, and sends each until the orchestrator has answered it."""

from __future__ import annotations

from datetime import datetime

from nodeprobe.inference import InferenceError, Meters
from nodeprobe.worklog import WorkLog
from nodeprobe.world import Terms, World
from orchestrator.client import ServerRefused
from orchestrator.messages import ReportWork

# Such a report is never counted, however often it is sent.
NEVER_COUNTS = {"work-overlaps", "work-not-attested", "work-implausible", "field-invalid", "request-malformed"}
REPLAYED = "work-replayed"
AFTER_EPOCH_SECONDS = 0.02  # so that the clock is past the end when it is read


class Reporter:
    """Keeps the log of one worker's work. Times are by the orchestrator's clock (UTC)."""

    def __init__(self, ip: str, world: World, log: WorkLog, interval_seconds: float) -> None:
        self._ip, self._world = ip, world
        self.log = log
        self._interval_seconds = interval_seconds
        self._complaint = ""
        self._unsaved = False

    def begin(self, now: datetime) -> None:
        """From now on, work counts. Nothing changes where it did already."""
        if self.log.open is None and (meters := self._read()) is not None:
            self._remember(self.log.opened(now, meters))

    def end(self) -> None:
        """From now on, work does not count: the worker is not attested, or leaves."""
        self._remember(self.log.closed())

    def cut(self, now: datetime, models: tuple[str, ...], terms: Terms) -> None:
        """What was done since the last cut becomes a report, zeros included. Not if the counters cannot be read."""
        if self.log.open is not None and (meters := self._read()) is not None:
            self._remember(self.log.cut(now, meters, models, terms.epochs))

    def deliver(self, now: datetime, terms: Terms) -> None:
        """
        Send what is pending, oldest first. Raises Unreachable and ServerRefused; what was not answered stays pending,
        and is sent again as it is.
        """
        for report in self.log.pending:
            try:
                counted = self._world.server.report_work(self._ip, report)
            except ServerRefused as e:
                if e.code == REPLAYED:  # another report has its number: this log was lost once, or is a copy
                    self._remember(self.log.renumbered(now, terms.epochs))
                    raise
                if e.code not in NEVER_COUNTS:
                    raise
                self._remember(self.log.settled(report))
                lost = f"Work from {report.begin:%H:%M:%S} to {report.end:%H:%M:%S} does not count: {e.title}. {e.fix}"
                self._world.tell("work-refused", lost, code=e.code, **_facts(report))
            else:
                self._remember(self.log.settled(report))
                self._world.tell("work-reported", f"Work counted: {counted.work}.", work=counted.work, **_facts(report))

    def seconds_to_cut(self, now: datetime, terms: Terms) -> float:
        """Until the next cut: one interval, or the end of the epoch if that comes first."""
        left = (terms.epochs.end(terms.epochs.at(now)) - now).total_seconds()
        return min(self._interval_seconds, left + AFTER_EPOCH_SECONDS)

    def _read(self) -> Meters | None:
        if self._world.inference is None:
            return None
        try:
            meters = self._world.inference.meters()
        except InferenceError as e:
            if self._complaint != e.what:
                self._complaint = e.what
                self._world.tell("work-uncounted", f"Work cannot be counted: {e}.")
            return None
        self._complaint = ""
        return meters

    def _remember(self, log: WorkLog) -> None:
        if log is self.log:
            return
        self.log = log
        try:
            self._world.save(log)
        except OSError as e:
            if not self._unsaved:
                text = (
                    f"The state cannot be written ({e.strerror}): work will be lost if the agent ends. Free some space."
                )
                self._world.tell("state-unwritable", text)
            self._unsaved = True
        else:
            self._unsaved = False


def _facts(report: ReportWork) -> dict[str, int]:
    return {"epoch": report.epoch, "sequence": report.sequence}
