"""The GAN's step and its pieces against independent computations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from svmax_ops.runs.gan import ring
from svmax_ops.runs.gan.config import GanConfig
from svmax_ops.runs.gan.networks import BETAS, Adversarial, discriminator, generator, steps_ahead
from svmax_ops.runs.gan.objectives import regularizer
from svmax_ops.runs.gan.training import GanTraining, _stream
from tests.runs.states import equal


def config(**values: Any) -> GanConfig:
    return GanConfig(**{"rows": "vanilla", "batch_size": 16, "latent_dim": 4, **values}).resolved()


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
