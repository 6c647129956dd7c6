"""How the kernels of this package are launched: threads a program, and the blocks that they work in."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget

_VERSION = tuple(map(int, triton.__version__.split(".")[:2]))
THREADS = 256
"""Of a program."""
MOST_IN_PROGRAM, LONGEST_IN_PROGRAM = 64, 1024
"""The smaller and the larger side up to which one program takes a matrix through all stages."""


class Blocks(NamedTuple):
    """What a program works on at a time; all are powers of two."""

    rows: int  # of x
    columns: int  # of x
    side: int  # of a square tile of a product
    terms: int  # of a sum of products


ON_GPU = Blocks(rows=16, columns=64, side=32, terms=16)
INTERPRETED = Blocks(rows=256, columns=256, side=256, terms=256)
"""A step takes the interpreter the same time whatever its size."""
BLOCKS = INTERPRETED if triton.knobs.runtime.interpret else ON_GPU
HALF_IS_ROUNDED = not triton.knobs.runtime.interpret
"""The interpreter cuts off what bfloat16 does not hold, where a GPU rounds."""


def options_for(target: GPUTarget) -> dict[str, int]:
    """Of every launch. One stage: tiles of float64 numbers loaded ahead of their use do not fit in the registers."""
    options = {"num_warps": THREADS // target.warp_size, "num_stages": 1}
    if target.arch == "gfx942" and _VERSION < (3, 8):
        options["matrix_instr_nonkdim"] = 4  # no matrix instructions: the compiler fails at float64 ones for this chip
    if target.backend == "cuda":
        options["maxnreg"] = 255  # all there are: left to itself, ptxas spills some to have a third program beside two
    return options


@functools.cache
def options() -> dict[str, Any]:
    """The same for the GPU that is here; the interpreter reads none of it."""
    return {} if triton.knobs.runtime.interpret else options_for(triton.runtime.driver.active.get_current_target())
