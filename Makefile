# `make demo` and `make test` do everything on a fresh machine, set-up included.
PYTHON := .venv/bin/python

.PHONY: demo test test-slow check bench bench-serve setup lock format

demo: setup
	.venv/bin/tfx-ranking demo

test: setup
	$(PYTHON) -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: setup
	$(PYTHON) -m pytest -n 2 --dist loadfile -m slow

check: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q tests/test_package.py -k wheel

bench: setup
	@set -e; for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(PYTHON) $$benchmark; done

bench-serve: setup
	$(PYTHON) benchmarks/serve.py

format: setup
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

setup:
	@./setup.sh

lock:
	@./setup.sh lock
