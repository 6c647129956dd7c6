"""The emulator itself: every mistake that it is to find is found, by a kernel that makes it, and correct kernels pass
with exactly the counters that they have."""

from __future__ import annotations

import ctypes
import json
import re
from typing import Any

import numpy as np
import pytest

from tests.host import library

THREADS = 64
BROKEN = {  # example -> what its message says
    "divergent_barrier": r"thread 32: divergent barrier: thread 0 waits at tests/host/broken.cpp:\d+, at",
    "barrier_after_exit": r"thread 1: barrier after thread 0 has ended",
    "exit_while_others_wait": r"thread 63: the thread has ended while thread 0 waits for it",
    "barrier_while_others_shuffle": r"thread 31: barrier at tests/host/broken.cpp:\d+ while thread 0 waits for it",
    "shuffle_with_exited_lane": r"thread 1: shuffle with an inactive lane: thread 0 has ended",
    "exit_while_others_shuffle": r"thread 31: the thread has ended while thread 0 waits for it",
    "shuffle_with_lane_at_barrier": r"thread 1: shuffle with an inactive lane: thread 0 waits at",
    "shuffle_from_lane_outside_mask": r"shuffle from an inactive lane: thread 20 is not in the mask",
    "shuffle_by_lane_outside_mask": r"thread 0: shuffle by a lane that its mask does not name",
    "shuffle_with_different_masks": r"thread 8: shuffle with another mask than thread 0 gives at",
    "shuffle_on_two_lines": r"thread 16: divergent shuffle: thread 0 waits at",
    "syncwarp_in_a_branch": r"thread 16: divergent __syncwarp: thread 0 waits at",
    "syncwarp_without_half_a_warp": r"thread 16: the thread has ended while thread 0 waits for it",
    "race_of_two_writes": r"race on shared memory: write of what thread 0 has written at .* without a __syncthreads",
    "race_of_read_and_write": r"race on shared memory: read of what thread 0 has written at .* without a __syncwarp",
    "race_of_write_and_read": r"race on shared memory: .* without a __syncthreads",
    "race_of_write_and_many_reads": r"race on shared memory: .* without a __syncthreads",
    "race_after_one_barrier_too_few": r"race on shared memory: .* without a __syncthreads",
    "race_in_a_warp": r"thread 1: race on shared memory: read of what thread 0 has written at .* without a __syncwarp",
    "race_past_a_shuffle": r"race on shared memory: read of .* without a __syncwarp",
    "race_past_half_a_syncwarp": r"race on shared memory: read of .* without a __syncwarp",
    "shared_out_of_range": r"thread 0: shared memory out of range: bytes 32 to 40 of a piece of 32",
    "shared_before_the_piece": r"thread 0: shared memory out of range: bytes -4 to 0 of a piece of 16",
    "shared_beyond_the_launch": r"shared memory out of range: the launch has 1024 bytes, this piece ends at 8192",
    "shared_never_written": r"thread 0: read of shared memory that was never written",
    "shared_written_by_another_block": r"block \(1, 0, 0\), thread 0: read of shared memory that was never written",
    "misaligned_shared_load2": r"misaligned shared memory: byte 8 for an access of 16",
    "global_out_of_range": r"thread 63: global memory out of range: byte 512 of a tensor of 512",
    "global_before_the_tensor": r"thread 0: global memory out of range: byte -24 of a tensor of 512",
    "global_null": r"access through a null pointer to global memory",
    "global_never_written": r"thread 3: read of global memory that was never written",
    "misaligned_global_load2": r"misaligned global memory: byte 8 of a tensor at \d+, for an access of 16",
    "misaligned_global_store2": r"misaligned global memory: byte 24 of a tensor at \d+, for an access of 16",
    "block_of_no_whole_warps": r"whole warps, 32 to 1024 threads; got 48",
    "block_of_too_many_threads": r"whole warps, 32 to 1024 threads; got 1056",
    "empty_grid": r"a grid must be at least 1, .* got \(1, 0, 1\)",
    "grid_too_high": r"at most 65535 in y and z; got \(1, 65536, 1\)",
    "too_much_shared_memory": r"at most 232448 bytes of shared memory; got 232449",
}
NO_LINE = {"block_of_no_whole_warps", "block_of_too_many_threads", "empty_grid", "grid_too_high"} | {
    "too_much_shared_memory"
}

