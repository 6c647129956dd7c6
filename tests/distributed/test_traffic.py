"""What crosses the network: counted, and the README's table computed again."""

from __future__ import annotations

import re

import pytest
import torch
import torch.distributed as dist

from svmax_ops import svmax_loss
from tests import truth
from tests.distributed import processes

README = (processes.ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """(collective, dtype, numbers) of every call of this process, a group of its own."""
    calls = []

    def record(name):
        collective = getattr(dist, name)

        def recorded(*tensors, group):
            calls.append((name, tensors[-1].dtype, tensors[-1].numel()))
            return collective(*tensors, group=group)

        monkeypatch.setattr(dist, name, recorded)

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    svmax_loss(torch.ones(2, 2), group=dist.group.WORLD)
    for name in ("all_reduce", "all_gather"):
        record(name)
    yield calls
    dist.destroy_process_group()


def step(x: torch.Tensor, **options: bool) -> None:
    svmax_loss(x.requires_grad_(), **options, group=dist.group.WORLD).sum().backward()


@pytest.mark.parametrize("b", [5, 144, 1000])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_one_sum_of_the_gram_matrix_and_the_row_count_whatever_the_batch(sent, b, dtype):
    step(truth.random(b, 128, dtype=dtype))
    assert sent == [("all_reduce", torch.float64, 128 * 128 + 1)]


def test_centred_the_sum_of_the_rows_goes_before(sent):
    step(truth.random(144, 128), center=True)
    means = [("all_reduce", torch.float64, 128 + 1)] * 2  # the second takes off what the first one's rounding left
    assert sent == [*means, ("all_reduce", torch.float64, 128 * 128 + 1)]


def test_float64_input_gathers_a_triangle_of_each_rank(sent):
    step(truth.random(144, 128, dtype=torch.float64))
    assert sent == [("all_gather", torch.float64, 128 * 128 + 1)]


def test_ranks_agree_by_the_first_call_alone(sent, monkeypatch):
    asked = []
    gather = dist.all_gather_object
    monkeypatch.setattr(dist, "all_gather_object", lambda *args, **options: asked.append(1) or gather(*args, **options))
    for b in (20, 30, 20):
        step(truth.random(b, 7))
    assert len(asked) == 1
    step(truth.random(20, 6))
    assert len(asked) == 2


def test_table_of_the_readme():
    """A ring's all-reduce: each of W ranks sends 2 (W - 1) / W times the sum. Gathered: what the others have."""
    section = re.search(r"^### Several GPUs\n(.*?)^### ", README, re.DOTALL | re.MULTILINE).group(1)
    rows = re.findall(r"^\| ([0-9,]+) \| ([0-9.]+) (kB|MB) \| ([0-9.]+) (kB|MB) \|$", section, re.MULTILINE)
    d, b = 128, 144
    expected = []
    for ranks in (8, 64, 256, 1024):
        summed = 2 * (ranks - 1) / ranks * (d * d + 1) * 8
        expected.append((f"{ranks:,}", *size(summed), *size((ranks - 1) * b * d * 4)))
    assert rows == expected


def size(count: float) -> tuple[str, str]:
    """Three digits, in units of 1,000 or 1,000,000 bytes."""
    unit, scale = ("kB", 1e3) if count < 1e6 else ("MB", 1e6)
    value = count / scale
    return (f"{value:.0f}" if value >= 100 else f"{value:.3g}"), unit
