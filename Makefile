# One vocabulary for people and for CI. Needs python3 (3.11 or later, with venv) and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Stamps: `make setup` does its work once, and again when the requirements change.
READY := $(VENV)/.ready
READY_BENCH := $(VENV)/.ready-loadtest
TESTS ?= tests
BENCH ?=

# Counts what pip collects instead of printing 150 lines; its own words are kept in .venv/pip.log and shown if it fails.
define install
	@rc=$(VENV)/.pip-rc; rm -f $$rc; \
	{ $(BIN)/python -m pip install --disable-pip-version-check --no-input -c constraints.txt -e '.[$(1)]' 2>$(VENV)/pip.log \
	  && echo 0 > $$rc || echo 1 > $$rc; } \
	| awk '/^Collecting /{n++; if (n % 25 == 0) {printf "  %d packages ...\n", n; fflush()}} \
	       /^Installing collected/{printf "  %d packages, writing them\n", n; fflush()}'; \
	test $$(cat $$rc) = 0 || { tail -n 40 $(VENV)/pip.log; echo "pip could not install the package; see $(VENV)/pip.log"; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench docs page clean

help: ## what can be made
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the package and everything that develops it (once; a minute or two)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "'$(PYTHON)' is not Python 3.11 or later (or is not there)."; \
	  echo "Install one, or name another: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' comes without venv or ensurepip, as Debian's does at first."; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	$(call install,dev)
	@touch $@

$(READY_BENCH): $(READY)
	@echo "Adding the load generator"
	$(call install,dev$(comma)loadtest)
	@touch $@

comma := ,

demo: $(READY) ## a scan, live and persisted: Bluesky, the stock client and a subscriber against this server
	@$(BIN)/python examples/demo.py

test: $(READY) ## the test suite (TESTS=tests/house for a part of it)
	@$(BIN)/python -m pytest $(TESTS)

check: $(READY) ## everything CI does: format, lint, types, floors, tests
	@echo "format"; $(BIN)/ruff format --check .
	@echo "lint"; $(BIN)/ruff check .
	@echo "types"; $(BIN)/mypy
	@echo "floors"; $(BIN)/lint-imports --no-cache
	@echo "tests"; $(BIN)/python -m pytest $(TESTS)

format: $(READY) ## put code into the one format, and mend what lint can mend by itself
	@$(BIN)/ruff check --fix-only -q .
	@$(BIN)/ruff format .

bench: $(READY_BENCH) ## load test against a server of its own, without a browser (BENCH="--users 20 --seconds 30")
	@$(BIN)/python loadtest/run.py $(BENCH)

docs: $(READY) ## prove the documentation: code blocks run, references name what exists
	@$(BIN)/python -m pytest tests/house/test_docs.py tests/house/test_reference.py

page: ## build the live page from web/ into tiled_stream/page (needs node 20 or later and npm)
	@command -v npm >/dev/null || { echo "npm is not here; what is committed in tiled_stream/page needs none."; exit 1; }
	@cd web && npm ci --ignore-scripts --silent && npx tsc --noEmit -p . && node build.mjs $(PAGE)

clean: ## remove what was made here, .venv too
	rm -rf $(VENV) build dist demo-data .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
