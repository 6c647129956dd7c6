"""What cuts a run off: each ends in a sentence, with a whole checkpoint from which it goes on bit for bit."""

from __future__ import annotations

import errno
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch.utils.data import get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from svmax_ops.backends import native
from svmax_ops.cli import main
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.harness import read_checkpoint
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.images import ImageFiles
from svmax_ops.runs.retrieval.data.loading import Request, _Filled, _Memory, load
from svmax_ops.runs.retrieval.models import SmallNetwork
from svmax_ops.runs.retrieval.parallel import Ranks
from svmax_ops.runs.retrieval.run import _Run
from svmax_ops.runs.retrieval.training import Training
from svmax_ops.runs.signals import Signals
from tests.runs import trees


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> Path:
    return trees.cub200(tmp_path_factory.mktemp("birds"), images_per_class=4)


@pytest.fixture(scope="module")
def command(birds: Path) -> list[str]:
    """A network with dropout on photographs: 4 iterations, a checkpoint after 2, two processes that read."""
    flags = "--no-check-counts --network mobilenet_v2 --weights none --dim 8 --batch-size 12 --iterations 4 --lr 0.01"
    flags += " --log-every 1 --evaluate-every 3 --checkpoint-every 2 --workers 2"
    return ["retrieval", "--dataset", "cub200", "--root", str(birds), *flags.split()]


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert main([*command, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def light(command) -> list[str]:
    """The same with a small network: of what the processes that read do, as much."""
    return [*command, "--network", "small"]


@pytest.fixture(scope="module")
def whole_light(light, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("light")
    assert main([*light, "--out", str(folder)]) == 0
    return folder


def assert_equal_ends(metrics, one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    for name in ("checkpoint.pt", "best.pt"):
        ours, theirs = (torch.load(folder / name, weights_only=True) for folder in (one, other))
        assert ours["step"] == theirs["step"]
        assert all(value.equal(theirs["network"][key]) for key, value in ours["network"].items())


@pytest.mark.processes
def test_a_stopped_run_with_dropout_and_workers_goes_on_bit_for_bit(
    svmax, command, whole, metrics, tmp_path, monkeypatch
):
    step = Training.step

    def stop(self: Training):
        if self.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", stop)
        assert svmax(*command, "--out", tmp_path).code == 143
    assert svmax(*command, "--workers", 0, "--out", tmp_path, "--resume").code == 0  # whoever reads the pictures
    assert_equal_ends(metrics, tmp_path, whole)


@pytest.mark.processes
@pytest.mark.parametrize("waiting_for", ["the third step", "an evaluation"])
def test_a_signal_is_heeded_while_pictures_do_not_come(
    svmax, light, whole_light, metrics, tmp_path, monkeypatch, waiting_for
):
    """And nothing is lost: the checkpoint is one of the last step, and says that its evaluation is due."""
    batch, evaluate = ImageFiles.batch, _Run._evaluate_if_due
    state = {"training": True}

    def hang(self, indices, draws=None):
        is_hung = state.get("calls", 0) == 1 if waiting_for == "the third step" else state.get("due")
        if draws is not None:
            state["calls"] = state.get("calls", 0) + 1  # this worker's
        if is_hung and get_worker_info() is not None:
            if get_worker_info().id == 0:
                os.kill(os.getppid(), signal.SIGTERM)
            threading.Event().wait()
        return batch(self, indices, draws)

    def note(self):
        state["due"] = self.evaluation_due
        evaluate(self)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "batch", hang)
        patch.setattr(_Run, "_evaluate_if_due", note)
        assert svmax(*light, "--out", tmp_path).code == 143
    checkpoint = read_checkpoint(tmp_path / "checkpoint.pt")
    if waiting_for == "an evaluation":
        assert (checkpoint["step"], checkpoint["evaluation_due"]) == (3, True)
    assert svmax(*light, "--out", tmp_path, "--resume").code == 0
    assert_equal_ends(metrics, tmp_path, whole_light)


@pytest.mark.processes
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_signal_between_steps_is_heeded_where_no_process_reads(svmax, small, tmp_path, monkeypatch, signum, code):
    """SIGHUP comes twice when a terminal is closed: from the kernel, and from the shell."""
    step = Training.step

    def stop(self: Training):
        if self.done == 2:
            for _ in range(1 + (signum == signal.SIGHUP)):
                os.kill(os.getpid(), signum)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", stop)
        assert svmax("retrieval", *small, "--out", tmp_path).code == code
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2


TWICE = """
import os, signal
from svmax_ops.runs.signals import Signals, end_with_parent

end_with_parent(os.getppid())
with Signals() as signals:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    print(signals.received)
"""


@pytest.mark.processes
def test_the_end_of_the_parent_may_be_told_more_than_once():
    """Linux tells it once for each of the parent's threads that had this process handed on to it as they ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", TWICE], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{signal.SIGTERM.value}\n"), done.stderr


@pytest.mark.processes
def test_nohup_is_respected(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signals.received is None


@pytest.mark.processes
def test_reading_processes_need_neither_shared_memory_files_nor_a_short_tmpdir(light, whole_light, metrics, tmp_path):
    """As in a container: a /dev/shm smaller than a batch, of 7 MB here. It has to hold the semaphores alone."""
    small = "mount -t tmpfs -o size=1m tmpfs /dev/shm && "
    can = subprocess.run(["unshare", "-m", "sh", "-c", small + "true"], capture_output=True, text=True)
    if can.returncode:
        pytest.skip(f"no /dev/shm of our own: {can.stderr.strip()}")
    long = tmp_path / ("t" * 110)
    long.mkdir()
    run = [sys.executable, "-m", "svmax_ops.cli", *light, "--out", str(tmp_path / "run")]
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", small + 'exec "$@"', "sh", *run],
        env={**os.environ, "TMPDIR": str(long), "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert metrics(tmp_path / "run") == metrics(whole_light)


def test_too_few_open_files_for_the_reading_processes(birds, capfd):
    pictures = trees.read("cub200", birds.parent).train
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir("/proc/self/fd")))
    most = [number for number in range(len(taken) + 16) if number not in taken][8]  # 8 more may be opened
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        with pytest.raises(
            UserError, match=r"50 processes .* cannot be started \(Too many open files; .* or 0 to read"
        ):
            next(load(pictures, [Request(torch.arange(2))], 50, torch.device("cpu")))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert capfd.readouterr().err == ""


def test_too_few_open_files_for_anything_else(svmax, monkeypatch):
    def fail(backend):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(native.Cpu, "describe", fail)
    outcome = svmax("info")
    assert (outcome.code, outcome.err) == (
        2, "svmax info: too many files are open; raise the limit that ulimit -n shows.\n"
    )  # fmt: skip


def test_a_batch_on_its_way_to_a_gpu_is_pinned_out_of_the_shared_memory(monkeypatch):
    """torch's thread that pins calls ``pin_memory`` on what a worker sent; there is no GPU to see it by."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    memory = _Memory(3, 4, (1, 2, 2))
    memory.batches[:] = torch.arange(48.0).view(3, 4, 1, 2, 2)
    sent = pickle.loads(pickle.dumps(_Filled(id(memory), 1, 3)))
    pinned = pin_memory(sent, "cuda")
    assert pinned.equal(torch.arange(16.0, 28.0).view(3, 1, 2, 2))
    memory.batches.zero_()  # the place is filled anew
    assert pinned.sum() > 0


@pytest.mark.processes
def test_an_unreadable_image_is_named_and_the_run_goes_on_once_it_is_back(
    svmax, command, birds, whole, metrics, tmp_path
):
    image = sorted((birds / "images").glob("002.*/*.jpg"))[1]
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    try:
        outcome = svmax(*command, "--out", tmp_path / "run")
    finally:
        image.write_bytes(content)
    assert outcome.code == 2
    assert str(image) in outcome.err
    assert outcome.err.count("\n") == 1
    assert "; go on with: svmax retrieval --dataset cub200 --root" in outcome.err
    assert svmax(*command, "--out", tmp_path / "run", "--resume").code == 0
    assert_equal_ends(metrics, tmp_path / "run", whole)


@pytest.mark.processes
def test_a_reading_process_that_dies(svmax, command, whole, metrics, tmp_path, monkeypatch):
    batch = ImageFiles.batch

    def die(self, indices, draws=None):
        if draws is not None and get_worker_info() is not None and get_worker_info().id == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(self, indices, draws)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "batch", die)
        outcome = svmax(*command, "--out", tmp_path)
    assert outcome.code == 2
    assert re.search(r"a process that reads pictures died at step [12] \(DataLoader worker \(pid", outcome.err)
    assert "take fewer --workers; go on from the last checkpoint with: svmax retrieval" in outcome.err
    assert svmax(*command, "--out", tmp_path, "--resume").code == 0
    assert_equal_ends(metrics, tmp_path, whole)


def test_memory_that_runs_out(svmax, small, metrics, tmp_path, monkeypatch):
    forward = SmallNetwork.forward

    def hungry(self, pictures):
        if self.training and len(pictures) == 24 and hungry.calls == 3:
            torch.empty(2**60)
        hungry.calls += self.training
        return forward(self, pictures)

    hungry.calls = 0
    with monkeypatch.context() as patch:
        patch.setattr(SmallNetwork, "forward", hungry)
        outcome = svmax("retrieval", *small, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "memory ran out at step 4; take a smaller --batch-size or --autocast bfloat16 in a new --out;" in outcome.err
    assert "go on from the last checkpoint with: svmax retrieval" in outcome.err
    assert read_checkpoint(tmp_path / "run/checkpoint.pt")["step"] == 2
    assert svmax("retrieval", *small, "--out", tmp_path / "run", "--resume").code == 0
    assert svmax("retrieval", *small, "--out", tmp_path / "whole").code == 0
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.mark.processes
def test_a_run_goes_on_without_the_weights_that_it_began_with(svmax, small, tmp_path, monkeypatch):
    weights = tmp_path / "weights.pt"
    torch.save(SmallNetwork((1, 32, 32), 8).state_dict(), weights)
    step = Training.step

    def stop(self: Training):
        if self.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    command = ["retrieval", *small, "--weights", weights, "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", stop)
        assert svmax(*command).code == 143
    weights.unlink()
    assert svmax(*command, "--resume").code == 0
    assert svmax(*command[:-1], tmp_path / "new").err.startswith(
        "svmax retrieval: --weights must be imagenet, none or a"
    )


def test_the_best_network_is_kept_beside_the_last(whole, metrics):
    best = torch.load(whole / "best.pt", weights_only=True)
    tests = [line for line in metrics(whole) if line.get("of") == "network"]
    highest = max(line["recall_at_1"] for line in tests)
    assert best["recall_at_1"] == highest
    assert best["step"] == next(line["step"] for line in tests if line["recall_at_1"] == highest)


@pytest.mark.parametrize(
    "options", [{"autocast": "bfloat16"}, {"autocast": "float16"}, {"channels_last": True}], ids=str
)
def test_half_precision_and_channels_last_train_like_float32(options):
    """The first loss agrees to the precision of the type, and the steps go on from there."""
    from svmax_ops.runs.retrieval.data.strokes import strokes

    pictures = strokes(RetrievalConfig()).train
    config = {"iterations": 6, "lr": 0.01, "batch_size": 24}
    plain = Training(RetrievalConfig(**config), pictures)
    other = Training(RetrievalConfig(**config, **options), pictures, Ranks("cpu"))
    ours, theirs = (training.step()[0]["loss"] for training in (plain, other))
    assert theirs == pytest.approx(ours, rel=1e-5 if "channels_last" in options else 2e-2)
    losses = [other.step()[0]["loss"] for _ in range(5)]
    assert losses[-1] < theirs
    assert all(parameter.dtype == torch.float32 for parameter in other.network.parameters())
