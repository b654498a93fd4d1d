# make bench: speed beside TRL and generate.
# make demo: environment, the quickstart sweep into runs/quickstart, its report.   make test: lint, types, fast tests.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: env demo test test-all lint bench clean

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

demo: env
	$(BIN)/nashbench sweep examples/quickstart.yaml

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A thread each for tests side by side; the slow ones measure time, so they run alone.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto -m "not slow"

test-all: test
	$(BIN)/pytest -m slow

# Side by side with TRL and generate; benchmarks/results.json.
bench: env
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build *.egg-info
