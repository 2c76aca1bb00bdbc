"""
The one HTTP client of the orchestrator, for nodes, operators and routers. The only module here that knows httpx.

It follows no redirects, always verifies TLS (system trust, or SSL_CERT_FILE), and reads no more than it has bounds for.
Only reads that change nothing are tried again.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import stamina
from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.messages import (
    About,
    Alive,
    Attest,
    Attested,
    Challenge,
    ChallengeRequest,
    Command,
    Models,
    Payouts,
    Purpose,
    ReportLiveliness,
    ReportWork,
    Urls,
    WorkCounted,
    Worker,
    Workers,
)
from orchestrator.messages_appraisal import (
    KeySet,
    PoliciesInForce,
    PolicyPreview,
    Preflight,
    Preflighted,
    PreviewPolicy,
    SignedResult,
)
from orchestrator.wallets import Wallet, new_id
from orchestrator.worker_keys import WorkerKey, sign_request

ANSWER_BYTES_MAX = 64 << 20
PROBLEM_BYTES_MAX = 64 << 10
ANSWER_TIMEOUTS_MAX = 6  # an answer that trickles is given up after so many timeouts
GET_ATTEMPTS_MAX = 3
COMMAND_LIFETIME = timedelta(minutes=5)
KEEPALIVE_SECONDS = 4.0  # shorter than the server's, so that no call goes out on a connection that just closed
_BUSY = frozenset({502, 503, 504})
_Answer = TypeVar("_Answer", bound=BaseModel)
_Parsed = TypeVar("_Parsed")
_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


class ServerRefused(Exception):
    """The orchestrator said no: HTTP status, reason code, what it means, what to do, and each reason as it came."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        fix: str = "",
        reasons: tuple[Mapping[str, str], ...] = (),
        request_id: str = "",
    ) -> None:
        self.status = status
        self.code = code
        self.title = title
        self.fix = fix
        self.reasons = reasons
        self.request_id = request_id
        super().__init__(status, code, title)

    def __str__(self) -> str:
        first = self.reasons[0] if self.reasons else {}
        said = [f"{name} {first[name]}" for name in ("field", "got", "want") if first.get(name)]
        return ", ".join([f"{self.code}: {self.title}", *said])


class Unreachable(Exception):
    """No orchestrator answered at this address, or not as one does. `why` says how it failed."""

    def __init__(self, url: str, why: str) -> None:
        self.url = url
        self.why = why
        super().__init__(url, why)

    def __str__(self) -> str:
        return f"{self.url} {self.why}"


