"""Finished runs, read back and put together: those that differ by seed only are one group."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from svmax_ops.runs import folders
from svmax_ops.runs.folders import Found, reportable
from svmax_ops.runs.harness import METRICS
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
_DATA_FIELDS = ("dataset", "root", "jitter")
DEPENDS_ON = {  # the fields beside the seed that a baseline's numbers change with; spread is that of batches of b
    "untrained": (*_DATA_FIELDS, "network", "weights", "batch_size", "dim"),
    "pixels": (*_DATA_FIELDS, "batch_size"),
    "chance": _DATA_FIELDS,
}
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


def collect(found: Found) -> tuple[list[Run], Found]:
    """The finished runs in ``found``, each once; and what a report leaves out.

    Raises:
        UserError: none is finished.
    """
    chosen = reportable(found, RetrievalConfig, _hindrance, lambda config: (_settings(config), config["seed"]))
    return [_with_network(run) for run in chosen.runs], chosen


def _with_network(run: folders.Run) -> Run:
    return Run(run.path, run.command, run.config, run.environment, run.lines)


def _hindrance(run: folders.Run) -> str | None:
    evaluated = _with_network(run).network
    if not evaluated:
        return "has not been evaluated yet"
    if evaluated[-1]["step"] < run.config["iterations"]:
        return f"is not finished (step {run.step} of {run.config['iterations']})"
    kinds = {line.get("of") for line in run.lines}
    missing = [of for of in ("chance", "pixels") if of not in kinds]
    if evaluated[0]["step"] > 0:
        missing.append("the untrained network")
    return f"cannot be read: {METRICS} lacks the evaluation of {' and '.join(missing)}" if missing else None


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


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
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
    of = {"svmax_weight": ("loss",), **dict.fromkeys(_FOLLOWING, _DATA_FIELDS)}.get(field)
    if of is None:
        return False
    pairs = {(*(s[name] for name in of), s[field]) for s in settings if s[field] is not None}
    return len(pairs) == len({pair[:-1] for pair in pairs})


def reference(run: Run, name: str) -> dict[str, Any]:
    """The evaluation of "untrained", "pixels" or "chance" that the run made before it trained."""
    if name == "untrained":
        return run.network[0]
    return next(line for line in run.lines if line.get("of") == name)


def distinct(groups: Sequence[Group], name: str) -> dict[str, list[Run]]:
    """Runs with every number of a baseline once: by the settings that it depends on, one run a seed."""
    fields = [field for field in DEPENDS_ON[name] if field in groups[0].label]
    found: dict[str, dict[int, Run]] = {}
    for run in (run for group in groups for run in group.runs):
        found.setdefault(json.dumps([run.config[field] for field in fields]), {})[run.config["seed"]] = run
    return {setting: list(by_seed.values()) for setting, by_seed in found.items()}


def baseline_levels(groups: Sequence[Group]) -> dict[str, float]:
    """R@1 of "untrained", "pixels" and "chance": the mean over what it depends on and the seeds."""
    levels = {}
    for name in DEPENDS_ON:
        runs = [run for alike in distinct(groups, name).values() for run in alike]
        levels[name] = mean(reference(run, name)["recall_at_1"] for run in runs)
    return levels
