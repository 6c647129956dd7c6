"""csrc/contracts.h says what is wrong with an argument in shapes, dtypes and devices, for every kernel alike."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

import svmax_ops  # noqa: F401  (loads the kernels of the CPU)
from tests import truth
from tests.host import library

OPTIONS = {"objective": "nuclear_norm", "normalize": True, "center": False}
CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


@pytest.fixture(scope="module", params=["svmax", "svmax_host"])
def ops(request: pytest.FixtureRequest) -> Any:
    if request.param == "svmax_host":
        library.load()
    return getattr(torch.ops, request.param)


@pytest.fixture(scope="module")
def arguments(ops: Any) -> dict[str, torch.Tensor]:
    """What the backward takes for x [2, 8, 3]."""
    with torch.inference_mode():
        x = truth.random(2, 8, 3).clone()
        value, weight, in_float32, norms = ops.objective(x, **OPTIONS, need_gradient=True)
    return {"grad": value, "x": x, "weight": weight, "in_float32": in_float32, "row_norms": norms}


BAD = {  # name -> (argument, what becomes of it, what the error says)
    "one_grad_less": ("grad", lambda t: t[:1], "grad must be [2] in float32 or float64, got [1] in float32"),
    "grad_of_integers": ("grad", lambda t: t.long(), "grad must be [2] in float32 or float64, got [2] in int64"),
    "grad_with_a_dimension_more": (
        *("grad", lambda t: t[:, None]),
        "grad must be [2] in float32 or float64, got [2, 1] in float32",
    ),
    "flat_weight": (
        *("weight", torch.flatten),
        "weight must be [2, 3, 3] in float64, as the forward op returned it; got [18] in float64",
    ),
    "weight_in_float32": (
        *("weight", torch.Tensor.float),
        "weight must be [2, 3, 3] in float64, as the forward op returned it; got [2, 3, 3] in float32",
    ),
    "no_precision": (
        *("in_float32", lambda t: t[:, :0]),
        "in_float32 must be [2, 1] in bool, as the forward op returned it; got [2, 0] in bool",
    ),
    "precision_of_bytes": (
        *("in_float32", torch.Tensor.byte),
        "in_float32 must be [2, 1] in bool, as the forward op returned it; got [2, 1] in uint8",
    ),
    "no_row_norms": (
        *("row_norms", lambda t: t[:, :0]),
        "row_norms must be [2, 8] in float64, as the forward op returned it; got [2, 0] in float64",
    ),
    "grad_elsewhere": ("grad", lambda t: t.to("meta"), "grad must be on x's device cpu, got meta"),
    "weight_elsewhere": ("weight", lambda t: t.to("meta"), "weight must be on x's device cpu, got meta"),
    "precision_elsewhere": ("in_float32", lambda t: t.to("meta"), "in_float32 must be on x's device cpu, got meta"),
    "row_norms_elsewhere": ("row_norms", lambda t: t.to("meta"), "row_norms must be on x's device cpu, got meta"),
}


@pytest.mark.parametrize("bad", BAD)
def test_backward_says_the_shape_dtype_or_device_that_it_takes(ops, arguments, bad):
    name, change, said = BAD[bad]
    with torch.inference_mode():
        given = {**arguments, name: change(arguments[name])}
        with pytest.raises(RuntimeError, match=re.escape(f"svmax::backward: {said}")):
            # Past the dispatcher, which would take a tensor of another device to that device's kernel.
            ops.backward.default.redispatch(CPU, *given.values(), **OPTIONS)


@pytest.mark.parametrize(
    ("gram", "given"),
    [
        (torch.eye(4), "[4, 4] in float32"),
        (torch.ones(4, 3, dtype=torch.float64), "[4, 3] in float64"),
        (torch.ones(4, dtype=torch.float64), "[4] in float64"),
        (torch.ones(2, 0, 0, dtype=torch.float64), "[2, 0, 0] in float64"),
    ],
    ids=["float32", "not square", "one dimension", "empty"],
)
def test_spectral_says_the_shape_and_dtype_that_it_takes(ops, gram, given):
    said = f"svmax::spectral: gram must be [..., n, n] with n >= 1 in float64, got {given}"
    with torch.inference_mode(), pytest.raises(RuntimeError, match=re.escape(said)):
        ops.spectral(gram.clone(), need_inverse_sqrt=True)
