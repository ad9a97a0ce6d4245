PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FUZZ_COUNT ?= 1000
FUZZ_SECONDS ?= 300

.DEFAULT_GOAL := help
.PHONY: help demo check test test-slow fuzz bench docs clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'evgrid needs Python 3.11 or newer, this is ' + sys.version.split()[0])"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

demo: $(VENV)/.installed  ## make the environment, install evgrid, run the main case
	$(BIN)/evgrid run scenarios/european_lv_v2g.yaml

test: check  ## make the environment, install evgrid with what the tests need, run checks and tests
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev  ## run the longer validation
	$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/.installed-dev  ## search for inputs and examples that nobody has tried: new ones each time, of bounded time
	$(BIN)/python -m tests.fuzz --count $(FUZZ_COUNT) --seconds $(FUZZ_SECONDS)
	EVGRID_RANDOM_EXAMPLES=1 $(BIN)/python -m pytest tests/properties -n 2

check: $(VENV)/.installed-dev  ## run ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev  ## run the benchmarks: ratios measured in one run
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed-docs  ## build the documentation into docs/build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/build/html

clean:  ## remove the environment, caches and the built documentation
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache docs/build docs/reference/generated
