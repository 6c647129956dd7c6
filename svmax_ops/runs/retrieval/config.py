"""The configuration of ``svmax retrieval``: the one list of what can be set, its defaults and where they come from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal, NamedTuple

from svmax_ops.backend_names import VARIABLE
from svmax_ops.runs.command_line import require
from svmax_ops.runs.environment import check_backend
from svmax_ops.runs.errors import UserError


class Defaults(NamedTuple):
    """What a field that is None stands for; it depends on the data set."""

    network: str = "googlenet"
    weights: str = "imagenet"
    dim: int = 128
    lr: float = 0.01
    iterations: int = 5000
    evaluate_every: int = 500


_STAND_IN = Defaults("small", "none", dim=64, lr=0.1, iterations=600, evaluate_every=100)
DEFAULTS = {
    "strokes": _STAND_IN,
    "fonts": _STAND_IN,
    "cub200": Defaults(),
    "cars196": Defaults(),
    "sop": Defaults(iterations=20000, evaluate_every=2000),
    "folder": Defaults(),
}
"""The data sets; all but the stand-ins for them have the paper's settings (section 4)."""


class LossSettings(NamedTuple):
    samples_per_class: int
    """l: pictures of a class in a batch."""
    svmax_weight: float
    """The paper's lambda for this loss."""


LOSS_SETTINGS = {
    "contrastive": LossSettings(4, 1.0),
    "triplet": LossSettings(6, 0.1),
    "npair": LossSettings(2, 1.0),
    "angular": LossSettings(2, 2.0),
}
"""Paper, section 4.1."""


