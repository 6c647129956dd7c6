"""Finished runs, read back and put together: those that differ by seed only are one group."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svmax_ops.runs import folders
from svmax_ops.runs.command_line import plain_values
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig

# How often, where and by whom, not what.
_NO_EFFECT = (
    "seed",
    "evaluate_every",
    "log_every",
    "checkpoint_every",
    "workers",
    "processes",
    "device",
    "out",
    "resume",
)
_FOLLOWING = ("iterations", "network", "weights", "dim", "check_counts")  # may follow from the data set


class Run(folders.Run):
    @property
    def network(self) -> list[dict[str, Any]]:
        """The evaluations of the network, in the order of training."""
        return [line for line in self.lines if line.get("of") == "network"]


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ by seed only."""

    label: dict[str, Any]
    """The settings that tell this group from the others."""
    runs: list[Run]

    def final(self, measure: str) -> list[float]:
        """The measure after the last evaluation, one value a run."""
        return [run.network[-1][measure] for run in self.runs]


def collect(paths: Sequence[Path]) -> list[Run]:
    """The runs in the run folders ``paths``.

    Those not evaluated yet are named and left out; beside finished runs those not finished too.
    """
    runs = []
    for path in paths:
        read = folders.read_run(path)
        run = Run(path, read.command, _complete(read.config), read.environment, read.lines)
        if run.network:
            runs.append(run)
        else:
            print(f"{path}: nothing evaluated yet, left out")
    if not runs:
        raise UserError("none of the runs has been evaluated yet.")
    finished = [run for run in runs if run.network[-1]["step"] == run.config["iterations"]]
    for run in runs:
        if finished and run not in finished:
            print(f"{run.path}: at step {run.network[-1]['step']} of {run.config['iterations']}, left out")
    return finished or runs


def group(runs: Sequence[Run]) -> list[Group]:
    """Runs of equal configuration but for the seed, in the order of their first; labelled by what differs."""
    settings = [_settings(run.config) for run in runs]
    fields = [field for field in settings[0] if len({str(s[field]) for s in settings if s[field] is not None}) > 1]
    fields = [field for field in fields if not _follows(field, settings)]
    groups: dict[str, Group] = {}
    for run, setting in zip(runs, settings, strict=True):
        label = {field: setting[field] for field in ("loss", "regularizer")} | {f: setting.get(f) for f in fields}
        groups.setdefault(json.dumps(setting, sort_keys=True), Group(label, [])).runs.append(run)
    return list(groups.values())


def _complete(config: dict[str, Any]) -> dict[str, Any]:
    """With the fields that a run of an earlier version did not have yet."""
    known = {field.name for field in dataclasses.fields(RetrievalConfig)}
    whole = RetrievalConfig(**{name: value for name, value in config.items() if name in known}).resolved()
    return {**config, **plain_values(whole)}


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without what has no effect; the centred form of SVMax is a regularizer of its own."""
    settings = {name: value for name, value in config.items() if name not in _NO_EFFECT}
    if config["regularizer"] != "svmax":
        settings |= {"svmax_weight": None, "bounded": None}
    elif config["center"]:
        settings["regularizer"] = "svmax-centred"
    if config["regularizer"] != "spread-out":
        settings["spread_out_weight"] = None
    del settings["center"]
    return settings


def _follows(field: str, settings: Sequence[dict[str, Any]]) -> bool:
    """Whether a field says nothing that the loss, or the data set, does not say already."""
    of = {"svmax_weight": ("loss",), **dict.fromkeys(_FOLLOWING, ("dataset", "root", "jitter"))}.get(field)
    if of is None:
        return False
    pairs = {(*(s[name] for name in of), s[field]) for s in settings if s[field] is not None}
    return len(pairs) == len({pair[:-1] for pair in pairs})


def reference(run: Run, name: str) -> dict[str, Any]:
    """The evaluation of "untrained", "pixels" or "chance" that the run made before it trained."""
    if name == "untrained":
        return run.network[0]
    return next(line for line in run.lines if line.get("of") == name)
