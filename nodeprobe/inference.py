"""
The inference server beside the node: which models it serves, and how much it has worked.

Models come from its OpenAI `/v1/models`. Counters and load come from its Prometheus `/metrics`, by the names that vLLM
gives them:

    vllm:prompt_tokens_total{model_name=…}       tokens in, since the server started
    vllm:generation_tokens_total{model_name=…}   tokens out
    vllm:num_requests_running{…}, vllm:num_requests_waiting{…}

Some exporters leave the `_total` out. What the server says is bounded, timed and checked; it is claimed, never trusted.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.messages import MODELS_MAX, TOKENS_MAX, ModelName

MODELS_BYTES_MAX = 1 << 20
METRICS_BYTES_MAX = 8 << 20
SERIES_MAX = 1024
SERIES_TEXT_CHARS_MAX = 512
REQUESTS_MAX = 1_000_000
TIMEOUT_SECONDS = 5.0  # of one whole answer

INPUT, OUTPUT = "input", "output"
_COUNTERS = {
    "vllm:prompt_tokens_total": INPUT,
    "vllm:prompt_tokens": INPUT,
    "vllm:generation_tokens_total": OUTPUT,
    "vllm:generation_tokens": OUTPUT,
}
_RUNNING, _WAITING, _STARTED = "vllm:num_requests_running", "vllm:num_requests_waiting", "process_start_time_seconds"
_WANTED = (*_COUNTERS, _RUNNING, _WAITING, _STARTED)
_MODEL_NAME: TypeAdapter[str] = TypeAdapter(ModelName)


class InferenceError(Exception):
    """The inference server cannot be read. `what` happened, and what to do: the `fix`."""

    def __init__(self, what: str, fix: str) -> None:
        self.what = what
        self.fix = fix
        super().__init__(what, fix)

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}"


class Series(NamedTuple):
    """One counter: of a model, in one direction, perhaps one of several engines."""

    model: str
    direction: str  # INPUT or OUTPUT
    rest: str  # its other labels, in order: `engine=0`


class Tokens(NamedTuple):
    """Tokens of one model."""

    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Meters:
    """One reading of all counters, and of the load at that moment."""

    counters: Mapping[Series, int]  # tokens since the server started
    started: float | None = None  # when the process started, in seconds since 1970, where it says so
    running: int = 0  # requests
    waiting: int = 0

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that has a counter."""
        return tuple(sorted({series.model for series in self.counters}))


def work_between(before: Meters, after: Meters) -> dict[str, Tokens]:
    """
    The tokens of each model between two readings; every model that either reading knows is there, if only with zeros.

    A counter that went down started again from 0, with its process. A counter that is gone did nothing that is known.
    """
    anew = None not in (before.started, after.started) and before.started != after.started
    totals = dict.fromkeys((*before.models, *after.models), Tokens(0, 0))
    for series, now in after.counters.items():
        then = 0 if anew else before.counters.get(series, 0)
        done = now - then if now >= then else now
        old = totals[series.model]
        grown = old._replace(**{series.direction: getattr(old, series.direction) + done})
        totals[series.model] = grown
    return totals


def carried(before: Meters, after: Meters) -> Meters:
    """
    The reading to compare the next one with: `after`, and what `before` knew that `after` leaves out.

    A counter that is missing once and back later must not be counted from 0 again.
    """
    missing = {series: value for series, value in before.counters.items() if series not in after.counters}
    if not missing or len(after.counters) + len(missing) > SERIES_MAX:
        return after
    counters = MappingProxyType({**missing, **after.counters})
    return Meters(counters, after.started, after.running, after.waiting)


def read_models(body: bytes) -> tuple[str, ...]:
    """The model ids of an OpenAI list, `{"object": "list", "data": [{"id": …}]}`, in order. Raises InferenceError."""
    try:
        listed = _ModelList.model_validate_json(body).data
    except ValidationError as e:
        first = e.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _not_openai(f"{where or 'all of it'}: {first['msg']}") from None
    names = tuple(dict.fromkeys(each.id for each in listed))
    if len(names) > MODELS_MAX:
        raise _not_openai(f"it lists {len(names)} models, and a worker serves at most {MODELS_MAX}")
    return names


