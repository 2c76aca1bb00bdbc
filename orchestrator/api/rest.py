"""
The REST routes. A handler decides nothing: it reads the request, calls one method of the manager, shows the answer.

Who may what is proved in three ways, each a dependency or a part of the message itself: the signature of a worker's key
over the HTTP request, of a wallet over a command, of a subscriber over a query.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from orchestrator import reasons, worker_keys
from orchestrator.api.problems import unreadable
from orchestrator.api.urls import MODELS, URLS, HandOut
from orchestrator.manager import WorkerManager
from orchestrator.messages import (
    About,
    Alive,
    Attest,
    Attested,
    Challenge,
    ChallengeRequest,
    Models,
    Payouts,
    ReportLiveliness,
    ReportWork,
    Signed,
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
from orchestrator.reasons import Refused
from orchestrator.results import MEDIA_TYPE
from orchestrator.scheduler import LIMIT_MAX

router = APIRouter(prefix="/v1")
well_known = APIRouter(prefix="/.well-known")
health = APIRouter()
_PER_ACCEPT = {"vary": "accept", "cache-control": "no-store"}
_Model = TypeVar("_Model", bound=BaseModel)


# --- what handlers are given ------------------------------------------------------------------------------------------
async def _manager(request: Request) -> Any:
    return request.app.state.manager


async def _raw(request: Request) -> bytes:
    return await request.body()


async def worker_signature(request: Request, raw: Annotated[bytes, Depends(_raw)]) -> str:
    """The worker key, in hex, that signed the request. Whether it is the worker's, the manager decides."""
    scope, clock = request.scope, request.app.state.clock
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return await run_in_threadpool(worker_keys.verify_request, scope["method"], path, query, headers, raw, now=clock())


async def worker_signature_if_any(request: Request, raw: Annotated[bytes, Depends(_raw)]) -> str | None:
    """As `worker_signature`, for a message that some may send unsigned. A signature that is there must hold."""
    if "signature" in request.headers or "signature-input" in request.headers:
        return await worker_signature(request, raw)
    return None


def message(model: type[_Model]) -> Callable[..., Any]:
    """A dependency that reads the body, strictly, as JSON."""

    async def read(raw: Annotated[bytes, Depends(_raw)]) -> _Model:
        try:
            return model.model_validate_json(raw)
        except ValidationError as e:
            raise unreadable(e) from None

    return read


class Credential(BaseModel):
    """How a subscriber proves itself in a query."""

    model_config = ConfigDict(frozen=True)

    subscriber_public_key: str
    signature: str
    challenge: str | None


async def credential(
    subscriber_public_key: Annotated[str, Query(max_length=66, description="Compressed point, lower hex.")] = "",
    signature: Annotated[str, Query(max_length=128, description="r and s, lower hex.")] = "",
    challenge: Annotated[str | None, Query(max_length=64, description="The challenge that is answered.")] = None,
) -> Credential:
    """The fields by which a subscriber proves itself; the manager verifies them."""
    for name, value in (("subscriber_public_key", subscriber_public_key), ("signature", signature)):
        if not value:
            raise Refused(reasons.SIGNATURE_MISSING, name)
    return Credential(subscriber_public_key=subscriber_public_key, signature=signature, challenge=challenge)


TheManager = Annotated[WorkerManager, Depends(_manager)]
Ip = Annotated[str, Path(max_length=64, description="The worker's IP address.")]
Signer = Annotated[str, Depends(worker_signature)]
MaybeSigner = Annotated[str | None, Depends(worker_signature_if_any)]
TheCredential = Annotated[Credential, Depends(credential)]

WORKER_SIGNED: dict[str, Any] = {"security": [{"workerSignature": []}]}
SUBSCRIBER_SIGNED: dict[str, Any] = {"security": [{"subscriberSignature": []}]}
WALLET_SIGNED: dict[str, Any] = {"security": [{"walletSignature": []}]}
OPEN: dict[str, Any] = {"security": []}


