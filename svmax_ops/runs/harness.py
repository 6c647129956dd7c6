"""What every run leaves behind: the folder, the checkpoint, the metrics; each file whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from svmax_ops.runs.environment import environment
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.tensorboard_events import EventRecords

CONFIG, METRICS, CHECKPOINT, EVENTS = "config.json", "metrics.jsonl", "checkpoint.pt", "events.out.tfevents.run"

# What a file system answers that has no such thing: some network and FUSE file systems no locks, some no fsync.
_NOT_OFFERED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class RunFolder:
    """One run's folder: ``config.json``, ``metrics.jsonl``, ``checkpoint.pt``, PNG figures, TensorBoard events.

    Args:
        path: a new or empty folder, or with ``resume`` the folder of the same run.
        config: plain values that determine the run. A resumed run must have been started with the same.
        command: the command line that repeats the run; kept in config.json and printed when the run is cut off.
        resume: go on from the folder's checkpoint (from the beginning where it has none yet).
        events: keep TensorBoard events. A folder of runs has none: each run in it has its own.
    Raises:
        UserError: the folder cannot be used; nothing in it has been touched.
    """

    def __init__(
        self, path: Path, config: Mapping[str, Any], command: str, resume: bool, *, events: bool = True
    ) -> None:
        self.path = path
        self.config = dict(config)
        self.resume_command = command + " --resume"
        self.checkpoint: dict[str, Any] | None = None
        names = (METRICS, EVENTS) if events else (METRICS,)
        if resume:
            self._reopen(names)
        else:
            self._create(command)
        with writing(path):
            opened = {name: _grow(path / name, self._kept(name)) for name in names}
            self._growing = {name: file for name, (file, _) in opened.items()}
            self._events = EventRecords(self._growing[EVENTS]) if events else None
        if not all(is_locked for _, is_locked in opened.values()):
            print(f"{path} is on a file system without locks: see to it that no second process runs in it.")

    def _kept(self, name: str) -> int:
        """The bytes that a growing file had at the checkpoint; what came after is computed again."""
        return self.checkpoint["bytes"][name] if self.checkpoint else 0

    def _create(self, command: str) -> None:
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            used = any(self.path.iterdir())
        if used:
            raise UserError(
                f"--out {self.path} is not empty; choose a new folder, or add --resume to go on with the run in it."
            )
        record = {"command": command, "config": self.config, **environment()}
        write_atomically(self.path / CONFIG, (json.dumps(record, indent=2) + "\n").encode())

    def _reopen(self, growing: Sequence[str]) -> None:
        try:
            started = json.loads((self.path / CONFIG).read_text("utf-8"))["config"]
        except FileNotFoundError:
            raise UserError(f"--resume: {self.path} holds no run ({CONFIG} is missing).") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"--resume: {self.path / CONFIG} cannot be read: {error}.") from error
        if (self.path / CHECKPOINT).exists():
            self.checkpoint = read_checkpoint(self.path / CHECKPOINT)
            started = self.checkpoint["config"]
        differing = [name for name in {**started, **self.config} if started.get(name) != self.config.get(name)]
        if differing:
            name = differing[0]
            raise UserError(
                f"--resume: the run in {self.path} was started with {name} = {started.get(name)!r},"
                f" now it is {self.config.get(name)!r}; give the same command line, or another --out."
            )
        for name in growing:
            size = (self.path / name).stat().st_size if (self.path / name).exists() else 0
            if size < self._kept(name):
                raise UserError(f"--resume: {self.path / name} is shorter than it was at the checkpoint.")

    def log(self, line: Mapping[str, Any], histograms: Mapping[str, Sequence[float]] | None = None) -> None:
        """Append one line (with ``step``) to metrics.jsonl.

        Its plain numbers go to the TensorBoard events too, its lists and the further ``histograms`` as histograms.
        """
        with writing(self.path / METRICS):
            self._growing[METRICS].write((json.dumps(line) + "\n").encode())
            self._growing[METRICS].flush()
        if self._events:
            with writing(self.path / EVENTS):
                self._events.log(line, histograms or {})

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Replace checkpoint.pt by one of ``state`` after ``step`` steps, whole or not at all."""
        with writing(self.path):
            for file in self._growing.values():
                _sync(file.fileno())
        sizes = {name: file.tell() for name, file in self._growing.items()}
        whole = {"step": step, "config": self.config, "bytes": sizes, **state}
        self.keep(CHECKPOINT, whole)

    def keep(self, name: str, state: Mapping[str, Any]) -> None:
        """Replace the file of that name by one of ``state``, as torch.save writes it, whole or not at all."""
        buffer = io.BytesIO()  # torch.save to a full disk raises RuntimeError with a text about zip archives
        torch.save(state, buffer)
        write_atomically(self.path / name, buffer.getbuffer())

    def close(self) -> None:
        with writing(self.path):
            for file in self._growing.values():
                file.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _grow(path: Path, kept: int) -> tuple[BinaryIO, bool]:
    """The file, open behind its first ``kept`` bytes, and whether this process has it for itself."""
    file = open(path, "ab")  # noqa: SIM115 - closed by RunFolder.close
    try:
        is_locked = _lock(file, path.parent)
    except (OSError, UserError):
        file.close()
        raise
    file.truncate(kept)
    file.seek(kept)
    return file, is_locked


def _lock(file: BinaryIO, folder: Path) -> bool:
    """Keep other processes from it until it is closed, or this process is gone; False: the file system cannot.

    Raises:
        UserError: another process has the lock.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is running in {folder}.") from None
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        return False
    return True


def _sync(descriptor: int) -> None:
    """Until it is on the disk, where the file system offers to wait for that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint at ``path``; only tensors and plain containers are read, so a foreign file executes nothing."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if not {"step", "config", "bytes"} <= set(checkpoint):
            raise ValueError("it lacks the fields of a checkpoint")
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError, pickle.UnpicklingError) as error:
        first_line = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(f"{path} is truncated or no checkpoint of svmax_ops ({first_line}).") from error
    return checkpoint


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run folder's metrics.jsonl; a last line cut off in mid-write is left out.

    Raises:
        ValueError: another line is damaged.
    """
    lines: list[dict[str, Any]] = []
    texts = (path / METRICS).read_text("utf-8").splitlines()
    for text in texts:
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            if len(lines) < len(texts) - 1:
                raise ValueError(f"line {len(lines) + 1} of {METRICS} is damaged ({error})") from error
    return lines


def is_finished(path: Path) -> bool:
    """Whether the run in ``path`` has done all it was asked to; False where there is none."""
    return (path / CHECKPOINT).exists() and bool(read_checkpoint(path / CHECKPOINT).get("finished"))


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write under a temporary name, then rename: a reader or a crash sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                _sync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            _sync(folder)  # the rename itself
        finally:
            os.close(folder)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """An OSError inside (disk full, no permission, not a folder) becomes a sentence that names ``path``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}.") from error
