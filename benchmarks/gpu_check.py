"""The check on a machine with a GPU: build for it, run the operator's tests on it, measure it.

python -m benchmarks.gpu_check                              # all of it, within 8 minutes; make gpu-check
python -m benchmarks.gpu_check --stage test --minutes 20    # a part, in a time of its own

No network is needed: Python with a CUDA build of torch, numpy, scipy, pytest and matplotlib, nvcc, a C++ compiler and
CMake. The libraries are built by CMakeLists.txt and by nothing else, so that what is checked is what a user installs.
Each stage leaves what it has found: the logs in build/gpu-check/, and benchmarks/results/<device>.json, .csv and .png.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "gpu-check"
TESTED = LOGS / "test.json"
LIBRARIES = ("_C.so", "_C_cuda.so")
# Of the time. What a stage does not use is left to those after it.
SHARES = {"build": 0.25, "test": 0.45, "bench": 0.30}
# What pytest runs, one after the other, and which part of the stage's time each may take of what is left.
# The second leaves out the tests that no GPU has a part in.
APART = ("tests/test_cuda.py", "tests/runs", "tests/package", "tests/integrations", "tests/host")
SUITES = {
    "graphs, streams, devices, sizes": (0.3, ["tests/test_cuda.py"]),
    "every operator test": (0.7, ["tests", "-k", "cuda or triton", *(f"--ignore={path}" for path in APART)]),
}
SANITIZERS = {
    "memcheck": ("--tool", "memcheck"),
    "racecheck": ("--tool", "racecheck", "--kernel-name", "kns=svmax"),  # torch's own kernels are not ours to judge
}
GRACE = 15  # seconds from the interrupt, at which pytest writes what it has, to the end


class RefusedError(Exception):
    """One sentence: what is missing here."""


class Clock:
    """The time that is left, and how much of it a stage may take."""

    def __init__(self, seconds: float, stages: list[str]) -> None:
        self.seconds, self.stages, self.begin = seconds, stages, time.monotonic()

    def limit(self, stage: str) -> float:
        """All that is left, but the shares of the stages still to come."""
        left = self.seconds - (time.monotonic() - self.begin)
        later = self.stages[self.stages.index(stage) + 1 :]
        return left - self.seconds * sum(SHARES[s] for s in later) / sum(SHARES[s] for s in self.stages)


def run(command: list[str], log: Path, seconds: float, **environment: str) -> int | None:
    """Run it in the repository, its output on the terminal and in ``log``; None when it did not end in time."""
    print("$", " ".join(command), flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    late = threading.Event()
    with (
        log.open("w") as file,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that a signal reaches all that the command has started
        ) as process,
    ):

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(max(seconds, 1), end)
        timer.start()
        for line in process.stdout:
            print(line, end="", flush=True)
            file.write(line)
            file.flush()
        process.wait()
        timer.cancel()
    return None if late.is_set() else process.returncode


def tool(name: str) -> str | None:
    """A program of PATH, or one that pip has put beside this Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def architectures() -> str:
    """What CMake calls the chips of this machine: "90", or "80;90"."""
    capabilities = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
    return ";".join(f"{major}{minor}" for major, minor in sorted(capabilities))


def build(seconds: float) -> bool:
    """svmax_ops/_C.so and _C_cuda.so, for the chips of this machine."""
    cmake, ninja = tool("cmake"), tool("ninja")
    if cmake is None:
        raise RefusedError("cmake was not found, beside this Python or in PATH; install it (pip install cmake ninja).")
    begin = time.monotonic()
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else ["-G", "Unix Makefiles"]
    configure = [
        *(cmake, "-S", str(ROOT), "-B", str(LOGS / "native"), *generator),
        f"-DSVMAX_TORCH_DIR={Path(torch.__file__).parent}",
        "-DSVMAX_CUDA=ON",
        f"-DSVMAX_CUDA_ARCHITECTURES={architectures()}",
    ]
    compile_all = [cmake, "--build", str(LOGS / "native"), "--parallel"]
    if run(configure, LOGS / "configure.log", seconds) != 0:
        return False
    if run(compile_all, LOGS / "build.log", seconds - (time.monotonic() - begin)) != 0:
        return False
    for library in LIBRARIES:
        shutil.copyfile(LOGS / "native" / library, ROOT / "svmax_ops" / library)
    return True


