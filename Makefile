# Every target sets up its own environment and is safe to repeat.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
JOBS ?= 2

# Compiled afterwards on all cores: pip would take twice as long with one. Tests of packages and the hundreds
# of models that nobody asks for are left out (Python compiles what it imports); what does not compile
# (templates of packages) is never imported.
define install
$(PIP) install --no-compile -c constraints.txt -e '$(1)'
@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/|/transformers/models/' $(VENV)/lib || true
endef

.PHONY: install sweep test test-long test-e2e lint style types format docs site bench clean help

help:  ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("sizewise needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.)
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[dev])
	@touch $@ $(STAMP)

install: $(STAMP)  ## set up the environment only

sweep: $(STAMP)  ## run the main job on the embedded models and data (no GPU, no network)
	$(BIN)/python train.py sweep=size_vs_specialization

test: $(DEV_STAMP)  ## run all tests that need no cluster and no browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slurm and not browser and not gpu and not long"

test-long: $(DEV_STAMP)  ## run the tests that sweep real models for many minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long

test-e2e: $(DEV_STAMP)  ## run the tests on a real SLURM and in a real browser, where these are there
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "(slurm or browser) and not long" \
	  $$(grep -rlE 'mark\.(slurm|browser)' tests)

lint: style types  ## check formatting, lint and types

style: $(DEV_STAMP)
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .

types: $(DEV_STAMP)
	$(BIN)/python -m mypy

format: $(DEV_STAMP)  ## format and fix what can be fixed
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

docs: $(DEV_STAMP)  ## regenerate the reference of all options
	$(BIN)/python -m tools.option_reference docs/options.md

site: $(DEV_STAMP)  ## build the pages as a site, in build/site
	$(PIP) install -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(DEV_STAMP)  ## measure side by side against other tools, as ratios
	$(PIP) install -c constraints.txt trl
	$(BIN)/python benchmarks/run_all.py

clean:  ## remove the environment and caches (never results)
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
