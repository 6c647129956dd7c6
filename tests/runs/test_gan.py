"""The GAN run: its pieces against independent computations, and the whole command on a few steps."""

from __future__ import annotations

import csv
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.func import functional_call
from torch.nn import functional

from svmax_ops.cli import main
from svmax_ops.runs.folders import read_run
from svmax_ops.runs.gan import figures, ring
from svmax_ops.runs.gan.config import GanConfig
from svmax_ops.runs.gan.networks import BETAS, Adversarial, discriminator, generator, steps_ahead
from svmax_ops.runs.gan.objectives import regularizer
from svmax_ops.runs.gan.training import GanTraining, _stream
from svmax_ops.runs.harness import EVENTS, is_finished, read_metrics

_FLAGS = "--steps 6 --batch-size 16 --latent-dim 4 --evaluate-every 3 --log-every 2 --checkpoint-every 2"
SMALL = _FLAGS.split()
OF_ROWS = ["--objective", "matched", "--matched-form", "absolute", "--unrolled-steps", "2"]
SEVERAL = ["gan", "--rows", "vanilla,unrolled-svmax", "--seeds", "0,3", *OF_ROWS, *SMALL, "--workers", "2"]
RUN_FILES = {"config.json", "metrics.jsonl", "checkpoint.pt", EVENTS, *figures.RUN_FIGURES}


def config(**values: Any) -> GanConfig:
    return GanConfig(**{"rows": "vanilla", "batch_size": 16, "latent_dim": 4, **values}).resolved()


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """But for the measured time, which no two runs share."""
    return [{k: v for k, v in line.items() if k != "seconds_per_1000_steps"} for line in read_metrics(folder)]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one.equal(other) if isinstance(one, torch.Tensor) else one == other


def states(folder: Path) -> dict[str, Any]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {name: state[name] for name in ("step", "generator", "discriminator", "optimizers", "streams", "samples")}


# The ring


def test_real_samples_lie_on_the_ring_in_proportion_to_the_weights():
    weights = ring.mode_weights("3,1,0,0,0,0,0,4", 0)
    samples = ring.draw(40_000, weights, torch.Generator().manual_seed(1))
    assert samples.shape == (40_000, 2)
    offset, mode = torch.cdist(samples.double(), ring.centres()).min(1)
    shares = torch.bincount(mode, minlength=8).double() / len(samples)
    torch.testing.assert_close(shares, weights, atol=0.01, rtol=0)
    assert offset.square().mean().sqrt().item() == pytest.approx(0.02 * math.sqrt(2), rel=0.02)
    torch.testing.assert_close(ring.centres().norm(dim=1), torch.full((8,), 2.0, dtype=torch.float64))


def test_random_weights_are_those_of_the_seed():
    assert ring.mode_weights("random", 1).equal(ring.mode_weights("random", 1))
    assert not ring.mode_weights("random", 1).equal(ring.mode_weights("random", 2))


def test_a_mode_counts_from_one_percent_of_the_samples():
    centres = ring.centres()
    aside = centres[7] + torch.tensor([0.3, 0.0])
    origin = torch.zeros(2, dtype=torch.float64)
    places = {9: centres[0], 10: centres[1], 181: centres[2], 20: aside, 780: origin}
    samples = torch.cat([place.expand(count, 2) for count, place in places.items()])
    found = ring.coverage(samples, len(samples))
    assert (found["modes"], found["modes_wide"]) == (2, 3)
    assert found["high_quality"] == pytest.approx(0.2)
    assert found["high_quality_wide"] == pytest.approx(0.22)


def test_singular_values_are_those_of_a_batch():
    samples = ring.draw(1000, ring.mode_weights("uniform", 0), torch.Generator().manual_seed(0)) + 1
    found = ring.coverage(samples, 250)
    expected = torch.linalg.svdvals(samples.double()) / 2
    assert found["singular_values"] == pytest.approx(expected.tolist())
    centred = torch.linalg.svdvals((samples - samples.mean(0)).double()) / 2
    assert found["singular_values_centred"] == pytest.approx(centred.tolist(), rel=1e-5)
    assert found["radius_99"] == pytest.approx(torch.quantile(samples.norm(dim=1), 0.99).item())


def test_samples_that_are_not_finite_cover_nothing():
    found = ring.coverage(torch.full((100, 2), float("nan")), 10)
    assert (found["modes"], found["high_quality_wide"], found["radius_99"]) == (0, 0, None)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


# Losses, objectives, unrolling


