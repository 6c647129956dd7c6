"""The configuration of ``svmax gan``: the one list of what can be set, its defaults and where they come from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from svmax_ops.backend_names import VARIABLE
from svmax_ops.runs.command_line import check_workers, require
from svmax_ops.runs.environment import check_backend
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.rows_and_seeds import RowsAndSeeds, spelled


class Row(NamedTuple):
    """A row of figure 3."""

    regularized: bool
    unrolled: bool


ROWS = {
    "vanilla": Row(regularized=False, unrolled=False),
    "svmax": Row(regularized=True, unrolled=False),
    "unrolled": Row(regularized=False, unrolled=True),
    "unrolled-svmax": Row(regularized=True, unrolled=True),
}
_REGULARIZED = [name for name, row in ROWS.items() if row.regularized]
_UNROLLED = [name for name, row in ROWS.items() if row.unrolled]
WEIGHTS = {"eq1": 0.01, "bounded": 1.0, "matched": 1.0}
"""Lambda of each objective."""
MODES = 8
"""The Gaussians of the ring."""


@dataclasses.dataclass(frozen=True)
class GanConfig(RowsAndSeeds):
    """Train a GAN on a ring of eight Gaussians, without and with SVMax, without and with unrolling (figure 3).

    "Paper" is Taha et al., "SVMax: A Feature Embedding Regularizer", section 4.2, and where it says nothing the public
    implementation that it names. The ring has radius 2, a Gaussian a standard deviation of 0.02. Every run takes one
    thread: a seed then gives the same run whatever the number of workers.
    """

    row_settings: ClassVar = {
        **dict.fromkeys(("objective", "matched_form", "svmax_weight"), _REGULARIZED),
        **dict.fromkeys(("unrolled_steps", "unrolled_gradient"), _UNROLLED),
    }
    rows: str = ",".join(ROWS)
    """Rows of the figure, between commas: vanilla, svmax, unrolled, unrolled-svmax (paper, figure 3: these four)."""
    seeds: str = "0"
    """Seeds of initial weights, noise and real samples; the same for all rows. Numbers and ranges, like 0-4 or
    0,2,7."""
    objective: Literal["eq1", "bounded", "matched"] = "eq1"
    """What the svmax rows add to the generator's loss. eq1: minus the mean singular value of the fake batch as it is
    (paper). bounded: eq. 4 on its rows, each divided by its norm. matched, ours, not the paper's: by how much s_mu of
    the fake batch falls short of that of the real one, both centred."""
    matched_form: Literal["hinge", "absolute"] = "hinge"
    """With --objective matched: max(0, s_mu(real) - s_mu(fake)), or the absolute value of the difference."""
    svmax_weight: float | None = None
    """The paper's lambda, for the svmax rows. Default: eq1 0.01 (paper), bounded and matched 1."""
    unrolled_steps: int = 5
    """Steps that the discriminator takes ahead of the generator's in the unrolled rows (paper: 5)."""
    unrolled_gradient: bool = False
    """In the unrolled rows the generator's gradient also goes through the discriminator's steps ahead (Metz et al.,
    2017). Without, as in the public implementation, they count as constants, and the optimizer's averages of them are
    kept."""
    generator_activation: Literal["tanh", "relu"] = "tanh"
    """The activation of the two hidden layers (public implementation: tanh)."""
    logits: bool = False
    """Binary cross-entropy of logits. Without: of a sigmoid's value, its logarithm cut off at -100, so that a sure
    discriminator leaves the generator no gradient (public implementation)."""
    mode_weights: str = "uniform"
    """uniform (paper, figure 3: equal), random (drawn anew for each seed), or eight numbers between commas in
    proportion to which the Gaussians are drawn from."""
    steps: int = 25_000
    """Steps of the generator (paper, figure 3: 25,000), each after one of the discriminator."""
    batch_size: int = 512
    """Real samples, and fake ones, a step (public implementation: 512)."""
    latent_dim: int = 256
    """Dimensions of the noise (public implementation: 256)."""
    lr: float = 0.025
    """Learning rate of Adam (beta 0.5, 0.999), for both networks (paper: 0.025, its one change to the public
    implementation)."""
    backend: Literal["auto", "cpu", "cuda", "triton", "reference"] = dataclasses.field(
        default="auto", metadata={"environment": VARIABLE}
    )
    """The kernels that compute SVMax; "svmax info" lists which are available."""
    evaluate_every: int | None = None
    """Steps between pictures; the first and the last step have one too. Default: a fifth of the steps (paper:
    5,000)."""
    log_every: int = 100
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    workers: int = 1
    """Runs at a time, of several rows or seeds."""
    out: Path = Path("runs/gan")
    """The run's folder: new, or with --resume the one to go on with. Several rows or seeds get a folder each in it."""
    resume: bool = False
    """Go on, bit for bit, from the checkpoints in --out."""

    def resolved(self) -> GanConfig:
        """With every None replaced by what it stands for, rows and seeds written in the one way."""
        every = max(1, self.steps // 5) if self.evaluate_every is None else self.evaluate_every
        weight = WEIGHTS[self.objective] if self.svmax_weight is None else self.svmax_weight
        return spelled(dataclasses.replace(self, evaluate_every=every, svmax_weight=weight), tuple(ROWS))

    def check(self) -> None:
        """Refuse values that cannot be run, before anything is read or written.

        Raises:
            UserError: with the flag, what was given and what is accepted.
        """
        values = self.resolved()
        fixed_mode_weights(self.mode_weights)
        counts = ("steps", "evaluate_every", "log_every", "checkpoint_every", "unrolled_steps", "latent_dim")
        for name in counts:
            require(getattr(values, name) >= 1, name, getattr(values, name), "at least 1")
        enough = self.batch_size >= 2
        require(enough, "batch_size", self.batch_size, "at least 2, the dimensions of a sample")
        require(0 < self.lr < math.inf, "lr", self.lr, "a positive number")
        weight = values.svmax_weight
        require(0 <= weight < math.inf, "svmax_weight", weight, "zero or a positive number")
        if self.matched_form != "hinge" and self.objective != "matched":
            raise UserError(f"--matched-form {self.matched_form} needs --objective matched; got {self.objective}.")
        self.check_row_settings()
        check_workers(self.workers)
        check_backend(self.backend)


def fixed_mode_weights(text: str) -> list[float] | None:
    """The eight numbers, as they are, in proportion to which the modes are drawn from; None for "random".

    Raises:
        UserError: ``text`` is neither "uniform" nor "random" nor eight numbers between commas.
    """
    if text == "random":
        return None
    try:
        weights = [1.0] * MODES if text == "uniform" else [float(part) for part in text.split(",")]
    except ValueError:
        weights = []
    if len(weights) != MODES or not all(weight >= 0 for weight in weights) or not 0 < sum(weights) < math.inf:
        raise UserError(
            f"--mode-weights must be uniform, random or {MODES} numbers between commas, none negative and not all zero;"
            f" got {text}."
        )
    return weights
