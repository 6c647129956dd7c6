"""The model of the CUDA kernels' cost: its arithmetic against examples by hand, and what it promises of the kernels."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace

import pytest

from benchmarks import gpu_compiler, gpu_model, gpu_prediction
from benchmarks.gpu_architectures import ARCHITECTURES, occupancy, resident_blocks
from benchmarks.gpu_compiler import Compiled, CompilerError, architecture_command, parse, readable
from benchmarks.gpu_prediction import Chain, Launch, Problem, constant, operations, predict
from benchmarks.machine import RESULTS, read_rows

# What nvcc 13.0 said of three kernels, one of which has more registers than it was given.
PTXAS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN5svmax4cuda10sum_kernelEPf' for 'sm_90'
ptxas info    : Function properties for _ZN5svmax4cuda10sum_kernelEPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
ptxas info    : Compile time = 3.297 ms
ptxas info    : Compiling entry function '_ZN5svmax4cuda11gram_kernelIfEEvPT_' for 'sm_90'
ptxas info    : Function properties for _ZN5svmax4cuda11gram_kernelIfEEvPT_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 1024 bytes smem, 400 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN5svmax4cuda15spectral_kernelILi32EEEvPdi' for 'sm_90'
ptxas info    : Function properties for _ZN5svmax4cuda15spectral_kernelILi32EEEvPdi
    1024 bytes stack frame, 1432 bytes spill stores, 1856 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 1024 bytes cumulative stack size, 800 bytes smem
"""


def test_the_compilers_report_is_read():
    assert parse(PTXAS) == {
        "sum_kernel": Compiled("sum_kernel", 10, 0, 0, 0, 0),
        "gram_kernel<float>": Compiled("gram_kernel<float>", 32, 0, 0, 1024, 1),
        "spectral_kernel<32>": Compiled("spectral_kernel<32>", 32, 1432, 1856, 800, 1),
    }
    with pytest.raises(CompilerError, match="nothing of the registers of sum_kernel"):
        parse("Compiling entry function '_ZN5svmax4cuda10sum_kernelEPf' for 'sm_90'\nptxas fatal")
    assert parse("") == {}


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        ("_ZN5svmax4cuda15spectral_kernelILi128EEEvNS0_15SpectralOptionsE", "spectral_kernel<128>"),
        ("_ZN5svmax4cuda11gram_kernelI13__nv_bfloat16EEvNS0_4RowsIT_EE", "gram_kernel<bfloat16>"),
        ("_ZN5svmax4cuda15backward_kernelI6__halfLi32EEEvNS0_4RowsIT_EE", "backward_kernel<half, 32>"),
        ("_ZN5svmax4cuda10sum_kernelENS0_5PartsElPd", "sum_kernel"),
        ("_Z9somethingv", "_Z9somethingv"),
    ],
)
def test_names_are_read(mangled, name):
    assert readable(mangled) == name


def test_the_command_is_cmakes_but_for_the_architecture_and_the_output(tmp_path):
    command = (
        "nvcc -DUSE_CUDA -Icsrc -O3 --generate-code=arch=compute_90,code=[sm_90] -std=c++20 -fmad=false --threads=0"
    )
    command += " -MD -MT x.o -MF x.o.d -x cu -c csrc/cuda/cuda.cu -o x.o"
    made = architecture_command(command.split(), "sm_80", tmp_path / "k.cubin")
    kept = "nvcc -DUSE_CUDA -Icsrc -O3 -std=c++20 -fmad=false -x cu csrc/cuda/cuda.cu"
    assert " ".join(made) == f"{kept} -cubin -arch=sm_80 -Xptxas=-v -o {tmp_path / 'k.cubin'}"