@pytest.mark.parametrize("logits", [False, True])
def test_the_generator_wants_its_samples_called_real(logits):
    outputs = torch.linspace(-4, 4, 10).unsqueeze(1).requires_grad_()
    losses = Adversarial(logits)
    expected = -functional.logsigmoid(outputs).mean()
    torch.testing.assert_close(losses.generator(outputs), expected)
    both = -functional.logsigmoid(outputs[:5]).mean() - functional.logsigmoid(-outputs[5:]).mean()
    torch.testing.assert_close(losses.discriminator(outputs), both)


def test_a_sure_discriminator_leaves_a_gradient_with_logits_alone():
    for logits in (False, True):
        outputs = torch.full((4, 1), -200.0, requires_grad=True)
        loss = Adversarial(logits).generator(outputs)
        (gradient,) = torch.autograd.grad(loss, outputs)
        assert loss.item() == (200 if logits else 100)
        assert gradient.abs().sum().item() == (1 if logits else 0)


def test_objectives_are_their_formulas():
    draws = torch.Generator().manual_seed(0)
    fake, real = (torch.randn(16, 2, generator=draws, dtype=torch.float64) * scale + 1 for scale in (1, 3))

    def mean(x):
        return torch.linalg.svdvals(x).mean()

    def centred(x):
        return x - x.mean(0)

    lower, upper = math.sqrt(16) / 2, math.sqrt(32) / 2
    unit = fake / fake.norm(dim=1, keepdim=True)
    missing = mean(centred(real)) - mean(centred(fake))
    assert missing > 0
    expected = {
        ("eq1", "hinge"): -mean(fake),
        ("bounded", "hinge"): torch.exp((upper - mean(unit)) / (upper - lower)),
        ("matched", "hinge"): missing,
        ("matched", "absolute"): missing,
    }
    for (objective, form), value in expected.items():
        torch.testing.assert_close(regularizer(fake, real, config(objective=objective, matched_form=form)), value)
    torch.testing.assert_close(regularizer(real, fake, config(objective="matched", matched_form="absolute")), missing)
    assert regularizer(real, fake, config(objective="matched")).item() == 0


@pytest.fixture
def trained_discriminator():
    """With an optimizer that has taken some steps, and batches for more, in float64."""
    torch.manual_seed(3)
    network = discriminator().double()
    optimizer = torch.optim.Adam(network.parameters(), 0.01, BETAS)
    batches = [torch.randn(12, 2, dtype=torch.float64) for _ in range(3)]
    loss = Adversarial(False).discriminator
    return network, optimizer, loss, batches


def take_steps(network, optimizer, loss, batches):
    for batch in batches:
        optimizer.zero_grad()
        loss(network(batch)).backward()
        optimizer.step()


@pytest.mark.parametrize("warm", [0, 2])
def test_steps_ahead_are_those_of_adam(trained_discriminator, warm):
    network, optimizer, loss, batches = trained_discriminator
    take_steps(network, optimizer, loss, batches[:1] * warm)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ahead = steps_ahead(network, optimizer, loss, batches, 0.01)
    assert equal(before, network.state_dict())
    take_steps(network, optimizer, loss, batches)
    for name, value in network.named_parameters():
        torch.testing.assert_close(ahead[name], value, rtol=1e-10, atol=1e-12)


def test_the_gradient_goes_through_the_steps_ahead(trained_discriminator):
    network, optimizer, loss, batches = trained_discriminator
    take_steps(network, optimizer, loss, batches[:2])

    def parameters_ahead(fake):
        return steps_ahead(network, optimizer, loss, [torch.cat([batch[:6], fake]) for batch in batches], 0.01)

    def outcome(fake):
        return functional_call(network, parameters_ahead(fake), fake).mean()

    fake = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(outcome(fake), fake)
    h, direction = 1e-6, torch.randn_like(fake)
    difference = (outcome(fake + h * direction) - outcome(fake - h * direction)) / (2 * h)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-5, atol=1e-10)
    constants = {name: value.detach() for name, value in parameters_ahead(fake).items()}
    (without,) = torch.autograd.grad(functional_call(network, constants, fake).mean(), fake)
    assert not torch.allclose(gradient, without, rtol=1e-2)


