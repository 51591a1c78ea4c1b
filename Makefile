# make demo    set up, train the three example models in their quick form, draw and sample
# make test    set up, run the tests
# make bench   set up with the rivals, compare
# make lint    ruff and mypy
# make docs    set up, build the documentation site into docs/_build/html
# make docs-test    the same, and open every page of it in Chromium, which has to be installed

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-

# The other libraries are oracles in the tests and rivals in the benchmarks. PyTorch, whose default build brings
# gigabytes of CUDA on Linux, is installed in CI and on request (`make test TORCH=1`); without it its tests are skipped.
TESTED := $(STAMP)test $(if $(CI)$(TORCH),$(STAMP)torch)

.PHONY: demo test bench lint docs docs-test clean

demo: $(STAMP)examples
	$(BIN)/python -m examples.demo

test: $(TESTED)
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: $(TESTED)
	$(BIN)/python -m bench.unroll

lint: $(STAMP)test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q docs docs/_build/html

docs-test: docs
	$(BIN)/python docs/check.py docs/_build/html

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .hypothesis docs/_build docs/api docs/catalogue docs/project

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP)examples: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[examples]'
	touch $@

$(STAMP)test: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(STAMP)docs: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(STAMP)torch: $(STAMP)test
	$(BIN)/python -m pip install --quiet --editable '.[torch]'
	touch $@
