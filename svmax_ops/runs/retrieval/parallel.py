"""The processes that share a batch: those that torchrun started, or this one alone."""

from __future__ import annotations

import gc
import os
import signal
import threading
import traceback
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.processes import torchrun_processes
from svmax_ops.runs.signals import end_with_parent

# The others wait while the first process evaluates, for the raw pixels of 60,502 photographs perhaps longer than NCCL's
# ten minutes. A process that ends does not keep them waiting: torchrun ends the rest.
_PATIENCE = timedelta(hours=2)
_UNTIL_SAID = 10.0  # seconds


class Ranks:
    """Inside, the process group of torchrun is open. Outside, or without torchrun, this process is alone.

    Args:
        device: "auto", "cpu" or "cuda"; with several GPUs each process takes its own.
    Raises:
        UserError: on entering, more processes than GPUs.

    Without torchrun's own variables, RANK and WORLD_SIZE mean nothing: a shell may have kept them, a cluster sets them
    for every program.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.count = 0, 1
        self.group: Any = None
        """None: nothing is communicated."""
        self._before: Any = None  # what SIGTERM did
        self.launched = torchrun_processes()
        on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        local_rank = int(os.environ.get("LOCAL_RANK", 0)) if self.launched else 0
        self.device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")

    def __enter__(self) -> Ranks:
        if self.device.type == "cuda":
            if self.device.index >= torch.cuda.device_count():
                raise UserError(
                    f"torchrun must start a process for each GPU at most: --nproc-per-node {torch.cuda.device_count()};"
                    f" got {os.environ.get('LOCAL_WORLD_SIZE')}."
                )
            torch.cuda.set_device(self.device)
        if self.launched:
            end_with_parent(os.getppid())  # torchrun's own process, killed without a chance to end this one
            self.rank, self.count = int(os.environ["RANK"]), self.launched
            self._meet_the_others()
        elif os.environ.get("WORLD_SIZE", "1") != "1":
            found = ", ".join(f"{name}={os.environ[name]}" for name in ("RANK", "WORLD_SIZE") if name in os.environ)
            print(f"{found} in the environment is not of torchrun: this process runs alone.")
        return self

    def _meet_the_others(self) -> None:
        said = threading.Timer(_UNTIL_SAID, print, [f"waiting for all {self.count} processes of torchrun"])
        if self.is_first:
            said.start()
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would wait with the process
        try:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo", timeout=_PATIENCE)
        finally:
            signal.signal(signal.SIGINT, before)
            said.cancel()
        self.group = dist.group.WORLD

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.group is None:
            return
        dist.destroy_process_group()
        if error is None and self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        # Gloo's threads end with the last reference to the group; a network and the frames of an error hold some. One
        # that outlives Python may abort the process: it frees a tensor, for which it needs Python.
        self.group = None
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__
        gc.collect()

    @property
    def launcher(self) -> str:
        """What stands before a command that is to start as many processes on this machine."""
        here = os.environ.get("LOCAL_WORLD_SIZE", "1")
        return f"torchrun --nproc-per-node {here} --no-python " if self.group is not None else ""

    def outlast_sigterm(self) -> None:
        """From here to the end, what :class:`Signals` does not note is ignored.

        Once a process has ended in an error torchrun tells the others to end, by SIGTERM and half a minute later by
        SIGKILL. That is time enough to write a checkpoint and to say what has happened.
        """
        if self.group is not None:
            self._before = signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def leave(self) -> SystemExit:
        """What ends a process that leaves it to the first one to say why: torchrun ends the rest after an error."""
        return SystemExit(0)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    def own(self, rows: Tensor) -> Tensor:
        """This process's share of the rows of a whole batch; of equal size where they can be shared out evenly."""
        return rows.tensor_split(self.count)[self.rank]

    def whole(self, rows: Tensor) -> Tensor:
        """The rows ``[b / processes, d]`` of all processes as one batch ``[b, d]``, in their order.

        Every process computes the loss of the whole batch and follows it back to its own rows only. Data-parallel
        training averages over the processes, so that gradient is multiplied by their number.
        """
        if self.group is None:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        dist.all_gather(parts, rows.detach().contiguous(), group=self.group)
        parts[self.rank] = own = rows.view_as(rows)
        if own.requires_grad:
            own.register_hook(lambda gradient: gradient * self.count)
        return torch.cat(parts)

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        if self.group is None:
            return number
        tensor = torch.tensor(number, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.group)
        return int(tensor)

    def of_first(self, thing: Any) -> Any:
        """What the first process gives."""
        if self.group is None:
            return thing
        things = [thing]
        dist.broadcast_object_list(things, src=0, group=self.group, device=self.device)
        return things[0]

    def all(self, thing: Any) -> list[Any]:
        """What each process gives."""
        if self.group is None:
            return [thing]
        things: list[Any] = [None] * self.count
        dist.all_gather_object(things, thing, group=self.group)
        return things

    def share_network(self, network: nn.Module) -> nn.Module:
        """The network, with gradients averaged over the processes and BatchNorm over the whole batch."""
        if self.group is None:
            return network
        if self.device.type == "cuda":
            shared = _synchronized(network, self.group)
            return DistributedDataParallel(shared, device_ids=[self.device])
        _share_batch_norm(network, self.group)
        return DistributedDataParallel(network)

    def check(self, batch_size: int) -> None:
        """Refuse a batch that the processes cannot share out evenly."""
        if batch_size % self.count:
            raise UserError(
                f"--batch-size must be a multiple of the {self.count} processes of torchrun; got {batch_size}."
            )


class _Sum(torch.autograd.Function):
    """Of all processes; what its sum contributes to the loss is summed too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        x = x.clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Sum.apply(grad, ctx.group), None


def _synchronized(network: nn.Module, group: Any) -> nn.Module:
    """``network`` with SyncBatchNorm; torch's conversion would lose the activation inside timm's BatchNorm."""
    if any(type(module).__module__.startswith("timm.") for module in network.modules()):
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(network, group)
    return nn.SyncBatchNorm.convert_sync_batchnorm(network, group)


class _SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d over the rows of all processes on a CPU, where torch's SyncBatchNorm does not run.

    The processes have equally many rows.
    """

    group: Any

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        x = self._normalized(x)
        return self.act(self.drop(x)) if hasattr(self, "act") else x  # timm's BatchNormAct2d

    def _normalized(self, x: Tensor) -> Tensor:
        wide = x.double()  # for the difference of squares
        sums = torch.stack([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))])
        count = x.numel() // x.shape[1] * dist.get_world_size(self.group)
        mean, square = _Sum.apply(sums, self.group) / count
        variance = square - mean.square()
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.float(), momentum)
            self.running_var.lerp_((variance * count / (count - 1)).float(), momentum)
        mean, scale = mean.to(self.weight.dtype), self.weight * (variance + self.eps).rsqrt().to(self.weight.dtype)
        return ((x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def _share_batch_norm(network: nn.Module, group: Any) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # with its parameters, its buffers and its forward for testing
            module.__class__ = type("SharedBatchNorm", (_SharedBatchNorm, type(module)), {"group": group})
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UserError(f"--network: its {type(module).__name__} cannot be shared by processes on CPUs.")
