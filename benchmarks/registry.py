"""What is measured: the cases, and the providers that take turns on each; more of both for a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

import svmax_ops
from benchmarks.matrices import matrices

PEER = "torch.linalg.svdvals"
MODES = ("forward", "forward+backward")


@dataclass(frozen=True)
class Case:
    """One shape of input. ``why`` says who meets it."""

    name: str
    shape: tuple[int, ...]
    why: str
    dtype: str = "float32"
    spectrum: str = "random"

    def input(self) -> Tensor:
        return torch.from_numpy(matrices(self.spectrum, *self.shape)).to(getattr(torch, self.dtype))


CASES = (
    Case("144x128", (144, 128), "the paper's retrieval batch with an embedding of 128"),
    Case("288x256", (288, 256), "the paper's large batch"),
    Case("1024x128", (1024, 128), "a large batch of small embeddings: the Gram matrix is the work"),
    Case("512x512", (512, 512), "square: the decomposition is the work"),
    Case("32x16", (32, 16), "so small that the calls themselves are the cost"),
    Case("64 of 64x32", (64, 64, 32), "many matrices at once"),
    Case("144x128 collapse 1e-4", (144, 128), "where the regularizer matters", spectrum="collapse 1e-4"),
    Case("144x128 collapse 1e-6", (144, 128), "nearly rank one", spectrum="collapse 1e-6"),
    Case("1024x128 collapse 1e-4", (1024, 128), "where the regularizer matters", spectrum="collapse 1e-4"),
    Case("1024x128 collapse 1e-6", (1024, 128), "nearly rank one", spectrum="collapse 1e-6"),
)
# In the order in which they are measured: a time limit leaves out the last ones.
GPU_CASES = (
    CASES[0],
    Case("1000 of 64x32", (1000, 64, 32), "many matrices at once"),
    *(case for case in CASES[1:] if case.name in ("1024x128", "288x256", "32x16", "144x128 collapse 1e-6", "512x512")),
    Case("65536x128", (65536, 128), "a whole data set: reading it is the work"),
    Case("100000 of 8x4", (100_000, 8, 4), "more matrices than a grid has blocks in two of its dimensions"),
)


@dataclass(frozen=True)
class Provider:
    """One way to a number; ``normalized`` says of what rows, so that its error is measured against the right truth."""

    name: str
    forward: Callable[[Tensor], Tensor]
    objective: Callable[[Tensor], Tensor]
    """What is differentiated, with the row normalisation where the loss has one; a scalar."""
    value: Callable[[Tensor], Tensor]
    """``objective`` of float64 input, by torch.linalg alone: the truth."""
    loops: bool = False
    """Takes the matrices of a batch one by one, on the host."""


def normalized_svdvals(x: Tensor) -> Tensor:
    return torch.linalg.svdvals(F.normalize(x, dim=-1)).sum()


def bounded_loss(x: Tensor) -> Tensor:
    """Eq. 4 on torch.linalg: only to have a truth for the error."""
    b, d = x.shape[-2:]
    lower, upper = math.sqrt(b) / d, math.sqrt(min(b, d) * b) / d
    mean = torch.linalg.svdvals(F.normalize(x, dim=-1)).sum(-1) / d
    return torch.exp((upper - mean) / (upper - lower)).sum()


PROVIDERS = (
    # The peer comes first: ratio = peer / provider.
    Provider(PEER, torch.linalg.svdvals, normalized_svdvals, normalized_svdvals),
    Provider("svmax_loss", svmax_ops.svmax_loss, lambda x: _scalar(svmax_ops.svmax_loss(x)), bounded_loss),
    Provider(
        "nuclear_norm",
        svmax_ops.nuclear_norm,
        lambda x: _scalar(svmax_ops.nuclear_norm(x, normalize=True)),
        normalized_svdvals,
    ),
    Provider("svdvals", svmax_ops.svdvals, lambda x: svmax_ops.svdvals(x, normalize=True).sum(), normalized_svdvals),
)


def _with_driver(driver: str) -> tuple[Provider, Provider]:
    """cuSOLVER's ways to an SVD, which torch lets a user choose from."""

    def svdvals(x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x, driver=driver)

    def svd(x: Tensor) -> Tensor:
        return torch.linalg.svd(x, full_matrices=False, driver=driver)[1]

    return tuple(
        Provider(
            f"torch.linalg.{function.__name__} {driver}",
            function,
            lambda x, function=function: function(F.normalize(x, dim=-1)).sum(),
            normalized_svdvals,
            loops=driver == "gesvd",
        )
        for function in (svdvals, svd)
    )


def _gram_eigvalsh(x: Tensor) -> Tensor:
    full = x.double()
    gram = full.mT @ full if x.shape[-2] >= x.shape[-1] else full @ full.mT
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()


TRITON = "svmax_loss, triton"
_on_triton = svmax_ops.use_backend("triton")(svmax_ops.svmax_loss)
GPU_PROVIDERS = (
    *PROVIDERS,
    Provider(TRITON, _on_triton, lambda x: _scalar(_on_triton(x)), bounded_loss),
    *(provider for driver in ("gesvd", "gesvdj", "gesvda") for provider in _with_driver(driver)),
    Provider(
        "eigvalsh of the float64 Gram matrix",
        _gram_eigvalsh,
        lambda x: _gram_eigvalsh(F.normalize(x, dim=-1)).sum(),
        normalized_svdvals,
    ),
)
CAPTURED = ("svmax_loss", "nuclear_norm", TRITON)  # those that a CUDA graph can hold; torch's wait for the host


def _scalar(value: Tensor) -> Tensor:
    """A single matrix gives a scalar as it is: no call that a user would not make."""
    return value.sum() if value.dim() else value
