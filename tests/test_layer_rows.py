"""LayerRows: the embeddings of a layer are those of its forward calls, each once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from svmax_ops.layer_rows import LayerRows, compiled_parts, hides


@pytest.fixture
def layer() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 4)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(1))


def gathered(layer: nn.Module, step: Callable[[], Any]) -> Tensor | None:
    rows = LayerRows()
    with rows.of(layer, eager=False):
        step()
    assert not layer._forward_hooks
    return rows.take()


def test_the_rows_of_all_calls_come_in_their_order_and_are_then_forgotten(layer, x):
    rows = LayerRows()
    with rows.of(layer, eager=False):
        first, second = layer(x), layer(-x)
    assert torch.equal(rows.take(), torch.cat([first, second]))
    assert rows.take() is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_computes_again_is_not_gathered_again(layer, x, reentrant):
    x.requires_grad_()
    rows = gathered(layer, lambda: checkpoint(layer, x, use_reentrant=reentrant).sum().backward())
    assert torch.equal(rows, layer(x))


def test_selective_checkpointing_computes_the_same_gradient(layer, x):
    def save_all(*arguments: Any, **options: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE

    def region(x: Tensor) -> Tensor:
        return layer(x).sin().sum(0).clone().square()  # the clone that is saved must be this one

    def loss() -> Tensor:
        saved = {"context_fn": lambda: create_selective_checkpoint_contexts(save_all)}
        return checkpoint(region, x, use_reentrant=False, **saved).sum()

    (expected,) = torch.autograd.grad(region(x).sum(), layer.weight)
    rows = LayerRows()
    with rows.of(layer, eager=False):
        value = loss()
    torch.testing.assert_close(torch.autograd.grad(value, layer.weight)[0], expected)
    assert torch.equal(rows.take(), layer(x))


def test_a_pass_without_gradients_counts_only_where_no_other_does(layer, x):
    def mine_then_train() -> None:
        with torch.no_grad():
            layer(-x)
        layer(x)

    assert torch.equal(gathered(layer, mine_then_train), layer(x))
    with torch.no_grad():
        assert torch.equal(gathered(layer, lambda: layer(-x)), layer(-x))


def test_a_reentrant_checkpoint_is_no_pass_without_gradients(layer, x):
    def step() -> None:
        with torch.no_grad():
            layer(2 * x)
        checkpoint(layer, x, use_reentrant=True)
        layer(-x)

    x.requires_grad_()
    assert torch.equal(gathered(layer, step), torch.cat([layer(x), layer(-x)]))


def test_an_operation_in_place_on_the_output_does_not_change_the_rows(layer, x):
    assert torch.equal(gathered(layer, lambda: layer(x).relu_()), layer(x))


def test_a_copy_of_the_layer_gathers_for_itself(layer, x):
    assert gathered(layer, lambda: copy.deepcopy(layer)(x)) is None


@pytest.mark.parametrize(
    ("output", "got"),
    [
        (lambda z: (z, z), "tuple"),
        (lambda z: {"embeddings": z}, "dict"),
        (lambda z: z.unflatten(1, (2, 2)), r"\[12, 2, 2\]"),
        (lambda z: z.sum(), r"\[\]"),
    ],
    ids=["tuple", "dict", "3-d", "number"],
)
def test_another_output_is_refused_by_take_and_not_in_the_network(layer, x, output, got):
    layer.register_forward_hook(lambda layer, arguments, z: output(z))
    rows = LayerRows()
    with rows.of(layer, eager=False):
        layer(x)
    with pytest.raises(ValueError, match=rf"must return embeddings \[b, d\], got {got}"):
        rows.take()
    assert rows.take() is None  # it refuses once


def test_rows_under_vmap_are_refused(layer, x):
    with pytest.raises(ValueError, match=r"got a part of them, under torch\.vmap"):
        gathered(layer, lambda: torch.func.vmap(lambda row: layer(row[None]))(x))


def test_compiled_code_runs_eagerly_where_it_is_asked_for_and_is_compiled_as_without_a_hook(layer, x):
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    step = torch.compile(lambda x: layer(x).sin(), backend=backend, fullgraph=True)
    rows = LayerRows()
    for eager in (True, False, True, False):  # compiled by the second call
        with rows.of(layer, eager=eager):
            step(x)
        step(x)
        found = rows.take()
        assert torch.equal(found, layer(x)) if eager else found is None
    assert len(graphs) == 1


def test_a_compiled_module_hides_the_layers_within_and_a_wrapper_not_itself(layer):
    network = nn.ModuleDict({"layer": layer, "body": nn.Sequential(nn.Linear(4, 4))})
    assert compiled_parts(network) == []
    network["body"].compile()
    assert compiled_parts(network) == [network["body"]]
    assert hides(network["body"], network["body"])
    assert hides(network["body"], network["body"][0])
    assert not hides(network["body"], layer)
    network["layer"] = torch.compile(layer)
    assert compiled_parts(network) == [network["layer"], network["body"]]
    assert hides(network["layer"], layer)
    assert not hides(network["layer"], network["layer"])
