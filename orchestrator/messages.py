"""
The contract's messages, as they travel: what clients send, and what they are answered.

Commands signed by a wallet (`Register` … `RemoveSubscriber`) come inside a `Signed` envelope to `POST /v1/execute`;
calls of a worker are HTTP requests signed by its key; queries are plain GETs. Commands refuse unknown fields; queries
tolerate them, as old clients send some.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ENDPOINTS_MAX = 64
MODELS_MAX = 64
TOKENS_MAX = 1 << 53  # what every JSON reader can hold exactly
REPORT_CHARS_MAX = 2 << 20
POLICY_CHARS_MAX = 64 << 10
BODY_BYTES_MAX = 2 << 20  # of any request: evidence of a whole node is at most half of it

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Address = Annotated[str, StringConstraints(min_length=2, max_length=64)]
WalletAddress = Annotated[str, StringConstraints(min_length=8, max_length=90)]
Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
KeyHex = Annotated[str, StringConstraints(pattern=r"^0[23][0-9a-f]{64}$")]  # compressed point, P-256 or secp256k1
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
Tokens = Annotated[int, Field(ge=0, le=TOKENS_MAX)]


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


# --- signed by a wallet -----------------------------------------------------------------------------------------------


class RegisterWorker(_Command):
    """Admin. `attestation_report` is empty (known, not trusted), or evidence that answers a `register` challenge."""

    ip_address: Address
    payment_wallet: WalletAddress
    attestation_report: Annotated[str, StringConstraints(max_length=REPORT_CHARS_MAX)] = ""
    worker_type: Text
    worker_key: KeyHex | None = None  # who may attest; without it, the owner or the admin sets it later
    challenge: Hex32 | None = None  # with a report: the challenge that it answers
    tls_spki_sha256: Hex32 | None = None
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=ENDPOINTS_MAX)] = ()


class SetWorkerWallet(_Command):
    """Owner of the current wallet."""

    ip_address: Address
    payment_wallet: WalletAddress


class SetWorkerAddress(_Command):
    """Owner of the wallet. An address that is taken is refused."""

    new_ip_address: Address
    old_ip_address: Address


class SetWorkerType(_Command):
    """Owner of the wallet."""

    ip_address: Address
    worker_type: Text


class SetWorkerKey(_Command):
    """Owner of the wallet or admin: the key by which the worker attests from now on. Trust starts anew."""

    ip_address: Address
    worker_key: KeyHex


class RemoveWorker(_Command):
    """Owner of the wallet. Answers the removed worker."""

    ip_address: Address


class SetService(_Command):
    """Admin: in service, draining, cordoned or quarantined; `evict` takes the worker out of the registry."""

    ip_address: Address
    reason: Text


class Uncordon(SetService): ...


class Drain(SetService): ...


class Cordon(SetService): ...


class Quarantine(SetService): ...


class Evict(SetService): ...


class AddSubscriber(_Command):
    """Admin. The public key of somebody who may ask GetWorkers: secp256k1, compressed point."""

    public_key: KeyHex
    name: Text


class RemoveSubscriber(_Command):
    """Admin."""

    public_key: KeyHex


class SetPolicy(_Command):
    """Admin. The policy of the fleet, or what of it a wallet's workers or one worker narrow; empty withdraws it."""

    scope: Literal["fleet", "wallet", "worker"]
    payment_wallet: WalletAddress | None = None  # of scope wallet
    ip_address: Address | None = None  # of scope worker
    policy: Annotated[str, StringConstraints(max_length=POLICY_CHARS_MAX)]  # TOML


# The name of each command on the wire, as `{"set_worker_type": {…}}`. One member each.
COMMANDS: dict[str, type[_Command]] = {
    "register_worker": RegisterWorker,
    "set_worker_wallet": SetWorkerWallet,
    "set_worker_address": SetWorkerAddress,
    "set_worker_type": SetWorkerType,
    "set_worker_key": SetWorkerKey,
    "remove_worker": RemoveWorker,
    "uncordon": Uncordon,
    "drain": Drain,
    "cordon": Cordon,
    "quarantine": Quarantine,
    "evict": Evict,
    "add_subscriber": AddSubscriber,
    "remove_subscriber": RemoveSubscriber,
    "set_policy": SetPolicy,
}
Command = _Command
Answer = _Answer


class PublicKey(_Command):
    """As Keplr and secretcli print it."""

    type: Literal["tendermint/PubKeySecp256k1"]
    value: Annotated[str, StringConstraints(max_length=64)]  # base64 of 33 bytes


class Signed(BaseModel):
    """A command and the wallet's signature over it (ADR-036 over exactly `data`)."""

    model_config = ConfigDict(frozen=True)  # wallets add members of their own

    data: Annotated[
        str, StringConstraints(max_length=REPORT_CHARS_MAX)
    ]  # canonical JSON {domain, message, expires, id}
    pub_key: PublicKey
    signature: Annotated[str, StringConstraints(max_length=100)]  # base64 of r || s


# --- signed by a worker's key -----------------------------------------------------------------------------------------


class Purpose(StrEnum):
    """What a challenge is for. One issued for one purpose never serves another."""

    REGISTER = "register"
    ATTEST = "attest"
    LIVELINESS = "liveliness"
    GET_WORKERS = "get_workers"
    PREFLIGHT = "preflight"


class ChallengeRequest(_Command):
    """`attest` and `liveliness` must be signed by the worker's key; the others are open to anyone."""

    purpose: Purpose = Field(strict=False)
    ip_address: Address | None = None  # whose: all but get_workers
    payment_wallet: WalletAddress | None = None  # register: the wallet that will own the worker; preflight: that would
    subscriber_public_key: KeyHex | None = None  # get_workers: who will ask


