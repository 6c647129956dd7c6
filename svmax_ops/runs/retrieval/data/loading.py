"""Pictures on their way to the network: read ahead by worker processes, in the order asked for."""

from __future__ import annotations

import functools
import itertools
import mmap
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.data.pictures import GreyPictures, Pictures
from svmax_ops.runs.signals import end_with_parent, heeding

_AHEAD = 2  # batches that a worker reads ahead


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
        requests: may be endless; none is for more pictures than the first.
        workers: processes that read; 0 reads in this one.
    Raises:
        UserError: a picture that cannot be read, or a process that cannot be started.
        Interrupted: a signal came while this waited for pictures.
    """
    requests = iter(requests)
    if isinstance(pictures, GreyPictures) or not workers:
        while True:
            with heeding():
                request = next(requests, None)
                batch = request and pictures.batch(*request)
            if batch is None:
                return
            yield batch.to(device)
    first = next(requests, None)
    if first is None:
        return
    places = workers * _AHEAD + 1  # one of them is read out while the workers fill the others
    memory = _Memory(places, len(first.indices), pictures.shape)
    for answer in _answers(_Worker(pictures, memory), itertools.chain([first], requests), workers, device):
        if isinstance(answer, str):
            raise UserError(answer)
        batch = answer.copy() if isinstance(answer, _Filled) else answer
        yield batch.to(device, non_blocking=True)


def is_of_a_dead_worker(error: Exception) -> bool:
    """Whether torch raised ``error`` because a process that reads pictures died; it does so anywhere, by a signal."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker")


class _Memory:
    """Room for some batches, float32 ``[places, most, *shape]``, that the processes forked from this one share.

    torch and multiprocessing share a tensor through a file in /dev/shm, of which a container has 64 MB, and a socket in
    TMPDIR, whose path may not be long; where either fails, the batch never arrives. Anonymous memory needs neither.
    """

    known: ClassVar[WeakValueDictionary[int, _Memory]] = WeakValueDictionary()

    def __init__(self, places: int, most: int, shape: tuple[int, ...]) -> None:
        numbers = np.prod([places, most, *shape], dtype=np.int64).item()
        try:
            block = mmap.mmap(-1, max(4 * numbers, 1))
        except OSError as error:
            raise UserError(
                f"{4 * numbers:,} bytes of memory for the processes that read pictures are not to be had"
                f" ({error.strerror}); take a smaller --batch-size or fewer --workers."
            ) from error
        self.batches = torch.frombuffer(block, dtype=torch.float32, count=numbers).view(places, most, *shape)
        self.known[id(self)] = self


class _Filled:
    """What a worker sends: where in the memory of number ``memory`` its batch lies, of ``count`` pictures."""

    def __init__(self, memory: int, place: int, count: int) -> None:
        self.memory, self.place, self.count = memory, place, count

    def copy(self) -> Tensor:
        return self._batch().clone()

    def pin_memory(self) -> Tensor:
        """What torch's DataLoader calls, in a thread, where the batch goes on to a GPU."""
        return self._batch().pin_memory()

    def _batch(self) -> Tensor:
        return _Memory.known[self.memory].batches[self.place, : self.count]


class _Worker(Dataset[_Filled | str]):
    """In a worker: reads a request's pictures into a place; or the sentence that says why there are none."""

    def __init__(self, pictures: Pictures, memory: _Memory) -> None:
        self.pictures, self.memory = pictures, memory

    def __getitem__(self, asked: tuple[int, np.ndarray, np.ndarray | None]) -> _Filled | str:
        place, *request = asked
        indices, draws = (None if part is None else torch.from_numpy(part) for part in request)
        try:
            self.memory.batches[place, : len(indices)] = self.pictures.batch(indices, draws)
        except UserError as error:  # raised in a worker, it would arrive wrapped in a traceback
            return str(error)
        return _Filled(id(self.memory), place, len(indices))


def _answers(
    worker: _Worker, requests: Iterable[Request], workers: int, device: torch.device
) -> Iterator[_Filled | Tensor | str]:
    """What ``workers`` processes answer, in order; a tensor in pinned memory where it goes on to a GPU."""
    places = len(worker.memory.batches)
    loader = DataLoader(
        worker,
        # Arrays: a tensor would be shared by a file and a socket, see _Memory.
        sampler=((i % places, *(part if part is None else part.numpy() for part in r)) for i, r in enumerate(requests)),
        batch_size=None,  # an item is a whole batch
        num_workers=workers,
        prefetch_factor=_AHEAD,
        worker_init_fn=functools.partial(_begin_worker, os.getpid()),
        multiprocessing_context="fork",  # to inherit the memory
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # of a seed for the workers, which need none; torch's own would move on with it
    )
    try:
        answers = iter(loader)
    except OSError as error:
        # A half-made iterator of torch's complains when it is freed.
        hook, sys.unraisablehook = sys.unraisablehook, lambda complaint: None
        traceback.clear_frames(error.__traceback__)
        sys.unraisablehook = hook
        raise UserError(
            f"{workers} processes that read pictures cannot be started ({error.strerror}; each takes some open files"
            " and a little of /dev/shm); take fewer --workers, or 0 to read in the training process."
        ) from error
    while True:
        with heeding():
            answer = next(answers, None)
        if answer is None:
            return
        yield answer


def _begin_worker(parent: int, worker: int) -> None:
    """A terminal, torchrun and timeout signal a whole group of processes; the training process alone answers it."""
    os.setsid()  # a group of its own; the worker ends when asked to, or when the training process is gone
    end_with_parent(parent, signal.SIGKILL)
