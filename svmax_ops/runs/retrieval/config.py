"""The configuration of ``svmax retrieval``: the one list of what can be set, its defaults and where they come from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal

import svmax_ops
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.losses import LOSSES


@dataclasses.dataclass(frozen=True)
class RetrievalConfig:
    """Train an embedding network with a ranking loss, without or with SVMax, and evaluate it on unseen classes.

    "Paper" is Taha et al., "SVMax: A Feature Embedding Regularizer"; where a default differs from it, the help says so.
    """

    dataset: Literal["strokes", "fonts"] = "strokes"
    """strokes: 200 invented characters x 40 drawings, made from a seed. fonts: --root is a folder of .ttf and .otf
    files, class = typeface, 60 pictures of two letters each. Half of the classes train, half test. Neither is the
    paper's."""
    root: Path | None = None
    """Folder of the data; needed by fonts (on Debian: apt install fonts-aenigma, /usr/share/fonts/truetype/aenigma)."""
    jitter: Literal["mild", "medium", "strong"] = "medium"
    """How much two pictures of a class differ by rotation, scale, shear and shift. Not in the paper."""
    loss: Literal["contrastive", "triplet", "npair", "angular"] = "contrastive"
    """Ranking loss: contrastive (paper, eq. 6, margin 1), triplet (paper, eq. 5 on the hardest positive and negative,
    margin 0.2), npair, angular (45 degrees) (paper, section 4.1)."""
    regularizer: Literal["none", "svmax", "spread-out"] = "svmax"
    """none: the paper's vanilla. svmax: eq. 4. spread-out: Zhang et al. (2017), the paper's other baseline."""
    svmax_weight: float | None = None
    """The paper's lambda. None is the paper's value for the loss: contrastive 1, triplet 0.1, npair 1, angular 2
    (section 4.1)."""
    spread_out_weight: float = 1.0
    """alpha of the spread-out regularizer (paper, section 4.1: 1)."""
    bounded: bool = True
    """True: eq. 4, as in all of the paper's retrieval runs. --no-bounded makes it False: eq. 1."""
    center: bool = False
    """Subtract the mean embedding before SVMax. Not in the paper."""
    lr: float = 0.1
    """Learning rate, constant for half of the iterations, then linear to 1e-7. The paper's is 0.01, 0.001 or 0.0001 for
    pretrained networks; 0.1 is as large for this network, trained from scratch, as 0.01 is there."""
    momentum: float = 0.9
    """Of SGD (paper, section 4: 0.9)."""
    iterations: int = 600
    """K, the number of batches trained on (paper, section 4: 5000, Stanford Online Products 20000)."""
    batch_size: int = 144
    """b = p classes x l pictures (paper, section 4: 144). l is 4 for contrastive, 6 for triplet, 2 for npair
    and angular."""
    dim: int = 64
    """d, the dimensions of an embedding (paper, section 4: 128; its figure 5 also has 64)."""
    seed: int = 0
    """Of the network's initial weights and of the batches. The pictures and the split into classes have their own,
    fixed one."""
    backend: Literal["auto", "cpu", "cuda", "triton", "reference"] = "auto"
    """What computes SVMax and the spectra; "svmax info" lists what is available."""
    evaluate_every: int = 100
    """Iterations between evaluations on the test classes; the last iteration is always evaluated."""
    log_every: int = 10
    """Iterations between lines of metrics.jsonl."""
    checkpoint_every: int = 100
    """Iterations between checkpoints."""
    out: Path = Path("runs/retrieval")
    """Folder of the run: new, or with --resume the one to go on with."""
    resume: bool = False
    """Go on, bit for bit, from the checkpoint in --out."""

    @property
    def lambda_(self) -> float:
        """``svmax_weight`` with None resolved."""
        return LOSSES[self.loss].svmax_weight if self.svmax_weight is None else self.svmax_weight

    @property
    def weight(self) -> float:
        """What the chosen regularizer is multiplied by."""
        return self.spread_out_weight if self.regularizer == "spread-out" else self.lambda_

    def check(self) -> None:
        """Refuse values that cannot be run, before anything is read or written.

        Raises:
            UserError: with the flag, what was given and what is accepted.
        """
        for name in ("iterations", "evaluate_every", "log_every", "checkpoint_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(0 < self.lr < math.inf, "lr", self.lr, "a positive number")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        for name in ("svmax_weight", "spread_out_weight"):
            value = getattr(self, name)
            _require(value is None or 0 <= value < math.inf, name, value, "zero or a positive number")
        _require(self.dim >= 2, "dim", self.dim, "at least 2: with one direction there is nothing to spread over")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "in [0, 2^32)")
        l = LOSSES[self.loss].samples_per_class  # noqa: E741 - the paper's letter
        fits = self.batch_size % l == 0 and self.batch_size >= 2 * l
        rule = f"a multiple of {l} and at least {2 * l}: {self.loss} takes p classes x {l} pictures, p >= 2"
        _require(fits, "batch_size", self.batch_size, rule)
        _require(self.dataset == "fonts" or self.root is None, "root", self.root, "left out: strokes reads no files")
        state = "ok" if self.backend == "auto" else svmax_ops.available_backends()[self.backend]
        if state != "ok":
            raise UserError(f"--backend {self.backend} is not available: {state}.")


def _require(condition: bool, name: str, value: object, accepted: str) -> None:
    if not condition:
        raise UserError(f"--{name.replace('_', '-')} must be {accepted}; got {value}.")
