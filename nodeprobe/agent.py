"""
The agent that keeps a worker registered: it attests, proves that it lives, and reports work, until it is told to stop.

A plain state machine: `step` does what is due and answers how long to wait; all else is handed in (`nodeprobe.world`).
Three jobs, each with a due time of its own:

    attest      at start, at half the lifetime of the verdict, or when the orchestrator says so
    liveliness  three times in each span that the orchestrator allows
    work        once per interval, and at the end of each epoch

An orchestrator that cannot be reached holds up all three (`_quiet`); one that refuses, only the job that it refused.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from attest.binding import Statement
from attest.evidence import Bundle
from nodeprobe.answering import Says, attest, register
from nodeprobe.pace import Backoff
from nodeprobe.problems import ProblemError
from nodeprobe.reporting import Reporter
from nodeprobe.served import Served
from nodeprobe.worklog import Epochs, WorkLog
from nodeprobe.world import Node, Pace, Terms, World
from orchestrator.client import ServerRefused, Unreachable
from orchestrator.messages import Alive, Challenge, ChallengeRequest, Purpose, ReportLiveliness, Verdict

LIVELINESS_PART = 3  # answers in each span, so that one may be lost
HALF_LIFE = 0.5
JITTER = 0.1  # of the lifetime: earlier by up to this, so that a fleet spreads out
PAUSE_SECONDS_MIN = 0.05
PAUSE_SECONDS_MAX = 60.0
CLOCK_SECONDS_MAX = 10.0  # of difference to the orchestrator's clock, before it is worth a word
RETRY_AFTER_SECONDS_MAX = 600.0
LIVELINESS_SECONDS_MIN = 0.5
ATTEST_SECONDS_MIN = 1.0  # between two attestations by our own clock

AFFIRMING, CONTRAINDICATED = "affirming", "contraindicated"
UNKNOWN = "worker-unknown"
KNOWN = "known"  # what is said of this is said by all jobs together
_ASK_ANEW = {"challenge-unknown", "challenge-expired", "challenge-mismatch", "superseded"}
_KEY_IS_ANOTHER = {"worker-key-unset", "worker-key-mismatch"}


@dataclass(slots=True)
class _Job:
    name: str
    do: Callable[[], None]
    refusals: Backoff
    due: float = math.inf  # by the monotonic clock


class Agent:
    """One worker's agent. `run` returns after the farewell, when `wait` has said to stop."""

    def __init__(self, node: Node, world: World, *, log: WorkLog | None = None, pace: Pace | None = None) -> None:
        self._node, self._world = node, world
        self._pace = pace = pace or Pace()
        self._served = Served(node, world)
        self._reporter = Reporter(node.ip_address, world, log or WorkLog(), pace.work)
        self._server_failures = Backoff(pace.retry_first, pace.retry_longest)
        self._contraindications = Backoff(pace.contraindicated_first, pace.contraindicated_longest)
        self._undecided = Backoff(pace.contraindicated_first, pace.contraindicated_longest)
        self._quiet_until = -math.inf
        self._terms: Terms | None = None
        self._ahead = timedelta()  # the orchestrator's clock, against ours
        self._may_register = node.wallet is not None
        self._known = False  # the orchestrator has taken an answer of ours, so it knows worker and key
        self._challenge: Challenge | None = None  # for the next liveliness
        self._spki: str | None = None  # that the last evidence committed to
        self._collected_at = -math.inf
        self._cut_due = math.inf
        self._said: dict[str, str] = {}  # by subject, so that it is not said again and again
        self.verdict: Verdict | None = None
        self._attest = self._job("attest", self._attest_now)
        self._live = self._job("liveliness", self._live_now)
        self._work = self._job("work", self._work_now)
        self._jobs = (self._attest, self._live, self._work)
        self._attest.due = -math.inf

    def _job(self, name: str, do: Callable[[], None]) -> _Job:
        return _Job(name, do, Backoff(self._pace.refused_first, self._pace.refused_longest))

    # --- the loop -----------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Work until `wait` says to stop, then say farewell."""
        pause = 0.0
        while not self._world.wait(pause):
            pause = self.step()
        self.drain()

    def once(self) -> Verdict | None:
        """Attest and prove liveliness once. Raises what orchestrator and devices raise."""
        self._learn_terms()
        self._attest_now()
        self._live_now()
        return self.verdict

    def step(self) -> float:
        """Do what is due, each job once; the seconds until something is due again. Failures are told, never raised."""
        self._cut_now()
        for job in self._jobs:
            now = self._world.monotonic()
            if now >= self._quiet_until and now >= job.due and not self._attempt(job):
                break
        call = max(min(job.due for job in self._jobs), self._quiet_until)
        pause = min(call, self._cut_due) - self._world.monotonic()
        return min(max(pause, PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX)

    def drain(self) -> None:
        """The farewell: drawn no more, and the last work reported. Each is tried once; what fails is told."""
        self._world.tell("draining", "Asked to stop: draining, and reporting the last work.")
        self._cut_due = -math.inf
        for say in (self._leave, self._work_now) if self._known else ():
            try:
                say()
            except (Unreachable, ServerRefused, ProblemError) as e:
                self._world.tell("farewell-failed", f"Not all could be told before the end. {e}")
        self._reporter.end()
        pending = len(self._reporter.log.pending)
        kept = f" {pending} reports of work are kept for the next start." if pending else ""
        self._world.tell("stopped", f"Stopped.{kept}", reports_pending=pending)

    def _attempt(self, job: _Job) -> bool:
        """Do one job. False if the orchestrator cannot be reached, so that the other jobs need not try."""
        try:
            self._learn_terms()
            job.do()
        except Unreachable as e:
            self._quiet("unreachable", f"{e}.")
            return False
        except ServerRefused as e:
            if e.status == 429 or e.status >= 500:
                self._quiet("server-busy", f"The orchestrator answers {e.status}, {e.title}.", _retry_after(e))
                return False
            self._heard()
            self._refused(job, e)
        except ProblemError as e:
            job.due = self._later(job.refusals)
            self._tell_once(job.name, "no-evidence", f"{e.problem.what} {e.problem.fix}", code=e.problem.code)
        else:
            self._heard()
            job.refusals.worked()
            self._said.pop(job.name, None)
        return True

    def _quiet(self, event: str, text: str, at_least: float = 0.0) -> None:
        seconds = self._server_failures.failed(self._world.random, at_least)
        self._quiet_until = self._world.monotonic() + seconds
        self._tell_once("server", event, f"{text} Trying again, now and then.", retry_seconds=round(seconds, 3))

    def _heard(self) -> None:
        """The orchestrator answered."""
        self._server_failures.worked()
        if self._said.pop("server", None):
            self._world.tell("reachable", "The orchestrator answers again.")

    def _refused(self, job: _Job, e: ServerRefused) -> None:
        again = job.due = self._later(job.refusals)
        if e.code in _ASK_ANEW:
            if job.refusals.failures == 1:  # an answer was lost, or took too long: at once, the first time
                job.due = self._world.monotonic()
            return
        if e.code in {UNKNOWN, *_KEY_IS_ANOTHER}:
            self._lost()
            self._attest.due = again
        if e.code == "evidence-refused":
            self._attest.due = self._later(self._contraindications)
            self._reporter.end()
        command = self._admin_command(e.code)
        advice = f"Ask the admin to run: {command}" if command else e.fix
        reasons = [dict(reason) for reason in e.reasons]
        text = f"The orchestrator refuses ({job.name}): {e.title}.{_details(reasons)} {advice}"
        subject = KNOWN if command else job.name
        self._tell_once(subject, "refused", text, code=e.code, command=command, reasons=reasons)

    def _lost(self) -> None:
        """The orchestrator does not know this worker and key (any more): only attesting can bring it back."""
        self._known = False
        self._challenge = None
        self._served.forget_told()
        self._reporter.end()
        self._live.due = self._work.due = math.inf

    def _later(self, backoff: Backoff) -> float:
        return self._world.monotonic() + backoff.failed(self._world.random)

    def _tell_once(self, key: str, event: str, text: str, **facts: Any) -> None:
        """The same again and again is said once, until it is over."""
        identity = f"{event} {facts.get('code', '')}"
        if self._said.get(key) != identity:
            self._said[key] = identity
            self._world.tell(event, text, **facts)

    def _admin_command(self, code: str) -> str | None:
        node = self._node
        if code == UNKNOWN:
            given = {"--wallet": node.wallet or "WALLET", "--type": node.worker_type or "TYPE"}
            options = [text for pair in given.items() for text in pair]
            return shlex.join(
                ["orchestrator", "workers", "add", node.ip_address, *options, "--worker-key", node.worker_key]
            )
        if code in _KEY_IS_ANOTHER:
            return f"orchestrator workers set-key {node.ip_address} {node.worker_key}"
        return None

    def _learn_terms(self) -> Terms:
        if self._terms is None:
            about = self._world.server.about()
            self._terms = Terms(float(about.liveliness_seconds), Epochs(about.epoch_zero, about.epoch_seconds))
        return self._terms

    # --- attestation --------------------------------------------------------------------------------------------------
    def _attest_now(self) -> None:
        says = Says(self._world.tls_spki_sha256(), self._served.endpoints())
        if self._may_register and self._is_unknown():
            worker = register(self._world.server, self._node, says, self._collect)
            self._world.tell("registered", f"Registered for {self._node.wallet}.", wallet=self._node.wallet)
            verdict = worker.verdict
        else:
            verdict = attest(self._world.server, self._node, says, self._collect).verdict
        self._may_register = False  # who is removed later stays out
        self._known = True
        self._said.pop(KNOWN, None)
        self._spki = says.tls_spki_sha256
        if self._live.due == math.inf:
            self._live.due = self._world.monotonic()
        if verdict is None:
            self._attest.due = self._later(self._undecided)
        else:
            self._judged(verdict, says)

    def _collect(self, statement: Statement) -> Bundle:
        bundle = self._world.evidence(statement)
        self._collected_at = self._world.monotonic()
        return bundle

    def _is_unknown(self) -> bool:
        try:
            self._world.server.worker(self._node.ip_address)
        except ServerRefused as e:
            if e.code == UNKNOWN:
                return True
            raise
        return False

    def _judged(self, verdict: Verdict, says: Says) -> None:
        self.verdict = verdict
        self._compare_clocks(verdict.issued_at)
        facts = {"tier": verdict.tier, "emulated": verdict.emulated, "policy": verdict.policy}
        failed = [finding for finding in verdict.reasons if not finding.holds]
        if verdict.tier == AFFIRMING:
            life = (verdict.not_after - verdict.issued_at).total_seconds()
            early = JITTER * self._world.random.random()
            wait = min(life * (HALF_LIFE - early), self._pace.attest_longest)
            self._attest.due = self._world.monotonic() + max(wait, ATTEST_SECONDS_MIN)
            self._contraindications.worked()
            self._undecided.worked()
            if says.endpoints:
                self._served.told(says.endpoints)
            else:
                self._served.forget_told()  # with evidence, no endpoints mean those of before
            # Trust began somewhere between verdict and now, so work counts from the later bound on.
            took = timedelta(seconds=max(0.0, self._world.monotonic() - self._collected_at))
            self._reporter.begin(verdict.issued_at + took)
            self._work.due = min(self._work.due, self._world.monotonic())
            until = f"{verdict.not_after:%Y-%m-%d %H:%M:%S} UTC"
            note = ", emulated" if verdict.emulated else ""
            self._world.tell("attested", f"Attested until {until} (policy {verdict.policy}{note}).", **facts)
            return
        if verdict.tier == CONTRAINDICATED:
            self._attest.due = self._later(self._contraindications)
            self._reporter.end()
            text = "The evidence was judged and is not accepted"
        else:
            self._attest.due = self._later(self._undecided)
            text = "The orchestrator could not decide, through no fault of this node"
        again = self._attest.due - self._world.monotonic()
        self._world.tell(verdict.tier, f"{text}. Trying again in {again:.0f} s. Reasons:", **facts)
        for finding in failed:
            found = f", found {finding.found}" if finding.found else ""
            wanted = f", wanted {finding.wanted}" if finding.wanted else ""
            text = f"  {finding.device} {finding.code}: {finding.rule}{found}{wanted}. {finding.fix}"
            self._world.tell("reason", text, code=finding.code, device=finding.device, fix=finding.fix)

    def _compare_clocks(self, theirs: datetime) -> None:
        self._ahead = theirs - self._world.now()
        seconds = self._ahead.total_seconds()
        if abs(seconds) > CLOCK_SECONDS_MAX:
            where = "behind" if seconds > 0 else "ahead of"
            text = f"This node's clock is {abs(seconds):.0f} s {where} the orchestrator's: set it."
            self._tell_once("clock", "clock-differs", text, seconds=round(seconds, 1))

    # --- liveliness ---------------------------------------------------------------------------------------------------
    def _live_now(self) -> None:
        self._live_once(draining=False)

    def _leave(self) -> None:
        self._live_once(draining=True)

    def _live_once(self, *, draining: bool) -> None:
        server, ip, began = self._world.server, self._node.ip_address, self._world.monotonic()
        # A challenge is spent by being sent, whatever comes of it: the answer may be what was lost.
        challenge, self._challenge = self._challenge, None
        if challenge is None:
            challenge = server.challenge(ChallengeRequest(purpose=Purpose.LIVELINESS, ip_address=ip))
        news = self._served.news()
        message = ReportLiveliness(
            challenge=challenge.challenge, load=self._served.load(), endpoints=news, draining=draining
        )
        alive = server.report_liveliness(ip, message)
        self._challenge = alive.challenge
        self._served.told(news)
        self._live.due = began + self._span_seconds(alive) / LIVELINESS_PART
        due = alive.attest_due or self._world.tls_spki_sha256() != self._spki
        if due and not self._attest.refusals.failures:
            self._attest.due = min(self._attest.due, self._world.monotonic())
        if alive.routable:
            self._tell_once("route", "routable", "Handed out: users are sent here.", code="")
        else:
            why = ", ".join(alive.why)
            self._tell_once("route", "not-routable", f"Not handed out: {why}.", code=why, why=list(alive.why))

    def _span_seconds(self, alive: Alive) -> float:
        """How long this proof holds: as the orchestrator says, or less if it has changed its mind since."""
        said = self._learn_terms().liveliness_seconds
        left = (alive.alive_until - self._world.now() - self._ahead).total_seconds()
        return left if LIVELINESS_SECONDS_MIN < left < said else said

    # --- work ---------------------------------------------------------------------------------------------------------
    def _work_now(self) -> None:
        if self._cut_due == math.inf:  # the first span has just begun
            self._plan_cut(self._learn_terms())
        self._cut_now()
        self._reporter.deliver(self._world.now() + self._ahead, self._learn_terms())
        self._work.due = self._cut_due

    def _cut_now(self) -> None:
        """Needs no orchestrator: spans end on time though it is away."""
        if self._terms is None or self._world.monotonic() < self._cut_due:
            return
        now = self._world.now() + self._ahead
        self._reporter.cut(now, self._served.models, self._terms)
        self._plan_cut(self._terms)

    def _plan_cut(self, terms: Terms) -> None:
        left = self._reporter.seconds_to_cut(self._world.now() + self._ahead, terms)
        self._cut_due = self._world.monotonic() + left


def _details(reasons: list[dict[str, Any]]) -> str:
    """What the refusal found and wanted, in half a line."""
    said = []
    for each in reasons:
        if each.get("got"):
            wanted = f" (wanted {each['want']})" if each.get("want") else ""
            said.append(f"{each.get('field') or each.get('code')}: {each['got']}{wanted}")
    return f" {'; '.join(said)}." if said else ""


def _retry_after(e: ServerRefused) -> float:
    """The seconds that the orchestrator asks to be left alone for, within bounds."""
    asked: float | None = getattr(e, "retry_after_seconds", None)
    return min(max(0.0, asked or 0.0), RETRY_AFTER_SECONDS_MAX)
