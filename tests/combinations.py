"""Which of a test's combinations of parameters are run: every one, or a few that have the same faults to find.

A fault shows with one value of a parameter (float16; b < d), or where two values meet (bfloat16, centred); hardly any
needs three. So, of each test on each backend,

- ``PAIRS`` keeps enough combinations for any two values of different parameters to meet in one of them,
- ``VALUES`` keeps enough for every value to be in one of them: for what takes seconds (the marker ``each_value``),
- ``ONE`` keeps the first: for Triton's interpreter,
- ``KINDS`` keeps enough for every kind of kernel to run once, also there: for the tests with the marker ``kinds``.
  Kernels depend on the parameters ``KERNEL`` names, and on the kind of a shape (tall or wide, one program or products).

What stands in one ``parametrize``, like the rows of a table, is one parameter: of a table nothing is left out, but of
what is interpreted.
"""

from __future__ import annotations

import enum
import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import pytest

APART = ("backend", "kernels", "ops", "native", "instruction_set")
"""Each value of these is other code: its combinations are chosen without regard to those of the others."""

KERNEL = ("dtype", "options", "center", "normalize", "op", "shape")
"""The parameters that choose a Triton kernel, or a constant that it is compiled with."""


class Combinations(enum.Enum):
    ONE = enum.auto()
    KINDS = enum.auto()
    VALUES = enum.auto()
    PAIRS = enum.auto()
    ALL = enum.auto()


def few(cases: Sequence[Sequence[Hashable]], together: int) -> list[int]:
    """Indices of cases in which any ``together`` values meet that meet in some case; the first case among them.

    Args:
        cases: for each its values, one of every parameter.

    >>> few([(a, b, c) for a in "xy" for b in "xy" for c in "xy"], 2)
    [0, 3, 5, 6]
    >>> few([(a, b, c) for a in "xy" for b in "xyz" for c in "x"], 1)
    [0, 4, 2]
    """
    meetings = [set(itertools.combinations(enumerate(case), min(together, len(case)))) for case in cases]
    missing = set().union(*meetings)
    chosen = []
    while missing:
        best = max(range(len(cases)), key=lambda i: len(meetings[i] & missing))  # the first of equals
        chosen.append(best)
        missing -= meetings[best]
    return chosen


def values(item: pytest.Item) -> dict[str, object]:
    """The parameters of a test's case, by name."""
    return item.callspec.params if hasattr(item, "callspec") else {}


def choose(items: Iterable[pytest.Item], how: Callable[[pytest.Item], Combinations]) -> list[pytest.Item]:
    """A few cases of each test and each value of APART; ``how`` is the same for all of these."""
    tests: dict[object, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0], tuple(values(item).get(name) for name in APART)].append(item)
    chosen: list[pytest.Item] = []
    for cases in tests.values():
        kept = how(cases[0])
        if kept is Combinations.ALL:
            chosen += cases
        elif kept is Combinations.ONE:
            chosen += cases[:1]
        else:
            parameters = [_kinds(case) if kept is Combinations.KINDS else _values(case) for case in cases]
            chosen += [cases[i] for i in few(parameters, 2 if kept is Combinations.PAIRS else 1)]
    return chosen


def _values(item: pytest.Item) -> list[Hashable]:
    given = values(item)
    marks = [mark.args[0] for mark in item.iter_markers("parametrize")]
    groups = [[name.strip() for name in names.split(",")] if isinstance(names, str) else list(names) for names in marks]
    groups += [[name] for name in given if not any(name in names for names in groups)]  # of fixtures
    # A value is the same object in all of its test's cases; not every one can be hashed.
    return [tuple(id(given[name]) for name in names) for names in groups if not set(names) & set(APART)]


def _kinds(item: pytest.Item) -> list[Hashable]:
    given = values(item)
    return [_kind_of_shape(given[name]) if name == "shape" else id(given[name]) for name in KERNEL if name in given]


def _kind_of_shape(shape: Sequence[int]) -> Hashable:
    b, d = shape[-2:] if len(shape) > 1 else (0, 0)
    return b >= d, min(b, d) <= 64 and max(b, d) <= 1024
