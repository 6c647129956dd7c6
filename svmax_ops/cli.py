"""The ``svmax`` command. ``info`` needs the package alone; the others need the ``[runs]`` extra, imported when used."""

from __future__ import annotations

import errno
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from typing import NamedTuple

import svmax_ops
from svmax_ops.runs.command_line import did_you_mean, parse
from svmax_ops.runs.errors import Stopped, UserError
from svmax_ops.runs.output import guarded
from svmax_ops.runs.signals import end_at_once_while_importing


class Command(NamedTuple):
    summary: str
    config: str
    """Place of its configuration, a dataclass with ``check()``, which is quick to import: --help needs it."""
    run: str
    """Place of the function that is called with a configuration, imported when that has been checked."""


COMMANDS = {
    "retrieval": Command(
        "train an embedding network with or without SVMax and evaluate it",
        "svmax_ops.runs.retrieval.config:RetrievalConfig",
        "svmax_ops.runs.retrieval.run:run",
    ),
    "gan": Command(
        "train a GAN on a ring of eight Gaussians, the rows of the paper's figure 3",
        "svmax_ops.runs.gan.config:GanConfig",
        "svmax_ops.runs.gan.run:run",
    ),
    "embed2d": Command(
        "embed small pictures onto the unit circle, the rows of the paper's figure 4",
        "svmax_ops.runs.embed2d.config:Embed2dConfig",
        "svmax_ops.runs.embed2d.run:run",
    ),
    "sweep": Command(
        "run every combination of a study (a YAML file), then the report",
        "svmax_ops.runs.sweep:SweepConfig",
        "svmax_ops.runs.sweep:sweep",
    ),
    "report": Command(
        "tables and pictures of finished runs",
        "svmax_ops.runs.report:ReportConfig",
        "svmax_ops.runs.report:report",
    ),
    "info": Command(
        "versions, native libraries and backends: what to paste into a bug report",
        "svmax_ops.runs.info:InfoConfig",
        "svmax_ops.runs.info:info",
    ),
}
_OPTIONS = ("--help", "--version")
_HELP = f"""\
usage: svmax COMMAND [options]

commands:
{"".join(f"  {name:<10} {command.summary}{chr(10)}" for name, command in COMMANDS.items())}
options:
  -h, --help     show this help and exit
  -V, --version  show the version and exit

"svmax COMMAND --help" lists the options of a command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 2 after an error of the user's, 128 + its number after a signal, 141 where nobody reads the
        standard output any more.
    """
    os.environ["MPLBACKEND"] = "agg"  # what a notebook asks of its own matplotlib may not be installed here
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # this is the program
        signal.signal(signal.SIGINT, end_at_once_while_importing)
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    with guarded() as output:
        code = _carry_out(command, rest)
        output.flush()
        if output.lost is None or output.lost.errno == errno.EIO:  # nobody is left at the terminal to be told
            return code
        if output.lost.errno == errno.EPIPE:
            return code or 128 + signal.SIGPIPE
        return _refuse(f"svmax {command}", f"cannot write to the standard output: {output.lost.strerror}.")


def _carry_out(command: str, arguments: Sequence[str]) -> int:
    if command in ("-h", "--help"):
        print(_HELP)
        return 0
    if command in ("-V", "--version"):
        print(f"svmax_ops {svmax_ops.__version__}")
        return 0
    if command not in COMMANDS:
        kind, known = ("option", _OPTIONS) if command.startswith("-") else ("command", COMMANDS)
        remedy = did_you_mean(command, known) or f"; accepted: {', '.join(known)}"
        return _refuse("svmax", f"unknown {kind} {command!r}{remedy}.")
    try:
        _run(command, arguments)
    except UserError as error:
        return _refuse(f"svmax {command}", str(error))
    except Stopped as stopped:
        print(f"svmax {command}: {stopped}", file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt:
        print(f"svmax {command}: interrupted.", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("svmax_ops"):
            raise
        package = error.name.partition(".")[0]
        return _refuse(f"svmax {command}", f"needs {package}, which is not installed: pip install 'svmax-ops[runs]'")
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        return _refuse(f"svmax {command}", "too many files are open; raise the limit that ulimit -n shows.")
    return 0


def _run(command: str, arguments: Sequence[str]) -> None:
    config = parse(pkgutil.resolve_name(COMMANDS[command].config), command, arguments)
    config.check()
    pkgutil.resolve_name(COMMANDS[command].run)(config)


def _refuse(who: str, sentence: str) -> int:
    print(f"{who}: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
