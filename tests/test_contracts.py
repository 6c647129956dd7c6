"""Wrong input is refused before any kernel starts: the argument's name, what was given, what is accepted."""

from __future__ import annotations

import pytest
import torch

import svmax_ops
from svmax_ops import SVMaxLoss, mean_singular_value, nuclear_norm, singular_value_bounds, spectrum, svdvals, svmax_loss
from tests import truth

MODULE = SVMaxLoss()
FUNCTIONS = {  # function -> (the name its errors start with, the name of its argument)
    svmax_loss: ("svmax_loss", "embeddings"),
    mean_singular_value: ("mean_singular_value", "embeddings"),
    nuclear_norm: ("nuclear_norm", "matrix"),
    svdvals: ("svdvals", "matrix"),
    MODULE: ("SVMaxLoss", "embeddings"),
    spectrum: ("spectrum", "embeddings"),
}
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: getattr(f, "__name__", type(f).__name__))


def refusal(function, *parts: str) -> str:
    """A pattern: the function's name, its argument's name, then every part in this order."""
    return ".*".join([f"^{FUNCTIONS[function][0]}", FUNCTIONS[function][1], *parts])


@every_function
@pytest.mark.parametrize("shape", [(), (5,)], ids=str)
def test_fewer_than_two_dimensions(function, shape):
    given = r"\[5\]" if shape else r"\[\]"
    with pytest.raises(ValueError, match=refusal(function, r"\[\.\.\., b, d\]", "2 dimensions", f"got {given}")):
        function(torch.zeros(shape))


@every_function
@pytest.mark.parametrize(
    "dtype", [torch.int32, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.complex128], ids=str
)
def test_dtypes_that_are_not_floating_point(function, dtype):
    accepted = "float16, bfloat16, float32 or float64"
    with pytest.raises(TypeError, match=refusal(function, accepted, f"got {dtype}")):
        function(torch.ones(4, 3).to(dtype))


@every_function
@pytest.mark.skipif(not hasattr(torch, "float8_e4m3fn"), reason="this torch has no float8")
def test_float8_is_not_accepted(function):
    with pytest.raises(TypeError, match=refusal(function, "got torch.float8_e4m3fn")):
        function(torch.ones(4, 3).to(torch.float8_e4m3fn))


@every_function
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3), (0, 3, 0)], ids=str)
def test_no_rows_or_no_columns(function, shape):
    with pytest.raises(
        ValueError, match=refusal(function, "b >= 1 and d >= 1", rf"got \[{', '.join(map(str, shape))}\]")
    ):
        function(torch.zeros(shape))


@every_function
def test_what_is_not_a_tensor(function):
    with pytest.raises(TypeError, match=refusal(function, r"torch\.Tensor", "got list")):
        function([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(TypeError, match=refusal(function, r"torch\.Tensor", "got ndarray")):
        function(truth.random(3, 2).numpy())


@every_function
def test_sparse_tensors(function):
    with pytest.raises(TypeError, match=refusal(function, "dense", "sparse_coo")):
        function(torch.eye(3).to_sparse())


@every_function
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_nested_tensors(function, layout):
    nested = torch.nested.nested_tensor([torch.eye(3), torch.ones(5, 3)], layout=layout)
    with pytest.raises(TypeError, match=refusal(function, "dense", "nested", r"\.unbind\(\)")):
        function(nested)
    assert all(function(each) is not None for each in nested.unbind())  # the way out


@every_function
@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors:UserWarning")
def test_masked_tensors(function):
    rows = torch.tensor([True, True, True, False])
    masked = torch.masked.masked_tensor(torch.eye(4), rows[:, None].expand(4, 4))
    with pytest.raises(TypeError, match=refusal(function, "dense", "MaskedTensor", r"get_data\(\)\[rows\]")):
        function(masked)
    assert function(masked.get_data()[rows]) is not None  # the way out


@pytest.mark.parametrize("function", [svmax_loss, MODULE], ids=["svmax_loss", "SVMaxLoss"])
@pytest.mark.parametrize("shape", [(144, 1), (1, 8), (1, 1), (3, 1, 8)], ids=str)
def test_the_bounded_loss_of_a_single_direction(function, shape):
    given = rf"got \[{', '.join(map(str, shape))}\]"
    with pytest.raises(ValueError, match=refusal(function, r"min\(b, d\) >= 2", given, "U", "bounded=False")):
        function(torch.ones(shape))


def test_the_bounded_centered_loss_of_a_single_row():
    with pytest.raises(ValueError, match=r"^svmax_loss: embeddings.*b >= 2.*got \[1, 8\].*bounded=False"):
        svmax_loss(torch.ones(1, 8), center=True)


@pytest.mark.parametrize("shape", [(144, 1), (1, 8), (1, 1)], ids=str)
def test_what_the_bounded_loss_refuses_the_unbounded_takes(backend, shape):
    x = torch.full(shape, 2.0)
    assert svmax_loss(x, bounded=False).item() == pytest.approx(-(shape[0] ** 0.5) / shape[1])
    assert svmax_loss(x, bounded=False, center=True).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("b", "d", "center"), [(1, 8, False), (8, 1, False), (1, 1, False), (1, 8, True)])
def test_bounds_of_a_single_direction(b, d, center):
    with pytest.raises(ValueError, match=rf"^singular_value_bounds.*>= 2.*got \[{b}, {d}\].*U equals L"):
        singular_value_bounds(b, d, center=center)
    with pytest.raises(ValueError, match=rf"^spectrum: embeddings.*>= 2.*got \[3, {b}, {d}\].*U equals L"):
        spectrum(torch.ones(3, b, d), center=center)


@pytest.mark.parametrize(("b", "d"), [(0, 4), (4, 0), (-1, 4)])
def test_bounds_of_an_empty_batch(b, d):
    with pytest.raises(ValueError, match=f"^singular_value_bounds: b and d .*at least 1.*b={b}, d={d}"):
        singular_value_bounds(b, d)


@pytest.mark.parametrize("name", ["", "CPU", "gpu", "Reference"])
def test_an_unknown_backend(name):
    with pytest.raises(ValueError, match=f"^use_backend: unknown backend '{name}'.*auto, cpu, cuda, triton, reference"):
        svmax_ops.use_backend(name)


@every_function
def test_a_backend_asked_for_by_name_is_not_replaced(function):
    reasons = svmax_ops.available_backends()
    missing = [name for name, reason in reasons.items() if reason != "ok"]
    if not missing:
        pytest.skip("every backend is available here")
    for name in missing:
        with svmax_ops.use_backend(name), pytest.raises(RuntimeError) as raised:
            function(torch.eye(4))
        assert name in str(raised.value)
        assert reasons[name] in str(raised.value)


def test_options_are_keyword_only():
    for function in (svmax_loss, mean_singular_value, nuclear_norm, svdvals, spectrum):
        with pytest.raises(TypeError, match="positional argument"):
            function(torch.eye(4), True)
