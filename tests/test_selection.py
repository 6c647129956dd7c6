"""What is run of the tests: which of their combinations, and on what."""

from __future__ import annotations

import itertools
import shutil
import sys

import pytest

from svmax_ops.backends import native
from tests import available, cmake
from tests.combinations import Combinations, choose, few
from tests.steps import library as steps


@pytest.mark.parametrize("sizes", [(4,), (2, 3), (6, 4, 4, 4), (3, 1, 5, 2)], ids=str)
@pytest.mark.parametrize("together", [1, 2])
def test_any_values_meet_in_one_of_a_few_combinations(sizes, together):
    cases = list(itertools.product(*map(range, sizes)))
    chosen = [cases[i] for i in few(cases, together)]
    assert chosen[0] == cases[0]
    for parameters in itertools.combinations(range(len(sizes)), min(together, len(sizes))):
        met = {tuple(case[p] for p in parameters) for case in chosen}
        assert met == set(itertools.product(*(range(sizes[p]) for p in parameters)))


def test_pairs_that_never_occur_are_not_missed():
    cases = [(a, b, c) for a, b, c in itertools.product(range(3), repeat=3) if a != b]
    chosen = [cases[i] for i in few(cases, 2)]
    assert {case[:2] for case in chosen} == {case[:2] for case in cases}


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", ["half", "single", "double"])
@pytest.mark.parametrize(("shape", "said"), [((8, 4), 1), ((6, 4), 2), ((4, 8), 3), ((80, 70), 4), ((2, 90, 80), 5)])
def test_each_test_is_chosen_from_by_itself(request, shape, said, dtype, center):
    """With --combinations few or all; and whatever is left of it by -k."""
    test = request.node.nodeid.partition("[")[0]
    ours = [item for item in request.session.items if item.nodeid.partition("[")[0] == test]
    assert choose(ours, lambda item: Combinations.ALL) == ours
    sizes = {how: len(choose(ours, lambda item, how=how: how)) for how in Combinations}
    assert list(sizes.values()) == sorted(sizes.values())
    assert (sizes[Combinations.ONE], sizes[Combinations.ALL]) == (1, len(ours))
    if len(ours) == 30:
        assert (sizes[Combinations.KINDS], sizes[Combinations.VALUES]) == (3, 5)
        assert 15 <= sizes[Combinations.PAIRS] < 30


def test_a_backend_that_is_required_and_missing_is_an_error(monkeypatch):
    available.require(["cpu", "reference"])
    monkeypatch.setitem(available.MISSING, "triton", "Triton is not installed; pip install triton")
    assert available.here("reference", "triton", "cpu") == ["reference", "cpu"]
    with pytest.raises(pytest.UsageError, match="--require-backends: triton cannot be tested here: Triton is not"):
        available.require(["cpu", "triton"])
    with pytest.raises(pytest.UsageError, match="--require-backends: 'gpu' is none of reference, cpu, cuda, triton"):
        available.require(["gpu"])


def test_the_cpu_kernels_are_never_left_out(monkeypatch):
    """Where they are missing their tests fail."""
    for name in ("cpu", "baseline"):
        monkeypatch.setitem(available.MISSING, name, "not built")
    assert available.here("cpu", "cuda", "baseline") == ["cpu", *available.here("cuda"), "baseline"]


def test_looking_for_instruction_sets_changes_none():
    before = native.instruction_set()
    assert available._runs("baseline")
    assert not available._runs("sse9")
    assert native.instruction_set() == before


def test_the_steps_name_what_they_cannot_be_built_without(monkeypatch, tmp_path):
    assert steps.missing() == available.MISSING.get("steps")
    monkeypatch.setattr(steps, "PYTHON", str(tmp_path))
    assert steps.missing() == (
        f"the tests' C++ needs Python.h, which is not in {tmp_path} (Debian, Ubuntu: apt install python3-dev)"
    )
    monkeypatch.setitem(sys.modules, "pybind11", None)
    assert steps.missing() == "the tests' C++ needs pybind11; pip install pybind11"


@pytest.mark.parametrize("tool", ["cmake", "ninja"])
def test_a_missing_tool_is_named(monkeypatch, tool):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *path, **more: None if name == tool else which(name, **more))
    assert cmake.missing() == f"the tests' C++ needs {tool}, which is neither beside {sys.executable} nor in PATH"
