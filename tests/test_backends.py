"""Choosing a backend: context manager, decorator, nested, per thread, environment."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import svmax_ops
from svmax_ops import available_backends, svmax_loss, use_backend


class OpNames(TorchDispatchMode):
    """Collects the namespaces of the ops that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.namespaces: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.namespaces.add(func.namespace)
        return func(*args, **(kwargs or {}))


def served_by() -> str:
    """Which backend serves a CPU tensor now, seen from the ops that run."""
    with OpNames() as ops:
        svmax_loss(torch.eye(4))
    names = {"svmax": "cpu", "svmax_triton": "triton"}
    return next((name for namespace, name in names.items() if namespace in ops.namespaces), "reference")


def test_the_native_library_is_here():
    """Every other test of the cpu backend skips without it, so this one must not."""
    assert available_backends()["cpu"] == "ok"


def test_every_backend_is_listed_with_ok_or_a_reason():
    backends = available_backends()
    assert set(backends) == {"cpu", "cuda", "triton", "reference"}
    assert backends["reference"] == "ok"
    assert all(reason == "ok" or len(reason.split()) > 3 for reason in backends.values())


def test_auto_takes_the_native_library_where_it_serves():
    assert served_by() == "cpu"


def test_use_backend_as_context_manager_nests_and_ends():
    with use_backend("reference"):
        assert served_by() == "reference"
        with use_backend("cpu"):
            assert served_by() == "cpu"
            with use_backend("auto"):
                assert served_by() == "cpu"
        assert served_by() == "reference"
    assert served_by() == "cpu"


def test_use_backend_ends_with_an_exception():
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert served_by() == "cpu"


def test_use_backend_as_decorator():
    @use_backend("reference")
    def decorated(depth: int) -> str:
        return served_by() if depth == 0 else decorated(depth - 1)

    assert decorated(0) == decorated(3) == "reference"
    assert served_by() == "cpu"


def test_one_use_backend_may_be_entered_again():
    reference = use_backend("reference")
    for _ in range(2):
        with reference, reference:
            assert served_by() == "reference"
        assert served_by() == "cpu"


@pytest.mark.processes
def test_use_backend_is_of_one_thread():
    seen = {}
    entered, asked = threading.Event(), threading.Event()

    def other() -> None:
        with use_backend("reference"):
            entered.set()
            assert asked.wait(600)
            seen["other"] = served_by()

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(600)
    seen["here"] = served_by()
    asked.set()
    thread.join()
    assert seen == {"other": "reference", "here": "cpu"}


def test_the_backward_runs_where_the_forward_ran():
    """autograd's backward may start outside the context manager."""
    x = torch.eye(4, requires_grad=True)
    with use_backend("reference"):
        loss = svmax_loss(x)
    with OpNames() as ops:
        loss.backward()
    assert "svmax" not in ops.namespaces


def assert_recomputed_on(backend: str, forward, around_backward) -> None:
    """``forward(loss_of)`` is a loss with a checkpoint in it; its backward runs the ops of ``backend`` again."""
    x = torch.randn(8, 5, requires_grad=True)
    calls = []

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        calls.append(served_by())
        return svmax_loss(x * 1) * 2

    loss = forward(loss_of, x)
    with around_backward:
        loss.backward()
    assert calls == [backend, backend]
    (expected,) = torch.autograd.grad(svmax_loss(x) * 2, x)
    torch.testing.assert_close(x.grad, expected, rtol=1e-5, atol=1e-7)


either_way = pytest.mark.parametrize("use_reentrant", [False, True], ids=["without reentrant", "reentrant"])


@either_way
@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_a_checkpoint_begun_inside_is_recomputed_on_its_backend_outside(name, use_reentrant):
    def forward(loss_of, x):
        with use_backend(name):
            return checkpoint(loss_of, x, use_reentrant=use_reentrant)

    assert_recomputed_on(name, forward, nullcontext())


@either_way
def test_a_checkpoint_begun_outside_is_recomputed_as_outside(use_reentrant):
    def forward(loss_of, x):
        return checkpoint(loss_of, x, use_reentrant=use_reentrant)

    assert_recomputed_on("cpu", forward, use_backend("reference"))


@either_way
def test_a_block_within_a_checkpoint_is_opened_again(use_reentrant):
    def forward(loss_of, x):
        def part(x):
            assert served_by() == "cpu"
            with use_backend("reference"):
                return loss_of(x)

        return checkpoint(part, x, use_reentrant=use_reentrant)

    assert_recomputed_on("reference", forward, nullcontext())


def test_a_checkpoint_in_a_checkpoint_is_recomputed_on_its_backend():
    x = torch.randn(8, 5, requires_grad=True)
    calls = []

    def inner(x):
        calls.append(served_by())
        return svmax_loss(x * 1)

    def outer(x):
        return checkpoint(inner, x * 2, use_reentrant=False) * 2

    with use_backend("reference"):
        loss = checkpoint(outer, x, use_reentrant=False)
    loss.backward()
    assert len(calls) > 1
    assert set(calls) == {"reference"}


SCRIPT = """
import torch, svmax_ops, sys
from torch.utils._python_dispatch import TorchDispatchMode
class Names(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        print(func.namespace)
        return func(*args, **(kwargs or {}))
with Names():
    svmax_ops.svmax_loss(torch.eye(4))
"""


def run_with_environment(backend: str) -> subprocess.CompletedProcess[str]:
    chosen = {"SVMAX_BACKEND": backend, "TRITON_INTERPRET": "0"}
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, **chosen, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("backend", "native"), [("reference", False), ("cpu", True), pytest.param("", True, marks=pytest.mark.further)]
)
def test_the_environment_sets_the_default(backend, native):
    result = run_with_environment(backend)
    assert result.returncode == 0, result.stderr
    assert ("svmax" in result.stdout.split()) == native


@pytest.mark.processes
def test_the_environment_is_checked_when_a_function_is_called_first():
    result = run_with_environment("nonsense")
    assert result.returncode != 0
    assert "in svmax_loss" in result.stderr
    message = "svmax_loss: SVMAX_BACKEND: unknown backend 'nonsense'; accepted: auto, cpu, cuda, triton, reference."
    assert result.stderr.endswith(f"ValueError: {message}\n")


@pytest.mark.processes
def test_the_environment_asks_by_name():
    result = run_with_environment("triton")
    assert result.returncode != 0
    if torch.cuda.is_available():
        assert "'triton' serves CUDA and XPU tensors, got one on cpu" in result.stderr
    else:
        assert "'triton' is not available: torch sees no GPU here" in result.stderr


def test_public_names():
    assert set(svmax_ops.__all__) <= set(dir(svmax_ops))
    assert {"svmax_loss", "mean_singular_value", "nuclear_norm", "svdvals", "singular_value_bounds", "spectrum"} <= set(
        svmax_ops.__all__
    )
