"""Which of a test's combinations of parameters are run: every one, or a few that have the same faults to find.

A fault shows with one value of a parameter (float16; b < d), or where two values meet (bfloat16, centred); hardly any
needs three. So, of each test on each backend,

- ``EACH_PAIR`` keeps enough combinations for any two values of different parameters to meet in one of them,
- ``EACH_VALUE`` keeps enough for every value to be in one of them: for Triton's interpreter and for torch.compile
  (the marker ``each_value``), which take seconds for each.

What stands in one ``parametrize``, like the rows of a table, is one parameter: of a table nothing is left out.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import pytest

EACH_VALUE, EACH_PAIR, EVERY = 1, 2, None
"""How many values of different parameters must meet; EVERY: all of them."""

APART = ("backend", "kernels", "native", "instruction_set")
"""Each value of these is other code: its combinations are chosen without regard to those of the others."""


def few(cases: Sequence[Sequence[Hashable]], together: int) -> list[int]:
    """Indices of cases in which any ``together`` values meet that meet in some case; the first case among them.

    Args:
        cases: for each its values, one of every parameter.

    >>> few([(a, b, c) for a in "xy" for b in "xy" for c in "xy"], EACH_PAIR)
    [0, 3, 5, 6]
    >>> few([(a, b, c) for a in "xy" for b in "xyz" for c in "x"], EACH_VALUE)
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


def _parameters(item: pytest.Item) -> list[Hashable]:
    given = values(item)
    marks = [mark.args[0] for mark in item.iter_markers("parametrize")]
    groups = [[name.strip() for name in names.split(",")] if isinstance(names, str) else list(names) for names in marks]
    groups += [[name] for name in given if not any(name in names for names in groups)]  # of fixtures
    # A value is the same object in all of its test's cases; not every one can be hashed.
    return [tuple(id(given[name]) for name in names) for names in groups if not set(names) & set(APART)]


def choose(items: Iterable[pytest.Item], together: Callable[[pytest.Item], int | None]) -> list[pytest.Item]:
    """Of each test and each value of APART the cases in which ``together`` values meet; the same for all its cases."""
    tests: dict[object, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0], tuple(values(item).get(name) for name in APART)].append(item)
    chosen: list[pytest.Item] = []
    for cases in tests.values():
        number = together(cases[0])
        chosen += cases if number is EVERY else [cases[i] for i in few([_parameters(case) for case in cases], number)]
    return chosen
