"""What `import svmax_ops` costs beside `import torch`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

SCRIPT = """
import json, sys, time, warnings
import torch
before, cpu = set(sys.modules), time.process_time()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import svmax_ops
cpu = time.process_time() - cpu
modules, told = sorted(set(sys.modules) - before), [str(warning.message) for warning in caught]
print(json.dumps({"cpu": cpu, "modules": modules, "warnings": told}))
"""


def import_it() -> dict:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", SCRIPT]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def imported() -> dict:
    return import_it()


def test_import_takes_less_than_a_tenth_of_a_second_beyond_torch(imported):
    """Of the processor's time, in one of ten processes: others that are busy take from it in some, not in all."""
    assert imported["cpu"] < 0.1 or any(import_it()["cpu"] < 0.1 for _ in range(9))


def test_import_brings_no_heavy_library(imported):
    heavy = {"triton", "torchvision", "matplotlib", "sklearn", "scipy", "pandas", "PIL", "tqdm", "yaml"}
    heavy |= {"torch._dynamo", "torch._inductor", "svmax_ops.runs", "svmax_ops.cli"}
    assert "svmax_ops.functional" in imported["modules"]
    assert not heavy & set(imported["modules"])


def test_import_gives_no_warning(imported):
    assert imported["warnings"] == []


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


AGAIN = """
import importlib, pathlib, shutil, sys
import torch
import svmax_ops

first, x = svmax_ops, torch.randn(8, 5)

def drop():
    for name in [name for name in sys.modules if name.partition(".")[0] == "svmax_ops"]:
        del sys.modules[name]

def works(package):
    for backend in ("cpu", "reference"):
        for dtype in (torch.float32, torch.float64):
            with package.use_backend(backend):
                v = x.to(dtype).requires_grad_()
                (dx,) = torch.autograd.grad(package.svmax_loss(v), v, create_graph=True)
                (ddx,) = torch.autograd.grad(dx.square().sum(), v)
                assert dx.abs().sum() > 0 and ddx.abs().sum() > 0
                torch.testing.assert_close(torch.func.vmap(torch.func.grad(package.svmax_loss))(v[None])[0], dx)
    options = {"objective": "nuclear_norm", "normalize": True, "center": False}
    torch.library.opcheck(torch.ops.svmax.objective.default, (x,), options)

for name in [name for name in sys.modules if name.partition(".")[0] == "svmax_ops"]:
    importlib.reload(sys.modules[name])
works(svmax_ops)
drop()
import svmax_ops
assert svmax_ops is not first
works(svmax_ops)
works(first)

copy = pathlib.Path(sys.argv[1]) / "svmax_ops"
shutil.copytree(pathlib.Path(svmax_ops.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__", "runs"))
sys.path.insert(0, sys.argv[1])
drop()
import svmax_ops
assert svmax_ops.__file__ == str(copy / "__init__.py")
works(svmax_ops)

(copy / "_C.so").write_bytes((copy / "_C.so").read_bytes() + b"another build")
drop()
try:
    import svmax_ops
    svmax_ops.svmax_loss
except ImportError as error:
    print(error)
"""


def test_a_second_import_in_a_process_works_or_says_why_not(tmp_path):
    """Reloaded, dropped and imported anew, imported from a copy: the derivatives too. Another build: one sentence."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error:::svmax_ops", "-c", AGAIN, str(tmp_path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (sentence,) = result.stdout.splitlines()
    assert sentence.startswith("svmax_ops: this process has loaded the native library of another copy, ")
    assert sentence.endswith(f"restart Python to use {tmp_path / 'svmax_ops' / '_C.so'}.")
