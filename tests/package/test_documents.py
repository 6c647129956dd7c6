"""What the documents say is true: commands exist, links lead somewhere, snippets and examples run, versions agree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import svmax_ops
from svmax_ops.cli import COMMANDS
from tests.package.building import CLEAN, ROOT

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def code(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(document), re.DOTALL | re.MULTILINE)


def test_versions_agree():
    (project,) = re.findall(r'^version = "(.*)"', text("pyproject.toml"), re.MULTILINE)
    newest = re.search(r"^## \[(.*?)\] - (unreleased|\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), re.MULTILINE)
    assert project == svmax_ops.__version__ == newest.group(1)


def test_lint_tools_have_one_version():
    wanted = dict(re.findall(r'"(ruff|clang-format)==([0-9.]+)"', text("pyproject.toml")))
    hooks = set(re.findall(r'"(ruff|clang-format)==([0-9.]+)"', text(".pre-commit-config.yaml")))
    assert wanted.keys() == {"ruff", "clang-format"}
    assert hooks == set(wanted.items())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document):
    targets = set(re.search(r"^\.PHONY: (.*)", text("Makefile"), re.MULTILINE).group(1).split())
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text(document), re.MULTILINE))
    assert named <= targets
    assert named >= {"README.md": {"demo", "test"}, "CONTRIBUTING.md": {"test", "test-all", "lint"}}.get(
        document, set()
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_exist(document):
    named = set(re.findall(r"`svmax ([a-z0-9]+)", text(document)))
    assert named <= set(COMMANDS)
    assert document != "README.md" or named >= {"retrieval", "report"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_lead_to_files_of_the_project(document):
    links = [link for link in re.findall(r"\]\(([^)#]+)[)#]", text(document)) if "://" not in link]
    assert links or document == "CHANGELOG.md"
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_has_the_marks_of_its_tables():
    marks = re.findall(r"^<!-- (begin|end) (\w+) -->$", text("README.md"), re.MULTILINE)
    tables = ["demo", "retrieval", "reproduction", "evaluation", "speed", "step_share", "gpu", "accuracy", "triton"]
    assert marks == [(edge, name) for name in tables for edge in ("begin", "end")]


def test_readme_snippets_run():
    embeddings = torch.nn.functional.normalize(torch.randn(24, 8)).requires_grad_()
    known = {
        "torch": torch,
        "svmax_ops": svmax_ops,
        "embeddings": embeddings,
        "labels": torch.arange(6).repeat(4),
        "criterion": lambda embeddings, labels: embeddings.mean(),
    }
    snippets = code("README.md", "python")
    assert len(snippets) >= 5
    for snippet in snippets:
        if "torch.distributed" not in snippet:  # tests/distributed has the processes for that one
            exec(snippet, known)
    known["loss"].backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.processes
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_runs(example, tmp_path):
    assert len(example.read_text("utf-8").splitlines()) < 40
    assert run(example, tmp_path)


@pytest.mark.processes
def test_example_collapses_without_svmax_alone(tmp_path):
    source = text("examples/train.py")
    without = tmp_path / "without.py"
    without.write_text(re.sub(r"^.*# SVMax$\n", "", source, flags=re.MULTILINE))
    assert without.read_text() != source
    assert last_spread(run(ROOT / "examples/train.py", tmp_path)) > 0.8
    assert last_spread(run(without, tmp_path)) < 0.4


@pytest.mark.processes
def test_telemetry_example_tells_its_four_batches_apart(tmp_path):
    rows = [line.rsplit(maxsplit=6) for line in run(ROOT / "examples/telemetry.py", tmp_path).splitlines()[1:]]
    spread = {name.strip(): (float(paper), float(centred)) for name, paper, centred, *_ in rows}
    assert min(spread["spread over the sphere"]) > 0.9
    assert 0.2 < min(spread["in 8 of 64 directions"]) < max(spread["in 8 of 64 directions"]) < 0.4
    assert max(spread["collapsed onto one direction"]) < 0.05
    assert spread["two clumps in the plane"] == (1.0, 0.5)


def run(script: Path, folder: Path) -> str:
    """The script's output, run as a user does who has installed the package, in an empty folder."""
    environment = CLEAN | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def last_spread(output: str) -> float:
    return float(re.findall(r"spread ([0-9.]+)", output)[-1])
