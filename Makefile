# Two commands for a fresh machine: `make demo` and `make test`. Both build .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MARK := $(VENV)/.installed
OWN := generative evaluation launch tests/support
PIP := $(BIN)/pip --disable-pip-version-check -q -q

# Compiled modules are kept, whatever the environment says: the tests start hundreds of processes that import them.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo demo-all test test-quick test-distributed check format clean

setup: $(MARK)

# torch goes first and alone: pip then takes the build that is at hand (a CPU wheel from find-links or an index that you
# configured), and nothing that follows replaces it. pip would compile the modules one after the other (over a minute):
# all cores do it at the end. Some files of packages are templates that do not compile, which is no fault.
# The program's own modules are among them: else both processes of the first tests would do it.
$(MARK): pyproject.toml constraints.txt
	@started=$$(date +%s); printf 'setting up $(VENV) ... '; \
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12")' && \
	$(PYTHON) -m venv $(VENV) && \
	$(PIP) install --no-compile -c constraints.txt torch && \
	$(PIP) install --no-compile -c constraints.txt -e '.[dev]' && \
	{ $(BIN)/python -m compileall -q -q -j 0 $(VENV)/lib $(OWN) || true; } && \
	touch $(MARK) && \
	seconds=$$(( $$(date +%s) - started )); printf 'done (%d min %d s)\n' $$((seconds / 60)) $$((seconds % 60))

# A masked diffusion language model on two local Ray workers; stop it with Ctrl-C, give it again to go on.
demo: setup
	@$(BIN)/generative train masked_diffusion/quickstart

# The quickstart of each method, one after the other, and runs/gallery.html; give it again, and it goes on.
demo-all: setup
	@$(BIN)/generative demo-all

test: test-quick test-distributed

# Each of both takes whole stretches of files: what the tests of a file share is made once.
test-quick: setup
	$(BIN)/pytest -m "not distributed" -n 2 --dist worksteal --durations=20

# Two files at a time, since much of such a test is waiting. What the tests of a file share is started once; files that
# may take longest go first (tests/conftest.py).
test-distributed: setup
	$(BIN)/pytest -m distributed -n 2 --dist loadfile --no-loadscope-reorder --durations=30

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
