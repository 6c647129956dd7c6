"""Says when the embeddings have collapsed, and what to do about it."""

from __future__ import annotations

from typing import Any

from svmax_ops.runs.retrieval.config import RetrievalConfig

SPREAD = 0.02  # vanilla triplet loss ends below, runs that learn stay above
STEPS = 200  # a run with SVMax may pass through such a spread, and climbs out again


class CollapseWatch:
    """Watches the spread of the training batches."""

    def __init__(self, config: RetrievalConfig) -> None:
        self.config = config
        self.state: dict[str, Any] = {"since": None, "told": False}
        """Plain values, for a checkpoint."""

    def see(self, step: int, spread: float, lr: float) -> str | None:
        """A warning, once a collapse, when the spread has been below ``SPREAD`` for ``STEPS`` steps."""
        if not spread < SPREAD:
            self.state = {"since": None, "told": False}
            return None
        if self.state["since"] is None:
            self.state["since"] = step
        if self.state["told"] or step - self.state["since"] < STEPS:
            return None
        self.state["told"] = True
        return (
            f"warning: the embeddings have collapsed (spread below {SPREAD} since step {self.state['since']}); try"
            f" {self._remedy()} or a smaller --lr (now {lr:g})"
        )

    def _remedy(self) -> str:
        if self.config.regularizer == "none":
            return "--regularizer svmax"
        weight = "--svmax-weight" if self.config.regularizer == "svmax" else "--spread-out-weight"
        return f"a larger {weight} (lambda, now {self.config.weight:g})"
