"""The OpenAPI document: what FastAPI says of the routes, with the bodies they read themselves and problem details."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from orchestrator.api.problems import PROBLEM_JSON, ProblemDetails
from orchestrator.api.rest import BODIES

_REFERENCES = "#/components/schemas/{model}"
_PROBLEM = {
    "description": "Refused: problem details (RFC 9457) with reason codes.",
    "content": {PROBLEM_JSON: {"schema": {"$ref": _REFERENCES.format(model=ProblemDetails.__name__)}}},
}
_PROOFS = {
    "workerSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "Signature",
        "description": "HTTP message signature (RFC 9421) by the worker's key: ecdsa-p256-sha256 over @method, @path, "
        "@query if there is one, and content-digest; created, keyid, alg, tag workermanager/v1.",
    },
    "walletSignature": {
        "type": "apiKey",
        "in": "header",
        "name": "-",
        "description": "In the body, not in a header: ADR-036 by a wallet over canonical JSON of {domain, message, "
        "expires, id}.",
    },
    "subscriberSignature": {
        "type": "apiKey",
        "in": "query",
        "name": "signature",
        "description": "By a subscriber's secp256k1 key, over the key itself or over a get_workers challenge.",
    },
}


def document(api: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application."""
    found = get_openapi(
        title=api.title,
        version=api.version,
        description=api.description,
        routes=api.routes,
        separate_input_output_schemas=False,
    )
    bodies: tuple[type[BaseModel], ...] = (*BODIES, ProblemDetails)
    _, definitions = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCES)
    components = found.setdefault("components", {})
    schemas = {**components.get("schemas", {}), **definitions["$defs"]}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["schemas"] = dict(sorted(schemas.items()))
    components["securitySchemes"] = _PROOFS
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _PROBLEM
    return found
