# make demo   make the environment, install evgrid, run the main case
# make fuzz   search for inputs and examples that nobody has tried: new ones each time, of bounded time
# make test   make the environment, install evgrid with what the tests need, run checks and tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FUZZ_COUNT ?= 1000
FUZZ_SECONDS ?= 300

.PHONY: demo test test-slow fuzz check bench clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'evgrid needs Python 3.11 or newer, this is ' + sys.version.split()[0])"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/evgrid run scenarios/european_lv_v2g.yaml

test: check
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m tests.fuzz --count $(FUZZ_COUNT) --seconds $(FUZZ_SECONDS)
	EVGRID_RANDOM_EXAMPLES=1 $(BIN)/python -m pytest tests/properties -n 2

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
