"""The Triton backend's own promises: one set of ops, results whatever the blocks, code for GPUs that are not here."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import svmax_ops
from svmax_ops.backends import NAMED, triton_library
from tests import truth

ROOT = Path(__file__).parents[1]
if triton_library.missing() is not None:
    pytest.skip(str(triton_library.missing()), allow_module_level=True)
launch, products, rows = (
    importlib.import_module(f"svmax_ops.backends.triton.{name}") for name in ("launch", "products", "rows")
)
targets = importlib.import_module("benchmarks.triton_compile")


@pytest.fixture
def triton_kernels():
    """Its tensors are on the GPU, if there is one."""
    torch.set_default_device(None if triton_library.INTERPRETED else "cuda")
    with svmax_ops.use_backend("triton"), np.errstate(all="ignore"):
        yield
    torch.set_default_device(None)


def step(x: torch.Tensor, **options: bool) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    value = svmax_ops.nuclear_norm(x, **options)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


@pytest.mark.usefixtures("triton_kernels")
@pytest.mark.parametrize("shape", [(40, 24), (24, 70), (80, 67)], ids=str)
def test_the_blocks_of_a_gpu_and_of_the_interpreter_give_one_result(monkeypatch, shape):
    """The interpreter's tests are of larger blocks than a GPU's, which it would take minutes to go through."""
    x = truth.random(*shape)
    results = []
    for blocks in (launch.ON_GPU, launch.INTERPRETED if triton_library.INTERPRETED else launch.ON_GPU):
        monkeypatch.setattr(launch, "BLOCKS", blocks)
        results.append(step(x, normalize=True, center=True))
    (value, dx), (other_value, other_dx) = results
    torch.testing.assert_close(value, other_value, rtol=1e-7, atol=0)
    torch.testing.assert_close(dx, other_dx, rtol=0, atol=1e-7 * dx.abs().max().item())
    e = truth.embedding(truth.to_numpy(x), normalize=True, center=True)
    assert value.item() == pytest.approx(np.linalg.svd(e, compute_uv=False).sum(), rel=2e-7)


@pytest.mark.usefixtures("triton_kernels")
@pytest.mark.parametrize("shapes", [((2, 9, 5000), (2, 5000, 7)), ((1, 300, 3), (1, 3, 270)), ((3, 1, 1), (3, 1, 1))])
def test_products_of_any_shape(shapes):
    left, right = (truth.random(*shape, dtype=torch.float64, seed=i) for i, shape in enumerate(shapes))
    torch.testing.assert_close(products.multiply(left, right), left @ right, rtol=0, atol=1e-12)
    torch.testing.assert_close(products.multiply(right.mT, left.mT), right.mT @ left.mT, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("triton_kernels")
@pytest.mark.parametrize("dtype", truth.HALF, ids=str)
def test_every_finite_half_precision_number_is_read_exactly(dtype):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x = bits.view(dtype).nan_to_num(0, 0, 0).view(1, 256, 256)  # inf and NaN: test_functional.py
    read = rows.launch_embed(rows.rows_of(x, normalize=False, center=False))
    assert torch.equal(read, x.double())


@pytest.mark.usefixtures("triton_kernels")
@pytest.mark.parametrize("noise", [1e-5, 1e-6, 1e-7])
def test_the_operator_keeps_what_its_gram_matrix_has_lost(noise):
    """Where the stage `spectral`, which has the Gram matrix alone, is off by 1e-6 and more."""
    x = truth.random(1, 32).double() + noise * truth.random(40, 32, dtype=torch.float64, seed=1)
    value, dx = step(x.float(), normalize=True)
    e = truth.embedding(truth.to_numpy(x.float()), normalize=True)
    assert value.item() == pytest.approx(np.linalg.svd(e, compute_uv=False).sum(), rel=2e-7)
    _, weight, _, _ = torch.ops.svmax_triton.objective(
        x.float(), objective="nuclear_norm", normalize=True, center=False, need_gradient=True
    )
    assert truth.polar_error(e @ truth.to_numpy(weight), e).excess <= truth.POLAR_EXCESS
    assert dx.isfinite().all()


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (None, "Triton is not installed; pip install triton"),
        ("3.5.1", "Triton 3.5.1 is too old; the kernels need 3.6 or newer"),
        ("2.1.0+rocm6", "Triton 2.1.0+rocm6 is too old; the kernels need 3.6 or newer"),
        ("3.6.0", None),
        ("4.0", None),
    ],
)
def test_a_missing_or_old_triton_is_one_sentence(monkeypatch, found, sentence):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found and object())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: found)
    assert triton_library.missing() == sentence


def test_an_unavailable_triton_is_told_and_auto_goes_without(monkeypatch):
    monkeypatch.setattr(NAMED["triton"], "missing_library", "Triton is not installed; pip install triton")
    assert svmax_ops.available_backends()["triton"] == "Triton is not installed; pip install triton"
    x = torch.ones(4, 3)
    with svmax_ops.use_backend("triton"), pytest.raises(RuntimeError, match="'triton' is not available: Triton is not"):
        svmax_ops.nuclear_norm(x)
    assert svmax_ops.nuclear_norm(x).item() == pytest.approx(12**0.5)


# Of each maker the newest; the others differ in how many registers and in what tensor cores they have.
@pytest.mark.parametrize(
    "target", [t if t in ("sm_100", "gfx942") else pytest.param(t, marks=pytest.mark.further) for t in targets.TARGETS]
)
def test_every_kernel_compiles_for_every_gpu_without_spills_by_tensor_cores(tmp_path, target):
    """No GPU is needed: what the compilers say and the instructions in the code that they make."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.triton_compile", "--targets", target]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for dtype in ("", " bfloat16"):  # Triton's way to a product depends on what x was loaded as
        assert re.search(rf"\| objective 64 tall{dtype} +\| {target} ", done.stdout)
