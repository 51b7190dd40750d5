# make demo   set-up, then the bundled models: one labelled picture, its path printed last
# make test   set-up, then the tests          make check   tests' companions: linter, formatter, types, the picture of the house
# make setup LOCKED=1   set-up by requirements.lock: nothing is installed whose hash is not in it
# make faults   set-up, then the long part of tests/faults
# make newcomer   set-up, then a stranger's first hour in minutes: own pictures, own checkpoint, own network
PYTHON ?= python3
BIN := .venv/bin
DONE := .venv/.installed
PIP := $(BIN)/python -m pip

.PHONY: setup demo test check faults newcomer

setup: $(DONE)

# A .venv in which pip does not run was interrupted while it was made: it is completed, or, if that fails, made anew.
$(DONE): pyproject.toml constraints.txt requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ddim needs Python 3.11 or newer")'
	$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv || true
	$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
ifdef LOCKED
	$(PIP) install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement requirements.lock
	$(PIP) install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
else
	$(PIP) install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(PIP) install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
endif
	touch $(DONE)

demo: $(DONE)
	$(BIN)/ddim demo --out out/demo

test: $(DONE)
	$(BIN)/python -m pytest -n 2

faults: $(DONE)
	$(BIN)/python -m pytest -m faults tests/faults tests/test_setup.py

newcomer: $(DONE)
	$(BIN)/python tools/newcomer.py

check: $(DONE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/draw_house.py --check
