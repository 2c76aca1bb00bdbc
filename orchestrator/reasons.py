"""
The catalogue of the orchestrator's refusals: what was asked and not done, why, and what to do next.

A code never changes its meaning: clients switch on it. `attest.reasons` is the other catalogue, of why evidence was not
believed; a refusal for that reason is `evidence-refused` here and carries the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SHOWN_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """One way to be refused. `code` is stable; `title` says what it means and `fix` what to do, for people."""

    code: str
    status: int  # of HTTP
    title: str
    fix: str


class Refused(Exception):
    """What the orchestrator raises on purpose: the problem, the field at fault, what it got there and what it wants."""

    def __init__(self, problem: Problem, field: str = "", got: str = "", want: str = "") -> None:
        self.problem = problem
        self.field = printable(field)
        self.got = printable(got)
        self.want = printable(want)
        super().__init__(problem.code, self.field, self.got, self.want)

    def __str__(self) -> str:
        field = f", field {self.field}" if self.field else ""
        got = f", got {self.got}" if self.got else ""
        want = f", want {self.want}" if self.want else ""
        return f"{self.problem.code}: {self.problem.title}{field}{got}{want}"


def printable(text: str) -> str:
    """Refusals end up on terminals and in logs, and may quote hostile text: cut it, and escape what does not print."""
    cut = text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)


CATALOGUE: dict[str, Problem] = {}


def _problem(code: str, status: int, title: str, fix: str) -> Problem:
    if code in CATALOGUE:
        raise ValueError(f"the code {code!r} is taken")
    CATALOGUE[code] = Problem(code, status, title, fix)
    return CATALOGUE[code]


# --- the request itself -----------------------------------------------------------------------------------------------
REQUEST_MALFORMED = _problem(
    "request-malformed",
    400,
    "The request does not parse",
    "Compare it with the API page; signed data is canonical JSON.",
)
BODY_TOO_LARGE = _problem(
    "body-too-large",
    413,
    "The request is larger than any genuine one",
    "Send one message, with the evidence of one node.",
)
FIELD_INVALID = _problem(
    "field-invalid", 422, "A field of the request is not valid", "Correct the field that is named, and send it again."
)
NOT_FOUND = _problem("not-found", 404, "There is nothing at this address", "Look the path up on the API page.")
METHOD_NOT_ALLOWED = _problem(
    "method-not-allowed", 405, "This address does not take this method", "Use a method of the `Allow` header."
)
TOO_MANY = _problem("too-many", 429, "Too many requests", "Wait as long as the `Retry-After` header says.")

# --- signatures -------------------------------------------------------------------------------------------------------
SIGNATURE_MISSING = _problem(
    "signature-missing", 401, "The request is not signed", "Sign it with the key that this message asks for."
)
SIGNATURE_INVALID = _problem(
    "signature-invalid",
    401,
    "The signature does not hold",
    "Sign exactly the bytes that are sent, with the key that is named, and normalise the signature to low S.",
)
SIGNATURE_EXPIRED = _problem(
    "signature-expired",
    401,
    "The signature is too old, or of the future",
    "Check the clock, and sign the message anew.",
)
MESSAGE_REPLAYED = _problem(
    "message-replayed", 409, "A message with this id was seen before", "Sign the message anew, under a fresh random id."
)
DOMAIN_MISMATCH = _problem(
    "domain-mismatch",
    401,
    "The message was signed for another orchestrator",
    "Sign it for the domain that is wanted, after checking that you mean to talk to it.",
)
WORKER_KEY_MISMATCH = _problem(
    "worker-key-mismatch",
    401,
    "The request was signed by another key than the worker's",
    "Use the key that the worker attested with, or register the worker's new key.",
)
WORKER_KEY_UNSET = _problem(
    "worker-key-unset", 409, "The worker has no key yet", "Register the worker with its key: `nodeprobe register` does."
)

# --- permissions ------------------------------------------------------------------------------------------------------
NOT_ADMIN = _problem(
    "not-admin",
    403,
    "Only an admin may do this",
    "Sign with an admin's wallet: `orchestrator init` prints its address.",
)
NOT_ADMIN_REGISTER = replace(NOT_ADMIN, title="Only admin can register workers")
NOT_OWNER = _problem(
    "not-owner", 403, "Only the owner of the worker may do this", "Sign with the worker's current payment wallet."
)
# The texts that clients of the deployed contract know. One code; the title says which property was touched.
NOT_OWNER_WALLET = replace(NOT_OWNER, title="Only the owner has the authority to modify the payment wallet")
NOT_OWNER_ADDRESS = replace(NOT_OWNER, title="Only the owner has the authority to modify the IP address")
NOT_OWNER_TYPE = replace(NOT_OWNER, title="Only the owner has the authority to modify the worker_type")
NOT_OWNER_REMOVE = replace(NOT_OWNER, title="Only the owner has the authority to remove the worker")
NOT_SUBSCRIBER = _problem(
    "not-subscriber", 403, "The key is no active subscriber's", "Ask an admin to register the subscriber's public key."
)

# --- workers ----------------------------------------------------------------------------------------------------------
_LIST_WORKERS = "Check the address: `orchestrator workers list` shows every worker's."
WORKER_UNKNOWN = _problem("worker-unknown", 404, "Didn't find worker", _LIST_WORKERS)
WORKER_UNKNOWN_ADDRESS = replace(WORKER_UNKNOWN, title="Could not find the worker")
ADDRESS_MALFORMED = _problem(
    "address-malformed",
    422,
    "The IP address is not in its plain form",
    "Write it as 203.0.113.7 or 2001:db8::7: no leading zeros, no zone, no spaces, no embedded IPv4 but ::ffff:.",
)
ADDRESS_NOT_ALLOWED = _problem(
    "address-not-allowed",
    422,
    "A worker cannot have an IP address of this kind",
    "Use the worker's public address. For a private fleet, the operator allows its range; some kinds never are.",
)
ADDRESS_TAKEN = _problem(
    "address-taken", 409, "Another worker has this IP address", "Remove the other worker first, or use another address."
)
WALLET_MALFORMED = _problem(
    "wallet-malformed",
    422,
    "The wallet address is not a valid bech32 address",
    "Copy the whole address, `secret1…` of 45 characters, in lower case.",
)
ENDPOINT_NOT_ALLOWED = _problem(
    "endpoint-not-allowed",
    422,
    "The endpoint does not lie at the worker's own address",
    "Write it as https://ADDRESS:PORT with the worker's address, or with a DNS name that serves the attested TLS key.",
)
ENDPOINT_NOT_HTTPS = _problem(
    "endpoint-not-https",
    422,
    "The endpoint is not https",
    "Serve it by TLS. Plain http is for addresses in a range that the operator allows.",
)
SUPERSEDED = _problem(
    "superseded", 409, "The worker changed while it was verified", "Ask for a new challenge and attest again."
)
EVIDENCE_REFUSED = _problem(
    "evidence-refused",
    422,
    "The evidence was not accepted",
    "See the reason codes of the verdict, each with its remedy.",
)

RESULT_ABSENT = _problem(
    "result-absent",
    404,
    "There is no signed result on this worker now",
    "Its node has not attested, or what it attested has ended: GET /v1/workers/{ip} says why.",
)

# --- policies ---------------------------------------------------------------------------------------------------------
POLICY_INVALID = _problem(
    "policy-invalid",
    422,
    "The text is no policy",
    "Correct the key that is named: `attest policy check FILE` checks a file, `attest policy show` lists every key.",
)
POLICY_WIDENS = _problem(
    "policy-widens",
    422,
    "A policy of a wallet or worker may only narrow the fleet's",
    "Make the rule that is named as strict as the fleet's or stricter, or withdraw the narrower policy first.",
)

# --- challenges -------------------------------------------------------------------------------------------------------
_NEW_CHALLENGE = "Ask for a new challenge, and answer it once and soon."
CHALLENGE_UNKNOWN = _problem(
    "challenge-unknown", 409, "The challenge was never issued, or is spent already", _NEW_CHALLENGE
)
CHALLENGE_EXPIRED = _problem("challenge-expired", 409, "The challenge is too old", _NEW_CHALLENGE)
CHALLENGE_MISMATCH = _problem(
    "challenge-mismatch",
    409,
    "The challenge was issued for something else",
    "Answer with the worker, wallet and message that the challenge was asked for.",
)

# --- work -------------------------------------------------------------------------------------------------------------
WORK_REPLAYED = _problem(
    "work-replayed", 409, "Work with this sequence number was reported before", "Go on with the next sequence number."
)
WORK_OVERLAPS = _problem(
    "work-overlaps",
    409,
    "The work overlaps in time with work reported before",
    "Report each span of time once, starting where the last report ended.",
)
WORK_NOT_ATTESTED = _problem(
    "work-not-attested",
    409,
    "The worker was not attested while it did this work",
    "Only work done while attested counts: attest, then report what is done from then on.",
)
WORK_IMPLAUSIBLE = _problem(
    "work-implausible",
    422,
    "No worker can do this much in this time",
    "Report tokens as the inference server counts them, for the span in which they were made.",
)

# --- the service itself -----------------------------------------------------------------------------------------------
INTERNAL = _problem(
    "internal",
    500,
    "The orchestrator failed",
    "Try again; if it persists, give the operator the request id of its log.",
)
DRAINING = _problem("draining", 503, "The orchestrator is shutting down", "Ask again soon, or ask another replica.")