@dataclasses.dataclass(frozen=True)
class RetrievalConfig:
    """Train an embedding network with a ranking loss, without or with SVMax, and evaluate it on unseen classes.

    "Paper" is Taha et al., "SVMax: A Feature Embedding Regularizer"; where a default differs from it, the help says so.
    Under torchrun the batch is shared out among the processes: data-parallel training with the loss of the whole batch.
    """

    dataset: Literal["strokes", "fonts", "cub200", "cars196", "sop", "folder"] = "strokes"
    """cub200, cars196, sop: CUB-200-2011, CARS196 and Stanford Online Products, the paper's. folder: a folder for each
    class, train/ and test/ (or val/) with such folders, or a CSV file (path,class,split). strokes: 200 invented
    characters x 40 drawings, made from a seed. fonts: --root is a folder of .ttf and .otf files, class = typeface, 60
    pictures of two letters each; neither is the paper's. Where the data set names no split, half of the classes train
    and half test."""
    root: Path | None = None
    """The data set's folder as it was unpacked (folder: or the CSV file). Default: none, which is enough for strokes.
    For fonts on Debian: apt install fonts-aenigma, /usr/share/fonts/truetype/aenigma."""
    check_counts: bool = True
    """Compare the numbers of classes and images with the published ones; --no-check-counts: take a part of a data
    set."""
    jitter: Literal["mild", "medium", "strong"] = "medium"
    """strokes and fonts: how much two pictures of a class differ by rotation, scale, shear and shift. Not in the
    paper."""
    network: str | None = None
    """googlenet, resnet50 or mobilenet_v2 (paper, sections 4.1 and 4.3), any other of torchvision's or timm's (extra
    timm), or small: four convolutions. Default: googlenet; for strokes and fonts small."""
    weights: str | None = None
    """imagenet: pretrained (paper, section 4), torchvision's IMAGENET1K_V1. none: random. Otherwise a file of a
    state_dict, or a run's best.pt. Default: imagenet; for strokes and fonts none."""
    loss: Literal["contrastive", "triplet", "npair", "angular"] = "contrastive"
    """Ranking loss: contrastive (paper, eq. 6, margin 1), triplet (paper, eq. 5 on the hardest positive and negative,
    margin 0.2), npair, angular (45 degrees) (paper, section 4.1)."""
    npair_l2: float | None = None
    """N-pair on raw activations, plus this number times their mean squared norm, as Sohn (2016) proposed it. Default:
    N-pair on the unit circle, as the paper runs it."""
    regularizer: Literal["none", "svmax", "spread-out"] = "svmax"
    """none: the paper's vanilla. svmax: eq. 4. spread-out: Zhang et al. (2017), the paper's other baseline."""
    svmax_weight: float | None = None
    """The paper's lambda. Default: the paper's value for the loss, contrastive 1, triplet 0.1, npair 1, angular 2
    (section 4.1)."""
    spread_out_weight: float = 1.0
    """The alpha of the spread-out regularizer (paper, section 4.1: 1)."""
    bounded: bool = True
    """SVMax by eq. 4, as in all of the paper's retrieval runs; --no-bounded: by eq. 1."""
    center: bool = False
    """Subtract the mean embedding before SVMax. Not in the paper."""
    lr: float | None = None
    """Learning rate, constant for half of the iterations, then linear to 1e-7 (paper, section 4: 0.01, 0.001 or
    0.0001). Default: 0.01; for strokes and fonts 0.1, which is as large for a network trained from scratch."""
    momentum: float = 0.9
    """The momentum of SGD (paper, section 4: 0.9)."""
    iterations: int | None = None
    """K, the number of batches trained on. Default: 5000, sop 20000 (paper, section 4); strokes and fonts 600."""
    batch_size: int = 144
    """b = p classes x l pictures (paper, section 4: 144; its figure 5 also 72 and 288), of all processes together. l is
    4 for contrastive, 6 for triplet, 2 for npair and angular."""
    dim: int | None = None
    """d, the dimensions of an embedding. Default: 128 (paper, section 4; its figure 5 also 64 and 256); strokes and
    fonts 64."""
    seed: int = 0
    """The seed of the network's initial weights, of the batches, and of the crops and flips. The pictures of strokes
    and fonts and the split into classes have their own, fixed one."""
    backend: Literal["auto", "cpu", "cuda", "triton", "reference"] = dataclasses.field(
        default="auto", metadata={"environment": VARIABLE}
    )
    """The kernels that compute SVMax and the spectra; "svmax info" lists which are available."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device that the network runs on. auto: the GPU where there is one."""
    autocast: Literal["none", "bfloat16", "float16"] = "none"
    """Half precision for the network; the losses stay in float32. float16 scales its gradients. Not in the paper."""
    channels_last: bool = False
    """Keep the channels of a pixel side by side, which is faster for most networks."""
    workers: int = 2
    """Processes that read and decode images, each process of torchrun its own; 0 to read in the training process.
    strokes and fonts lie in memory and need none."""
    evaluate_every: int | None = None
    """Iterations between evaluations on the test classes; the last iteration is always evaluated. Default: 500, sop
    2000; strokes and fonts 100."""
    log_every: int = 10
    """Iterations between lines of metrics.jsonl."""
    checkpoint_every: int = 100
    """Iterations between checkpoints."""
    out: Path = Path("runs/retrieval")
    """The run's folder: new, or with --resume the one to go on with."""
    resume: bool = False
    """Go on, bit for bit, from the checkpoint in --out."""

    def resolved(self) -> RetrievalConfig:
        """With every None that stands for a value replaced by it."""
        stands_for = {**DEFAULTS[self.dataset]._asdict(), "svmax_weight": LOSS_SETTINGS[self.loss].svmax_weight}
        missing = {name: value for name, value in stands_for.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)

    @property
    def weight(self) -> float:
        """What the chosen regularizer is multiplied by; of a resolved configuration."""
        return self.spread_out_weight if self.regularizer == "spread-out" else self.svmax_weight

    def check(self) -> None:
        """Refuse values that cannot be run, before anything is read or written.

        Raises:
            UserError: with the flag, what was given and what is accepted.
        """
        values = self.resolved()
        for name in ("iterations", "evaluate_every", "log_every", "checkpoint_every"):
            require(getattr(values, name) >= 1, name, getattr(values, name), "at least 1")
        require(0 < values.lr < math.inf, "lr", values.lr, "a positive number")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        for name in ("svmax_weight", "spread_out_weight", "npair_l2"):
            value = getattr(self, name)
            require(value is None or 0 <= value < math.inf, name, value, "zero or a positive number")
        require(self.npair_l2 is None or self.loss == "npair", "npair_l2", self.npair_l2, "left out without N-pair")
        require(values.dim >= 2, "dim", values.dim, "at least 2: with one direction there is nothing to spread over")
        require(0 <= self.seed < 2**32, "seed", self.seed, "in [0, 2^32)")
        require(self.workers >= 0, "workers", self.workers, "zero or a positive number")
        l = LOSS_SETTINGS[self.loss].samples_per_class  # noqa: E741 - the paper's letter
        fits = self.batch_size % l == 0 and self.batch_size >= 2 * l
        rule = f"a multiple of {l} and at least {2 * l}: {self.loss} takes p classes x {l} pictures, p >= 2"
        require(fits, "batch_size", self.batch_size, rule)
        require(self.dataset != "strokes" or self.root is None, "root", self.root, "left out: strokes reads no files")
        check_backend(self.backend)
        if self.device == "cuda":
            import torch  # here: the other refusals do not wait for it

            if not torch.cuda.is_available():
                raise UserError(f"--device cuda is not available: torch {torch.__version__} sees no GPU here.")
