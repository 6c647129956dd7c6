"""Runs the tests of the CUDA sources on the host and shows which of their lines no test has reached.

python -m tests.host.coverage [options of pytest]

Fails where a test fails, or where a line of csrc/cuda/*.cuh was not reached and does not say why it cannot be, in a
comment `// not reached: <reason>`. Lines that are reached but say so fail too.
"""

from __future__ import annotations

import collections
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.host import library

FOLDER = library.BUILD / "host-coverage"
TESTS = [
    "tests/host",
    *sorted(str(path.relative_to(library.ROOT)) for path in (library.ROOT / "tests").glob("test_*.py")),
]
REASON = re.compile(r"// not reached: \S")


def run_tests(options: list[str]) -> int:
    for counts in FOLDER.rglob("*.gcda"):  # of earlier runs
        counts.unlink()
    # By name: the stages' own tests run on several backends, of which `host` is one.
    command = [sys.executable, "-m", "pytest", "-k", "host", "--combinations=all", *(options or TESTS)]
    return subprocess.run(command, cwd=library.ROOT, env={**os.environ, "SVMAX_HOST_COVERAGE": "1"}).returncode


def line_counts() -> dict[Path, dict[int, int]]:
    """How often each line of a kernel source was run, in all its template instances together."""
    counts: dict[Path, dict[int, int]] = collections.defaultdict(lambda: collections.defaultdict(int))
    kernels = library.ROOT / "csrc" / "cuda"
    with tempfile.TemporaryDirectory() as folder:
        for data in FOLDER.rglob("*.gcda"):
            subprocess.run(["gcov", "--json-format", str(data)], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for report in Path(folder).glob("*.gcov.json.gz"):
            for file in json.loads(gzip.decompress(report.read_bytes()))["files"]:
                path = (library.ROOT / file["file"]).resolve()
                if path.parent == kernels and path.suffix == ".cuh":
                    for line in file["lines"]:
                        counts[path][line["line_number"]] += line["count"]
    return counts


def complaints(counts: dict[Path, dict[int, int]]) -> list[str]:
    result = []
    for path in sorted(counts):
        source = path.read_text().splitlines()
        for number, count in sorted(counts[path].items()):
            text = source[number - 1]
            where = f"{path.relative_to(library.ROOT)}:{number}"
            if count == 0 and not REASON.search(text):
                result.append(f"{where}: no test reaches  {text.strip()}")
            if count > 0 and REASON.search(text):
                result.append(f"{where}: is reached, {count} times: take the comment away")
    return result


def main() -> int:
    failed = run_tests(sys.argv[1:])
    if failed != 0:
        return failed
    counts = line_counts()
    newer = [p for p in counts if p.stat().st_mtime > (FOLDER / "svmax_host.so").stat().st_mtime]
    if newer:
        print(f"coverage: changed since they were compiled: {', '.join(map(str, newer))}; run again", file=sys.stderr)
        return 1
    if not counts:
        print("coverage: gcov knows of no kernel source; were the tests of the host build run?", file=sys.stderr)
        return 1
    for path in sorted(counts):
        lines = counts[path]
        reached = sum(count > 0 for count in lines.values())
        print(f"{path.relative_to(library.ROOT)}: {reached} of {len(lines)} lines reached")
    found = complaints(counts)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
