"""The command line as typed: help, spellings, refusals of what does not fit, and what is imported for them."""

from __future__ import annotations

import dataclasses
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import svmax_ops
from svmax_ops.cli import COMMANDS
from svmax_ops.runs.command_line import _docs, as_arguments, parse
from svmax_ops.runs.gan.config import GanConfig
from svmax_ops.runs.report import ReportConfig
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.sweep import SweepConfig

HEAVY = {"torch", "torchvision", "numpy", "scipy", "sklearn", "matplotlib", "PIL", "faiss", "tensorboard", "triton"}
HEAVY |= {"pytorch_metric_learning", "timm", "lightning", "tqdm"}
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def help_of(svmax: Any, capfd: pytest.CaptureFixture[str], command: str) -> str:
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        svmax(command, "--help")
    assert end.value.code == 0
    return capfd.readouterr().out


def configuration(command: str) -> type:
    return pkgutil.resolve_name(COMMANDS[command].config)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_has_every_field_whole_with_its_default_and_fits_the_terminal(svmax, capfd, monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = help_of(svmax, capfd, command)
    assert text.startswith(f"usage: svmax {command} ")
    assert max(map(len, text.splitlines())) < columns
    words = " ".join(text.split())
    config = configuration(command)
    for paragraph in config.__doc__.split("\n\n"):
        assert " ".join(paragraph.split()) in words
    docs = _docs(config)
    for field in dataclasses.fields(config):
        shown = " ".join(docs[field.name].split())
        flag = field.metadata.get("positional") or "--" + field.name.replace("_", "-")
        assert f" {flag}" in text
        if field.default is None:
            assert "Default: " in shown
        elif field.default is dataclasses.MISSING:
            shown += "" if field.metadata.get("positional") else " (required)"
        elif isinstance(field.default, bool):
            assert f"{flag}, --no-{flag[2:]}" in text
            shown += f" (default: {'on' if field.default else 'off'})"
        elif field.name == "backend":
            shown += f" (default: SVMAX_BACKEND, or {field.default})"
        else:
            shown += f" (default: {field.default})"
        assert shown in words
    assert "None" not in text


def test_help_without_sources_lists_the_options_all_the_same(svmax, capfd, monkeypatch):
    def missing(config: type) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr("inspect.getsource", missing)
    assert "--batch-size N (default: 512)" in " ".join(help_of(svmax, capfd, "gan").split())


def test_help_says_where_in_the_paper_a_default_is_from(svmax, capfd):
    assert help_of(svmax, capfd, "retrieval").lower().count("paper") >= 12


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("--batch-size 24", {"batch_size": 24}),
        ("--batch_size 24", {"batch_size": 24}),
        ("--batch_size=24", {"batch_size": 24}),
        ("--center", {"center": True}),
        ("--center --no-center", {}),
        ("--bounded", {}),
        ("--no-bounded", {"bounded": False}),
        ("--no_bounded", {"bounded": False}),
        ("--svmax-weight None", {}),
        ("--lr -1", {"lr": -1.0}),
        ("--lr=-1e-3", {"lr": -1e-3}),
        ("--weights=-w.pt", {"weights": "-w.pt"}),
        ("--out=-x --seed 3 --seed 4", {"out": Path("-x"), "seed": 4}),
    ],
)
def test_spellings(line: str, changed: dict[str, Any]):
    config = parse(RetrievalConfig, "retrieval", line.split())
    assert config == RetrievalConfig(**changed)
    assert parse(RetrievalConfig, "retrieval", as_arguments(config)) == config


def test_positional_arguments_stand_before_between_and_after_options():
    for line in ("a b --out x", "a --out x b", "--out x a b"):
        assert parse(ReportConfig, "report", line.split()) == ReportConfig((Path("a"), Path("b")), Path("x"))
        study = line.replace(" b", "")
        assert parse(SweepConfig, "sweep", study.split()) == SweepConfig(Path("a"), Path("x"))
    dashed = SweepConfig(Path("-s"), Path("x"))
    assert parse(SweepConfig, "sweep", as_arguments(dashed)) == SweepConfig(Path("./-s"), Path("x"))


def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    flags = "--root ~/data --weights=~/best.pt --out ~"
    config = parse(RetrievalConfig, "retrieval", flags.split())
    home = Path("/home/ada")
    assert (config.root, config.weights, config.out) == (home / "data", "/home/ada/best.pt", home)
    assert parse(SweepConfig, "sweep", ["~/s.yaml", "--out", "~/x"]) == SweepConfig(home / "s.yaml", home / "x")
    assert parse(ReportConfig, "report", ["~/a", "b~"]).runs == (home / "a", Path("b~"))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("gan --bath-size 3", "svmax gan: unknown option --bath-size; did you mean --batch-size."),
        ("gan --no-logit", "svmax gan: unknown option --no-logit; did you mean --no-logits."),
        ("gan --quux=3", "svmax gan: unknown option --quux."),
        ("gan -x", "svmax gan: unknown option -x."),
        ("gan --step 3", "svmax gan: unknown option --step; did you mean --steps."),  # no abbreviations
        ("gan 3", "svmax gan: unexpected argument '3'."),
        ("gan --steps", "svmax gan: --steps needs a value; one that begins with - is given by --steps=VALUE."),
        ("gan --logits=yes", "svmax gan: --logits/--no-logits takes no value, got 'yes'."),
        ("gan --steps 2.5", "svmax gan: --steps must be a whole number; got '2.5'."),
        ("gan --lr fast", "svmax gan: --lr must be a number; got 'fast'."),
        ("gan --out=", "svmax gan: --out must be a path; got ''."),
        (
            "gan --objective eq2",
            "svmax gan: --objective must be eq1, bounded or matched; got 'eq2'; did you mean eq1.",
        ),
        ("sweep", "svmax sweep: STUDY and --out are missing; see svmax sweep --help."),
        ("sweep a b --out x", "svmax sweep: one STUDY is accepted, got a b."),
        ("report --out x", "svmax report: RUN is missing; see svmax report --help."),
        ("info --all", "svmax info: unknown option --all."),
        ("reprot", "svmax: unknown command 'reprot'; did you mean report."),
        ("--hlep", "svmax: unknown option '--hlep'; did you mean --help."),
        ("-q", "svmax: unknown option '-q'; accepted: --help, --version."),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(svmax, line, sentence):
    outcome = svmax(*line.split())
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"{sentence}\n")


