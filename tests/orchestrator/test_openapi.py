"""The documents of the API say what the API is: no route undocumented, no drift, no code that does not exist."""

import json
import re
from pathlib import Path

import pytest

from attest.reasons import CATALOGUE as OF_EVIDENCE
from orchestrator.app import openapi_document
from orchestrator.messages import COMMANDS
from orchestrator.reasons import CATALOGUE

DOCS = Path(__file__).parent.parent.parent / "docs"
DOCUMENT = openapi_document()
ROUTES = [(method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations]


def sections():
    """The API page, section by heading."""
    parts = re.split(r"^## (.+)$", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_committed_document_is_what_the_application_says():
    committed = json.loads((DOCS / "openapi.json").read_text())
    assert committed == DOCUMENT, "run `orchestrator openapi > docs/openapi.json`"


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_has_its_section(method, path):
    section = sections()[f"{method} {path}"]
    for word in ("**Who may:**", "**Answer:**", "**Reason codes:**", "curl"):
        assert word in section, word


def test_every_section_has_its_route():
    documented = {tuple(heading.split()) for heading in sections() if re.match(r"[A-Z]+ /", heading)}
    assert documented == set(ROUTES)


def test_every_code_of_the_page_exists_and_every_code_is_on_the_page():
    page = (DOCS / "api.md").read_text()
    assert {code for code in CATALOGUE if f"`{code}`" not in page} == set()
    named = set()
    for section in sections().values():
        listed = section.partition("**Reason codes:**")[2].partition("\n\n")[0]
        named |= set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", listed))
    assert named <= CATALOGUE.keys() | OF_EVIDENCE.keys()


def test_every_command_is_on_the_page():
    section = sections()["POST /v1/execute"]
    assert {name for name in COMMANDS if f"`{name}`" not in section} == set()


def test_every_operation_names_its_proof_and_its_errors():
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            assert "security" in operation
            assert "application/problem+json" in operation["responses"]["default"]["content"]


def test_every_reference_leads_somewhere():
    text = json.dumps(DOCUMENT)
    for name in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert name in DOCUMENT["components"]["schemas"]
