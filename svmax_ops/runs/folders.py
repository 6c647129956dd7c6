"""Run folders, found and read back: which runs a report is of, and what it leaves out."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from svmax_ops.runs.command_line import plain_values
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.harness import CONFIG, METRICS, read_metrics

_DAMAGED = (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError, UserError)
_TIMED = "seconds"  # begins the names of what is measured anew in every run
_MOST_NAMED = 3  # folders in a sentence


@dataclasses.dataclass(frozen=True)
class Run:
    path: Path
    command: str
    """Of ``svmax``, that made it: "retrieval", "gan" or "embed2d"."""
    config: dict[str, Any]
    environment: dict[str, Any]
    """``command`` with its arguments, ``versions``, ``commit`` and ``machine``."""
    lines: list[dict[str, Any]]

    @property
    def step(self) -> int:
        """The last one that was logged; 0 before the first."""
        return max((line["step"] for line in self.lines), default=0)


class Found(NamedTuple):
    """The runs that a report is of, and what it leaves out."""

    runs: list[Run]
    left_out: dict[Path, str]
    """By folder, the reason, as what follows the folder's name in a sentence: "is not finished"."""

    def note(self) -> str:
        """Markdown on what is left out, to stand at the end of a report; empty where that is nothing."""
        lines = [f"- `{folder}` {reason}.\n" for folder, reason in self.left_out.items()]
        return "".join(["\nLeft out:\n\n", *lines]) if lines else ""

    def refusal(self) -> UserError:
        """For a report that nothing is left for."""
        reasons = [f"{folder} {reason}" for folder, reason in self.left_out.items()]
        more = len(reasons) - _MOST_NAMED
        named = [*reasons[:_MOST_NAMED], *([f"and {more} more"] if more > 0 else [])]
        return UserError(f"no run can be reported: {'; '.join(named)}.")


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The run folders in ``paths``, each a run folder or a folder of them; one that is given twice is there once.

    Raises:
        UserError: a path that is neither.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is not a folder.")
        # A run of several is a run folder with one for each of them in it.
        found = sorted(file.parent for file in path.glob(f"*/{CONFIG}")) or [path] * (path / CONFIG).exists()
        if not found:
            raise UserError(f"{path} holds no run (no {CONFIG} in it or in its folders).")
        for folder in found:
            folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def read_runs(folders: Sequence[Path]) -> Found:
    """The runs in the run folders ``folders``; those that cannot be read are left out."""
    found = Found([], {})
    for folder in folders:
        try:
            found.runs.append(_read(folder))
        except _DAMAGED as error:
            found.left_out[folder] = _unreadable(error)
    return found


def read_run(folder: Path) -> Run:
    """The run in ``folder``.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return _read(folder)
    except _DAMAGED as error:
        raise UserError(f"{folder} {_unreadable(error)}.") from error


def reportable(
    found: Found,
    config: type[Any],
    hindrance: Callable[[Run], str | None],
    identity: Callable[[Mapping[str, Any]], object],
) -> Found:
    """Those of the runs in ``found`` that are whole, each once; the others join what is left out.

    Args:
        found: runs of one command.
        config: the command's configuration: fills in the fields that a run of an earlier version did not have yet.
        hindrance: what keeps a run out of a report, as :attr:`Found.left_out` has it; None: nothing.
        identity: of a configuration: what tells its run from others, seed included.
    Raises:
        UserError: none is left.
    """
    kept: dict[str, Run] = {}
    left_out = dict(found.left_out)
    for run in found.runs:
        try:
            whole = dataclasses.replace(run, config=_complete(run.config, config))
            reason, key = hindrance(whole), repr(identity(whole.config))
        except _DAMAGED as error:
            reason, key = _unreadable(error), ""
        if reason is None and key in kept:
            reason = _of_a_copy(whole, kept[key])
        if reason is None:
            kept[key] = whole
        else:
            left_out[run.path] = reason
    if not kept:
        raise Found([], left_out).refusal()
    return Found(list(kept.values()), left_out)


def _read(folder: Path) -> Run:
    try:
        record = json.loads((folder / CONFIG).read_text("utf-8"))
        words = shlex.split(record["command"])
        command = words[words.index("svmax") + 1]  # "torchrun ..." may stand before it
        config, _ = dict(record.pop("config")), (record["versions"], record["commit"], record["machine"])
    except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise ValueError(f"{CONFIG} is damaged, or not of a run of svmax ({_gist(error)})") from error
    return Run(folder, command, config, record, _lines(folder))


def _lines(folder: Path) -> list[dict[str, Any]]:
    lines = read_metrics(folder) if (folder / METRICS).exists() else []  # none before the first was written
    for number, line in enumerate(lines, 1):
        if not (isinstance(line, dict) and {"step", "split"} <= line.keys()):
            raise ValueError(f"line {number} of {METRICS} is not one of a run of svmax")
    return lines


def _complete(values: dict[str, Any], config: type[Any]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(config)}
    whole = config(**{name: value for name, value in values.items() if name in known}).resolved()
    return {**values, **plain_values(whole)}


def _of_a_copy(run: Run, first: Run) -> str:
    own, others = ([_untimed(line) for line in each.lines if line["split"] == "test"] for each in (run, first))
    # As repr: a NaN is equal to itself then.
    but = "" if repr(own) == repr(others) else ", but came to other numbers"
    return f"is the same run as {first.path}{but}"


def _untimed(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if not name.startswith(_TIMED)}


def _unreadable(error: Exception) -> str:
    return f"cannot be read: {_gist(error)}"


def _gist(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{Path(error.filename or '').name}: {error.strerror}"
    return f"no {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