def test_occupancy_by_hand():
    # H100, 512 threads of 126 registers and 30 KiB. A warp takes 126 * 32 = 4032, rounded up to 4096 registers; each of
    # the four schedulers has 16384 of them: 4 warps, so 16 on the multiprocessor, which is one block of 16 warps.
    # Threads would allow 2048 / 512 = 4, shared memory (228 KiB) / (30 + 1 KiB) = 7. So 1, and 16 of 64 warps.
    h100 = ARCHITECTURES["sm_90"]
    assert resident_blocks(h100, 512, 126, 30 << 10) == 1
    assert occupancy(h100, 512, 126, 30 << 10) == 0.25
    # RTX 4090, 128 threads of 40 registers and 9000 bytes. A warp takes 1280 registers: 12 warps a scheduler, 48 in
    # all, 12 blocks of 4. Threads: 48 warps, 12 blocks. Shared memory: 9000 + 1024 = 10024, rounded up to 10112, of
    # which 102400 bytes hold 10. So 10 blocks, and 40 of 48 warps.
    ada = ARCHITECTURES["sm_89"]
    assert resident_blocks(ada, 128, 40, 9000) == 10
    assert occupancy(ada, 128, 40, 9000) == pytest.approx(40 / 48)
    # More than one block may have: 100 KiB less the system's 1 KiB.
    assert resident_blocks(ada, 128, 40, 99 << 10) == 1
    assert resident_blocks(ada, 128, 40, (99 << 10) + 1) == 0
    # Blocks of one warp: the limit of blocks itself.
    assert resident_blocks(ARCHITECTURES["sm_86"], 32, 16, 0) == 16


ZERO = dict.fromkeys(("add", "mul", "fma", "div", "sqrt", "other", "compare", "convert"), 0)
COUNTERS = {
    "barriers": 10,
    "syncwarps": 0,
    "shuffles": 160,
    "f64": {**ZERO, "add": 1000, "fma": 62_000, "compare": 150, "convert": 50, "div": 50, "sqrt": 25, "other": 2},
    "f32": {**ZERO, "fma": 1280},
    "shared_read_bytes": 40_000,
    "shared_write_bytes": 10_000,
    "shared_wavefronts": 500,
    "bank_conflicts": 20,
    "global_read_bytes": 4000,
    "global_write_bytes": 700,
}
REPORT = json.dumps(
    [
        {
            "kernel": kernel,
            "grid": grid,
            "threads": threads,
            "shared_bytes": shared,
            "blocks": blocks,
            "block": COUNTERS,
        }
        for kernel, grid, threads, shared, blocks in (
            ("(gram_kernel<scalar_t>)", [3, 2, 8], 256, 34_000, 48),
            ("(spectral_kernel<N>)", [2, 1, 1], 128, 9000, 2),
        )
    ]
)
LAUNCH = Launch("gram_kernel<float>", 512, 30 << 10, 132, COUNTERS)
MADE = Compiled("gram_kernel<float>", 126, 0, 0, 0, 1)


def test_a_report_of_the_emulator_is_read_and_scaled_to_the_batch():
    gram, spectral = both = gpu_model.launches(REPORT, 64, 32, 8, 1000)
    assert [launch.kernel for launch in both] == ["gram_kernel<float>", "spectral_kernel<32>"]
    assert gram.blocks == 48 * 125
    assert spectral.blocks == 250
    assert spectral.counters == COUNTERS
    assert gpu_model.counters_of(spectral) == {
        "barriers": 10,
        "shuffles": 160,
        "f64_operations": 63_200 + 8 * 75 + 15 * 2,
        "f32_operations": 1280,
        "shared_bytes_moved": 50_000,
        "shared_wavefronts": 500,
        "bank_conflicts": 20,
        "global_bytes": 4700,
    }


def test_throughput_by_hand():
    assert operations(COUNTERS["f64"]) == 63_830
    busy = gpu_prediction.throughput(LAUNCH, ARCHITECTURES["sm_90"])
    assert busy == {
        "f64": 63_830 / 64,
        "f32": 10,
        "shuffles": 160,
        "shared": 500,
        "global": 4700 / 128,
        "barriers": 0,
    }
    two_warps = replace(LAUNCH, threads=64)  # half of the schedulers have nothing to do
    assert gpu_prediction.throughput(two_warps, ARCHITECTURES["sm_90"])["f64"] == 63_830 / 32