class Client:
    """
    Calls an orchestrator at `base_url`, which may have a path prefix that a proxy takes off again.

    `worker_key` signs a worker's calls, `wallet` commands and subscribers' queries. Every method raises ServerRefused
    and Unreachable; ValueError if the key that it needs was not given.
    """

    def __init__(
        self,
        base_url: str,
        *,
        worker_key: WorkerKey | None = None,
        wallet: Wallet | None = None,
        timeout_seconds: float = 10.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._worker_key = worker_key
        self._wallet = wallet
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._about: About | None = None
        self._http = _http_client(self.base_url, timeout_seconds)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # --- queries -----------------------------------------------------------------------------------------------------
    def about(self) -> About:
        """Who the orchestrator is. Asked once, then remembered."""
        if self._about is None:
            self._about = self._get("/v1/about", About)
        return self._about

    def models(self) -> Models:
        """The models that are handed out now."""
        return self._get("/v1/models", Models)

    def urls(self, model: str | None = None, limit: int | None = None) -> Urls:
        """Endpoints of verified, live workers: up to `limit` drawn, or all; of one model, or of all."""
        return self._get("/v1/urls", Urls, {"model": model, "limit": limit})

    def worker(self, ip: str) -> Worker:
        """The public status of one worker."""
        return self._get(f"/v1/workers/{_segment(ip)}", Worker)

    def result(self, ip: str) -> SignedResult:
        """The last result on a worker, signed. `attest.ear.verify` checks the token by `key_set`."""
        return self._get(f"/v1/workers/{_segment(ip)}/result", SignedResult)

    def key_set(self) -> KeySet:
        """The keys by which the orchestrator signs results."""
        return self._get("/.well-known/jwks.json", KeySet)

    def policies(self) -> PoliciesInForce:
        """The policies in force and their history, as the wallet given."""
        return self._get("/v1/policies", PoliciesInForce, self._credential(), once=True)

    def preview_policy(self, message: PreviewPolicy) -> PolicyPreview:
        """What a policy would do to the fleet, page by page, as the admin's wallet."""
        query = httpx.QueryParams(self._credential())
        return self._post(f"/v1/policy/preview?{query}", message, PolicyPreview, signed=False)

    def workers(self) -> Workers:
        """GetWorkers, as the wallet given: a registered subscriber's, or the admin's."""
        return self._get("/v1/workers", Workers, self._credential(), once=True)

    def payouts(self, epoch: int) -> Payouts:
        """Shares of an epoch's work, as the wallet given."""
        return self._get("/v1/work/payouts", Payouts, {"epoch": epoch, **self._credential()}, once=True)

    # --- a worker's calls --------------------------------------------------------------------------------------------
    def challenge(self, request: ChallengeRequest) -> Challenge:
        """A fresh challenge. Signed by the worker's key for `attest` and `liveliness`."""
        signed = request.purpose in (Purpose.ATTEST, Purpose.LIVELINESS)
        return self._post("/v1/challenges", request, Challenge, signed=signed)

    def preflight(self, message: Preflight) -> Preflighted:
        """Would this node be admitted? `message` answers a `preflight` challenge."""
        return self._post("/v1/preflight", message, Preflighted, signed=False)

    def attest(self, ip: str, message: Attest) -> Attested:
        """Evidence for an `attest` challenge. `verdict.tier` of the answer decides."""
        return self._post(f"/v1/workers/{_segment(ip)}/attest", message, Attested, signed=True)

    def report_liveliness(self, ip: str, message: ReportLiveliness) -> Alive:
        """The answer to a liveliness challenge; brings the next one."""
        return self._post(f"/v1/workers/{_segment(ip)}/liveliness", message, Alive, signed=True)

    def report_work(self, ip: str, message: ReportWork) -> WorkCounted:
        """Tokens served since the last report."""
        return self._post(f"/v1/workers/{_segment(ip)}/work", message, WorkCounted, signed=True)

    # --- commands ----------------------------------------------------------------------------------------------------
    def execute(self, command: str, message: Command) -> dict[str, Any]:
        """Send a command signed by the wallet. Answers what it changed: the worker or subscriber, as JSON."""
        wallet = self._need_wallet()
        signed = wallet.sign_message(
            {command: message.model_dump(mode="json", exclude_none=True)},
            domain=self.about().domain,
            expires=self._clock() + COMMAND_LIFETIME,
            message_id=new_id(),
        )
        body = self._call("POST", "/v1/execute", _OBJECT.dump_json(signed))
        changed = _read(_OBJECT.validate_json, body, self.base_url).get(command)
        if not isinstance(changed, dict):
            raise _foreign(self.base_url)
        return changed

    # --- how ---------------------------------------------------------------------------------------------------------
    def _credential(self) -> dict[str, str]:
        """A fresh challenge, answered: good for one query."""
        wallet = self._need_wallet()
        asked = ChallengeRequest(purpose=Purpose.GET_WORKERS, subscriber_public_key=wallet.public_hex)
        challenge = self.challenge(asked).challenge
        return {
            "subscriber_public_key": wallet.public_hex,
            "signature": wallet.challenged_signature(challenge=challenge, domain=self.about().domain),
            "challenge": challenge,
        }

    def _need_wallet(self) -> Wallet:
        if self._wallet is None:
            raise ValueError("this call needs a wallet")
        return self._wallet

    def _get(
        self,
        path: str,
        answer: type[_Answer],
        query: Mapping[str, str | int | None] | None = None,
        *,
        once: bool = False,
    ) -> _Answer:
        given = httpx.QueryParams({name: value for name, value in (query or {}).items() if value is not None})
        target = f"{path}?{given}" if given else path
        for attempt in stamina.retry_context(
            on=_worth_another_try,
            attempts=1 if once else GET_ATTEMPTS_MAX,
            wait_initial=0.1,
            wait_max=1.0,
            wait_jitter=0.2,
        ):
            with attempt:
                return _read(answer.model_validate_json, self._call("GET", target, b""), self.base_url)
        raise AssertionError("the last attempt returns or raises")

    def _post(self, path: str, message: BaseModel, answer: type[_Answer], *, signed: bool) -> _Answer:
        body = self._call("POST", path, message.model_dump_json(exclude_none=True).encode(), signed=signed)
        return _read(answer.model_validate_json, body, self.base_url)

    def _call(self, method: str, target: str, body: bytes, *, signed: bool = False) -> bytes:
        headers = {"content-type": "application/json"} if body else {}
        if signed:
            if self._worker_key is None:
                raise ValueError("this call needs a worker key")
            headers |= sign_request(self._worker_key, method, target, body, now=self._clock())
        try:
            with self._http.stream(method, self.base_url + target, content=body, headers=headers) as response:
                return self._receive(response)
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise Unreachable(self.base_url, f"cannot be reached ({str(e) or type(e).__name__})") from e

    def _receive(self, response: httpx.Response) -> bytes:
        limit = ANSWER_BYTES_MAX if response.is_success else PROBLEM_BYTES_MAX
        deadline = time.monotonic() + ANSWER_TIMEOUTS_MAX * self._timeout_seconds
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > limit or time.monotonic() > deadline:
                raise Unreachable(self.base_url, "sends an answer that is too long, or never ends")
        if response.is_success:
            return bytes(body)
        if response.is_error:
            raise _refusal(response.status_code, response.reason_phrase, bytes(body))
        raise Unreachable(self.base_url, f"answers with status {response.status_code}; redirects are not followed")


def _http_client(base_url: str, timeout_seconds: float) -> httpx.Client:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        raise Unreachable(base_url, "is no address: write it as https://HOST[:PORT][/PREFIX]") from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise Unreachable(base_url, "is no address: write it as https://HOST[:PORT][/PREFIX]")
    # A plain http client needs no roots, and reading them takes longer than the call.
    context = ssl.create_default_context() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.Client(
        verify=context,
        timeout=timeout_seconds,
        follow_redirects=False,
        trust_env=not _is_loopback(url.host),  # proxies of the environment, but never to this machine itself
        limits=httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
        headers={"accept": "application/json", "user-agent": "workermanager"},
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _segment(ip: str) -> str:
    """An address as one piece of a path; whether it is an address, the orchestrator says."""
    return quote(ip, safe=":")


def _refusal(status: int, phrase: str, body: bytes) -> ServerRefused:
    """Problem details as they came; a proxy's error page becomes a refusal without a code."""
    try:
        problem = _OBJECT.validate_json(body)
    except ValidationError:
        problem = {}
    found = problem.get("reasons")
    reasons = tuple(
        {str(name): str(value) for name, value in each.items()}
        for each in (found if isinstance(found, list) else ())
        if isinstance(each, dict)
    )
    code = str(problem.get("type", "")).rpartition(":")[2] or f"http-{status}"
    return ServerRefused(
        status,
        code,
        str(problem.get("title") or phrase or "The request was refused"),
        reasons[0].get("fix", "") if reasons else "",
        reasons,
        str(problem.get("instance", "")),
    )


def _worth_another_try(error: Exception) -> bool:
    return isinstance(error, Unreachable) or (isinstance(error, ServerRefused) and error.status in _BUSY)


def _read(parse: Callable[[bytes], _Parsed], body: bytes, url: str) -> _Parsed:
    try:
        return parse(body)
    except ValidationError:
        raise _foreign(url) from None


def _foreign(url: str) -> Unreachable:
    return Unreachable(url, "does not answer as an orchestrator does: is it one, and of this version?")
