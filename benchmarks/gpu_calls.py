"""Every op on every kernel a GPU has, once: what benchmarks.gpu_check runs under compute-sanitizer.

compute-sanitizer --tool racecheck python -m benchmarks.gpu_calls
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor

import svmax_ops

# n on both sides of every size that a kernel is made for, and beyond them all; b < d, batches, one row.
SHAPES = (
    *((b, d) for n in (3, 16, 17, 32, 33, 64, 65, 128, 129, 200, 400) for b, d in ((n + 9, n), (n, n + 9))),
    *((1, 5), (5, 1), (5, 6, 4), (3, 70, 40), (2, 3, 144, 128), (1030, 24)),
)
FUNCTIONS = (svmax_ops.nuclear_norm, svmax_ops.svdvals)


def inputs(device: str) -> Iterator[Tensor]:
    """Each shape, in a type and with strides that change from one to the next."""
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    for i, shape in enumerate(SHAPES):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(i)).to(device, dtypes[i % len(dtypes)])
        yield x if i % 2 else x.mT.contiguous().mT


def call(x: Tensor) -> None:
    """Forward alone, then forward and backward, of every function, with every option once."""
    for function in FUNCTIONS:
        for options in ({"normalize": True, "center": False}, {"normalize": False, "center": True}):
            function(x, **options)
            wanted = x.detach().requires_grad_()
            function(wanted, **options).sum().backward()


def main() -> int:
    if not torch.cuda.is_available():
        print(f"gpu_calls: torch {torch.__version__} sees no GPU here.", file=sys.stderr)
        return 2
    for backend in ("cuda", "triton"):
        with svmax_ops.use_backend(backend):
            for x in inputs("cuda"):
                call(x)
    torch.cuda.synchronize()
    print(f"{len(SHAPES)} shapes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
