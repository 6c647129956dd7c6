"""The configuration of ``svmax embed2d``: the one list of what can be set, its defaults and where they come from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import ClassVar, Literal

from svmax_ops.backend_names import VARIABLE
from svmax_ops.runs.command_line import check_workers, require
from svmax_ops.runs.environment import check_backend
from svmax_ops.runs.retrieval.config import LOSS_SETTINGS
from svmax_ops.runs.rows_and_seeds import RowsAndSeeds, spelled

ROWS = ("vanilla", "svmax", "centred")
CLASSES = 10
"""The classes of each data set."""


@dataclasses.dataclass(frozen=True)
class Embed2dConfig(RowsAndSeeds):
    """Embed small pictures onto the unit circle by the contrastive loss, without and with SVMax.

    "Paper" is Taha et al., "SVMax: A Feature Embedding Regularizer", figures 1 and 4. It says of its network "one
    convolutional layer and one hidden layer", and nothing of its sizes, of batch and learning rate. Every run takes one
    thread: a seed then gives the same run whatever the number of workers.
    """

    row_settings: ClassVar = {"svmax_weight": ("svmax", "centred")}
    rows: str = ",".join(ROWS)
    """Rows of the figure, between commas. vanilla: the contrastive loss with margin 1 alone (paper, figure 4, first
    row). svmax: plus eq. 4 (second row). centred, ours, not the paper's: the mean embedding is subtracted first."""
    seeds: str = "0"
    """Seeds of initial weights and batches; the same for all rows. Numbers and ranges, like 0-4 or 0,2,7."""
    dataset: Literal["digits", "mnist", "fashion-mnist"] = "digits"
    """mnist: the paper's. digits: scikit-learn's 1,797 digits of 8 x 8 pixels, split into 1,000 and 797, which need no
    download. Trained and tested on the same 10 classes; all pictures of the test split are evaluated."""
    root: Path | None = None
    """Folder of the four IDX files (train-images-idx3-ubyte and so on, also with .gz). Default: none, which is enough
    for digits, and for fashion-mnist where Debian's package dataset-fashion-mnist is installed."""
    images: int | None = None
    """Pictures to train on, drawn from a fixed seed. Default: all."""
    batch_size: int = 32
    """b = p classes x 4 pictures. Not in the paper for these figures; its 144 (section 4) would take 36 classes."""
    epochs: int = 64
    """Passes of as many batches as the training split has pictures for; evaluated before the first, after 1, 2, 4, ...
    and after the last (paper, figure 4; its supplement goes up to 200)."""
    lr: float = 0.01
    """Learning rate, constant. Not in the paper for these figures; the largest of section 4."""
    momentum: float = 0.0
    """The momentum of SGD. Not in the paper for these figures; 0.9 in section 4."""
    svmax_weight: float = 1.0
    """The paper's lambda, for the svmax and centred rows (section 4.1: 1 for the contrastive loss)."""
    backend: Literal["auto", "cpu", "reference"] = dataclasses.field(default="auto", metadata={"environment": VARIABLE})
    """The kernels that compute SVMax and the spectra; "svmax info" lists which are available. The network runs on the
    CPU."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    workers: int = 1
    """Runs at a time, of several rows or seeds."""
    out: Path = Path("runs/embed2d")
    """The run's folder: new, or with --resume the one to go on with. Several rows or seeds get a folder each in it."""
    resume: bool = False
    """Go on, bit for bit, from the checkpoints in --out."""

    def resolved(self) -> Embed2dConfig:
        """With rows and seeds written in the one way."""
        return spelled(self, ROWS)

    def check(self) -> None:
        """Refuse values that cannot be run, before anything is read or written.

        Raises:
            UserError: with the flag, what was given and what is accepted.
        """
        self.resolved()  # rows and seeds
        for name in ("epochs", "log_every", "checkpoint_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(0 < self.lr < math.inf, "lr", self.lr, "a positive number")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        require(0 <= self.svmax_weight < math.inf, "svmax_weight", self.svmax_weight, "zero or a positive number")
        l = LOSS_SETTINGS["contrastive"].samples_per_class  # noqa: E741 - the paper's letter
        most = CLASSES * l
        rule = f"a multiple of {l} from {2 * l} to {most}: p classes x {l} pictures, of {CLASSES} classes"
        fits = self.batch_size % l == 0 and 2 * l <= self.batch_size <= most
        require(fits, "batch_size", self.batch_size, rule)
        enough = self.images is None or self.images >= self.batch_size
        require(enough, "images", self.images, f"at least a batch, {self.batch_size}")
        require(self.dataset != "digits" or self.root is None, "root", self.root, "left out: digits reads no files")
        self.check_row_settings()
        check_workers(self.workers)
        check_backend(self.backend)


def panel_epochs(epochs: int) -> list[int]:
    """The epochs after which a run of so many is evaluated: 0, 1, 2, 4, ... and the last."""
    powers = [2**k for k in range(epochs.bit_length()) if 2**k < epochs]
    return [0, *powers, epochs]
