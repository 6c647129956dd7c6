"""The warning that the embeddings have collapsed."""

from __future__ import annotations

import pytest

from svmax_ops.runs.retrieval.collapse import CollapseWatch
from svmax_ops.runs.retrieval.config import RetrievalConfig


def test_a_collapse_of_200_steps_is_told_once_with_lambda_and_lr():
    watch = CollapseWatch(RetrievalConfig(loss="triplet").resolved())
    told = {step: watch.see(step, 0.5 if step < 30 else 0.01, 0.1) for step in range(10, 1000, 10)}
    assert [step for step, text in told.items() if text] == [230]
    assert told[230] == (
        "warning: the embeddings have collapsed (spread below 0.02 since step 30); try a larger --svmax-weight (lambda,"
        " now 0.1) or a smaller --lr (now 0.1)"
    )


def test_a_recovery_starts_the_count_anew():
    watch = CollapseWatch(RetrievalConfig().resolved())
    spreads = [0.01] * 20 + [0.02] + [0.019] * 21  # one every 10 steps
    told = [i for i, spread in enumerate(spreads) if watch.see(10 * i, spread, 0.1)]
    assert told == [41]


@pytest.mark.parametrize(
    ("regularizer", "remedy"),
    [("none", "try --regularizer svmax or"), ("spread-out", "a larger --spread-out-weight (lambda, now 1)")],
)
def test_the_remedy_fits_the_regularizer(regularizer, remedy):
    watch = CollapseWatch(RetrievalConfig(regularizer=regularizer).resolved())
    watch.see(0, 0.0, 0.1)
    assert remedy in watch.see(200, 0.0, 0.1)
