"""Compiles the Triton kernels for GPUs that are not here: registers, spills, shared memory, tensor-core instructions.

python -m benchmarks.triton_compile                         # every kernel for every target: three minutes of one core
python -m benchmarks.triton_compile --targets sm_90 gfx942  # some targets
python -m benchmarks.triton_compile --out benchmarks/results/triton_compile  # and write the rows; make bench
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.machine import machine, text_table, write_rows
from svmax_ops.backends.triton import backward, launch, objective, products, rows, spectral

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_89": GPUTarget("cuda", 89, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx90a": GPUTarget("hip", "gfx90a", 64),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TENSOR_CORES = tuple(name for name in TARGETS if name != "sm_89")
"""Those that multiply float64 matrices in one instruction."""
_INSTRUCTION = re.compile(r"mma\.sync\S*\.f64\.f64|v_mfma_f64\S*")
_READS_X = {
    "x": "*fp32",
    "norms": "*fp64",
    "mean": "*fp64",
    "b": "i32",
    "d": "i32",
    "matrix_stride": "i32",
    "row_stride": "i32",
}
_CONTIGUOUS = {"column_stride": 1}
_BLOCKS = launch.ON_GPU
_BLOCKS_OF_X = {"ROWS": _BLOCKS.rows, "COLUMNS": _BLOCKS.columns}


class Case(NamedTuple):
    """A kernel with the compile-time arguments that a launch gives it."""

    name: str
    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    multiplies: bool = True


class Compiled(NamedTuple):
    warps: int
    registers: int
    spilled: int
    shared: int
    """Bytes of shared memory."""
    tensor_core: int
    """Instructions in the code that multiply float64 matrices."""
    seconds: float
    """Of one core, to compile it; near zero from Triton's cache."""


def cases() -> Iterator[Case]:
    """Each kernel in its dearest form, the fused ones in every size; those that read x, of float32 and of bfloat16."""
    for case in _of_float32():
        yield case
        if "x" in case.types:
            narrow = {name: "*bf16" for name in ("x", "dx") if name in case.types}
            yield case._replace(name=f"{case.name} bfloat16", types=case.types | narrow)


def _of_float32() -> Iterator[Case]:
    options = {"NORMALIZE": True, "CENTER": True}
    reading = _CONTIGUOUS | _BLOCKS_OF_X
    of_objective = {"TERMS": _BLOCKS.terms, "KIND": 3, "NEED_GRADIENT": True}
    for n in (16, 32, 64):
        constants = {"N": n, "SIDE": min(n, _BLOCKS.side)}
        for tall in (True, False):
            types = _READS_X | dict.fromkeys(("weight", "scratch"), "*fp64") | {"value": "*fp32"}
            yield Case(
                f"objective {n} {'tall' if tall else 'wide'}", objective.objective_kernel, types,
                {**reading, **options, **constants, **of_objective, "TALL": tall},
            )  # fmt: skip
        types = dict.fromkeys(("gram", "nuclear_norm", "inverse_sqrt", "scratch"), "*fp64") | {"n": "i32"}
        yield Case(f"spectral {n}", spectral.spectral_kernel, types, {**constants, "NEED_INVERSE_SQRT": True})
    gradient = {"grad": "*fp32", "polar": "*fp64", "dx": "*fp32"}
    for tall in (True, False):
        yield Case(
            f"backward {'tall' if tall else 'wide'}", backward.backward_kernel,
            _READS_X | gradient | {"weight": "*fp64"},
            {**reading, **options, "TALL": tall, "TERMS": _BLOCKS.terms},
        )  # fmt: skip
    of_rows = {**reading, "NORMALIZE": True}
    yield Case("project", backward.project_kernel, _READS_X | gradient, of_rows, multiplies=False)
    for quintic in (False, True):
        integers = ("rows", "inner", "columns", "parts", "row_of_table")
        strides = (f"{side}_{of}" for side in ("left", "right") for of in ("matrix", "row"))
        types = dict.fromkeys(("left", "right", "out"), "*fp64") | dict.fromkeys((*integers, *strides), "i32")
        constants = {"QUINTIC": quintic, "SIDE": _BLOCKS.side, "TERMS": 2 * _BLOCKS.terms}
        constants |= {"left_column": 1, "right_column": 1}
        yield Case(f"product{' quintic' * quintic}", products.product_kernel, types, constants)
    types = dict.fromkeys(("nuclear_norm", "slope"), "*fp64") | {"value": "*fp32"}
    types |= dict.fromkeys(("m", "b", "d"), "i32")
    constants = {"KIND": 3, "CENTER": True, "MATRICES": 256}
    yield Case("value", objective.value_kernel, types, constants, multiplies=False)
    yield Case("norms", rows.norms_kernel, _READS_X, reading, multiplies=False)
    yield Case("mean", rows.mean_kernel, _READS_X, of_rows, multiplies=False)
    yield Case("embed", rows.embed_kernel, _READS_X | {"e": "*fp64"}, {**reading, **options}, multiplies=False)


def compile_for(case: Case, target: GPUTarget) -> Compiled:
    """What the compilers make of a kernel; raises what they raise."""
    names = case.kernel.arg_names
    types = {name: case.types.get(name, "constexpr") for name in names}
    # torch's memory is aligned; what a launch gives a kernel is not known to be anything else.
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if types[name].startswith("*")}
    source = ASTSource(fn=case.kernel, signature=types, constexprs=case.constants, attrs=aligned)
    options = launch.options_for(target)
    before = _cpu_seconds()
    found = triton.compile(source, target=target, options=options)
    seconds = round(_cpu_seconds() - before, 2)
    if target.backend == "hip":
        code = found.asm["amdgcn"]
        numbers = {key: int(value) for key, value in re.findall(r"\.(\w+(?:count|size)):\s+(\d+)", code)}
        # Spilled to memory; what goes from one kind of register to another costs a move.
        registers, spilled = numbers["vgpr_count"], numbers["private_segment_fixed_size"]
    else:
        code = found.asm["ptx"]
        registers, spilled = _of_cubin(found.asm["cubin"])
    tensor_core = len(_INSTRUCTION.findall(code))
    return Compiled(options["num_warps"], registers, spilled, found.metadata.shared, tensor_core, seconds)


def _cpu_seconds() -> float:
    """Of this process and the assemblers that it runs."""
    return sum(os.times()[:4])


def _of_cubin(code: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack, which is where what they do not hold is spilled to."""
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        command = [str(cuobjdump), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triton_compile", description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--kernels", default="", help="those whose name begins so")
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.csv")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    wrong = []
    for case in cases():
        for name in options.targets if case.name.startswith(options.kernels) else ():
            found = compile_for(case, TARGETS[name])
            rows.append({"kernel": case.name, "target": name, **found._asdict()})
            if found.spilled:
                wrong.append(f"{case.name} spills {found.spilled} bytes of registers on {name}")
            if case.multiplies and name in TENSOR_CORES and not found.tensor_core:
                wrong.append(f"{case.name} multiplies without tensor cores on {name}")
    print(text_table([name.replace("_", " ") for name in rows[0]], [map(str, row.values()) for row in rows]))
    if options.out is not None:
        write_rows(options.out, {**machine(), "triton": triton.__version__}, rows)
    for sentence in wrong:
        print(f"benchmarks.triton_compile: {sentence}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
