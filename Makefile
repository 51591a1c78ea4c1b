# make demo        set up, train three of the examples in their quick form, draw and sample
# make test        set up, run the tests: less than five minutes on two cores
# make exhaustive  set up, run the rest: more cases of what takes seconds, the guides, examples to their ends
# make compat      the tests that depend on the versions of JAX and Python: for a newer or an older one
# make bench       set up with the rivals, make the tables of bench/README.md and the plot
# make pictures    set up, train the examples whose pictures are in docs/ and make all pictures again: hours
# make lint        ruff and mypy
# make docs        set up, build the documentation site into docs/_build/html
# make docs-test   the same, and open every page of it in Chromium, which has to be installed
# make dist        build the packages, use the wheel as a stranger does
#
# `make test PYTHON=python3.12 VENV=/tmp/env` takes another Python and another folder.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-

# The other libraries are oracles in the tests and rivals in the benchmarks. PyTorch, whose default build brings
# gigabytes of CUDA on Linux, is installed in CI and on request (`make test TORCH=1`); without it its tests are skipped.
TESTED := $(STAMP)test $(if $(CI)$(TORCH),$(STAMP)torch)

.PHONY: demo test exhaustive compat bench pictures lint docs docs-test dist clean

demo: $(STAMP)examples
	$(BIN)/python -m examples.demo

test: $(TESTED)
	$(BIN)/python -m pytest -n 2 --dist worksteal

exhaustive: $(TESTED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m exhaustive tests docs

COMPAT := hoist errors imports guards edges networks noise fast_weights native native_vectors native_compile operation \
	mosaic meshes
WHOLE := hoist guards native operation

compat: $(STAMP)test
	env -u CI $(BIN)/python -m pytest -n 2 --dist loadfile $(COMPAT:%=tests/test_%.py) README.md
	env -u CI $(BIN)/python -m pytest -n 2 -m exhaustive $(WHOLE:%=tests/test_%.py)

bench: $(TESTED)
	$(BIN)/python -m bench.all

# `make pictures PICTURES="memory variants"` makes two of the examples' pictures.
pictures: $(STAMP)test
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m bench.plot bench/results.json bench/speed.png
	$(BIN)/python docs/redraw.py $(PICTURES)

lint: $(STAMP)test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: $(STAMP)test
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m tests.wheel dist

docs: $(STAMP)docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q docs docs/_build/html

docs-test: docs
	$(BIN)/python docs/check.py docs/_build/html

clean:
	rm -rf $(VENV) dist runs .mypy_cache .ruff_cache .hypothesis docs/_build docs/api docs/catalog docs/project

# What is missing on a bare machine is said in one line.
FOUND = $(shell ($(PYTHON) -c 'import sys; print("yes" if sys.version_info >= (3, 11) else "old")') 2>/dev/null)
VERSION = $(or $(shell ($(PYTHON) --version) 2>/dev/null),no $(PYTHON))

$(BIN)/python:
	@$(if $(filter yes,$(FOUND)),,$(error needs Python 3.11 or newer, got $(VERSION): install one, or name it, as in \
	'make demo PYTHON=/usr/bin/python3.12'))
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) comes without venv: install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# $(call install,extra or package)
define install
@echo "installing $(1) into $(VENV)"
@PIP_RETRIES=$${PIP_RETRIES:-1} $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1) 2>$(VENV)/pip.log || { \
	if grep -q 'Retrying' $(VENV)/pip.log; then echo "no network: pip reaches no package index, see $(VENV)/pip.log"; \
	else cat $(VENV)/pip.log; fi; exit 1; }
@touch $@
endef

$(STAMP)examples: $(BIN)/python pyproject.toml
	$(call install,--editable '.[examples]')

$(STAMP)test: $(BIN)/python pyproject.toml
	$(call install,--editable '.[test]')

$(STAMP)docs: $(BIN)/python pyproject.toml
	$(call install,--editable '.[docs]')

# This version: where a mirror offers its CPU build, it is a small download.
$(STAMP)torch: $(STAMP)test
	$(call install,torch==2.13.0)
