"""The GPU check's own logic, which needs no GPU: stages, time, sentences, rows, picture and aims."""

from __future__ import annotations

import csv
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_bench, gpu_calls, gpu_check
from benchmarks.machine import machine, read_rows, write_rows
from benchmarks.plot import draw_speed
from benchmarks.registry import GPU_CASES, GPU_PROVIDERS, MODES, PEER, TRITON, Case
from benchmarks.run import errors, truth
from svmax_ops import available_backends


@pytest.fixture
def logs(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(gpu_check, "TESTED", tmp_path / "logs" / "test.json")
    return tmp_path / "logs"


@pytest.fixture
def a_gpu(monkeypatch):
    """What a machine with an H100 and an A100 says of itself."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: ((9, 0), (8, 0))[i])


def check(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu_check", *arguments])
    return gpu_check.main()


@pytest.mark.parametrize("module", [gpu_check, gpu_bench, gpu_calls], ids=lambda m: m.__name__.rpartition(".")[2])
def test_without_a_gpu_one_sentence_and_exit_code_2(monkeypatch, capsys, module):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["command"])
    assert module.main() == 2
    said = capsys.readouterr().err.strip()
    assert f"torch {torch.__version__}" in said
    assert "sees no GPU here" in said
    assert len(said.splitlines()) == 1


def test_stages_run_in_order_and_a_failed_test_does_not_stop_the_measurement(monkeypatch, capsys, a_gpu, logs):
    ran = []
    stages = {
        name: (lambda seconds, name=name: ran.append(name) or name != "test") for name in ("build", "test", "bench")
    }
    monkeypatch.setattr(gpu_check, "STAGES", stages)
    assert check(monkeypatch) == 1
    assert ran == ["build", "test", "bench"]
    assert "NOT passed" in capsys.readouterr().out
    ran.clear()
    assert check(monkeypatch, "--stage", "bench") == 0
    assert ran == ["bench"]
    assert "gpu_check: passed" in capsys.readouterr().out


def test_a_failed_build_stops_everything(monkeypatch, capsys, a_gpu, logs):
    ran = []
    stages = {name: (lambda seconds, name=name: ran.append(name)) for name in ("build", "test", "bench")}
    monkeypatch.setattr(gpu_check, "STAGES", stages)
    assert check(monkeypatch) == 1
    assert ran == ["build"]
    assert "the build failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--stage", "paint"], "invalid choice: 'paint'"), (["--minutes", "0"], "must be positive, got 0")],
)
def test_wrong_arguments(monkeypatch, capsys, arguments, said):
    with pytest.raises(SystemExit, match="2"):
        check(monkeypatch, *arguments)
    assert said in capsys.readouterr().err


def test_what_is_missing_is_named(monkeypatch, capsys, a_gpu, logs):
    monkeypatch.setattr(gpu_check, "tool", lambda name: None)
    assert check(monkeypatch, "--stage", "build") == 2
    assert "gpu_check: cmake was not found" in capsys.readouterr().err
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)
    assert check(monkeypatch, "--stage", "test") == 2
    assert "has no pytest" in capsys.readouterr().err


def test_time_is_shared_and_what_is_left_over_is_passed_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(gpu_check.time, "monotonic", lambda: now[0])
    clock = gpu_check.Clock(480, ["build", "test", "bench"])
    assert clock.limit("build") == pytest.approx(480 * 0.25)
    now[0] += 40  # the build was quick
    assert clock.limit("test") == pytest.approx(440 - 480 * 0.30)
    now[0] += 300
    assert clock.limit("bench") == pytest.approx(140)
    assert gpu_check.Clock(60, ["bench"]).limit("bench") == pytest.approx(60)


def test_the_build_is_for_the_chips_that_are_here_and_ends_in_the_package(monkeypatch, a_gpu, logs, tmp_path):
    assert gpu_check.architectures() == "80;90"
    commands = []

    def run(command, log, seconds, **environment):
        commands.append(command)
        return 0

    monkeypatch.setattr(gpu_check, "run", run)
    monkeypatch.setattr(gpu_check, "tool", lambda name: f"bin/{name}")
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    for folder in (logs / "native", tmp_path / "svmax_ops"):
        folder.mkdir(parents=True)
    for library in gpu_check.LIBRARIES:
        (logs / "native" / library).write_text(library)
    assert gpu_check.build(60)
    assert "-DSVMAX_CUDA_ARCHITECTURES=80;90" in commands[0]
    assert "-DSVMAX_CUDA=ON" in commands[0]
    assert [(tmp_path / "svmax_ops" / name).read_text() for name in gpu_check.LIBRARIES] == list(gpu_check.LIBRARIES)


def up_once_it_has_spoken(log: Path) -> type[threading.Thread]:
    """Stands for threading.Timer: the time is up when there is a line in ``log``, however long Python took to start."""

    class Timer(threading.Thread):
        def __init__(self, seconds: float, end: Callable[[], None]) -> None:
            super().__init__(daemon=True)
            self.end, self.ended = end, threading.Event()

        def run(self) -> None:
            while not self.ended.wait(0.05):
                if log.exists() and log.read_text():
                    self.end()
                    break

        def cancel(self) -> None:
            self.ended.set()

    return Timer


@pytest.mark.processes
def test_a_command_that_takes_too_long_is_interrupted_and_its_output_kept(monkeypatch, logs, capsys):
    body = "print('begun', flush=True); time.sleep(3600)"
    # A shell starts what it runs in the background deaf to SIGINT, and so all that this test starts.
    listen = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"import signal, time\n{listen}\ntry: {body}\nexcept KeyboardInterrupt: print('interrupted')"
    assert gpu_check.run([sys.executable, "-c", "raise SystemExit(3)"], logs / "quick.log", 600) == 3
    monkeypatch.setattr(gpu_check.threading, "Timer", up_once_it_has_spoken(logs / "slow.log"))
    assert gpu_check.run([sys.executable, "-c", script], logs / "slow.log", 5) is None
    assert (logs / "slow.log").read_text() == "begun\ninterrupted\n"


@pytest.mark.processes
def test_a_command_that_does_not_listen_is_killed(monkeypatch, logs):
    monkeypatch.setattr(gpu_check, "GRACE", 1)
    monkeypatch.setattr(gpu_check.threading, "Timer", up_once_it_has_spoken(logs / "deaf.log"))
    deaf = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    script = f"import signal, time\n{deaf}\nprint('deaf', flush=True)\ntime.sleep(3600)"
    assert gpu_check.run([sys.executable, "-c", script], logs / "deaf.log", 2) is None


REPORT = """<testsuites><testsuite tests="10" failures="1" errors="1" skipped="3" /></testsuites>"""


def test_counts_of_a_pytest_report(tmp_path):
    report = tmp_path / "tests.xml"
    assert gpu_check.counts(report) == {}
    report.write_text(REPORT)
    assert gpu_check.counts(report) == {"passed": 5, "failed": 2, "skipped": 3}
    report.write_text(REPORT[:30])  # the end came while it was written
    assert gpu_check.counts(report) == {}


@pytest.mark.parametrize(
    ("pytest_code", "sanitizer_code", "passed"), [(0, 0, True), (1, 0, False), (0, 9, False), (None, 0, False)]
)
def test_the_test_stage_keeps_what_it_has(monkeypatch, logs, capsys, pytest_code, sanitizer_code, passed):
    commands = []

    def run(command, log, seconds, **environment):
        commands.append(command)
        if "pytest" not in command:
            return sanitizer_code
        report = next(word for word in command if word.startswith("--junitxml=")).partition("=")[2]
        logs.mkdir(parents=True, exist_ok=True)
        if pytest_code is not None:
            Path(report).write_text(REPORT)
        return pytest_code

    monkeypatch.setattr(gpu_check, "run", run)
    monkeypatch.setattr(gpu_check, "tool", lambda name: f"bin/{name}")
    assert gpu_check.test(60) == passed
    found = json.loads(gpu_check.TESTED.read_text())
    assert set(found) == {*gpu_check.SUITES, "memcheck", "racecheck"}
    for name in gpu_check.SUITES:
        if pytest_code is None:
            assert found[name] == {"ended": "out of time"}
        else:
            assert found[name] == {"passed": 5, "failed": 2, "skipped": 3, "ended": f"exit code {pytest_code}"}
    assert (found["racecheck"] == "no error") == (sanitizer_code == 0)
    assert "tests/test_cuda.py" in commands[0]
    assert "--ignore=tests/runs" in commands[1]
    assert [command[0] for command in commands[2:]] == ["bin/compute-sanitizer"] * 2
    monkeypatch.setattr(gpu_check, "tool", lambda name: None)
    assert gpu_check.test(60) == (pytest_code == 0)
    assert json.loads(gpu_check.TESTED.read_text())["memcheck"] == "compute-sanitizer was not found"


def test_calls_for_the_sanitizer_reach_every_function(native):
    shapes = []
    for x in gpu_calls.inputs("cpu"):
        shapes.append(tuple(x.shape))
        if x.numel() < 3000:
            gpu_calls.call(x)
    assert shapes == list(gpu_calls.SHAPES)


def test_rows_of_a_case(native):
    """On the CPU, where cuSOLVER is not: that is told, and the rest is measured."""
    failures: list[str] = []
    case = Case("3 of 32x16", (3, 32, 16), "small")
    here = [p for p in GPU_PROVIDERS if p.name != TRITON]  # interpreted, it would take a minute
    rows = gpu_bench.measure(case, 0.5, failures, device="cpu", providers=here, clocks=("calls",))
    assert {row["mode"] for row in rows} == set(MODES)
    assert {row["provider"] for row in rows} == {
        p.name for p in here if not p.name.endswith(("gesvd", "gesvdj", "gesvda"))
    }
    assert len(failures) == 6
    assert all("driver" in failure for failure in failures)
    for row in rows:
        assert 0 < row["p20_ms"] <= row["median_ms"] <= row["p80_ms"]
        assert row["error"] < 1e-5
        assert row["clock"] == "calls"
        assert row["rounds"] >= 3
        assert (row["ratio"] == 1) or row["provider"] != PEER


def test_the_triton_column_is_computed_by_triton():
    (provider,) = (p for p in GPU_PROVIDERS if p.name == TRITON)
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    if available_backends()["triton"] == "ok" and not torch.cuda.is_available():
        assert max(errors(provider, x, truth(provider.value, x))) < 1e-5
    else:
        with pytest.raises((RuntimeError, ValueError), match="backend 'triton'"):
            provider.forward(x)


def test_a_provider_that_loops_is_left_out_of_huge_batches(native):
    failures: list[str] = []
    many = Case("10000 of 2x2", (10_000, 2, 2), "many")
    loops = [provider for provider in GPU_PROVIDERS if provider.loops]
    assert gpu_bench.measure(many, 0.5, failures, device="cpu", providers=loops, clocks=("calls",)) == []
    assert failures == [f"10000 of 2x2: {p.name}: left out, it takes 10000 matrices one by one" for p in loops]


def some_rows() -> list[dict]:
    timing = gpu_bench.Timing(60e-6, 55e-6, 65e-6)
    return [
        gpu_bench.row(GPU_CASES[0], mode, clock, provider, timing._replace(median=median), 50, 3e-3, 1e-8)
        for mode in MODES
        for clock, provider, median in (
            ("calls", PEER, 3e-3),
            ("calls", "svmax_loss", 100e-6),
            ("graph", "svmax_loss", 60e-6),
            ("calls", "torch.linalg.svd gesvda", 2e-3),
        )
    ]


def test_aims_stand_beside_what_was_measured():
    table = gpu_bench.aims_table(some_rows(), "NVIDIA Test")
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()]
    assert lines[0][1:] == ["aim for an H100", "calls on NVIDIA Test", "graph replay"]
    assert lines[2] == ["144x128 forward", "<= 70 us", "100.0 us (missed)", "60.0 us (met)"]
    assert lines[3] == ["144x128 forward+backward", "<= 150 us", "100.0 us (met)", "60.0 us (met)"]
    assert lines[4] == ["1000 of 64x32 forward", "<= 200 us", "not measured", "not measured"]
    assert lines[5] == [f"144x128 forward, times as fast as {PEER}", ">= 20x", "30x (met)", "50x (met)"]


def test_rows_are_written_and_drawn(tmp_path):
    out = tmp_path / gpu_bench.file_name("NVIDIA H100 80GB HBM3")
    assert out.name == "nvidia_h100_80gb_hbm3"
    write_rows(out, {**machine(), "device": "NVIDIA H100 80GB HBM3", "failures": []}, some_rows())
    draw_speed(out)
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    facts, rows = read_rows(out)
    assert facts["device"] == "NVIDIA H100 80GB HBM3"
    with out.with_suffix(".csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(rows) == 8
    assert {row["device"] for row in table} == {"NVIDIA H100 80GB HBM3"}


def test_cases_begin_with_those_that_have_an_aim():
    names = [case.name for case in GPU_CASES]
    assert set(names[:2]) == {aim.case for aim in gpu_bench.AIMS}
    assert len(names) == len(set(names))


def test_rounds_fit_the_time():
    def rounds(seconds: float) -> int:
        return gpu_bench.rounds_within({"a": lambda: None}, seconds, lambda call, repeats: 0.01)

    assert [rounds(seconds) for seconds in (0, 0.5, 60)] == [3, 22, 50]  # 5 calls before, then 2 a round
