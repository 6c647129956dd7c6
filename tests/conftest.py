"""Backends as fixtures, and which cases are run. What cannot run here is not collected, and named at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Small matrices in a row: a second thread of the SVD that they are compared with only gets in the way, tenfold where
# two programs share the cores. Read when NumPy is loaded, which torch does too.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported: its kernels then run on the CPU
import svmax_ops
from svmax_ops import backends
from svmax_ops.backends import triton_library
from svmax_ops.ops import Functions
from tests import truth
from tests.available import BACKENDS, MISSING, here, require
from tests.combinations import APART, Combinations, choose, values

torch.set_num_threads(1)  # the fixture two_threads has more


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("svmax_ops")
    group.addoption(
        "--combinations",
        choices=["few", "rest", "all"],
        default="few",
        help="of each test's parameters: few in which any two values meet (default; tests/combinations.py says how"
        " they are chosen), the rest, or all",
    )
    group.addoption(
        "--all-interpreted",
        action="store_true",
        help="'all' of the Triton kernels without a GPU as well (an hour); else 'all' of these are few",
    )
    group.addoption(
        "--require-backends",
        metavar="NAMES",
        default="",
        help=f"fail where one of these cannot be tested here: some of {','.join(BACKENDS)}",
    )


def pytest_configure(config: pytest.Config) -> None:
    require(filter(None, config.getoption("--require-backends").split(",")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    collected = [
        item for item in items if not any(mark.args[0](values(item)) for mark in item.iter_markers("leave_out"))
    ]
    chosen = _chosen(config, collected)
    config.hook.pytest_deselected(items=[item for item in collected if item not in chosen])
    items[:] = [item for item in collected if item in chosen]
    # In the operator's own tests every warning is a failure, also one that torch gives for what we do; but torch's
    # forward-mode rules go through torch.jit.script, which torch itself deprecates.
    strict = pytest.mark.filterwarnings("error", "ignore:.torch.jit.script:FutureWarning")
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(strict, append=False)  # so that a mark at the test itself has the last word


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if MISSING:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in MISSING.items())
        terminalreporter.write_line(f"Not collected, since this machine cannot run it: {reasons}.")
    if config.getoption("--combinations") == "few":
        terminalreporter.write_line("A few combinations of each test's parameters; make test-all has the rest.")


def _chosen(config: pytest.Config, items: list[pytest.Item]) -> set[pytest.Item]:
    """What --combinations asks for."""
    wanted, all_interpreted = config.getoption("--combinations"), config.getoption("--all-interpreted")

    def at_first(item: pytest.Item) -> Combinations:
        if _interpreted(item):
            return Combinations.KINDS if item.get_closest_marker("kinds") else Combinations.ONE
        return Combinations.VALUES if item.get_closest_marker("each_value") else Combinations.PAIRS

    def at_last(item: pytest.Item) -> Combinations:
        return Combinations.VALUES if _interpreted(item) and not all_interpreted else Combinations.ALL

    first = {*choose([item for item in items if item.get_closest_marker("further") is None], at_first)}
    if wanted == "few":
        return first
    return {*choose(items, at_last)} - first if wanted == "rest" else {*choose(items, at_last)} | first


def _interpreted(item: pytest.Item) -> bool:
    """Run by Triton's interpreter."""
    return triton_library.INTERPRETED and "triton" in [values(item).get(name) for name in APART]


@contextmanager
def _on_host() -> Iterator[None]:
    """CPU tensors are served by the CUDA sources as built for the host: by truth.kernels, and by the functions too."""
    from tests.host import library

    library.load()  # compiles it when it is first wanted
    functions = Functions("svmax_host")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth, "kernels", torch.ops.svmax_host)
        patch.setattr(backends, "choose", lambda function, x: functions)
        yield


@contextmanager
def _on(backend: str) -> Iterator[str]:
    """The backend is chosen and new tensors, those of truth.py too, are made on the device that it serves."""
    if backend in MISSING:
        pytest.fail(f"backend {backend}: {MISSING[backend]}")
    if backend == "host":
        with _on_host():
            yield backend
        return
    on_gpu = backend == "cuda" or (backend == "triton" and not triton_library.INTERPRETED)
    torch.set_default_device("cuda" if on_gpu else None)
    try:
        # Triton's interpreter is NumPy, which warns where a kernel computes with NaN or inf.
        with svmax_ops.use_backend(backend), pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
            if backend in ("triton", "reference"):
                patch.setattr(truth, "kernels", getattr(torch.ops, f"svmax_{backend}"))
            yield backend
    finally:
        torch.set_default_device(None)


@pytest.fixture(params=here(*BACKENDS))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test that takes it runs on each backend."""
    with _on(request.param) as name:
        yield name


@pytest.fixture(params=here("cpu", "cuda"))
def native(request: pytest.FixtureRequest) -> Iterator[str]:
    """For what the native libraries alone promise, whose kernels are the ops of torch.ops.svmax: on each of them."""
    with _on(request.param) as name:
        yield name


@pytest.fixture(params=here("cpu", "cuda", "host", "triton"))
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """truth.kernels are the ops of each library: CPU, CUDA, the CUDA sources as built for the host, and Triton."""
    with _on(request.param) as name:
        yield name


@pytest.fixture(params=here("cpu", "cuda", "host", "triton", "reference"))
def ops(request: pytest.FixtureRequest) -> Iterator[str]:
    """truth.kernels are the ops of each namespace: those of every library of kernels, and those by torch.linalg."""
    with _on(request.param) as name:
        yield name


@pytest.fixture
def two_threads() -> Iterator[None]:
    """torch's pool with two threads, whatever the machine's default."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