def read_meters(body: bytes) -> Meters:
    """The counters and the load in a Prometheus text. Raises InferenceError, also where there is no token counter."""
    counters: dict[Series, int] = {}
    load = dict.fromkeys((_RUNNING, _WAITING), 0)
    started: float | None = None
    try:
        for sample in _samples(body):
            name, value = sample.name, sample.value
            if name == _STARTED:
                started = value if math.isfinite(value) else None
            elif name in load:
                load[name] = min(load[name] + _count(name, value, REQUESTS_MAX), REQUESTS_MAX)
            elif name in _COUNTERS:
                series = _series(_COUNTERS[name], sample.labels)
                counters[series] = max(counters.get(series, 0), _count(name, value, TOKENS_MAX))
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as e:  # what the parser is known to raise
        raise _no_meters(f"a line of it does not parse ({str(e)[:120]!r})") from None
    if not counters:
        raise _no_meters("it has no vllm:prompt_tokens and vllm:generation_tokens")
    if len(counters) > SERIES_MAX:
        raise _no_meters(f"it has {len(counters)} token counters, at most {SERIES_MAX} are read")
    return Meters(MappingProxyType(counters), started, load[_RUNNING], load[_WAITING])


class InferenceServer:
    """Asks the inference server over HTTP. A context manager; every answer is bounded in size and time."""

    def __init__(
        self,
        base_url: str,
        *,
        verify: ssl.SSLContext | bool = True,
        api_key: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # Neither proxies nor redirects: what is asked is the server beside the node, and no other.
        self._http = httpx.Client(
            verify=verify, headers=headers, timeout=timeout_seconds, trust_env=False, follow_redirects=False
        )

    def __enter__(self) -> InferenceServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def models(self) -> tuple[str, ...]:
        """The models that it serves now. Raises InferenceError."""
        return read_models(self._get("/v1/models", MODELS_BYTES_MAX))

    def meters(self) -> Meters:
        """Its counters and load now. Raises InferenceError."""
        return read_meters(self._get("/metrics", METRICS_BYTES_MAX))

    def _get(self, path: str, bytes_max: int) -> bytes:
        url = self._base_url + path
        ends = time.monotonic() + self._timeout_seconds
        body = bytearray()
        try:
            with self._http.stream("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    raise _bad_status(url, response.status_code)
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > bytes_max:
                        raise InferenceError(f"{url} answers more than {bytes_max} bytes", _CHECK)
                    if time.monotonic() > ends:
                        raise InferenceError(f"{url} takes longer than {self._timeout_seconds:g} s", _CHECK)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as e:
            raise InferenceError(f"{url} cannot be reached ({str(e) or type(e).__name__})", _CHECK) from None
        return bytes(body)


class _Listed(BaseModel):
    id: ModelName


class _ModelList(BaseModel):
    data: list[_Listed]


@dataclass(frozen=True, slots=True)
class _Sample:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    value: float = 0.0


_CHECK = "see that the inference server runs, and that --inference names it"


def _samples(body: bytes) -> list[_Sample]:
    """The samples with a name that we know. All other lines are passed over unread: there can be thousands."""
    wanted = [line for line in body.decode(errors="replace").split("\n") if line.startswith(_WANTED)]
    if len(wanted) > len(_WANTED) * SERIES_MAX:
        raise ValueError(f"{len(wanted)} lines")
    families = text_string_to_metric_families("\n".join(wanted) + "\n")
    return [_Sample(s.name, s.labels, float(s.value)) for family in families for s in family.samples]


def _series(direction: str, labels: Mapping[str, str]) -> Series:
    model = _MODEL_NAME.validate_python(labels.get("model_name", ""))
    rest = ",".join(f"{name}={value}" for name, value in sorted(labels.items()) if name != "model_name")
    if len(rest) > SERIES_TEXT_CHARS_MAX:
        raise ValueError("labels too long")
    return Series(model, direction, rest)


def _count(name: str, value: float, most: int) -> int:
    """A whole number that is none is a refusal: NaN, infinity, less than nothing, or more than anybody can do."""
    if not (math.isfinite(value) and 0 <= value <= most):
        raise ValueError(f"{name} is {value}")
    return int(value)


def _bad_status(url: str, status: int) -> InferenceError:
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return InferenceError(f"{url} answers {status}", "give the server's API key with --inference-key-file")
    return InferenceError(f"{url} answers {status}", "see that --inference names an OpenAI-compatible server")


def _not_openai(what: str) -> InferenceError:
    return InferenceError(f"the answer of /v1/models is of no OpenAI-compatible server, {what}", _CHECK)


def _no_meters(what: str) -> InferenceError:
    return InferenceError(
        f"the answer of /metrics has no counters as vLLM names them, {what}",
        "work cannot be counted without; serve with vLLM, or export its names",
    )
