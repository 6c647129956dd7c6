"""A dataclass is a command's configuration: this makes the command line and its help from it, and the way back.

A field's type says what its option takes, the string below the field is the option's help, its default the option's.
``metadata`` may say more: ``{"positional": "RUN"}`` for an argument without a flag, of that name in the help, and
``{"environment": "VARIABLE"}`` for a variable that counts where the option is not given. A path may begin with "~".
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import inspect
import itertools
import os
import re
import shlex
import shutil
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from svmax_ops.runs.errors import UserError

Config = TypeVar("Config")
_MAY_DIFFER = ("out", "resume", "workers")
_WIDEST = 100  # columns of help that are read at ease
_ACCEPTED = {int: "a whole number", float: "a number", str: "a text", Path: "a path"}
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def parse(config: type[Config], command: str, arguments: Sequence[str]) -> Config:
    """``config`` filled from the command line; ``--help`` prints every field and exits.

    Raises:
        UserError: arguments that do not fit, in one sentence.
    """
    options = _options(config)
    parser = _parser(config, command, options)
    given, unknown = parser.parse_known_intermixed_args([_with_hyphens(argument) for argument in arguments])
    if unknown:
        flag = next((argument for argument in unknown if argument.startswith("-")), None)
        raise UserError(f"unexpected argument {unknown[0]!r}." if flag is None else _unknown(flag, options))
    values = vars(given)
    for option in options:
        if option.positional and option.name in values:
            found = values[option.name]
            if option.kind is not tuple and len(found) > 1:
                raise UserError(f"one {option.metavar} is accepted, got {' '.join(map(str, found))}.")
            values[option.name] = tuple(found) if option.kind is tuple else found[0]
    return _filled(config, options, values, f"svmax {command} --help")


def configured(config: type[Config], values: Mapping[str, Any]) -> Config:
    """``config`` filled from plain values by the names of its options, as a study file has them.

    Raises:
        UserError: values that do not fit, in one sentence.
    """
    options = _options(config)
    known = {option.name: option for option in options}
    filled = {}
    for name, value in values.items():
        flag = "--" + str(name).replace("_", "-")
        option = known.get(str(name).replace("-", "_"))
        if option is None:
            raise UserError(_unknown(flag, options))
        filled[option.name] = option.of_plain(value)
    return _filled(config, options, filled, "the options of the command")


def as_arguments(config: Any) -> list[str]:
    """The arguments that :func:`parse` turns into ``config``: every field that is not at its default.

    Where an environment variable takes part in a default, its field is among them.
    """
    arguments = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default or os.environ.get(field.metadata.get("environment", "")):
            arguments += as_option(field.name, value) if "positional" not in field.metadata else [_unflagged(value)]
    return arguments


def as_option(name: str, value: Any) -> list[str]:
    """The arguments that set the field ``name`` to ``value``."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    return [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]


def as_command(command: str, config: Any) -> str:
    """What a user types to get ``config``, quoted for a shell."""
    return shlex.join(["svmax", command, *as_arguments(config)])


def plain_values(config: Any) -> dict[str, Any]:
    """The fields as JSON and a checkpoint keep them."""
    values = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def kept_values(config: Any) -> dict[str, Any]:
    """The plain values that determine a run: those that may not differ when it goes on."""
    return {name: value for name, value in plain_values(config).items() if name not in _MAY_DIFFER}


def require(condition: bool, name: str, value: object, accepted: str) -> None:
    """Refuse a configuration whose field ``name`` has a ``value`` that is not ``accepted``.

    Raises:
        UserError: with the flag, what was given and what is accepted.
    """
    if not condition:
        raise UserError(f"--{name.replace('_', '-')} must be {accepted}; got {value}.")


def check_workers(workers: int) -> None:
    """Refuse what is no number of processes, before anything is read or written."""
    require(workers >= 1, "workers", workers, "at least 1")


def did_you_mean(name: str, names: Iterable[str], most: int = 1, likeness: float = 0.6) -> str:
    """Up to ``most`` of ``names`` that are like ``name``, as the end of a sentence about it; empty where none is."""
    near = difflib.get_close_matches(name, dict.fromkeys(names), most, likeness)
    return f"; did you mean {' or '.join(near)}" if near else ""