def test_a_chain_adds_up():
    chain = (Chain(arithmetic=3, divisions=1) + Chain(arithmetic=1, l2=2, shuffles=5)) * 2
    assert chain == Chain(arithmetic=8, divisions=2, l2=4, shuffles=10)
    waiting = gpu_prediction.chains(LAUNCH, chain, ARCHITECTURES["sm_90"])
    assert waiting["f64"] == 8 * 8 + 2 * (constant("special_latency") + 8 * 8)
    assert waiting["f32"] == 0
    assert waiting["shuffles"] == 10 * constant("shuffle_latency")
    assert waiting["global"] == 4 * constant("l2_latency")
    assert waiting["barriers"] == 10 * constant("barrier_latency")
    # Two float64 units make every float64 wait longer.
    assert gpu_prediction.chains(LAUNCH, chain, ARCHITECTURES["sm_86"])["f64"] > 3 * waiting["f64"]
    in_f32 = replace(LAUNCH, counters={**COUNTERS, "f32": {**ZERO, "fma": 100_000}})
    assert gpu_prediction.chains(in_f32, chain, ARCHITECTURES["sm_90"])["f32"] == 8 * constant("f32_latency")


def test_the_lanes_of_a_column_are_told_by_the_shared_memory():
    """n = 128: 2 warps with 4 columns each, so 8 lanes a column, which take 16 poles at a time."""
    launch = Launch("transform_kernel<128>", 64, 2 * 2 * 128 * 4 * 8, 16, COUNTERS)
    once, twice = (gpu_prediction.transform_chain(Problem(144, 128, poles, True), launch) for poles in (16, 17))
    assert once.shuffles == 3 * (2 * 127 + 2 * 16)
    assert twice.shuffles == 3 * (2 * 127 + 2 * 2 * 16)


def test_a_prediction_by_hand():
    h100, problem = ARCHITECTURES["sm_90"], Problem(144, 128, 12, False, splits=3)
    busy = gpu_prediction.throughput(LAUNCH, h100)
    waiting = gpu_prediction.chains(LAUNCH, gpu_prediction.gram_chain(problem, LAUNCH), h100)
    best, worst = sum(waiting.values()), sum(max(busy[kind], waiting[kind]) for kind in busy)

    def cycles(launch: Launch, made: Compiled) -> tuple[float, float]:
        time = predict(launch, made, problem, h100)
        return tuple((us - constant("launch")) * 1.98e3 for us in (time.best, time.worst))

    time = predict(LAUNCH, MADE, problem, h100)
    assert cycles(LAUNCH, MADE) == pytest.approx((best, worst))
    assert (time.resident_blocks, time.occupancy, time.waves) == (1, 0.25, 1)
    assert time.bound == "f64 chain"
    # One block at a time fits: one block more than multiprocessors is a second wave.
    assert predict(replace(LAUNCH, blocks=133), MADE, problem, h100).waves == 2
    assert cycles(replace(LAUNCH, blocks=133), MADE) == pytest.approx((2 * best, 2 * worst))
    # With room for four, some blocks a multiprocessor overlap, until a kind of work is used up.
    roomy, many = replace(MADE, registers=32), replace(LAUNCH, blocks=4 * 132)
    assert predict(many, roomy, problem, h100).waves == 1
    assert cycles(many, roomy) == pytest.approx((max(best, 4 * busy["f64"]), max(worst, 4 * busy["f64"])))
    heavy = replace(many, counters={**COUNTERS, "shared_wavefronts": 50_000})
    assert cycles(heavy, roomy) == pytest.approx((200_000, 200_000))
    assert predict(heavy, roomy, problem, h100).bound == "shared throughput"


def test_what_cannot_be_predicted_is_refused():
    problem = Problem(144, 128, 12, False)
    with pytest.raises(ValueError, match=r"no chain is known for sum_kernel; there are gram_kernel"):
        predict(replace(LAUNCH, kernel="sum_kernel"), MADE, problem, ARCHITECTURES["sm_90"])
    with pytest.raises(ValueError, match=r"a block of gram_kernel<float> does not fit sm_86"):
        predict(replace(LAUNCH, shared_bytes=120 << 10), MADE, problem, ARCHITECTURES["sm_86"])


def test_every_assumption_has_a_source():
    for name, assumption in gpu_prediction.ASSUMPTIONS.items():
        assert assumption.value > 0, name
        assert len(assumption.source) > 10, name