@pytest.mark.parametrize("through", [False, True])
def test_unrolling_leaves_the_discriminator_where_it_was(through):
    training = GanTraining(config(rows="unrolled", unrolled_gradient=through))
    training.step()
    before = {name: value.clone() for name, value in training.discriminator.state_dict().items()}
    steps = training.optimizers[1].state_dict()["state"][0]["step"].item()
    fake = training.generator(training._noise())
    plain = training.discriminator(fake)
    assert not torch.allclose(training._judged(fake), plain)
    assert equal(before, training.discriminator.state_dict())
    # As the public implementation has it, the averages are kept, unless the gradient goes through.
    assert training.optimizers[1].state_dict()["state"][0]["step"].item() == steps + (0 if through else 5)


def test_rows_of_a_seed_start_alike():
    one, other = (GanTraining(config(rows=row, seeds="7")) for row in ("vanilla", "unrolled-svmax"))
    assert equal(one.generator.state_dict(), other.generator.state_dict())
    assert equal(one.discriminator.state_dict(), other.discriminator.state_dict())
    one.step()
    other.step()
    assert one._real("real").equal(other._real("real"))
    assert one._noise().equal(other._noise())
    different = GanTraining(config(rows="vanilla", seeds="8"))
    assert not equal(one.generator.state_dict(), different.generator.state_dict())


def test_no_two_streams_of_random_numbers_are_alike():
    training = GanTraining(config(seeds="5"))
    torch.manual_seed(5)
    draws = [torch.rand(8)]  # that of the initial weights
    draws += [torch.rand(8, generator=stream) for stream in training.streams.values()]
    draws += [torch.rand(8, generator=_stream(5, "picture"))]
    draws += [torch.rand(8, generator=stream) for stream in GanTraining(config(seeds="6")).streams.values()]
    for i, one in enumerate(draws):
        assert not any(one.equal(other) for other in draws[i + 1 :])


@pytest.mark.parametrize("objective", ["eq1", "matched"])
@pytest.mark.parametrize("row", ["vanilla", "svmax", "unrolled", "unrolled-svmax"])
def test_a_step_is_that_of_a_gan_written_out(row, objective):
    """With torch's own Adam, in the public implementation's order: discriminator, steps ahead, generator."""
    c = config(rows=row, objective=objective, svmax_weight=0.3)
    ours, theirs = GanTraining(c), GanTraining(c)
    g, d = theirs.generator, theirs.discriminator
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), lr=0.025, betas=(0.5, 0.999)) for n in (g, d))
    cross_entropy = torch.nn.BCELoss()
    ones, zeros = torch.ones(16, 1), torch.zeros(16, 1)

    def of_discriminator(real, fake):
        adam_d.zero_grad()
        (cross_entropy(d(real).sigmoid(), ones) + cross_entropy(d(fake).sigmoid(), zeros)).backward()
        adam_d.step()

    for _ in range(2):
        ours.step()
        real = theirs._real("real")
        of_discriminator(real, g(theirs._noise()).detach())
        fake = g(theirs._noise())
        before = {name: value.clone() for name, value in d.state_dict().items()}
        if row.startswith("unrolled"):
            for _ in range(5):
                of_discriminator(theirs._real("ahead"), fake.detach())
        loss = cross_entropy(d(fake).sigmoid(), ones)
        if row.endswith("svmax"):
            if objective == "eq1":
                loss = loss - 0.3 * torch.linalg.svdvals(fake).mean()
            else:
                spread = [torch.linalg.svdvals(x - x.mean(0)).mean() for x in (real, fake)]
                loss = loss + 0.3 * (spread[0] - spread[1]).clamp_min(0)
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()
        d.load_state_dict(before)
    pairs = [*zip(ours.generator.parameters(), g.parameters(), strict=True)]
    pairs += zip(ours.discriminator.parameters(), d.parameters(), strict=True)
    close = torch.cat([torch.isclose(one, other, rtol=2e-4, atol=2e-5).flatten() for one, other in pairs])
    # A gradient that is rounding alone may have either sign, and Adam's first steps see the sign alone.
    assert close.double().mean() >= 0.999
    line = ours.train_line()
    assert line["loss"] == pytest.approx(line["loss_generator"] + 0.3 * line.get("regularizer", 0), rel=1e-6)


