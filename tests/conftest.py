"""Backends as a fixture: one that this machine does not have skips, and says why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

# Small matrices in a row: a second thread of the SVD that they are compared with only gets in the way, tenfold where
# two programs share the cores. Read when NumPy is loaded, which torch does.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported: its kernels then run on the CPU
import truth

import svmax_ops
from svmax_ops import backends
from svmax_ops.backends import triton_library
from svmax_ops.ops import functions_of

torch.set_num_threads(1)  # the fixture two_threads has more

BACKENDS = ("reference", "cpu", "cuda", "triton")
NATIVE = ("cpu", "cuda")  # those whose kernels are the ops of torch.ops.svmax


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-interpreted", action="store_true", help="Triton kernels without a GPU: every test (an hour)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if triton_library.INTERPRETED and not config.getoption("--all-interpreted"):
        _thin_out(config, items)
    # In the operator's own tests every warning is a failure, also one that torch gives for what we do; but torch's
    # forward-mode rules go through torch.jit.script, which torch itself deprecates.
    strict = pytest.mark.filterwarnings("error", "ignore:.torch.jit.script:FutureWarning")
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(strict, append=False)  # so that a mark at the test itself has the last word


def _thin_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Interpreted, a Triton kernel takes a second: of each test's combinations every 31st, the first among them."""
    seen: dict[object, int] = {}
    kept, left_out = [], []
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        place = 0
        if "triton" in (params.get("backend"), params.get("kernels")):
            place = seen[item.function] = seen.get(item.function, -1) + 1
        (left_out if place % 31 else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@contextmanager
def _on_host() -> Iterator[None]:
    """CPU tensors are served by the CUDA sources as built for the host: by truth.kernels, and by the functions too."""
    from host import library  # compiles it when it is first wanted

    library.load()
    functions = functions_of("svmax_host")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth, "kernels", torch.ops.svmax_host)
        patch.setattr(backends, "choose", lambda function, x: functions)
        yield


@contextmanager
def _on(backend: str) -> Iterator[str]:
    """The backend is chosen and new tensors, those of truth.py too, are made on the device that it serves."""
    if backend == "host":
        with _on_host():
            yield backend
        return
    reason = svmax_ops.available_backends()[backend]
    if reason != "ok":
        pytest.skip(f"backend {backend}: {reason}")
    on_gpu = backend == "cuda" or (backend == "triton" and not triton_library.INTERPRETED)
    torch.set_default_device("cuda" if on_gpu else None)
    try:
        # Triton's interpreter is NumPy, which warns where a kernel computes with NaN or inf.
        with svmax_ops.use_backend(backend), pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
            if backend == "triton":
                patch.setattr(truth, "kernels", torch.ops.svmax_triton)
            yield backend
    finally:
        torch.set_default_device(None)


@pytest.fixture(params=(*BACKENDS, "host"))
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test that takes it runs once on each backend."""
    with _on(request.param) as name:
        yield name


@pytest.fixture(params=NATIVE)
def native(request: pytest.FixtureRequest) -> Iterator[str]:
    """For what the native libraries alone promise: once on each."""
    with _on(request.param) as name:
        yield name


@pytest.fixture(params=(*NATIVE, "host", "triton"))
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """truth.kernels are the ops of each library: CPU, CUDA, the CUDA sources as built for the host, and Triton."""
    with _on(request.param) as name:
        yield name


@pytest.fixture
def two_threads() -> Iterator[None]:
    """torch's pool with two threads, whatever the machine's default."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