def test_the_version(svmax):
    for flag in ("--version", "-V"):
        assert svmax(flag) == (0, f"svmax_ops {svmax_ops.__version__}\n", "")


@pytest.mark.processes
def test_help_and_refusals_import_nothing_heavy(tmp_path):
    lines = ["--help", "--version", "train", "info --all", "info --help", "sweep no.yaml --out x", "sweep study.yaml"]
    lines += ["sweep study.yaml --out x", "report", "report --help", "sweep --help"]
    lines += [f"{command} {flags}" for command in ("retrieval", "gan", "embed2d") for flags in ("--help", "--lr 0")]
    (tmp_path / "study.yaml").write_text("command: gan\nvary: {steps: [1, 0]}")
    script = tmp_path / "svmax"  # by which name the package knows that its command was started
    script.write_text(
        "import sys\n"
        "from svmax_ops.cli import main\n"
        f"for line in {lines}:\n"
        "    try:\n"
        "        assert main(line.split()) == (0 if line in ('--help', '--version') else 2), line\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0, line\n"
        "print(*sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    imported = set(result.stdout.splitlines()[-1].split())
    assert "svmax_ops.runs.retrieval.config" in imported
    assert imported & HEAVY == set()
    assert "Traceback" not in result.stderr


@pytest.mark.processes
def test_python_m_is_the_command_and_imports_nothing_heavy_for_help():
    command = [sys.executable, "-X", "importtime", "-m", "svmax_ops", "gan", "--help"]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("usage: svmax gan ")
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "svmax_ops.runs.rows_and_seeds" in imported  # by a configuration
    assert imported & HEAVY == set()


def test_the_environment_is_a_default_and_is_kept(svmax, monkeypatch, tmp_path):
    monkeypatch.setenv("SVMAX_BACKEND", "")
    assert as_arguments(parse(GanConfig, "gan", [])) == []
    monkeypatch.setenv("SVMAX_BACKEND", "reference")
    assert as_arguments(parse(GanConfig, "gan", [])) == ["--backend", "reference"]
    auto = parse(GanConfig, "gan", ["--backend", "auto"])
    assert auto.backend == "auto"
    assert as_arguments(auto) == ["--backend", "auto"]  # else the process it is handed to would take the environment's


@pytest.mark.parametrize(
    ("value", "line", "sentence"),
    [
        ("foo", "gan", "SVMAX_BACKEND must be auto, cpu, cuda, triton or reference; got 'foo'."),
        ("refrence", "retrieval", "SVMAX_BACKEND must be auto, cpu, cuda, triton or reference; got 'refrence';"),
        ("triton", "embed2d", "SVMAX_BACKEND must be auto, cpu or reference; got 'triton'."),
    ],
)
def test_an_environment_that_cannot_be_is_refused_in_one_sentence(svmax, monkeypatch, value, line, sentence):
    monkeypatch.setenv("SVMAX_BACKEND", value)
    outcome = svmax(*line.split())
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith(f"svmax {line}: {sentence}")


def test_a_backend_of_the_environment_that_is_not_available_is_named(svmax, monkeypatch):
    monkeypatch.setattr(svmax_ops, "available_backends", lambda: {"cuda": "there is no GPU"})
    monkeypatch.setenv("SVMAX_BACKEND", "cuda")
    assert svmax("gan").err == "svmax gan: SVMAX_BACKEND=cuda is not available: there is no GPU.\n"
    monkeypatch.delenv("SVMAX_BACKEND")
    assert svmax("gan", "--backend", "cuda").err == "svmax gan: --backend cuda is not available: there is no GPU.\n"


def test_info_tells_of_the_environment(svmax, monkeypatch):
    said = {}
    for value in ("", "cpu", "foo"):
        monkeypatch.setenv("SVMAX_BACKEND", value)
        outcome = svmax("info")
        assert outcome.code == 0
        (line,) = (line for line in outcome.out.splitlines() if line.startswith("SVMAX_BACKEND"))
        said[value] = line.split(maxsplit=1)[1]
    unknown = "unknown backend 'foo'; accepted: auto, cpu, cuda, triton, reference"
    assert said == {"": "not set", "cpu": "cpu", "foo": unknown}
