"""The batches: p classes x l pictures, classes without replacement, an order that a checkpoint keeps."""

from __future__ import annotations

import pytest
import torch

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.samplers import ClassBatches

LABELS = torch.arange(10).repeat(7)[torch.randperm(70, generator=torch.Generator().manual_seed(3))]


def test_a_batch_is_p_classes_of_l_different_pictures_side_by_side():
    batches = ClassBatches(LABELS, 4, 3, seed=0)
    for _ in range(50):
        indices = next(batches)
        groups = LABELS[indices].view(4, 3)
        assert (groups == groups[:, :1]).all()
        assert len(set(groups[:, 0].tolist())) == 4
        assert len(set(indices.tolist())) == 12


def test_a_pass_repeats_no_class_and_drops_the_partial_batch():
    batches = ClassBatches(LABELS, 4, 3, seed=0)
    dropped = set()
    for _ in range(40):
        seen = torch.cat([LABELS[next(batches)][::3] for _ in range(2)]).tolist()  # 10 classes hold two batches of 4
        assert len(set(seen)) == 8
        dropped |= set(range(10)) - set(seen)
    assert dropped == set(range(10))  # a different pair of classes each pass


def test_every_picture_is_reached():
    batches = ClassBatches(LABELS, 4, 3, seed=0)
    assert set(torch.cat([next(batches) for _ in range(100)]).tolist()) == set(range(70))


def test_a_class_with_too_few_pictures_repeats_them():
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    indices = next(ClassBatches(labels, 2, 4, seed=0))
    assert sorted(labels[indices].tolist()) == [0] * 4 + [1] * 4
    assert sorted(indices[labels[indices] == 1].tolist()) == [2, 3, 4, 5]


def test_seed_and_state_determine_the_order():
    one, other, third = (ClassBatches(LABELS, 4, 3, seed) for seed in (5, 5, 6))
    first = [next(one).tolist() for _ in range(5)]
    assert first == [next(other).tolist() for _ in range(5)]
    assert first != [next(third).tolist() for _ in range(5)]
    third.load_state_dict(one.state_dict())
    assert [next(one).tolist() for _ in range(5)] == [next(third).tolist() for _ in range(5)]


def test_too_few_classes_are_refused():
    with pytest.raises(UserError, match="--batch-size 33 needs 11 training classes of 3 pictures, the data has 10"):
        ClassBatches(LABELS, 11, 3, seed=0)
