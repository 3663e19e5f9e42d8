# Two commands: `make train` trains on the embedded phantom, `make test` runs the tests. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= chest_xray.yaml

.PHONY: train test setup setup-test lint clean help

help:
	@echo "make train   set up .venv and run: medgcsam train --config $(CONFIG)"
	@echo "make test    set up .venv with the test extra and run the tests"
	@echo "make lint    ruff over package, tests and benchmarks"
	@echo "make clean   remove .venv (runs and caches stay)"

train: setup
	$(BIN)/medgcsam train --config $(CONFIG)

test: setup-test
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q -n $$($(BIN)/python -c "import os; print(min(4, os.cpu_count() or 1))") --dist worksteal $(PYTEST_ARGS)

lint: setup-test
	$(BIN)/ruff check .

setup: $(VENV)/.ready
setup-test: $(VENV)/.ready-test

# .venv is kept while pyproject.toml and constraints.txt are unchanged; the markers are written last, so that an
# interrupted installation is done again.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV)
