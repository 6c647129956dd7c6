"""Checks of values and gradients over the ranks against one process with all rows: plain NumPy, as tests/truth.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import svmax_ops
from svmax_ops import SVMaxLoss, mean_singular_value, nuclear_norm, svmax_loss
from tests import truth

FUNCTIONS = {
    "nuclear_norm": nuclear_norm,
    "mean_singular_value": mean_singular_value,
    "svmax_loss": svmax_loss,
    "svmax_loss_unbounded": lambda x, **options: svmax_loss(x, bounded=False, **options),
}
BACKENDS = ("cpu", "reference")
# rows of each of 4 ranks, d
SHARES = {
    "even": ((8, 8, 8, 8), 8),
    "uneven": ((3, 14, 1, 9), 8),
    "two ranks without rows": ((0, 13, 0, 12), 8),
    "all ranks below d": ((7, 8, 9, 10), 24),
    "all ranks together below d": ((4, 0, 3, 5), 24),
    "a paper's batch": ((36, 36, 30, 42), 128),
}
# Error of the gradient as a whole, for random input, relative to what it is before the rows' own directions are taken
# off: P is good to 2e-6 (truth.polar_tolerance), and the result is rounded to its type.
GRADIENT_RTOL = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 2e-6, torch.float64: 1e-11}


def gathered(x: Any) -> list[Any]:
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, x)
    return parts


def over_ranks(x: torch.Tensor, rows: tuple[int, ...], name: str, **options: Any) -> tuple[torch.Tensor, np.ndarray]:
    """The value, the same bits on every rank, and the gradient of all rows as averaging gives it."""
    local = x.split(rows, -2)[dist.get_rank()].clone().requires_grad_()
    value = FUNCTIONS[name](local, **options, group=dist.group.WORLD)
    for other in gathered(value.detach()):
        torch.testing.assert_close(other, value.detach(), rtol=0, atol=0, equal_nan=True)
    value.sum().backward()
    assert local.grad.shape == local.shape
    assert local.grad.dtype == local.dtype
    return value.detach(), np.concatenate([truth.to_numpy(part) for part in gathered(local.grad)], -2) / len(rows)


def assert_as_one_process(x: torch.Tensor, rows: tuple[int, ...], name: str, normalize: bool, center: bool) -> None:
    value, gradient = over_ranks(x, rows, name, normalize=normalize, center=center)
    full = truth.to_numpy(x)
    expected, slope = truth.value(full, name, normalize, center), truth.slope(full, name, normalize, center)
    norms = truth.value(full, "nuclear_norm", normalize, center)
    assert value.dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
    tolerance = truth.NUCLEAR_RTOL[x.dtype] * (np.abs(slope) * norms + np.abs(expected))
    assert (np.abs(truth.to_numpy(value) - expected) <= tolerance).all()
    assert_gradient(gradient, full, name, normalize, center, GRADIENT_RTOL[x.dtype])


def assert_gradient(
    gradient: np.ndarray, x: np.ndarray, name: str, normalize: bool, center: bool, tolerance: float
) -> None:
    p = truth.slope(x, name, normalize, center)[..., None, None] * truth.polar_factor(
        truth.embedding(x, normalize, center)
    )
    norms = truth.row_norms(x) if normalize else np.ones((*x.shape[:-1], 1))
    wanted = truth.through_rows(x, p, normalize, center)
    error = np.linalg.norm((gradient - wanted) * norms) / np.linalg.norm(p)
    assert error <= tolerance, (x.shape, name, normalize, center, error)


def every_function_flag_dtype_and_backend(rank: int, world: int) -> None:
    for dtype in truth.DTYPES:
        x = truth.random(24, 8, dtype=dtype)
        for backend in BACKENDS:
            for name in FUNCTIONS:
                for options in truth.OPTIONS.values():
                    with svmax_ops.use_backend(backend):
                        assert_as_one_process(x, (5, 9, 0, 10), name, **options)


def every_way_to_share_rows(rank: int, world: int) -> None:
    for rows, d in SHARES.values():
        for dtype in (torch.float32, torch.float64):
            for options in truth.OPTIONS.values():
                assert_as_one_process(truth.random(sum(rows), d, dtype=dtype), rows, "svmax_loss", **options)


def batch_dimensions(rank: int, world: int) -> None:
    for dtype in (torch.float32, torch.float64):
        for options in truth.OPTIONS.values():
            assert_as_one_process(truth.random(2, 3, 20, 6, dtype=dtype), (2, 7, 0, 11), "svmax_loss", **options)
            assert_as_one_process(truth.random(2, 10, 16, dtype=dtype), (2, 3, 1, 4), "svmax_loss", **options)


def strided_rows(rank: int, world: int) -> None:
    assert_as_one_process(truth.random(8, 30).mT[:, ::2], (3, 14, 1, 12), "svmax_loss", True, False)


def every_spectrum(rank: int, world: int) -> None:
    """The whole accuracy table, rank-deficient and collapsed matrices too, and in both directions of b and d."""
    for dtype in (torch.float32, torch.float64):
        for spectrum in truth.spectra().values():
            for x in (spectrum, spectrum[:64]):
                x = torch.from_numpy(x).to(dtype)
                rows = (20, 30, 0, len(x) - 50)
                value, p = over_ranks(x, rows, "nuclear_norm")
                e = truth.to_numpy(x)
                s = np.linalg.svd(e, compute_uv=False)
                assert abs(value.item() / s.sum() - 1) <= truth.NUCLEAR_RTOL[dtype]
                error = truth.polar_error(p, e)
                assert error.in_directions <= truth.polar_tolerance(s, dtype)
                assert error.excess <= truth.POLAR_EXCESS


def collapsed_embeddings(rank: int, world: int) -> None:
    """Where the regularizer matters: the loss and the length of its gradient as one process has them."""
    for noise in (1e-1, 1e-2, 1e-3):
        x = (truth.random(1, 16) + noise * truth.random(30, 16, seed=1)).float()
        for center in (False, True):
            value, gradient = over_ranks(x, (9, 2, 0, 19), "svmax_loss", normalize=True, center=center)
            full = truth.to_numpy(x)
            assert abs(value.item() - truth.value(full, "svmax_loss", True, center)) <= 1e-6
            assert_gradient(gradient, full, "svmax_loss", True, center, 2e-6)


def collapsed_and_centred_with_fewer_rows_than_dimensions(rank: int, world: int) -> None:
    """Promised: 1e-5 where the condition number, here 3 to 9, is below 1e4. float64 is limited by that of E itself."""
    for backend in BACKENDS:
        for rows in ((9, 2, 0, 13), (14, 5, 7, 6)):
            for noise in (1e-2, 1e-4, 1e-6):
                for dtype in (torch.float32, torch.float64):
                    x = (truth.random(1, 32) + noise * truth.random(sum(rows), 32, seed=1)).to(dtype)
                    full = truth.to_numpy(x)
                    tolerance = 1e-14 / noise if dtype == torch.float64 else 1e-6
                    for normalize in (False, True):
                        with svmax_ops.use_backend(backend):
                            _, gradient = over_ranks(x, rows, "svmax_loss", normalize=normalize, center=True)
                        assert_gradient(gradient, full, "svmax_loss", normalize, True, tolerance)


def zero_rows_get_a_zero_gradient(rank: int, world: int) -> None:
    x = truth.random(20, 8)
    x[::4] = 0
    for backend in BACKENDS:
        with svmax_ops.use_backend(backend):
            for center in (False, True):
                _, gradient = over_ranks(x, (6, 1, 7, 6), "svmax_loss", normalize=True, center=center)
                assert (gradient[::4] == 0).all()
                assert (np.abs(gradient[1::4]).max(-1) > 0).all()


def rows_of_any_size(rank: int, world: int) -> None:
    x = truth.random(20, 8, dtype=torch.float64) * torch.logspace(-30, 30, 20, dtype=torch.float64)[:, None]
    small = truth.to_numpy(x.float())
    for center in (False, True):
        value, gradient = over_ranks(x.float(), (6, 1, 7, 6), "svmax_loss", normalize=True, center=center)
        assert abs(value.item() - truth.value(small, "svmax_loss", True, center)) <= 1e-6
        assert_gradient(gradient, small, "svmax_loss", True, center, 2e-6)


def nan_stays_in_its_matrix(rank: int, world: int) -> None:
    for dtype in (torch.float32, torch.float64):
        for backend in BACKENDS:
            for options in truth.OPTIONS.values():
                x = truth.random(3, 20, 8, dtype=dtype)
                with svmax_ops.use_backend(backend):
                    clean, before = over_ranks(x, (6, 1, 7, 6), "svmax_loss", **options)
                    x[1, 9, 3] = math.nan
                    value, gradient = over_ranks(x, (6, 1, 7, 6), "svmax_loss", **options)
                assert torch.equal(value[::2], clean[::2])
                assert np.array_equal(gradient[::2], before[::2])
                assert value[1].isnan()
                assert np.isnan(gradient[1]).all()


def the_module_is_weight_times_the_function(rank: int, world: int) -> None:
    x = truth.random(2, 5 + rank, 8, seed=rank)
    options = {"bounded": False, "center": True, "group": dist.group.WORLD}
    assert torch.equal(SVMaxLoss(0.5, **options)(x), 0.5 * svmax_loss(x, **options).mean())
    assert repr(SVMaxLoss(group=dist.group.WORLD)).endswith("center=False, group=<ranks: 4>)")


def a_part_of_the_ranks(rank: int, world: int) -> None:
    x = truth.random(20, 8)
    group = dist.new_group([1, 3])
    if rank in (1, 3):
        value = svmax_loss(x[:5] if rank == 1 else x[5:], group=group)
        torch.testing.assert_close(value, svmax_loss(x), rtol=2e-7, atol=0)


def a_group_of_one_is_this_process_alone(rank: int, world: int) -> None:
    x = truth.random(20, 8, seed=rank).requires_grad_()
    group = [dist.new_group([each]) for each in range(world)][rank]
    value = svmax_loss(x, group=group)
    torch.testing.assert_close(value, svmax_loss(x), rtol=2e-7, atol=0)
    over_group, alone = (torch.autograd.grad(v, x)[0] for v in (value, svmax_loss(x)))
    assert (over_group - alone).norm() <= 2e-6 * alone.norm()


def without_a_gradient_nothing_else_changes(rank: int, world: int) -> None:
    """Ranks may differ in whether they want a gradient: the backward does not communicate."""
    x = truth.random(20, 8).split((6, 1, 7, 6))[rank]
    value = svmax_loss(x.requires_grad_(rank % 2 == 0), group=dist.group.WORLD)
    assert value.requires_grad == (rank % 2 == 0)
    with torch.no_grad():
        assert torch.equal(svmax_loss(x, group=dist.group.WORLD), value)
    if value.requires_grad:
        value.backward()
        assert x.grad.isfinite().all()


CHECKS = [
    every_function_flag_dtype_and_backend,
    every_way_to_share_rows,
    batch_dimensions,
    strided_rows,
    every_spectrum,
    collapsed_embeddings,
    collapsed_and_centred_with_fewer_rows_than_dimensions,
    zero_rows_get_a_zero_gradient,
    rows_of_any_size,
    nan_stays_in_its_matrix,
    the_module_is_weight_times_the_function,
    a_part_of_the_ranks,
    a_group_of_one_is_this_process_alone,
    without_a_gradient_nothing_else_changes,
]