@dataclasses.dataclass(frozen=True)
class _Option:
    """One field of a configuration, as an option."""

    name: str
    kind: Any
    """int, float, str, Path, bool, Literal, or tuple (of paths)."""
    optional: bool
    """Whether None is accepted."""
    choices: tuple[str, ...]
    """Of a Literal."""
    default: Any
    positional: str | None
    environment: str | None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def metavar(self) -> str | None:
        if self.positional:
            return self.positional
        return "{" + ",".join(self.choices) + "}" if self.choices else _METAVARS.get(self.kind)

    def of_text(self, text: str, said_by: str = "") -> Any:
        """The value that ``text`` stands for.

        Raises:
            UserError: it is none that is accepted.
        """
        kind = Path if self.kind is tuple else self.kind
        near = ""
        if self.optional and text == "None":
            return None
        if self.choices:
            if text in self.choices:
                return text
            accepted, near = _listed(self.choices), did_you_mean(text, self.choices)
        else:
            accepted = _ACCEPTED[kind]
            text = os.path.expanduser(text) if kind in (str, Path) else text
            try:
                if text or kind is str:
                    return kind(text)
            except ValueError:
                pass
        raise UserError(f"{said_by or self.positional or self.flag} must be {accepted}; got {text!r}{near}.")

    def of_plain(self, value: Any) -> Any:
        """The value that a study's ``value`` stands for.

        Raises:
            UserError: it is none that is accepted.
        """
        if self.kind is bool:
            require(isinstance(value, bool), self.name, repr(value), "true or false")
            return value
        if isinstance(value, bool):
            quote = "YAML reads yes, no, on and off so, unless they stand in quotes"
            raise UserError(f"{self.flag} must be {self._accepted()}; got {str(value).lower()} ({quote}).")
        if not isinstance(value, (str, int, float, Path, types.NoneType)):
            raise UserError(f"{self.flag} must be one value, {self._accepted()}; got {value!r}.")
        return self.of_text(str(value))

    def _accepted(self) -> str:
        return _listed(self.choices) if self.choices else _ACCEPTED[self.kind]

    def help(self, doc: str) -> str:
        """``doc`` with the default behind it, for argparse. A default of None is told of by ``doc``."""
        text = " ".join(doc.split())
        if self.default is dataclasses.MISSING:
            text += "" if self.positional else " (required)"
        elif self.default is not None:
            default = ("off", "on")[self.default] if self.kind is bool else self.default
            text += f" (default: {f'{self.environment}, or ' if self.environment else ''}{default})"
        return text.replace("%", "%%")


def _options(config: type) -> list[_Option]:
    hints = get_type_hints(config)
    options = []
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        inner = [kind for kind in get_args(hint) if kind is not types.NoneType]
        optional = types.NoneType in get_args(hint)
        kind = inner[0] if optional else hint
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        said = field.metadata
        options.append(
            _Option(
                field.name, get_origin(kind) or kind, optional, choices, field.default,
                said.get("positional"), said.get("environment"),
            )
        )  # fmt: skip
    return options


def _parser(config: type, command: str, options: Sequence[_Option]) -> argparse.ArgumentParser:
    required = [option for option in options if option.default is dataclasses.MISSING]
    usage = [f"{o.metavar}{' ...' if o.kind is tuple else ''}" for o in required if o.positional]
    usage += [f"{o.flag} {o.metavar}" for o in required if not o.positional]
    parser = _Parser(
        prog=f"svmax {command}",
        usage=" ".join(["%(prog)s", *usage, "[options]"]),
        description=config.__doc__,
        formatter_class=_Help,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
    )
    docs = _docs(config)
    group = parser.add_argument_group("options")
    group.add_argument("-h", "--help", action="help", help="show this help and exit")
    for option in options:
        if option.positional:
            # Of any number, counted by parse(): argparse takes options between and after them then.
            action = parser.add_argument(option.name, nargs="*", type=option.of_text, metavar=option.metavar)
        elif option.kind is bool:
            action = group.add_argument(option.flag, action=argparse.BooleanOptionalAction)
        else:
            action = group.add_argument(option.flag, type=option.of_text, metavar=option.metavar)
        action.help = option.help(docs.get(option.name, ""))  # afterwards: old Pythons add a default of their own
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        flag, _, what = message.removeprefix("argument ").partition(": ")
        if what == "expected one argument":
            raise UserError(f"{flag} needs a value; one that begins with - is given by {flag}=VALUE.")
        if what.startswith("ignored explicit argument"):
            raise UserError(f"{flag} takes no value, got {what.removeprefix('ignored explicit argument ')}.")
        raise UserError(f"{message}.")


class _Help(argparse.HelpFormatter):
    """Of the terminal's width, up to what is read at ease; the description keeps its paragraphs."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=min(shutil.get_terminal_size().columns, _WIDEST) - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(text))
        return "\n\n".join("\n".join(self._split_lines(paragraph, width)) for paragraph in paragraphs)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)  # an option's name stays whole


def _docs(config: type) -> dict[str, str]:
    """The string below each field, as the class's source has it; none where only bytecode is installed."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    except OSError:
        return {}
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: doc.value.value
        for field, doc in itertools.pairwise(tree.body)
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
    }


def _filled(config: Callable[..., Config], options: Sequence[_Option], values: dict[str, Any], see: str) -> Config:
    """``config`` of ``values``, where they lack one of the environment's."""
    for option in options:
        if option.environment and option.name not in values and os.environ.get(option.environment):
            values[option.name] = option.of_text(os.environ[option.environment], option.environment)
    missing = [o.positional or o.flag for o in options if o.default is dataclasses.MISSING and o.name not in values]
    if missing:
        raise UserError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; see {see}.")
    return config(**values)


def _with_hyphens(argument: str) -> str:
    """``--batch_size=8`` as ``--batch-size=8``."""
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument


def _unknown(flag: str, options: Sequence[_Option]) -> str:
    flag = flag.partition("=")[0]
    known = [option.flag for option in options if not option.positional]
    negated = [option.flag.replace("--", "--no-", 1) for option in options if option.kind is bool]
    return f"unknown option {flag}{did_you_mean(flag, [*known, *negated])}."


def _unflagged(value: Any) -> str:
    """A positional argument that is not read as a flag."""
    return os.path.join(os.curdir, value) if str(value).startswith("-") else str(value)


def _listed(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
