"""What `import svmax_ops` costs beside `import torch`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

SCRIPT = """
import json, sys, time
import torch
before, start, cpu = set(sys.modules), time.perf_counter(), time.process_time()
import svmax_ops
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
print(json.dumps({"seconds": seconds, "cpu": cpu, "modules": sorted(set(sys.modules) - before)}))
"""


def import_it(*options: str) -> dict:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, *options, "-c", SCRIPT]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def test_import_takes_less_than_a_tenth_of_a_second_beyond_torch():
    # Processor time, so that other programs on the machine do not count; the median, after a run that fills the caches.
    import_it()
    assert statistics.median(import_it()["cpu"] for _ in range(5)) < 0.1


def test_import_brings_no_heavy_library():
    heavy = {"triton", "torchvision", "matplotlib", "sklearn", "scipy", "pandas", "PIL", "tqdm", "yaml"}
    heavy |= {"torch._dynamo", "torch._inductor", "svmax_ops.runs", "svmax_ops.cli"}
    assert not heavy & set(import_it()["modules"])


def test_import_gives_no_warning():
    import_it("-W", "error")


def output_of(script: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_import_alone_registers_the_ops():
    """Whoever loads an exported model counts on it, without naming anything of the package."""
    script = "import svmax_ops, torch; print(torch.ops.svmax.objective.default.name())"
    assert output_of(script) == "svmax::objective"


def test_in_the_command_every_name_comes_when_it_is_wanted():
    script = """
import sys
sys.argv = ["/usr/bin/svmax"]
import svmax_ops
assert "torch" not in sys.modules
assert not hasattr(svmax_ops, "nonsense")
from svmax_ops import spectrum
assert all(svmax_ops.__dict__[name] is getattr(svmax_ops, name) for name in svmax_ops.__all__)
import torch
print(type(spectrum).__name__, spectrum is svmax_ops.spectrum, torch.ops.svmax.objective.default.name())
"""
    assert output_of(script) == "function True svmax::objective"
