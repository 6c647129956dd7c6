"""The ops of torch.ops.svmax, as torch.library.opcheck sees them, and the whole op against its stages."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from svmax_ops.ops import SCHEMAS
from tests import truth

pytestmark = pytest.mark.usefixtures("ops")
OBJECTIVES = ("nuclear_norm", "mean_singular_value", "svmax_loss", "svmax_loss_unbounded")
SHAPES = [(12, 5), (5, 12), (2, 8, 6), (3, 1, 6, 8)]
every_option = pytest.mark.parametrize("options", truth.OPTIONS.values(), ids=truth.OPTIONS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", truth.DTYPES, ids=str)


def calls(shape: tuple[int, ...], dtype: torch.dtype, normalize: bool, center: bool) -> dict[str, list]:
    """For each op the arguments it is called with: [(positional, keyword), ...]."""
    svmax = truth.kernels
    options = {"normalize": normalize, "center": center}
    x = truth.random(*shape, dtype=dtype)
    wanted = x.clone().requires_grad_()
    gram, _ = svmax.gram(x, **options)
    result: dict[str, list] = {
        "gram": [((x,), options)],
        "spectral": [((gram,), {"need_inverse_sqrt": need}) for need in (False, True)],
        "objective": [],
        "backward": [],
        "singular_values": [
            ((x,), {**options, "need_gradient": False}),
            ((wanted,), {**options, "need_gradient": True}),
        ],
    }
    for objective in OBJECTIVES:
        named = {**options, "objective": objective}
        value, *kept = svmax.objective(x, **named, need_gradient=True)
        grad = torch.ones_like(value)
        result["objective"] += [
            ((x,), {**named, "need_gradient": False}),
            ((wanted,), {**named, "need_gradient": True}),
        ]
        result["backward"] += [((grad, x, *kept), named)]
        result["backward"] += [((grad.clone().requires_grad_(), wanted, *kept), named)]
    values, kept, row_norms = svmax.singular_values(x, **options, need_gradient=True)
    grad = torch.ones_like(values)
    result["singular_values_backward"] = [
        ((grad, x, kept, row_norms), options),
        ((grad.clone().requires_grad_(), wanted, kept, row_norms), options),
    ]
    return result


def registered() -> set[str]:
    namespace = truth.kernels.name + "::"
    names = (schema.name for schema in torch._C._jit_get_all_schemas())
    return {name.removeprefix(namespace) for name in names if name.startswith(namespace)}


def test_every_registered_op_is_checked_here():
    assert registered() == set(calls((12, 5), torch.float32, True, False))


# opcheck itself looks at .grad of what it has made of its arguments.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@every_option
@every_dtype
@every_shape
@pytest.mark.parametrize(
    "op", ["gram", "spectral", "objective", "backward", "singular_values", "singular_values_backward"]
)
@pytest.mark.kinds
def test_opcheck(op, shape, dtype, options):
    for positional, keyword in calls(shape, dtype, **options)[op]:
        if op == "singular_values_backward" and options["center"] and shape[-2] <= shape[-1]:
            positional = (positional[0].detach(), *positional[1:])
        tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
        # Tracing takes seconds a call: float32 stands for the kernels, float64 for torch.linalg, the bounded loss for
        # every objective, whose name is nothing that a trace looks at.
        traced = dtype == torch.float32 or (dtype == torch.float64 and shape == SHAPES[0])
        if traced and shape in SHAPES[:3] and keyword.get("objective", "svmax_loss") == "svmax_loss":
            tests.append("test_aot_dispatch_dynamic")
        torch.library.opcheck(getattr(truth.kernels, op).default, positional, keyword, test_utils=tests)


@every_option
@every_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.kinds
def test_objective_is_its_stages(objective, shape, dtype, options):
    x = truth.random(*shape, dtype=dtype)
    value, weight, in_float32, row_norms = truth.kernels.objective(
        x, objective=objective, **options, need_gradient=True
    )
    full = truth.to_numpy(x)
    np.testing.assert_allclose(truth.to_numpy(value), truth.value(full, objective, **options), rtol=1e-6)
    assert weight.dtype == row_norms.dtype == torch.float64
    assert in_float32.dtype == torch.bool
    assert in_float32.shape == (*shape[:-2], 1)
    if options["normalize"]:
        np.testing.assert_allclose(truth.to_numpy(row_norms), truth.row_norms(full)[..., 0], rtol=1e-15)
    if options["center"] and shape[-2] <= shape[-1]:
        return  # G is singular: W in the direction of the mean is what it likes to be
    e = truth.embedding(full, **options)
    w = truth.to_numpy(weight)
    p = e @ w if shape[-2] >= shape[-1] else w @ e
    expected = truth.slope(full, objective, **options)[..., None, None] * truth.polar_factor(e)
    np.testing.assert_allclose(p, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@every_dtype
@every_shape
def test_without_a_gradient_nothing_is_kept(shape, dtype):
    x = truth.random(*shape, dtype=dtype)
    options = {"normalize": False, "center": False, "need_gradient": False}
    _, weight, in_float32, row_norms = truth.kernels.objective(x, objective="nuclear_norm", **options)
    assert weight.numel() == in_float32.numel() == row_norms.numel() == 0
    _, gram, row_norms = truth.kernels.singular_values(x, **options)
    assert gram.numel() == row_norms.numel() == 0


# --- what memory safety needs, for callers who skip the Python functions ---

OPTIONS = {"normalize": True, "center": False}


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.ones(4, 3, dtype=torch.int64), "float16, bfloat16, float32 or float64, got int64"),
        (torch.ones(4, 3, dtype=torch.complex64), "float16, bfloat16, float32 or float64, got complex64"),
        (torch.ones(4), r"\[\.\.\., b, d\].*got \[4\]"),
        (torch.ones(()), r"\[\.\.\., b, d\].*got \[\]"),
        (torch.ones(0, 3), r"b >= 1 and d >= 1.*\[0, 3\]"),
        (torch.ones(2, 3, 0), r"b >= 1 and d >= 1.*\[2, 3, 0\]"),
    ],
    ids=["int64", "complex64", "1 dimension", "0 dimensions", "b = 0", "d = 0"],
)
def test_ops_refuse_what_they_cannot_read(x, said):
    x = x.to(torch.get_default_device())
    with pytest.raises(RuntimeError, match=f"svmax::gram.*{said}"):
        truth.kernels.gram(x, **OPTIONS)
    with pytest.raises(RuntimeError, match=f"svmax::objective.*{said}"):
        truth.kernels.objective(x, objective="nuclear_norm", **OPTIONS)
    with pytest.raises(RuntimeError, match=f"svmax::singular_values.*{said}"):
        truth.kernels.singular_values(x, **OPTIONS)


def test_an_unknown_objective_is_refused():
    with pytest.raises(RuntimeError, match=r"svmax::objective.*objective.*median"):
        truth.kernels.objective(torch.eye(4), objective="median", **OPTIONS)
    with pytest.raises(RuntimeError, match=r"svmax::objective.*min\(b, d\) >= 2.*\[3, 1, 5\]"):
        truth.kernels.objective(torch.ones(3, 1, 5), objective="svmax_loss", **OPTIONS)


@pytest.mark.parametrize(
    "gram", [torch.eye(4), torch.ones(4, 3, dtype=torch.float64), torch.ones(4, dtype=torch.float64)], ids=str
)
def test_spectral_takes_square_float64_matrices(gram):
    gram = gram.to(torch.get_default_device())
    with pytest.raises(RuntimeError, match=rf"svmax::spectral.*gram.*{re.escape(str(list(gram.shape)))}"):
        truth.kernels.spectral(gram, need_inverse_sqrt=True)


def given(tensor: torch.Tensor) -> str:
    """A pattern of how an error names it."""
    return re.escape(f"got {list(tensor.shape)} in {str(tensor.dtype).removeprefix('torch.')}")


def test_backward_takes_what_the_forward_kept():
    x = truth.random(2, 8, 6)
    value, weight, in_float32, norms = truth.kernels.objective(
        x, objective="nuclear_norm", **OPTIONS, need_gradient=True
    )
    values, gram, _ = truth.kernels.singular_values(x, **OPTIONS, need_gradient=True)
    options = {**OPTIONS, "objective": "nuclear_norm"}
    kept = r", as the forward op returned it; "
    for bad in (weight[:1], weight.float(), weight[..., :5, :5], weight.flatten()):
        square = rf"must be \[2, 6, 6\] in float64{kept}{given(bad)}"
        with pytest.raises(RuntimeError, match=f"svmax::backward: weight {square}"):
            truth.kernels.backward(value, x, bad, in_float32, norms, **options)
        with pytest.raises(RuntimeError, match=f"svmax::singular_values_backward: gram {square}"):
            truth.kernels.singular_values_backward(values, x, bad, norms, **OPTIONS)
    for bad in (in_float32[:1], in_float32.float(), in_float32[..., 0]):
        wanted = rf"in_float32 must be \[2, 1\] in bool{kept}{given(bad)}"
        with pytest.raises(RuntimeError, match=f"svmax::backward: {wanted}"):
            truth.kernels.backward(value, x, weight, bad, norms, **options)
    for bad in (norms[:1], norms.float(), norms[..., :0]):
        wanted = rf"row_norms must be \[2, 8\] in float64{kept}{given(bad)}"
        with pytest.raises(RuntimeError, match=f"svmax::backward: {wanted}"):
            truth.kernels.backward(value, x, weight, in_float32, bad, **options)
        with pytest.raises(RuntimeError, match=f"svmax::singular_values_backward: {wanted}"):
            truth.kernels.singular_values_backward(values, x, gram, bad, **OPTIONS)
    with pytest.raises(RuntimeError, match=r"svmax::backward: grad must be \[2\] in float32 or float64, got \[1\] in"):
        truth.kernels.backward(value[:1], x, weight, in_float32, norms, **options)
    with pytest.raises(
        RuntimeError,
        match=r"svmax::singular_values_backward: grad must be \[2, 6\] in float32 or float64, got \[2, 3\]",
    ):
        truth.kernels.singular_values_backward(values[..., :3], x, gram, norms, **OPTIONS)


def test_the_python_schemas_are_those_of_the_library():
    """Word for word: a backend is exchanged for another without its callers' knowing."""
    ours = {schema.partition("(")[0]: schema for schema in SCHEMAS}
    for name, schema in ours.items():
        op = getattr(truth.kernels, name).default
        assert str(op._schema) == f"{truth.kernels.name}::{schema}"