# What a warp's reads take, beside the 33 rows that it has written before without a conflict: (wavefronts, conflicts).
WAVEFRONTS = {
    "reads_f32_neighbours": (1, 0),
    "reads_f32_every_second": (2, 1),  # 32 words, in one of which they would fit
    "reads_f32_column": (32, 31),
    "reads_f32_padded_column": (1, 0),
    "reads_f32_one": (1, 0),
    "reads_f64_neighbours": (2, 0),
    "reads_f64_column": (32, 30),
    "reads_f64_padded_column": (2, 0),
    "reads_f64_one": (1, 0),
}
NOTHING = dict.fromkeys(("add", "mul", "fma", "div", "sqrt", "other", "compare", "convert"), 0)


class Emulator:
    def __init__(self, host: ctypes.CDLL) -> None:
        self.host = host
        for name in ("svmax_host_run_example", "svmax_host_examples", "svmax_host_report"):
            getattr(host, name).restype = ctypes.c_char_p
        for name in ("svmax_host_example_input", "svmax_host_example_output"):
            getattr(host, name).restype = ctypes.POINTER(ctypes.c_double * THREADS)

    def run(self, name: str) -> str | None:
        message = self.host.svmax_host_run_example(name.encode())
        return None if message is None else message.decode()

    def examples(self) -> list[str]:
        return self.host.svmax_host_examples().decode().split()

    def report(self) -> list[dict[str, Any]]:
        return json.loads(self.host.svmax_host_report().decode())

    def costs(self, name: str) -> dict[str, Any]:
        """The one launch of a correct example."""
        self.host.svmax_host_reset()
        assert self.run(name) is None
        (launch,) = self.report()
        return launch

    def array(self, which: str) -> np.ndarray:
        return np.ctypeslib.as_array(getattr(self.host, f"svmax_host_example_{which}")().contents)


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(library.load())


@pytest.fixture(autouse=True)
def _not_counting(emulator: Emulator) -> Any:
    yield
    emulator.host.svmax_host_reset()
    emulator.host.svmax_host_count(False)


def line_of(example: str) -> int:
    source = (library.HERE / "broken.cpp").read_text().splitlines()
    (line,) = [i for i, text in enumerate(source, 1) if text.endswith(f"// here: {example}")]
    return line


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_kernel_is_reported_with_kernel_block_thread_and_line(emulator, name):
    message = emulator.run(name)
    assert message is not None
    assert re.search(BROKEN[name], message), message
    if name in NO_LINE:
        assert message.startswith("launch of kernel nothing: ")
        return
    assert re.match(rf"kernel {name}, block \(\d, 0, 0\), thread \d+: ", message), message
    # The line, or its partner's of a race: which of two threads comes second is the emulator's choice.
    assert f"tests/host/broken.cpp:{line_of(name)}" in message, message


def test_every_example_is_tested(emulator):
    correct = {name.removeprefix("test_") for name in globals()} | WAVEFRONTS.keys()
    assert [name for name in emulator.examples() if name not in BROKEN and name not in correct] == []


def test_a_correct_kernel_passes_after_one_that_was_abandoned(emulator):
    for name in BROKEN:
        assert emulator.run(name) is not None
        assert emulator.run("waiting") is None


def test_an_unknown_example_is_refused(emulator):
    assert emulator.run("frobnicate") == "no example has the name frobnicate"


def test_operations(emulator):
    x = np.linspace(-0.5, 3, THREADS)
    emulator.array("input")[:] = x
    launch = emulator.costs("operations")
    assert (launch["kernel"], launch["grid"], launch["threads"], launch["blocks"]) == ("operations", [3, 1, 1], 64, 3)
    once = {
        "f64": {"add": 4, "mul": 1, "fma": 1, "div": 1, "sqrt": 1, "other": 2, "compare": 1, "convert": 2},
        "f32": {**NOTHING, "add": 3, "mul": 1, "fma": 1, "div": 1},
    }
    for type_ in once:
        assert launch["block"][type_] == {name: THREADS * times for name, times in once[type_].items()}
        assert launch["total"][type_] == {name: 3 * THREADS * times for name, times in once[type_].items()}
    for direction in ("read", "write"):
        assert launch["block"][f"global_{direction}_bytes"] == 8 * THREADS
        assert launch["total"][f"global_{direction}_bytes"] == 3 * 8 * THREADS
        assert launch["block"][f"shared_{direction}_bytes"] == 0
    y = np.maximum(np.sqrt((x * x + x + 1) * 2 - 0.5 / (x + 1)) + 2 * np.exp(-np.abs(x)), 0)
    z = y.astype(np.float32).astype(float)
    np.testing.assert_allclose(emulator.array("output"), z * z + z + z * z - z / (z + 1), rtol=1e-6)


