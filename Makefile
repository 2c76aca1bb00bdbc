# Two commands do everything: `make demo` shows the main job, `make test` tests it.
# Needs Python 3.11 or newer, make and git; the rest is installed into .venv, hash-checked.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
REAL   := build/real-evidence

.PHONY: demo test check format lint types conformance fuzz coverage bench clean install lock docs

install: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Real H100 evidence, published by NVIDIA inside a wheel: fetched by name and hash, read as data, never installed.
$(REAL)/.ready: $(READY) fixtures/real-evidence.lock
	@mkdir -p $(REAL)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r fixtures/real-evidence.lock -d $(REAL)
	@touch $@

demo: $(READY) $(REAL)/.ready
	@$(BIN)/orchestrator demo --real-evidence $(REAL) $(if $(STAY),--stay)

test: $(READY) $(REAL)/.ready
	$(BIN)/python -m pytest -n auto

format: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

check: format lint types test

# Every vector through the command that users have, and whether each reason code and each attack has one.
conformance: $(READY) $(REAL)/.ready
	@$(BIN)/python -m tests.conformance --json build/conformance.json

# Coverage-guided; not in the lock, since it is there for few platforms. Where it cannot be had, nothing is fuzzed.
FUZZ_SECONDS ?= 10
fuzz: $(READY)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3.0.0' || echo "atheris cannot be installed here"
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# Branches of attest/ that its own tests do not take.
coverage: $(READY) $(REAL)/.ready
	@rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest -n auto -q tests/attest
	@$(BIN)/python -m coverage combine -q
	@$(BIN)/python -m coverage report

# Pages that are made from code; tests say when they are out of date.
docs: $(READY)
	$(BIN)/orchestrator openapi > docs/openapi.json
	$(BIN)/python -m tests.reasons_page

bench: $(READY) $(REAL)/.ready
	$(BIN)/python -m tests.benchmarks

# The lock names hashes and no index; it is resolved for every platform that pyproject.toml allows.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --extra dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
