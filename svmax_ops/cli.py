"""The ``svmax`` command. ``info`` needs the package alone; the others need the ``[runs]`` extra, imported when used."""

from __future__ import annotations

import errno
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence

from svmax_ops.runs.errors import Stopped, UserError
from svmax_ops.runs.output import guarded
from svmax_ops.runs.signals import end_at_once_while_importing


def _info(arguments: Sequence[str]) -> None:
    if arguments:
        raise UserError(f"info takes no arguments, got {' '.join(arguments)}.")
    import torch

    import svmax_ops
    from svmax_ops.backends import cuda_library, native

    rows = {
        "svmax_ops": svmax_ops.__version__,
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "torch": torch.__version__,
        "CUDA of torch": f"{torch.version.cuda or 'none'}, {torch.cuda.device_count()} devices",
        **{f"GPU {index}": cuda_library.gpu(index)[0] for index in range(torch.cuda.device_count())},
        **native.describe(),
        **{f"backend {name}": text for name, text in svmax_ops.available_backends().items()},
    }
    width = max(map(len, rows))
    for name, text in rows.items():
        print(f"{name:<{width}}  {text}")


def _retrieval(arguments: Sequence[str]) -> None:
    from svmax_ops.runs.command_line import parse
    from svmax_ops.runs.retrieval.config import RetrievalConfig

    config = parse(RetrievalConfig, "retrieval", arguments)
    config.check()

    from svmax_ops.runs.retrieval.run import run

    run(config)


def _gan(arguments: Sequence[str]) -> None:
    from svmax_ops.runs.command_line import parse
    from svmax_ops.runs.gan.config import GanConfig
    from svmax_ops.runs.gan.run import run

    run(parse(GanConfig, "gan", arguments))


def _embed2d(arguments: Sequence[str]) -> None:
    from svmax_ops.runs.command_line import parse
    from svmax_ops.runs.embed2d.config import Embed2dConfig
    from svmax_ops.runs.embed2d.run import run

    run(parse(Embed2dConfig, "embed2d", arguments))


def _sweep(arguments: Sequence[str]) -> None:
    from svmax_ops.runs.command_line import parse
    from svmax_ops.runs.sweep import SweepConfig, sweep

    sweep(parse(SweepConfig, "sweep", arguments))


def _report(arguments: Sequence[str]) -> None:
    from svmax_ops.runs.command_line import parse
    from svmax_ops.runs.report import ReportConfig, report

    report(parse(ReportConfig, "report", arguments))


COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], None]]] = {
    "retrieval": ("train an embedding network with or without SVMax and evaluate it", _retrieval),
    "gan": ("train a GAN on a ring of eight Gaussians, the rows of the paper's figure 3", _gan),
    "embed2d": ("embed small pictures onto the unit circle, the rows of the paper's figure 4", _embed2d),
    "sweep": ("run every combination of a study (a YAML file), then the report", _sweep),
    "report": ("tables and pictures of finished runs", _report),
    "info": ("versions, native libraries and backends: what to paste into a bug report", _info),
}


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
        print("usage: svmax COMMAND [--help]\n")
        for name, (summary, _) in COMMANDS.items():
            print(f"  {name:<10} {summary}")
        return 0
    if command not in COMMANDS:
        return _refuse("svmax", f"unknown command {command!r}; accepted: {', '.join(COMMANDS)}.")
    try:
        COMMANDS[command][1](arguments)
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


def _refuse(who: str, sentence: str) -> int:
    print(f"{who}: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
