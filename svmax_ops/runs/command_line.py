"""A dataclass is a command's configuration; tyro makes the command line from it, and this the way back."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import tyro

from svmax_ops.runs.errors import UserError

Config = TypeVar("Config")
_MAY_DIFFER = ("out", "resume", "workers")


def parse(config: type[Config], command: str, arguments: Sequence[str]) -> Config:
    """``config`` filled from the command line; ``--help`` prints every field and exits.

    Raises:
        UserError: arguments that do not fit, in one sentence instead of tyro's box.
    """
    help_wanted = "-h" in arguments or "--help" in arguments
    said = io.StringIO()
    try:
        with contextlib.nullcontext() if help_wanted else _one_line_each(said):
            return tyro.cli(
                config, prog=f"svmax {command}", args=list(arguments), config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as end:
        if end.code == 0 or help_wanted:
            raise
        raise UserError(_sentence(said.getvalue())) from None


def as_arguments(config: Any) -> list[str]:
    """The arguments that :func:`parse` turns into ``config``: every field that is not at its default."""
    arguments = []
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default:
            continue
        if tyro.conf.Positional in get_args(hints[field.name]):
            arguments.append(str(value))
            continue
        flag = "--" + field.name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            arguments += [flag, str(value)]
    return arguments


def as_command(command: str, config: Any) -> str:
    """What a user types to get ``config``, quoted for a shell."""
    return shlex.join(["svmax", command, *as_arguments(config)])


def plain_values(config: Any) -> dict[str, Any]:
    """The fields as JSON and a checkpoint keep them."""
    values = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def require(condition: bool, name: str, value: object, accepted: str) -> None:
    """Refuse a configuration whose field ``name`` has a ``value`` that is not ``accepted``.

    Raises:
        UserError: with the flag, what was given and what is accepted.
    """
    if not condition:
        raise UserError(f"--{name.replace('_', '-')} must be {accepted}; got {value}.")


def kept_values(config: Any) -> dict[str, Any]:
    """The plain values that determine a run: those that may not differ when it goes on."""
    return {name: value for name, value in plain_values(config).items() if name not in _MAY_DIFFER}


@contextlib.contextmanager
def _one_line_each(said: io.StringIO) -> Iterator[None]:
    """tyro draws its errors as a box as wide as the terminal; asked for a very wide one, it breaks no line."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        with contextlib.redirect_stderr(said):
            yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _sentence(box: str) -> str:
    """The text in the first compartment of tyro's box."""
    words: list[str] = []
    for line in box.splitlines():
        text = line.strip(" │╭╮╰╯─")
        if line.startswith("│") and text:
            words.append(text)
        elif words:
            break
    return " ".join(words) or box.strip() or f"cannot read the command line {shlex.join(sys.argv[1:])}."
