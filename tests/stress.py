"""Repeats the tests that start processes, or wait for them, while other programs keep the machine busy.

python -m tests.stress                                        # fifty times each
python -m tests.stress --times 10 tests/runs -k signal        # some of them; what follows is pytest's

A test that counts on who is first, or on how long something takes, passes on an idle machine and fails here. It has
passed when every round has; the output of those that failed is printed, and the names with their numbers at the end.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
NO_TEST = 5
"""pytest's exit code where it has found none."""


def compute(parent: int) -> None:
    """Keeps a core busy until the parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    while os.getppid() == parent:
        sum(range(10**6))


def write(parent: int) -> None:
    """Keeps the disk and the memory busy until the parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with tempfile.TemporaryFile() as file:
        while os.getppid() == parent:
            file.seek(0)
            file.write(os.urandom(2**24))
            file.flush()
            os.fsync(file.fileno())


def run(options: list[str], report: Path) -> tuple[int, str]:
    """Every marked test once: pytest's exit code and output."""
    marked = ["-m", "processes", "--combinations=all", "-n0", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", "-q", *marked, *options]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def outcomes(report: Path) -> dict[str, bool]:
    """Test -> whether it has passed; those that were skipped are left out."""
    cases = ElementTree.parse(report).iter("testcase") if report.exists() else ()
    return {
        f"{case.get('classname')}::{case.get('name')}": case.find("failure") is None and case.find("error") is None
        for case in cases
        if case.find("skipped") is None
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress",
        description="Repeats the tests that start processes on a machine that is kept busy.",
    )
    parser.add_argument("--times", type=int, default=50, help="rounds (default 50)")
    parser.add_argument("--busy", type=int, default=2, help="programs that compute, for each core (default 2)")
    parser.add_argument("--report", type=Path, help="a folder that keeps the output of each round that failed")
    arguments, options = parser.parse_known_args()
    if arguments.times < 1 or arguments.busy < 0:
        parser.error("--times must be at least 1, --busy at least 0")
    cores = len(os.sched_getaffinity(0))
    work = [compute] * (arguments.busy * cores) + [write] * bool(arguments.busy)
    busy = [multiprocessing.Process(target=each, args=(os.getpid(),), daemon=True) for each in work]
    for process in busy:
        process.start()
    failed, passed = collections.Counter[str](), collections.Counter[str]()
    rounds = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            for turn in range(1, arguments.times + 1):
                begun, report = time.monotonic(), Path(folder) / f"{turn}.xml"
                code, output = run(options, report)
                found = outcomes(report)
                passed.update(name for name, good in found.items() if good)
                failed.update(name for name, good in found.items() if not good)
                rounds += 1
                red = sum(not good for good in found.values())
                seconds = time.monotonic() - begun
                print(f"round {turn}: {len(found)} tests, {red} failed, {seconds:.0f} s", flush=True)
                if code != 0:
                    print(output, flush=True)
                    if arguments.report:
                        arguments.report.mkdir(parents=True, exist_ok=True)
                        (arguments.report / f"{turn}.log").write_text(output)
                if code not in (0, 1) or not found:
                    return code or NO_TEST
    except KeyboardInterrupt:
        print()
    finally:
        for process in busy:
            process.terminate()
    print(f"{rounds} rounds beside {len(busy)} busy programs on {cores} cores: {len({*passed, *failed})} tests")
    for name, times in failed.most_common():
        print(f"  {name}: failed {times} of {times + passed[name]} times")
    return 1 if failed or rounds < arguments.times else 0


if __name__ == "__main__":
    sys.exit(main())
