"""The operator's rooms: what may import what, and where private names of torch stand."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import svmax_ops
from svmax_ops import backends, torch_internals
from svmax_ops.backend_names import NAMES

PACKAGE = Path(svmax_ops.__file__).parent
ROOMS = (  # from the ground up: a module imports from its own room and from those before it
    ("torch_internals", "backend_names"),
    ("formulas",),
    ("derivatives", "contracts", "linalg"),
    ("ops",),
    ("backends",),
    ("sharding", "distributed"),
    ("functional",),
    ("modules", "spectrum", "layer_rows"),
    ("integrations",),
    ("runs", "cli", "__main__"),
)
RANK = {name: rank for rank, room in enumerate(ROOMS) for name in room}


def modules() -> dict[str, ast.Module]:
    """Every module of the package but the package itself, whose names are those of others."""
    paths = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name: ast.parse(path.read_text("utf-8")) for name, path in paths.items() if name != "__init__"}


def imported(tree: ast.Module) -> Iterator[str]:
    """The first name below svmax_ops of whatever is imported, also within functions, but not for types alone."""
    types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    skipped = {inner for node in types for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in skipped or not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        root, _, rest = node.module.partition(".")
        if root == "svmax_ops":
            yield from [rest.partition(".")[0]] if rest else [alias.name for alias in node.names]


def test_dependencies_point_downwards():
    found = modules()
    assert {name.partition(".")[0] for name in found} == set(RANK)
    wrong = [
        f"{name} imports {other}"
        for name, tree in found.items()
        for other in imported(tree)
        if other in RANK and RANK[other] > RANK[name.partition(".")[0]]
    ]
    assert not wrong


def private_names(tree: ast.Module) -> Iterator[str]:
    """``torch.a._b``, and what is imported from torch with an underscore."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            name = ast.unparse(node)
            if name.startswith("torch."):
                yield name
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            if any(name.startswith("_") for name in names):
                yield ast.unparse(node)


def test_private_names_of_torch_stand_in_one_file():
    operator = {name: tree for name, tree in modules().items() if not name.startswith("runs.")}
    here = {name: [*private_names(tree)] for name, tree in operator.items() if name != "torch_internals"}
    assert not {name: used for name, used in here.items() if used}
    assert [*private_names(operator["torch_internals"])]  # which shows that they are found


def test_this_torch_has_them_all():
    assert torch_internals.lacking == []


LACKING = """
import importlib, sys
import torch

module, _, name = sys.argv[1].rpartition(".")
delattr(importlib.import_module(module), name)
import svmax_ops

assert len(set(svmax_ops.available_backends().values())) == 1, svmax_ops.available_backends()
for backend in ("auto", "cpu", "reference"):
    with svmax_ops.use_backend(backend):
        try:
            svmax_ops.svmax_loss(torch.eye(4))
        except RuntimeError as error:
            print(error)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    "name",
    [
        "torch._C._after_autograd_keyset",
        pytest.param("torch.autograd.function._SingleLevelFunction", marks=pytest.mark.further),
    ],
)
def test_a_torch_without_one_imports_and_every_function_says_so(name):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", LACKING, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    reason = f"torch {torch.__version__} has no {name}, by which svmax_ops "
    assert said[0].startswith(f"svmax_loss: no backend is available: {reason}")
    assert said[1].startswith(f"svmax_loss: backend 'cpu' is not available: {reason}")
    assert said[2].startswith(f"svmax_loss: backend 'reference' is not available: {reason}")


def test_a_name_that_is_missing_elsewhere_is_told_when_it_is_wanted():
    missing = torch_internals._private("torch._C._no_such_name", "does this", by_the_ops=False)
    with pytest.raises(
        RuntimeError, match=r"svmax_ops: torch .* has no torch\._C\._no_such_name, by which svmax_ops does"
    ):
        missing(1)
    assert torch_internals.lacking == []


def test_the_backends_in_order_are_the_choice(monkeypatch):
    x = torch.empty(4, 3)
    assert tuple(backend.name for backend in backends.BACKENDS) == NAMES[1:]
    assert backends.choose("f", x) is next(each for each in backends.BACKENDS if each.refusal(x) is None)
    monkeypatch.setattr(backends.Backend, "serves", lambda self, x: self.name == "reference")
    assert backends.choose("f", x) is backends.NAMED["reference"]
