"""`group=` on gloo processes: values, gradients and training over the ranks against one process with all rows."""

from __future__ import annotations

import pytest

from tests.combinations import values as values_of
from tests.distributed import networks, processes, values

WORLD = {values: 4, networks: 2}
"""Module of checks -> processes."""
# What a check with other options says of the same lines.
FURTHER = {networks.compiled_ahead_of_time_with_options}


@pytest.fixture(scope="module")
def results(request, tmp_path_factory):
    """One start of the processes for all checks of a module that are to be run."""
    wanted = [values_of(item).get("check") for item in request.session.items if item.path == request.path]
    return {
        module.__name__: processes.run(module.__name__, names, world, tmp_path_factory.mktemp("ranks"))
        for module, world in WORLD.items()
        if (names := [check.__name__ for check in module.CHECKS if check in wanted])
    }


def checks(module):
    return [pytest.param(c, marks=[pytest.mark.further] * (c in FURTHER), id=c.__name__) for c in module.CHECKS]


@pytest.mark.processes
@pytest.mark.parametrize("check", checks(values))
def test_four_processes_are_as_one(results, check):
    processes.assert_held(check.__name__, results[check.__module__])


@pytest.mark.processes
@pytest.mark.parametrize("check", checks(networks))
def test_two_processes_train_as_one(results, check):
    processes.assert_held(check.__name__, results[check.__module__])