def command(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu_model", *map(str, arguments)])
    return gpu_model.main()


@pytest.fixture
def recorded(monkeypatch):
    """An emulator and a compiler that say what was recorded."""
    kernels = {name: replace(MADE, kernel=name) for name in ("gram_kernel<float>", "spectral_kernel<32>")}
    monkeypatch.setattr(gpu_model, "compiled", lambda architecture: kernels)
    monkeypatch.setattr(gpu_model, "emulate", lambda shape, mode: (gpu_model.launches(REPORT, 64, 32, 8, 1000), 2, 12))
    return kernels


def test_rows_are_written_and_say_that_they_are_predicted(monkeypatch, tmp_path, capsys, recorded):
    out = tmp_path / "gpu_model"
    assert command(monkeypatch, "--shapes", "1000 of 64x32", "--out", out) == 0
    with out.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 6 * 2  # modes, architectures, kernels
    assert {row["device"] for row in rows} == {"none: predicted"}
    timings = [column for column in rows[0] if column.endswith(("_us", "_ms"))]
    assert timings == []
    predicted = [column for column in rows[0] if "us" in column.split("_")]
    assert predicted == ["predicted_us_at_best", "predicted_us_at_worst"]
    assert all(2 < float(row[predicted[0]]) <= float(row[predicted[1]]) for row in rows)
    facts = json.loads(out.with_suffix(".json").read_text())["machine"]
    assert facts["assumptions"]["launch"]["unit"] == "us a kernel"
    said = capsys.readouterr().out
    assert "Predicted, never measured" in said
    assert "sm_120, predicted us" in said
    assert "measured" not in said.replace("never measured", "")


def test_spills_are_told_and_fail(monkeypatch, tmp_path, capsys, recorded):
    recorded["spectral_kernel<32>"] = replace(MADE, spill_stores=8, spill_loads=16)
    assert command(monkeypatch, "--shapes", "1000 of 64x32", "--architectures", "sm_90", "--out", tmp_path / "o") == 1
    assert "sm_90: spectral_kernel<32> spills 8 bytes, and reads 16 of spills" in capsys.readouterr().err


def test_wrong_arguments_and_a_missing_compiler(monkeypatch, capsys):
    for option, name in (("--shapes", "7x7"), ("--architectures", "sm_1")):
        with pytest.raises(SystemExit, match="2"):
            command(monkeypatch, option, name)
        assert f"{name} is not known; there are" in capsys.readouterr().err
    monkeypatch.setattr(gpu_compiler.shutil, "which", lambda *_, **__: None)
    assert command(monkeypatch) == 2
    assert "gpu_model: nvcc was not found" in capsys.readouterr().err


# ---- the kernels


def barriers(n: int) -> int:
    launches, _, _ = gpu_model.emulate((1, n + 16, n), "forward")
    return next(launch.counters["barriers"] for launch in launches if launch.kernel.startswith("spectral_kernel"))


@pytest.mark.parametrize("n", [64, 128])
def test_at_most_three_barriers_a_householder_step(n):
    """One row more in the same kernel is one step more."""
    assert 1 <= barriers(n) - barriers(n - 1) <= 3
    assert barriers(n) <= 3 * n + 20


def test_one_warp_needs_no_barrier():
    assert barriers(32) == 0


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not here: registers and spills are what it says")
def test_nothing_is_spilled():
    kernels = gpu_compiler.compiled("sm_90")
    assert {f"spectral_kernel<{n}>" for n in (16, 32, 64, 128, 256)} <= set(kernels)
    assert {f"transform_kernel<{n}>" for n in (16, 32, 64, 128, 256)} <= set(kernels)
    for scalar in ("float", "double", "half", "bfloat16"):
        assert {f"gram_kernel<{scalar}>", *(f"backward_kernel<{scalar}, {n}>" for n in (32, 128))} <= set(kernels)
    assert gpu_model.spills({"sm_90": kernels}) == []


def test_published_rows_have_every_shape_and_architecture():
    facts, rows = read_rows(RESULTS / "gpu_model")
    assert facts["device"] == "none: predicted"
    assert {row["architecture"] for row in rows} == set(ARCHITECTURES)
    assert {"144x128", "64x128", "72x64", "32x16", "1024x128", "1000 of 64x32"} <= {row["shape"] for row in rows}
    assert all(row["spilled_bytes"] == 0 for row in rows if not row["kernel"].endswith("<256>"))