def test_rounding(emulator):
    """A multiply-add is fused where it is written, and nowhere else: so the host computes what the device does."""
    emulator.array("input")[:] = np.tile([1 + 2.0**-30, 1 + 2.0**-30, 1 + 2.0**-20, 1 + 2.0**-20], THREADS // 4)
    assert emulator.run("rounding") is None
    # (1 + e)^2 = 1 + 2 e + e^2, of which a rounded product loses e^2.
    np.testing.assert_array_equal(emulator.array("output"), np.tile([2.0**-60, 0, 2.0**-40, 0], THREADS // 4))


def test_waiting(emulator):
    block = emulator.costs("waiting")["block"]
    # Two warps: a float64 sum of 5 steps is 10 shuffles of 32 bits, then one of int and one of float32.
    assert (block["barriers"], block["syncwarps"], block["shuffles"]) == (2, 2, 2 * (10 + 1 + 1))
    assert block["shared_read_bytes"] == block["shared_write_bytes"] == 2 * 8 * THREADS
    assert (block["shared_wavefronts"], block["bank_conflicts"]) == (2 * 4 * 2, 0)
    thread = np.arange(THREADS)
    other = THREADS - 1 - thread  # whose number a thread reads; its warp's sum is that of the other warp
    sums = np.where(thread < 32, other[:32].sum(), other[32:].sum())
    x = sums + np.where(thread < 32, 3, 35) + (31 - thread % 32)
    np.testing.assert_array_equal(emulator.array("output"), x[thread ^ 1])


def test_half_warps(emulator):
    block = emulator.costs("half_warps")["block"]
    assert (block["barriers"], block["syncwarps"], block["shuffles"]) == (0, 2, 2 * 2)
    thread = np.arange(THREADS)
    np.testing.assert_array_equal(emulator.array("output"), np.where(thread % 32 < 16, thread ^ 15 ^ 8, -1))


def test_order_by_way_of_a_third(emulator):
    assert emulator.costs("order_by_way_of_a_third")["block"]["syncwarps"] == 2 * 2
    np.testing.assert_array_equal(emulator.array("output")[:2], 7)


def test_changing_hands(emulator):
    launch = emulator.costs("changing_hands")
    assert launch["block"]["barriers"] == 11
    assert launch["total"]["barriers"] == 22
    np.testing.assert_array_equal(emulator.array("output"), 10)


@pytest.mark.parametrize("name", WAVEFRONTS)
def test_bank_conflicts_of_a_read(emulator, name):
    wavefronts, conflicts = WAVEFRONTS[name]
    block = emulator.costs(name)["block"]
    written = 33 * (2 if "f64" in name else 1)
    assert (block["shared_wavefronts"] - written, block["bank_conflicts"]) == (wavefronts, conflicts)


def test_reads_of_pairs(emulator):
    """16 bytes a lane: a quarter of a warp at a time."""
    block = emulator.costs("reads_of_pairs")["block"]
    assert (block["shared_wavefronts"], block["bank_conflicts"]) == (4 + 4, 0)
    assert block["shared_read_bytes"] == block["shared_write_bytes"] == 16 * 32


def test_reads_of_a_triangle(emulator):
    """Lanes that take different branches: what each does at a line for the k-th time is one access of the warp."""
    block = emulator.costs("reads_of_a_triangle")["block"]
    assert (block["shared_wavefronts"], block["bank_conflicts"]) == (16 + 16, 0)


def test_counting_is_switched(emulator):
    emulator.host.svmax_host_reset()
    emulator.host.svmax_host_count(False)
    assert emulator.run("operations") is None
    assert emulator.report() == []
    emulator.host.svmax_host_reset()
    assert emulator.run("operations") is None
    assert emulator.run("waiting") is None
    assert [launch["kernel"] for launch in emulator.report()] == ["operations", "waiting"]
