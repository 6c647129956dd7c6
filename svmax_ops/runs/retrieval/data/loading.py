"""Pictures on their way to the network: read ahead by worker processes, in the order asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.data.pictures import GreyPictures, Pictures


class Request(NamedTuple):
    """One batch: which pictures, and the seeds of their random crops and flips (see ``Pictures.batch``)."""

    indices: Tensor
    draws: Tensor | None = None


def draws(seed: int, step: int, count: int) -> Tensor:
    """``[count]`` seeds for the pictures of a step.

    They depend on nothing else: not on the number of workers, nor on where a run was cut off and resumed, so no
    worker's random state has to be kept.
    """
    return torch.from_numpy(np.random.SeedSequence([seed, step]).generate_state(count).astype(np.int64))


def load(pictures: Pictures, requests: Iterable[Request], workers: int, device: torch.device) -> Iterator[Tensor]:
    """The batches on ``device``, one for each request.

    Args:
        pictures: those held in memory are not worth a process.
        requests: may be endless.
        workers: processes that read; 0 reads in this one.
    Raises:
        UserError: a picture that cannot be read.
    """
    if isinstance(pictures, GreyPictures):
        workers = 0
    loader = DataLoader(
        _Answers(pictures),
        sampler=requests,
        batch_size=None,  # an item is a whole batch
        num_workers=workers,
        worker_init_fn=_begin_worker,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # of a seed for the workers, which need none; torch's own would move on with it
    )
    for batch in loader:
        if isinstance(batch, str):
            raise UserError(batch)
        yield batch.to(device, non_blocking=True)


def is_of_a_dead_worker(error: Exception) -> bool:
    """Whether torch raised ``error`` because a process that reads pictures died; it does so anywhere, by a signal."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


class _Answers(Dataset[Tensor | str]):
    """A batch for each request, or the sentence that says why there is none."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __getitem__(self, request: Request) -> Tensor | str:
        try:
            return self.pictures.batch(*request)
        except UserError as error:  # raised in a worker, it would arrive wrapped in a traceback
            return str(error)


def _begin_worker(worker: int) -> None:
    """A terminal, torchrun and timeout signal a whole group of processes; the training process alone answers it."""
    os.setsid()  # a group of its own; the worker ends when asked to, or when the training process is gone
