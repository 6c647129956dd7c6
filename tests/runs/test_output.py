"""Where a command prints to: a reader that goes away, a full disk, a closed file, a terminal of any size."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import struct
import subprocess
import sys
import termios

import pytest

from svmax_ops.cli import main
from svmax_ops.runs.harness import read_checkpoint
from svmax_ops.runs.output import Output, guarded
from svmax_ops.runs.progress import Progress
from svmax_ops.runs.signals import Signals

_FLAGS = "--steps 6 --batch-size 16 --latent-dim 4 --evaluate-every 3 --checkpoint-every 100"
GAN = ["gan", "--rows", "vanilla", *_FLAGS.split()]

pytestmark = pytest.mark.processes


def unread() -> io.TextIOWrapper:
    """As ``| head`` leaves it: nobody reads the other end."""
    read, write = os.pipe()
    os.close(read)
    return open(write, "w")


def full() -> io.TextIOWrapper:
    return open("/dev/full", "w")


@pytest.mark.parametrize(("stream", "code"), [(unread, 141), (full, 2)])
def test_a_training_that_cannot_print_stops_with_its_checkpoint(svmax, capfd, monkeypatch, tmp_path, stream, code):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream())
        assert main([*GAN, "--out", str(out)]) == code
    sentence, *more = capfd.readouterr().err.splitlines()
    assert sentence.startswith("svmax gan: stopped; go on with: svmax gan ")
    assert more == ([] if code == 141 else ["svmax gan: cannot write to the standard output: No space left on device."])
    assert read_checkpoint(out / "checkpoint.pt")["step"] == 1  # whose picture is the first thing to print
    assert svmax(*GAN, "--out", out, "--resume").code == 0


def test_a_photograph_training_that_cannot_print_stops_with_its_checkpoint(svmax, small, capfd, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", unread())
        assert main(["retrieval", *small, "--out", str(tmp_path)]) == 141
    assert capfd.readouterr().err.startswith("svmax retrieval: stopped; go on with: svmax retrieval ")
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3  # after the evaluation, which is told of at once
    assert svmax("retrieval", *small, "--out", tmp_path, "--resume").code == 0


@pytest.mark.parametrize(
    ("stream", "code", "err"),
    [(unread, 141, ""), (full, 2, "svmax info: cannot write to the standard output: No space left on device.\n")],
)
def test_info_without_a_reader_ends_quietly_and_on_a_full_disk_in_a_sentence(capfd, monkeypatch, stream, code, err):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream())
        assert main(["info"]) == code
    assert capfd.readouterr().err == err


def test_a_closed_standard_output_is_not_given_to_the_next_file():
    code = "import os; from svmax_ops.runs.output import guarded\nwith guarded(): print('x'); os._exit(40 + os.dup(0))"
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", sys.executable, "-c", code], capture_output=True, text=True
    )
    assert result.returncode > 42


def test_a_name_that_is_no_text_is_printed_all_the_same(capfd):
    with guarded():
        print("\udcff.png")
    assert capfd.readouterr().out == "\\udcff.png\n"


@pytest.mark.parametrize(("number", "stops"), [(errno.EIO, False), (errno.EPIPE, True), (errno.ENOSPC, True)])
def test_a_lost_terminal_alone_stops_nothing(number, stops):
    class Lost(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(number, "lost")

    output = Output(Lost(), needed=True)
    print("one", file=output)
    with Signals() as signals:
        print("two", file=output, flush=True)
    assert output.lost.errno == number
    assert bool(signals.received) == stops


@pytest.fixture
def terminal(monkeypatch):
    """Makes a terminal of so many columns and rows the standard output; what was shown there, when it is called."""
    opened = []

    def make(columns: int, rows: int):
        controller, terminal = os.openpty()
        opened.append(controller)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        stream = open(terminal, "w")  # noqa: SIM115
        opened.append(stream)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "__stdout__", stream)  # whose size is asked for
        monkeypatch.delenv("COLUMNS", raising=False)

        def shown() -> list[str]:
            print("the end", file=stream, flush=True)
            text = b""
            while b"the end" not in text:
                text += os.read(controller, 4096)
            return text.decode().partition("the end")[0].replace("\n", "\r").split("\r")

        return shown

    yield make
    for one in opened:
        one.close() if hasattr(one, "close") else os.close(one)


VALUES = {"loss": "2.17", "spread": "0.509", "best R@1 %": "66.7", "ranking loss": "0.533"}


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (0, 0), (132, 40), (40, 10), (10, 3)])
def test_the_bar_fits_the_terminal_and_gives_way_to_the_numbers(terminal, columns, rows):
    shown = terminal(columns, rows)
    progress = Progress(20000, 11980, images=144)
    progress.started -= 2
    progress.update(11990, VALUES)
    progress.bar.refresh()
    progress.close()
    lines = [line.rstrip() for line in shown() if line.strip()]
    width = columns or 80
    assert all(len(line) < width for line in lines)
    assert "11990/20000"[: width - 1] in lines[-1]
    if width >= 80:
        assert "loss 2.17  spread 0.509  best R@1 % 66.7" in lines[-1]
        assert " images/s " in lines[-1]
    assert ("ranking loss 0.533" in lines[-1]) == (width > 80)
