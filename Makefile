# make demo   everything from nothing: an environment, the package, three losses trained without and with SVMax
# make test   the same environment, every test; of the combinations of its parameters a few
# make test-all  the rest of the combinations as well, as CI does
# make test-host  the CUDA kernels on this machine's processor: every test, and that every line of them is reached
# make test-host-threads  the same sources under ThreadSanitizer
# make cuda   the CUDA kernels for every GPU architecture, or for some: make cuda CUDA_ARCHITECTURES="80 90"
# make wheel  a wheel for others in dist/, with those
# make lint   ruff, clang-format, mypy
# make bench  the speed and accuracy figures of benchmarks/results/, anew
# make readme the tables of README.md, from benchmarks/results/ and the demo
# make gpu-check  on a machine with a GPU: build for it, test on it, measure it; with the Python that is there
PYTHON ?= python3
# torch and torchvision go together. Another pair: make test TORCH="torch==2.12.0 torchvision==0.27.0"
TORCH ?= torch torchvision
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NATIVE := $(shell find csrc -type f -name '*.h' -o -type f -name '*.cpp' -o -type f -name '*.cu' -o -type f -name '*.cuh')
PACKAGE := pyproject.toml setup.py CMakeLists.txt cmake/instruction_sets.cmake $(NATIVE)

# Where nvcc is, `demo` and `test` build the CUDA kernels for this machine's GPUs alone; without a GPU, for one
# architecture, to see that they compile. Without the kernels: make test CMAKE_ARGS=-DSVMAX_CUDA=OFF
GPUS := $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u)
CMAKE_ARGS ?= '-DSVMAX_CUDA_ARCHITECTURES=$(or $(GPUS),90)'
export CMAKE_ARGS

.PHONY: demo test test-all test-host test-host-threads cuda wheel lint bench readme gpu-check clean
.DELETE_ON_ERROR:

demo: .venv/.runs
	$(BIN)/svmax sweep studies/demo.yaml --out runs/demo --workers 2

# In a process a core, up to four. What can be tested on any machine must be: a backend does not drop out unnoticed.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal \
  --require-backends cpu,host,triton
test: .venv/.dev
	$(PYTEST)

test-all: test
	$(PYTEST) --combinations rest

test-host: .venv/.dev
	$(BIN)/python -m tests.host.coverage

test-host-threads: .venv/.torch
	$(BIN)/python -m tests.host.threads

cuda: .venv/.torch
	$(BIN)/cmake -S . -B build/cuda -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	  -DPython3_EXECUTABLE=$(CURDIR)/$(BIN)/python -DSVMAX_CUDA=ON -DSVMAX_CUDA_ARCHITECTURES="$(CUDA_ARCHITECTURES)"
	$(BIN)/cmake --build build/cuda --target _C_cuda
	cp build/cuda/_C_cuda.so svmax_ops/
	@stat --format='%n: %s bytes' svmax_ops/_C_cuda.so
	@grep --text --only-matching --max-count=1 'svmax_ops for CUDA [ -~]*' svmax_ops/_C_cuda.so

wheel: .venv/.torch
	CMAKE_ARGS="'-DSVMAX_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)'" \
	  $(BIN)/python -m pip wheel --no-build-isolation --no-deps --wheel-dir dist .

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(NATIVE) $(wildcard tests/host/*.h tests/host/*.cpp tests/steps/*.cpp)
	$(BIN)/mypy

bench: .venv/.dev
	TRITON_INTERPRET=1 $(BIN)/python -m benchmarks.accuracy
	TRITON_CACHE_DIR=$$(mktemp -d) $(BIN)/python -m benchmarks.triton_compile --out benchmarks/results/triton_compile
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.plot

readme: .venv/.dev
	$(BIN)/python -m benchmarks.readme

# No environment of its own: such a machine may have no network, and has the torch that is to be checked.
gpu-check:
	$(PYTHON) -m benchmarks.gpu_check

clean:
	rm -rf build dist *.egg-info svmax_ops/_C*.so .venv .venvs

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
