# `make demo` and `make test` do everything on a fresh machine, set-up included.
PYTHON := .venv/bin/python

# Finished pipelines that the tests read; `make test-slow` finds those of `make test` there (tests/support/made_once.py).
export TFX_RANKING_MADE := $(CURDIR)/build/made
# Two workers; a file's tests stay together, and the longest files start first (tests/conftest.py).
PYTEST := -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25

.PHONY: demo test test-slow test-services test-current debian13 soak check bench bench-serve setup lock format

demo: setup
	.venv/bin/tfx-ranking demo

test: setup
	$(PYTHON) $(PYTEST) -m "not slow"

test-slow: setup
	$(PYTHON) $(PYTEST) -m slow

# Long: 200 pushes and rollbacks killed at random moments.
soak: setup
	$(PYTHON) tests/support/soak_push.py --kills 200
	$(PYTHON) tests/support/soak_retraining.py --days 60

# Real database servers, Debian's: installed where they are missing (as root), started by the tests.
test-services: setup
	@command -v mariadbd >/dev/null && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || \
	  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y mariadb-server postgresql; }
	TFX_RANKING_SERVICES=1 $(PYTHON) -m pytest tests/whole/test_services.py

# The other line of TFX (1.21, Python 3.13), in a Debian 13 tree: the quick tests whose result can differ there
# (docs/testing.md says how they are chosen), the image and the compiled pipeline in it; and each line's model asked on
# the other line.
LINES := $(CURDIR)/build/lines
test-current: setup debian13
	rm -rf $(LINES) && mkdir -p $(LINES)
	TFX_RANKING_OTHER_LINE=$(LINES) TFX_RANKING_OTHER_LINE_FIRST=1 $(PYTHON) -m pytest tests/whole/test_other_line.py
	tests/support/debian13.sh --folder $(LINES) sh -ec 'make setup; TFX_RANKING_OTHER_LINE=$(LINES) \
	  $(PYTHON) $(PYTEST) --line current -m "not slow or current"'
	TFX_RANKING_OTHER_LINE=$(LINES) $(PYTHON) -m pytest tests/whole/test_other_line.py -k equally

# The Debian 13 tree and its environment (as root; debootstrap is installed where it is missing).
debian13:
	@command -v debootstrap >/dev/null || [ "$$(id -u)" != 0 ] || \
	  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y debootstrap; }
	tests/support/debian13.sh make setup

check: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q tests/whole/test_package.py -k wheel

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
