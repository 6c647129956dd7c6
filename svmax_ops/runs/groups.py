"""Finished runs, read back and put together: those that differ by seed only are one group."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.harness import CONFIG, read_metrics

_CADENCE = ("evaluate_every", "log_every", "checkpoint_every")  # how often, not what


@dataclasses.dataclass(frozen=True)
class Run:
    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    lines: list[dict[str, Any]]

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
    """The runs in ``paths``, each a run folder or a folder of them; those not evaluated yet are named and left out."""
    folders: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is not a folder.")
        found = [path] if (path / CONFIG).exists() else sorted(file.parent for file in path.glob(f"*/{CONFIG}"))
        if not found:
            raise UserError(f"{path} holds no run (no {CONFIG} in it or in its folders).")
        folders += found
    runs = []
    for folder in folders:
        try:
            record = json.loads((folder / CONFIG).read_text("utf-8"))
            run = Run(folder, record.pop("config"), record, read_metrics(folder))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"the run in {folder} cannot be read: {error}.") from error
        if run.network:
            runs.append(run)
        else:
            print(f"{folder}: nothing evaluated yet, left out")
    if not runs:
        raise UserError("none of the runs has been evaluated yet.")
    return runs


def group(runs: Sequence[Run]) -> list[Group]:
    """Runs of equal configuration but for the seed, in the order of their first; labelled by what differs."""
    settings = [_settings(run.config) for run in runs]
    fields = [field for field in settings[0] if len({str(s[field]) for s in settings if s[field] is not None}) > 1]
    weights = {(s["loss"], s["svmax_weight"]) for s in settings if s["svmax_weight"] is not None}
    if len(weights) == len({loss for loss, _ in weights}) and "svmax_weight" in fields:
        fields.remove("svmax_weight")  # follows from the loss
    groups: dict[str, Group] = {}
    for run, setting in zip(runs, settings, strict=True):
        label = {field: setting[field] for field in ("loss", "regularizer")} | {f: setting.get(f) for f in fields}
        groups.setdefault(json.dumps(setting, sort_keys=True), Group(label, [])).runs.append(run)
    return list(groups.values())


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration without the seed, and with what has no effect blanked."""
    settings = {name: value for name, value in config.items() if name not in ("seed", *_CADENCE)}
    if config["regularizer"] != "svmax":
        settings |= {"svmax_weight": None, "center": None, "bounded": None}
    if config["regularizer"] != "spread-out":
        settings["spread_out_weight"] = None
    return settings


def reference(run: Run, name: str) -> dict[str, Any]:
    """The evaluation of "untrained", "pixels" or "chance" that the run made before it trained."""
    if name == "untrained":
        return run.network[0]
    return next(line for line in run.lines if line.get("of") == name)