def takes(model: type[BaseModel], proof: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI words for a body that the route reads itself, and for the proof that it wants."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {**proof, "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


BODIES: tuple[type[BaseModel], ...] = (
    Attest,
    ChallengeRequest,
    Preflight,
    PreviewPolicy,
    ReportLiveliness,
    ReportWork,
    Signed,
)


# --- queries ----------------------------------------------------------------------------------------------------------
@router.get("/about", openapi_extra=OPEN)
def about(manager: TheManager) -> About:
    """Who this orchestrator is: domain, admin, policy, whether it trusts emulated roots, lengths of life."""
    return manager.about()


@router.get(MODELS.removeprefix("/v1"), openapi_extra=OPEN, response_model=Models)
async def models(request: Request) -> Response:
    """GetModels: the models of which at least one URL is handed out now."""
    return _handed_out(request, MODELS)


@router.get(URLS.removeprefix("/v1"), openapi_extra=OPEN, response_model=Urls)
async def urls(
    request: Request,
    model: Annotated[str | None, Query(description="Only this model's. An unknown model gives an empty list.")] = None,
    limit: Annotated[
        int | None, Query(ge=1, le=LIMIT_MAX, description="Draw so many at random, fairly. Without: all.")
    ] = None,
) -> Response:
    """GetURLs: endpoints of verified, live workers and no others, each with its end, TLS pin and verdict."""
    del model, limit  # documented here; read from the raw query, as the fast path does
    return _handed_out(request, URLS)


@router.get("/workers", openapi_extra=SUBSCRIBER_SIGNED)
def get_workers(manager: TheManager, proof: TheCredential) -> Workers:
    """GetWorkers: all workers, whole. For subscribers and the admin."""
    return manager.get_workers(proof.subscriber_public_key, proof.signature, proof.challenge)


@router.get("/workers/{ip}", openapi_extra=OPEN)
def worker(manager: TheManager, ip: Ip) -> Worker:
    """The public status of one worker: verdict, and what keeps it out. Wallet and endpoints are left out."""
    return manager.worker(ip)


@router.get(
    "/workers/{ip}/result",
    openapi_extra=OPEN,
    response_model=SignedResult,
    responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
def result(request: Request, manager: TheManager, ip: Ip) -> Response:
    """The last result on a worker, signed (EAR): a compact JWS for who accepts application/jwt, else JSON."""
    signed = manager.result(ip)
    if MEDIA_TYPE in request.headers.get("accept", ""):
        return Response(signed.token, media_type=MEDIA_TYPE, headers=_PER_ACCEPT)
    return JSONResponse(signed.model_dump(mode="json"), headers=_PER_ACCEPT)


@router.get("/policies", openapi_extra=SUBSCRIBER_SIGNED)
def policies(manager: TheManager, proof: TheCredential) -> PoliciesInForce:
    """The policy of the fleet, those that narrow it, and the history. For subscribers and the admin."""
    return manager.policies(proof.subscriber_public_key, proof.signature, proof.challenge)


@router.get("/work/payouts", openapi_extra=SUBSCRIBER_SIGNED)
def payouts(
    manager: TheManager,
    proof: TheCredential,
    epoch: Annotated[int, Query(ge=0, le=1_000_000, description="Number of the epoch, from 0.")],
) -> Payouts:
    """Each wallet's share of an epoch's work, with uptime and explicit zeros. For subscribers and the admin."""
    return manager.payouts(epoch, proof.subscriber_public_key, proof.signature, proof.challenge)


@well_known.get("/jwks.json", openapi_extra=OPEN)
def key_set(manager: TheManager) -> KeySet:
    """The keys that check our signed results, as JWKS."""
    return manager.key_set()


# --- commands ---------------------------------------------------------------------------------------------------------
@router.post(
    "/challenges",
    status_code=201,
    openapi_extra=takes(ChallengeRequest, {"security": [{}, *WORKER_SIGNED["security"]]}),
)
def challenge(
    manager: TheManager,
    signer: MaybeSigner,
    body: Annotated[ChallengeRequest, Depends(message(ChallengeRequest))],
) -> Challenge:
    """A fresh challenge. For `attest` and `liveliness` the worker's key signs the request; the others are open."""
    return manager.challenge(body, signer=signer)


@router.post(
    "/execute",
    openapi_extra=takes(Signed, WALLET_SIGNED),
    response_model=dict[str, Any],
    responses={201: {"description": "register_worker: the worker."}},
)
def execute(manager: TheManager, body: Annotated[Signed, Depends(message(Signed))]) -> Response:
    """A command signed by a wallet; answers what it changed, under the command's name. 201 for register_worker."""
    name, changed = manager.execute(body)
    shown = changed.model_dump(mode="json") if isinstance(changed, BaseModel) else changed
    return JSONResponse({name: shown}, status_code=201 if name == "register_worker" else 200)


@router.post("/preflight", openapi_extra=takes(Preflight, OPEN))
def preflight(manager: TheManager, body: Annotated[Preflight, Depends(message(Preflight))]) -> Preflighted:
    """Would this node be admitted? The evidence is judged; nothing is registered or kept but the spent challenge."""
    return manager.preflight(body)


@router.post("/policy/preview", openapi_extra=takes(PreviewPolicy, SUBSCRIBER_SIGNED))
def preview_policy(
    manager: TheManager, proof: TheCredential, body: Annotated[PreviewPolicy, Depends(message(PreviewPolicy))]
) -> PolicyPreview:
    """What a policy would make of the workers' last evidence. Nothing changes. For the admin, challenged."""
    return manager.preview_policy(body, proof.subscriber_public_key, proof.signature, proof.challenge)


@router.post("/workers/{ip}/attest", openapi_extra=takes(Attest, WORKER_SIGNED))
def attest(manager: TheManager, ip: Ip, signer: Signer, body: Annotated[Attest, Depends(message(Attest))]) -> Attested:
    """Evidence for an `attest` challenge. 200 says that it was judged and recorded; `verdict.tier` says how."""
    return manager.attest(ip, body, signer=signer)


@router.post("/workers/{ip}/liveliness", openapi_extra=takes(ReportLiveliness, WORKER_SIGNED))
def report_liveliness(
    manager: TheManager, ip: Ip, signer: Signer, body: Annotated[ReportLiveliness, Depends(message(ReportLiveliness))]
) -> Alive:
    """The answer to a liveliness challenge; brings the next challenge with it."""
    return manager.report_liveliness(ip, body, signer=signer)


@router.post("/workers/{ip}/work", openapi_extra=takes(ReportWork, WORKER_SIGNED))
def report_work(
    manager: TheManager, ip: Ip, signer: Signer, body: Annotated[ReportWork, Depends(message(ReportWork))]
) -> WorkCounted:
    """Tokens served, counted once, for time in which the worker was attested."""
    return manager.report_work(ip, body, signer=signer)


# --- health -----------------------------------------------------------------------------------------------------------
@health.get("/livez", openapi_extra=OPEN)
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@health.get("/readyz", openapi_extra=OPEN)
async def readyz(request: Request) -> dict[str, str]:
    """It takes requests: the registry is loaded, and it is not shutting down."""
    if request.app.state.draining():
        raise Refused(reasons.DRAINING)
    return {"status": "ok"}


def _handed_out(request: Request, path: str) -> Response:
    hand_out: HandOut = request.app.state.hand_out
    body = hand_out.answer(path, request.scope["query_string"])
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})
