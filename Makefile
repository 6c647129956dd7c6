# make demo   everything from nothing: an environment, the package, three losses trained without and with SVMax
# make test   the same environment, every test
# make lint   ruff, clang-format, mypy
# make bench  the speed and accuracy figures of benchmarks/results/, anew
# make readme the tables of README.md, from benchmarks/results/ and the demo
PYTHON ?= python3
# torch and torchvision go together. Another pair: make test TORCH="torch==2.12.0 torchvision==0.27.0"
TORCH ?= torch torchvision
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NATIVE := $(shell find csrc -type f -name '*.h' -o -type f -name '*.cpp')
PACKAGE := pyproject.toml setup.py CMakeLists.txt $(NATIVE)

.PHONY: demo test lint bench readme clean
.DELETE_ON_ERROR:

demo: .venv/.runs
	$(BIN)/svmax sweep studies/demo.yaml --out runs/demo --workers 2

test: .venv/.dev
	$(BIN)/python -m pytest

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(NATIVE)
	$(BIN)/mypy

bench: .venv/.dev
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.plot

readme: .venv/.dev
	$(BIN)/python -m benchmarks.readme

clean:
	rm -rf build dist *.egg-info svmax_ops/_C.so .venv .venvs

# Stamps: a file in .venv says what has been installed; make compares it with the files that it came from.
.venv/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "svmax_ops needs Python 3.10 or newer; choose one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) $(TORCH)
	$(PIP) 'setuptools>=77' cmake ninja
	@touch $@

.venv/.runs: .venv/.torch $(PACKAGE)
	$(PIP) --no-build-isolation --editable '.[runs]'
	@touch $@

.venv/.dev: .venv/.torch $(PACKAGE)
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@
