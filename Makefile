# `make demo` and `make test` set everything up by themselves: Python 3.11+, make and a package index are all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The CPU build of the version tested; only the tests of pascalc.train need it.
TORCH ?= torch==2.13.0

.PHONY: demo test test-slow fuzz mutants bench docs clean

demo: $(VENV)/run.stamp
	$(BIN)/python examples/fashion-mnist/demo.py

test: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m slow

# Random networks and mutated files: each verifies or is refused.
FUZZ_GRAPHS ?= 5000
FUZZ_MUTATIONS ?= 5000
fuzz: $(VENV)/dev.stamp
	FUZZ_GRAPHS=$(FUZZ_GRAPHS) $(BIN)/python -m pytest tests/fuzz --hypothesis-show-statistics
	$(BIN)/python -m tests.fuzz.run --cases $(FUZZ_MUTATIONS)

# Compiled networks broken at random: verify must find every one that computes something else.
MUTANTS ?= 1000
MUTANT_SEEDS ?= 1 2 3
mutants: $(VENV)/dev.stamp
	status=0; for seed in $(MUTANT_SEEDS); do \
	  $(BIN)/python -m tests.mutants.run --mutants $(MUTANTS) --seed $$seed || status=1; \
	done; exit $$status

bench: $(VENV)/dev.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/compile_cost.py

docs: $(VENV)/dev.stamp
	$(BIN)/python docs/generate.py

$(VENV)/run.stamp: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pascalc needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[dev,torch]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
