"""Runs the CUDA sources under ThreadSanitizer, the threads of a block as OS threads. No result but races is looked at.

python -m tests.host.threads

Kernels with a race must be reported, correct ones and ours must not.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.host import library

RACE = 66
"""What ThreadSanitizer ends a program with."""


def run(program: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if "unexpected memory mapping" in done.stdout:  # older ones do not get along with much address randomisation
        command = ["setarch", "--addr-no-randomize", program, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def main() -> int:
    program = library.build("svmax_host_threads", "host-threads", SVMAX_HOST_THREADS="ON")
    code, names = run(program, "list")
    if code != 0:
        print(names)
        return 1
    failures = 0
    for line in [*names.splitlines(), "correct kernels"]:
        expected, name = line.split()
        started = time.monotonic()
        code, output = run(program, *(["kernels"] if name == "kernels" else ["example", name]))
        good = code == (RACE if expected == "broken" else 0)
        verdict = {0: "no race", RACE: "race"}.get(code, f"failed with code {code}")
        print(f"{'ok' if good else 'WRONG':5} {name}: {verdict}, {time.monotonic() - started:.1f} s", flush=True)
        if not good:
            failures += 1
            print(output)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