def test(seconds: float) -> bool:
    """The operator's tests on the device, then its kernels under compute-sanitizer, if that is here."""
    if importlib.util.find_spec("pytest") is None:
        raise RefusedError(f"{sys.executable} has no pytest; install it (pip install pytest).")
    begin = time.monotonic()
    found: dict[str, Any] = {}
    passed = True
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "junit_logging=no"]
    command += ["--combinations=all", "--require-backends=cuda"]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(min(8, os.cpu_count() or 1))]
    for number, (name, (part, selected)) in enumerate(SUITES.items()):
        report = LOGS / f"tests-{number}.xml"
        report.unlink(missing_ok=True)
        left = part * (seconds - (time.monotonic() - begin))
        code = run([*command, f"--junitxml={report}", *selected], LOGS / f"tests-{number}.log", left)
        found[name] = {**counts(report), "ended": "out of time" if code is None else f"exit code {code}"}
        passed = passed and code == 0
        keep(found)
    sanitizer = tool("compute-sanitizer")
    for name, options in SANITIZERS.items():
        if sanitizer is None:
            found[name] = "compute-sanitizer was not found"
            continue
        left = (seconds - (time.monotonic() - begin)) * (0.5 if name == "memcheck" else 1)
        command = [sanitizer, *options, "--error-exitcode", "9", sys.executable, "-m", "benchmarks.gpu_calls"]
        # Without torch's cache every tensor is an allocation of its own, and a write past its end is seen.
        code = run(command, LOGS / f"{name}.log", left, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        found[name] = {0: "no error", None: "out of time"}.get(code, f"exit code {code}: see {name}.log")
        passed = passed and code == 0
        keep(found)
    keep(found)
    print(json.dumps(found, indent=1))
    return passed


def counts(report: Path) -> dict[str, int]:
    """How many tests passed, failed and were skipped; nothing where pytest has written no report."""
    try:
        suites = list(ElementTree.parse(report).iter("testsuite"))
    except (FileNotFoundError, ElementTree.ParseError):
        return {}
    total, failed, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites for name in names)
        for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def keep(found: dict[str, Any]) -> None:
    TESTED.parent.mkdir(parents=True, exist_ok=True)
    TESTED.write_text(json.dumps(found, indent=1) + "\n")


def bench(seconds: float) -> bool:
    """Error and time beside torch.linalg's, kept in benchmarks/results/."""
    command = [sys.executable, "-m", "benchmarks.gpu_bench", f"--seconds={seconds - GRACE:.0f}", f"--tested={TESTED}"]
    return run(command, LOGS / "bench.log", seconds) == 0


STAGES = {"build": build, "test": test, "bench": bench}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=STAGES, help="one of them alone (default: all, in this order)")
    parser.add_argument("--minutes", type=float, default=8, help="for all of it (default 8)")
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"--minutes: must be positive, got {options.minutes:g}")
    return options


def main() -> int:
    options = arguments()
    stages = list(STAGES) if options.stage is None else [options.stage]
    try:
        if not torch.cuda.is_available():
            build_of = "a CPU build" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
            raise RefusedError(
                f"torch {torch.__version__} ({build_of}) sees no GPU here; "
                "this check needs a machine with an NVIDIA GPU, its driver and a CUDA build of torch."
            )
        clock, passed = Clock(60 * options.minutes, stages), True
        for stage in stages:
            print(f"== {stage}, at most {clock.limit(stage):.0f} s", flush=True)
            passed = STAGES[stage](clock.limit(stage)) and passed
            if stage == "build" and not passed:
                print(f"gpu_check: the build failed, see {LOGS}", file=sys.stderr)
                return 1
    except RefusedError as sentence:
        print(f"gpu_check: {sentence}", file=sys.stderr)
        return 2
    print("gpu_check: passed" if passed else f"gpu_check: NOT passed, see {LOGS}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