def test_a_sample_is_drawn_where_it_lies(tmp_path):
    samples = torch.tensor([[2.0, 0.0], [0.0, -1.0]]).repeat(50, 1)
    settings = {"batch_size": 16, "mode_weights": "uniform"}
    figures.draw_grid({"row": [figures.panel(samples, settings)]}, ["step 1"], tmp_path, "map")
    image = np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).astype(int)
    rows, columns = np.nonzero((image[..., 0] > 200) & (image[..., 1] > 200) & (image[..., 2] < 100))  # yellow
    frame = np.nonzero((image == image[rows[0], columns[0] - 20]).all(-1))  # the heat map's ground
    top, bottom, left, right = frame[0].min(), frame[0].max(), frame[1].min(), frame[1].max()
    x = 6 * (columns - left) / (right - left) - 3
    y = 3 - 6 * (rows - top) / (bottom - top)
    assert {(round(a), round(b)) for a, b in zip(x, y, strict=True)} == {(2, 0), (0, -1)}


def test_the_defaults_are_the_paper_s():
    assert (BETAS, ring.RADIUS, ring.STD) == ((0.5, 0.999), 2, 0.02)
    c = GanConfig().resolved()
    assert (c.steps, c.evaluate_every, c.batch_size, c.latent_dim) == (25_000, 5_000, 512, 256)
    assert (c.lr, c.objective, c.svmax_weight, c.unrolled_steps) == (0.025, "eq1", 0.01, 5)
    assert weights_of(generator(c)) == [(128, 256), (128, 128), (2, 128)]
    assert weights_of(discriminator()) == [(128, 2), (128, 128), (1, 128)]
    assert "Tanh" in str(generator(c))
    assert "ReLU" in str(generator(config(generator_activation="relu")))


def weights_of(network: torch.nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in network.parameters() if parameter.dim() == 2]


# The command


def test_a_row_of_several_has_what_has_an_effect_on_it():
    regularized = {"objective": "matched", "matched_form": "absolute", "svmax_weight": 0.5}
    unrolled = {"unrolled_steps": 3, "unrolled_gradient": True}
    whole = GanConfig(seeds="0-2", logits=True, **regularized, **unrolled)
    whole.check()
    expected = {"vanilla": {}, "svmax": regularized, "unrolled": unrolled, "unrolled-svmax": regularized | unrolled}
    for row, settings in expected.items():
        of_row = whole.of_row(row)
        assert of_row == GanConfig(rows=row, seeds="0-2", logits=True, **settings)
        of_row.check()


@pytest.mark.parametrize("row", ["svmax", "unrolled-svmax"])
def test_one_row_and_seed_are_a_run_folder(svmax, tmp_path, row):
    outcome = svmax("gan", "--rows", row, *SMALL, "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (0, "")
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES
    lines = read_metrics(tmp_path / "run")
    tests = [line for line in lines if line["split"] == "test"]
    assert [line["step"] for line in tests] == [1, 3, 6]
    assert {"row", "seed", "modes", "high_quality", "radius_99", "seconds_per_1000_steps"} <= set(tests[0])
    trains = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in trains] == [2, 4, 6]
    assert {"loss", "spread", "lr", "loss_discriminator", "regularizer"} <= set(trains[0])
    assert all((line["row"], line["seed"]) == (row, 0) for line in lines)


@pytest.mark.parametrize(
    "extra", [(), ("--unrolled-gradient", "--logits", "--objective", "matched", "--mode-weights", "random")]
)
def test_a_stopped_run_goes_on_bit_for_bit(svmax, tmp_path, monkeypatch, extra):
    command = ["gan", "--rows", "unrolled-svmax", *SMALL, *extra]
    assert svmax(*command, "--out", tmp_path / "whole").code == 0
    step = GanTraining.step

    def stop(self: GanTraining) -> None:
        if self.done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(GanTraining, "step", stop)
        outcome = svmax(*command, "--out", tmp_path / "cut")
    assert outcome.code == 143
    assert outcome.err.startswith("svmax gan: stopped; go on with: svmax gan ")
    assert not is_finished(tmp_path / "cut")
    assert svmax(*command, "--out", tmp_path / "cut", "--resume").code == 0
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
    assert equal(states(tmp_path / "cut"), states(tmp_path / "whole"))
    again = svmax(*command, "--out", tmp_path / "cut", "--resume")
    assert (again.code, "is finished" in again.out) == (0, True)


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> Path:
    """Two rows with two seeds, two at a time."""
    out = tmp_path_factory.mktemp("several")
    assert main([*SEVERAL, "--out", str(out)]) == 0
    return out


