"""What `group=` refuses, and how a group ends that breaks: never in a wait beyond its time-out."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from svmax_ops import SVMaxLoss, mean_singular_value, nuclear_norm, svmax_loss
from tests.distributed import broken, processes, refusals

every_function = pytest.mark.parametrize(
    "function", [svmax_loss, mean_singular_value, nuclear_norm], ids=lambda f: f.__name__
)


@pytest.fixture
def group(tmp_path):
    """This process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield dist.group.WORLD
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    names = [check.__name__ for check in refusals.CHECKS]
    return processes.run(refusals.__name__, names, 3, tmp_path_factory.mktemp("ranks"))


@pytest.mark.processes
@pytest.mark.parametrize("check", refusals.CHECKS, ids=lambda check: check.__name__)
def test_every_rank_refuses(results, check):
    processes.assert_held(check.__name__, results)


@pytest.mark.processes
def test_a_broken_group_ends_in_an_error_on_the_ranks_that_are_left(tmp_path):
    checks = [
        broken.a_rank_that_does_not_come.__name__,
        broken.a_rank_that_goes_on_where_others_ask_for_agreement.__name__,
        broken.a_rank_that_dies.__name__,
    ]
    results = processes.run(broken.__name__, checks, 3, tmp_path, timeout=1800)
    for check in checks[:2]:
        processes.assert_held(check, results)
    processes.assert_held(checks[2], results[::2])
    assert checks[2] not in results[1]


@pytest.mark.processes
def test_a_later_disagreement_ends_without_a_value(tmp_path):
    """gloo ends the process that gets too many bytes; in the others the lost connection is an error."""
    check = broken.ranks_that_disagree_about_what_was_agreed_before.__name__
    results = processes.run(broken.__name__, [check], 3, tmp_path, timeout=1800)
    assert [result.get(check) for result in results] == [None] * 3
    assert any(check in result for result in results)


@every_function
@pytest.mark.parametrize("group", [object(), "gloo", 0, [0, 1]], ids=lambda group: type(group).__name__)
def test_what_is_no_group(function, group):
    refusal = (
        rf"^{function.__name__}: group must be a torch.distributed.ProcessGroup or None, got {type(group).__name__}"
    )
    with pytest.raises(TypeError, match=refusal):
        function(torch.eye(4), group=group)


def test_a_device_mesh_is_told_to_give_its_group(group):
    mesh = dist.init_device_mesh("cpu", (1,))
    with pytest.raises(TypeError, match=r"got DeviceMesh\. A DeviceMesh has them: mesh\.get_group\(\)"):
        svmax_loss(torch.eye(4), group=mesh)
    assert svmax_loss(torch.eye(4), group=mesh.get_group()).item() == pytest.approx(1, abs=2e-7)


@every_function
def test_distributed_that_is_not_initialised(group, function):
    function(torch.eye(4), group=group)
    dist.destroy_process_group()
    with pytest.raises(ValueError, match=rf"^{function.__name__}: group must be one that exists.*init_process_group"):
        function(torch.eye(4), group=group)


def test_distributed_that_torch_was_built_without(monkeypatch):
    monkeypatch.setattr(dist, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^svmax_loss: group must be None: torch .* is a build without distributed"):
        svmax_loss(torch.eye(4), group=object())


@pytest.mark.parametrize(
    "check",
    [
        refusals.compiled_transforms,
        refusals.compiled_forward_mode_and_second_derivatives,
        refusals.a_compiled_gradient_is_there,
    ],
    ids=lambda check: check.__name__,
)
def test_one_process_is_refused_alike(group, check):
    check(0, 1)


def test_other_wrong_input_is_refused_as_without_a_group(group):
    for wrong in (torch.eye(4, dtype=torch.int64), torch.eye(4).to_sparse(), [[1.0]]):
        with pytest.raises(TypeError, match=r"^svmax_loss: embeddings must be"):
            svmax_loss(wrong, group=group)
    for wrong in (torch.ones(4), torch.ones(4, 0)):
        with pytest.raises(ValueError, match=r"^svmax_loss: embeddings must be"):
            svmax_loss(wrong, group=group)


def test_the_module_says_that_it_has_a_group(group):
    assert repr(SVMaxLoss(group=group)).endswith("center=False, group=<ranks: 1>)")