class Endpoint(_Command):
    """Where a worker serves a model: `https://HOST:PORT`, at its own address or a name bound to its TLS key."""

    model: ModelName
    url: Annotated[str, StringConstraints(min_length=8, max_length=512)]


class Load(_Command):
    """What the inference server said of itself. For drawing only, never for trust."""

    running: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    waiting: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class Attest(_Command):
    """Evidence that answers an `attest` challenge, with the rest of the statement that it commits to."""

    challenge: Hex32
    tls_spki_sha256: Hex32 | None = None
    worker_type: Text | None = None  # as probed; told, never trusted
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=ENDPOINTS_MAX)] = ()
    evidence: Annotated[str, StringConstraints(max_length=REPORT_CHARS_MAX)]  # any container that attest reads


class ReportLiveliness(_Command):
    """The answer to a liveliness challenge. Load and endpoints ride along; absent endpoints stay as they were."""

    challenge: Hex32
    load: Load | None = None
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=ENDPOINTS_MAX)] | None = None
    draining: bool = False


class ModelWork(_Command):
    model: ModelName
    input_tokens: Tokens
    output_tokens: Tokens


class ReportWork(_Command):
    """
    Tokens served from `begin` to `end` (UTC, within one epoch). Sequence numbers rise strictly within an epoch. A
    complete report names every model served, with explicit zeros.
    """

    epoch: Annotated[int, Field(ge=0, le=1_000_000)]
    sequence: Annotated[int, Field(ge=1, le=1 << 40)]
    begin: Annotated[datetime, Field(strict=False)]
    end: Annotated[datetime, Field(strict=False)]
    models: Annotated[tuple[ModelWork, ...], Field(max_length=MODELS_MAX)]


# --- answers ----------------------------------------------------------------------------------------------------------


class Service(StrEnum):
    """Whether a worker is meant to be used, whatever its evidence says."""

    IN_SERVICE = "in service"
    DRAINING = "draining"
    CORDONED = "cordoned"
    QUARANTINED = "quarantined"


class About(_Answer):
    """Who an orchestrator is, and by which rules it believes."""

    name: str
    version: str
    domain: str  # what wallets sign for
    admin_address: str
    policy: str
    emulated_roots: bool  # emulated nodes are believed too: no production
    liveliness_seconds: int
    epoch_seconds: int
    epoch_zero: datetime


class Finding(_Answer):
    """One rule, and whether it held. `code` is a reason code of the catalogue."""

    device: str
    rule: str
    code: str
    stage: str
    holds: bool
    found: str = ""
    wanted: str = ""
    fix: str = ""


class Verdict(_Answer):
    """An AttestationResult in brief, with the digests that it rests on."""

    tier: str  # affirming, contraindicated or none
    emulated: bool
    policy: str
    revocation: str
    freshness: str
    binding: str  # "workermanager/v1 (nonce)"
    cpu: str  # "absent" until CPU evidence is verified
    devices: tuple[str, ...]
    issued_at: datetime
    not_after: datetime
    evidence_sha256: str
    policy_sha256: str
    reasons: tuple[Finding, ...] = ()  # the rules that failed


class Worker(_Answer):
    """A worker as GetWorkers answers it: the contract's four strings, and what became of them."""

    ip_address: str
    payment_wallet: str
    attestation_report: str  # digest of the last evidence, or empty
    worker_type: str
    worker_key: str | None
    service: Service
    routable: bool
    why: tuple[str, ...]  # reason codes of what keeps it out; empty when routable
    attested_until: datetime | None
    alive_until: datetime | None
    due_at: datetime | None
    endpoints: tuple[Endpoint, ...]
    tls_spki_sha256: str | None
    generation: int
    verdict: Verdict | None


class Workers(_Answer):
    workers: tuple[Worker, ...]


class Models(_Answer):
    models: tuple[str, ...]


class Url(_Answer):
    """One routable endpoint. From `not_after` on it must not be used."""

    url: str
    model: str
    worker: str
    worker_type: str
    tls_spki_sha256: str | None
    not_after: datetime
    verdict: dict[str, Any]  # tier, emulated, revocation, binding, policy, evidence_sha256


class Urls(_Answer):
    revision: int
    urls: tuple[Url, ...]


class Challenge(_Answer):
    """32 random bytes, spent by the first answer. The statement of an attestation repeats what stands here."""

    challenge: str
    purpose: Purpose
    expires_at: datetime
    ip_address: str | None = None
    payment_wallet: str | None = None


class Attested(_Answer):
    """What became of evidence. `verdict.tier` decides; HTTP 200 only means that it was judged and recorded."""

    worker: Worker
    verdict: Verdict


class Alive(_Answer):
    alive_until: datetime
    attest_due: bool  # the worker should attest now
    challenge: Challenge  # the next one, to save a call
    routable: bool
    why: tuple[str, ...]


class WorkCounted(_Answer):
    epoch: int
    sequence: int
    work: int  # W = input + 4 * output, summed over models
    repeated: bool  # the very same report was counted before; it counts once


class Payout(_Answer):
    payment_wallet: str
    workers: int
    input_tokens: int
    output_tokens: int
    work: int
    share: str  # of all work of the epoch: an exact fraction, "3/8"; "0" when there was none
    percent: float
    uptime_seconds: int


class Payouts(_Answer):
    epoch: int
    begin: datetime
    end: datetime
    complete: bool  # the epoch is over
    total_work: int
    payouts: tuple[Payout, ...]
