"""A run small enough to be repeated in every test: typefaces that matplotlib ships, a few iterations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pytest

from svmax_ops.cli import main


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def svmax(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """The ``svmax`` command in this process."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def fonts_root() -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(scope="session")
def small(fonts_root: Path) -> list[str]:
    """Arguments of ``svmax retrieval``: 6 iterations, checkpoints after 2 and 4, evaluation after 3."""
    flags = "--batch-size 24 --dim 8 --iterations 6 --log-every 1 --evaluate-every 3 --checkpoint-every 2"
    return ["--dataset", "fonts", "--root", str(fonts_root), *flags.split()]


@pytest.fixture(scope="session")
def metrics() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a run's metrics.jsonl but for the measured times, which no two runs share."""

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
        return [line for line in lines if line["split"] != "cost"]

    return read