def test_several_rows_and_seeds_are_the_runs_that_each_would_be(svmax, several, tmp_path):
    members = ["vanilla-seed0", "unrolled-svmax-seed0", "vanilla-seed3", "unrolled-svmax-seed3"]
    assert {path.name for path in several.iterdir() if path.is_dir()} == set(members)
    assert lines_of(several) == [line for name in members for line in lines_of(several / name)]
    figures = {f"heat_maps-{of}{end}" for of in ("seed0", "seed3", "all-seeds") for end in (".png", ".svg")}
    assert {path.name for path in several.iterdir() if path.is_file()} == {
        "config.json", "metrics.jsonl", "checkpoint.pt", "table.csv", "runs.csv", "table.md", *figures
    }  # fmt: skip
    for row, flags in (("vanilla", ()), ("unrolled-svmax", OF_ROWS)):
        one, member = tmp_path / row, several / f"{row}-seed3"
        assert svmax("gan", "--rows", row, "--seeds", "3", *flags, *SMALL, "--out", one).code == 0
        assert lines_of(one) == lines_of(member)
        assert equal(states(one), states(member))
        assert read_run(one).config == read_run(member).config
        assert {path.name for path in member.iterdir()} == RUN_FILES
    assert svmax(*SEVERAL, "--out", several).code == 2  # not empty
    again = svmax(*SEVERAL, "--out", several, "--resume")
    assert (again.code, "all 4 runs are done" in again.out) == (0, True)


def test_a_run_of_several_made_before_goes_on_and_is_reported(svmax, several, tmp_path):
    """A run then also kept what had no effect on its row."""
    out = tmp_path / "before"
    shutil.copytree(several, out)
    (out / "checkpoint.pt").unlink()
    before = {"objective": "matched", "matched_form": "absolute", "svmax_weight": 1.0, "unrolled_steps": 2}
    for seed in (0, 3):
        member = out / f"vanilla-seed{seed}"
        record = json.loads((member / "config.json").read_text())
        record["command"] = shlex.join([*record["command"].split(), *OF_ROWS])
        assert record["config"].keys() >= before.keys()
        (member / "config.json").write_text(json.dumps({**record, "config": record["config"] | before}))
        checkpoint = torch.load(member / "checkpoint.pt", weights_only=True)
        torch.save({**checkpoint, "config": checkpoint["config"] | before}, member / "checkpoint.pt")
    outcome = svmax(*SEVERAL, "--out", out, "--resume")
    assert (outcome.code, outcome.err) == (0, "")
    assert "4 runs, 4 of them finished" in outcome.out
    assert lines_of(out) == lines_of(several)
    for name in ("table.csv", "runs.csv", "table.md"):
        assert (out / name).read_bytes() == (several / name).read_bytes()


def test_several_runs_cut_off_go_on_by_the_command_that_is_printed(tmp_path):
    out = tmp_path / "all"
    flags = [*SMALL, "--steps", "400", "--checkpoint-every", "50", "--evaluate-every", "200"]
    command = [sys.executable, "-m", "svmax_ops.cli", "gan", "--rows", "vanilla, svmax", *flags, "--workers", "2"]
    whole = subprocess.run([*command, "--out", str(tmp_path / "whole")], capture_output=True, text=True)
    assert (whole.returncode, whole.stderr) == (0, "")
    process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "svmax-seed0" / "checkpoint.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in said + err
    again = shlex.split(err.partition("go on with: ")[2])
    assert again[:2] == ["svmax", "gan"]
    shutil.rmtree(out / "vanilla-seed0")  # made anew
    result = subprocess.run([sys.executable, "-m", "svmax_ops.cli", *again[1:]], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert lines_of(out) == lines_of(tmp_path / "whole")


def test_a_run_is_the_same_however_its_rows_and_weight_were_given(svmax, tmp_path):
    for rows, name in ((" svmax", "one"), ("vanilla, svmax", "several")):
        command = ["gan", *SMALL, "--out", tmp_path / name]
        assert svmax(*command, "--rows", rows, "--seeds", "0-0").code == 0
        again = svmax(*command, "--rows", rows.replace(" ", ""), "--svmax-weight", "0.01", "--resume")
        assert (again.code, "is finished" in again.out) == (0, True)


def test_the_report_has_every_seed_and_what_each_setting_changed(svmax, tmp_path):
    paper, relu = tmp_path / "paper", tmp_path / "relu"
    for seed in (0, 1):
        assert svmax("gan", "--rows", "svmax", "--seeds", seed, *SMALL, "--out", paper / f"seed{seed}").code == 0
    flags = ["--generator-activation", "relu", "--objective", "matched", "--matched-form", "absolute"]
    assert svmax("gan", "--rows", "svmax", *flags, *SMALL, "--out", relu).code == 0
    (tmp_path / "cut").mkdir()
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / "cut" / name).write_bytes((relu / name).read_bytes())
    outcome = svmax("report", paper, relu, tmp_path / "cut", "--out", tmp_path / "report")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"{tmp_path / 'cut'}: not finished, left out" in outcome.out
    assert "**lr 0.025" not in outcome.out
    assert "generator_activation relu, batch_size 16" in outcome.out
    assert "| svmax, matched, absolute " in outcome.out
    with (tmp_path / "report" / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["step"]) for row in rows] == [(s, k) for s in ("0", "1", "0") for k in ("1", "3", "6")]
    last = [line for seed in (0, 1) for line in read_metrics(paper / f"seed{seed}") if line["split"] == "test"][2::3]
    with (tmp_path / "report" / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["s_2"]) == pytest.approx(sum(line["singular_values"][1] for line in last) / 2)
    assert float(first["radius_99_max"]) == pytest.approx(max(line["radius_99"] for line in last))
    assert (first["seeds"], second["seeds"], second["objective"]) == ("0 1", "0", "matched")
    figures = {path.name for path in (tmp_path / "report").iterdir() if path.suffix in (".png", ".svg")}
    assert len(figures) == 2 * (2 + 1 + 2)  # a figure a seed and one of all seeds, for each of the two settings
    assert all(name in outcome.out for name in figures)


