# `make demo` opens the app, `make test` checks everything. Each sets up .venv on a fresh machine first.
PYTHON ?= python3
# The version the tests were last run with; any torch >= 2.11 works, e.g. `make demo TORCH=torch`.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := $(wildcard foundation gid rahf ui tools app.py)
export GRADIO_ANALYTICS_ENABLED := False

.PHONY: demo test test-fast lint types pytest js space space-check clean

demo: $(VENV)/.demo
	$(BIN)/python app.py

test: lint types pytest js

# What needs no browser, no server and no training: the rest in under two minutes.
test-fast: lint types
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy $(SOURCES)

pytest: $(VENV)/.dev
	$(BIN)/python -m pytest

# Node is optional: the same vectors are also checked from Python.
js:
	@if [ ! -d tests/js ]; then :; \
	elif command -v node >/dev/null; then node --test tests/js/*.test.mjs; \
	else echo "node is not installed: JavaScript tests skipped"; fi

# The exact tree to upload to a Space, and a start of the app from a clean copy of it.
SPACE ?= build/space
space: $(VENV)/.demo
	rm -rf $(SPACE) && mkdir -p $(dir $(SPACE))
	$(BIN)/python tools/space.py assemble $(SPACE)
	$(BIN)/python tools/space.py start $(SPACE)

# The same in a fresh environment from requirements.txt alone, e.g. `make space-check SPACE_PYTHON=python3.12`.
SPACE_PYTHON ?= $(PYTHON)
space-check: $(VENV)/.demo
	$(BIN)/python tools/space.py check --python $(SPACE_PYTHON)

# An environment somebody is already working in is kept; only what is missing is installed.
$(VENV)/.created:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install "$(TORCH)"
	touch $@

$(VENV)/.demo: $(VENV)/.created pyproject.toml
	$(PIP) install -e .
	touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml
	$(PIP) install -e ".[dev]"
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
