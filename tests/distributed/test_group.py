"""`group=` on gloo processes: values, gradients and training over the ranks against one process with all rows."""

from __future__ import annotations

import pytest
from distributed import networks, processes, values


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One start of the processes for all checks of a module."""
    return {
        module.__name__: processes.run(
            module.__name__, [check.__name__ for check in module.CHECKS], world, tmp_path_factory.mktemp("ranks")
        )
        for module, world in ((values, 4), (networks, 2))
    }


@pytest.mark.processes
@pytest.mark.parametrize("check", values.CHECKS, ids=lambda check: check.__name__)
def test_four_processes_are_as_one(results, check):
    processes.assert_held(check.__name__, results[check.__module__])


@pytest.mark.processes
@pytest.mark.parametrize("check", networks.CHECKS, ids=lambda check: check.__name__)
def test_two_processes_train_as_one(results, check):
    processes.assert_held(check.__name__, results[check.__module__])