def test_samples_that_are_not_finite_end_a_run(svmax, tmp_path):
    for flags in ((), ("--logits",)):
        command = ["gan", "--rows", "vanilla", *SMALL, "--lr", "1e30", *flags, "--out", tmp_path / f"run{len(flags)}"]
        outcome = svmax(*command)
        assert outcome.code == 2
        assert (
            outcome.err
            == "svmax gan: the networks' outputs are not finite any more; try a smaller --lr in a new --out.\n"
        )


def test_a_report_of_several_runs_without_their_folders_is_refused(svmax, tmp_path):
    assert svmax("gan", "--rows", "vanilla", *SMALL, "--out", tmp_path).code == 0
    record = json.loads((tmp_path / "config.json").read_text())
    for name, several in (("rows", "vanilla,svmax"), ("seeds", "0-1")):
        changed = {**record, "config": {**record["config"], name: several}}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        outcome = svmax("report", tmp_path)
        assert outcome.code == 2
        assert "is a run of several rows or seeds, and their folders are not in it any more." in outcome.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--rows vanila", "--rows must be some of vanilla,svmax,unrolled,unrolled-svmax, each once; got vanila."),
        ("--rows svmax,svmax", "each once; got svmax,svmax."),
        (
            "--seeds 4-0",
            "ranges of up to 10,000 of them, like 0-4 or 0,2,7; got 4-0.",
        ),
        ("--seeds 0,0-2", "--seeds must name each seed once; got 0,0-2."),
        ("--seeds -1", "--seeds"),
        ("--objective eq2", "invalid choice 'eq2' for argument '--objective'"),
        ("--matched-form absolute", "--matched-form absolute needs --objective matched; got eq1."),
        ("--rows vanilla --svmax-weight 0.01", "--svmax-weight 0.01 needs svmax or unrolled-svmax in --rows;"),
        (
            "--rows vanilla,unrolled --objective matched --matched-form absolute",
            "--objective matched needs svmax or unrolled-svmax in --rows; got vanilla,unrolled.",
        ),
        (
            "--rows svmax --unrolled-steps 3",
            "--unrolled-steps 3 needs unrolled or unrolled-svmax in --rows; got svmax.",
        ),
        ("--rows vanilla,svmax --unrolled-gradient", "--unrolled-gradient needs unrolled or unrolled-svmax in"),
        ("--steps 0", "--steps must be at least 1; got 0."),
        ("--workers 0", "--workers must be at least 1; got 0."),
        ("--batch-size 1", "--batch-size must be at least 2, the dimensions of a sample; got 1."),
        ("--lr nan", "--lr must be a positive number; got nan."),
        ("--svmax-weight -1", "--svmax-weight"),
        ("--mode-weights 1,2", "--mode-weights must be uniform, random or 8 numbers between commas"),
        ("--mode-weights 0,0,0,0,0,0,0,0", "none negative and not all zero"),
        ("--backend triton", "--backend triton is not available: "),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(svmax, tmp_path, flags, message):
    outcome = svmax("gan", *flags.split(), "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.startswith("svmax gan: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
