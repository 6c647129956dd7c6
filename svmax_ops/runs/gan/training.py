"""Everything of a run that changes from step to step, and the step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from svmax_ops import spectrum
from svmax_ops.runs.gan import ring
from svmax_ops.runs.gan.config import ROWS, GanConfig
from svmax_ops.runs.gan.networks import BETAS, Adversarial, discriminator, generator, steps_ahead
from svmax_ops.runs.gan.objectives import regularizer

SAMPLES = 10_000
"""Of a picture and its measures."""
_STREAMS = ("noise", "real", "ahead", "picture")


class GanTraining:
    """Generator, discriminator, their optimizers and the streams of noise and real samples.

    Args:
        config: of one row and one seed, resolved.
    """

    def __init__(self, config: GanConfig) -> None:
        self.config, self.row, seed = config, ROWS[config.row], config.seed
        torch.manual_seed(seed)  # the initial weights
        self.generator, self.discriminator = generator(config), discriminator()
        self.optimizers = [
            torch.optim.Adam(network.parameters(), config.lr, BETAS, fused=True)
            for network in (self.generator, self.discriminator)
        ]
        self.losses = Adversarial(config.logits)
        self.weights = ring.mode_weights(config.mode_weights, seed)
        # A stream each: a row's further draws then do not change what another row draws.
        self.streams = {name: _stream(seed, name) for name in _STREAMS[:3]}
        self.samples: dict[int, Tensor] = {}
        """At each picture: ``[10000, 2]``."""
        self.done = 0
        self.seconds = 0.0
        """Of processor time, in all steps."""
        self._last: dict[str, Tensor] = {}

    def step(self) -> None:
        """One step of the discriminator, one of the generator."""
        begin = time.process_time()
        real = self._real("real")
        with torch.no_grad():
            fake = self.generator(self._noise())
        loss_discriminator = self._discriminator_step(real, fake)
        fake = self.generator(self._noise())
        outputs = self._judged(fake)
        adversarial = self.losses.generator(outputs)
        loss, term = adversarial, None
        if self.row.regularized:
            term = regularizer(fake, real, self.config)
            loss = loss + self.config.svmax_weight * term
        optimizer = self.optimizers[0]
        optimizer.zero_grad()
        parameters = list(self.generator.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
        self.done += 1
        self.seconds += time.process_time() - begin
        self._last = {
            "loss": loss.detach(),
            "loss_generator": adversarial.detach(),
            "loss_discriminator": loss_discriminator.detach(),
            "fake": fake.detach(),
        } | ({} if term is None else {"regularizer": term.detach()})

    def _judged(self, fake: Tensor) -> Tensor:
        """The outputs for ``fake`` of the discriminator that the generator learns from."""
        if not self.row.unrolled:
            return self.discriminator(fake)
        if self.config.unrolled_gradient:
            batches = (torch.cat([self._real("ahead"), fake]) for _ in range(self.config.unrolled_steps))
            ahead = steps_ahead(
                self.discriminator, self.optimizers[1], self.losses.discriminator, batches, self.config.lr
            )
            return functional_call(self.discriminator, ahead, fake)
        before = [parameter.detach().clone() for parameter in self.discriminator.parameters()]
        for _ in range(self.config.unrolled_steps):
            self._discriminator_step(self._real("ahead"), fake.detach())
        ahead = {name: parameter.detach().clone() for name, parameter in self.discriminator.named_parameters()}
        with torch.no_grad():
            for parameter, value in zip(self.discriminator.parameters(), before, strict=True):
                parameter.copy_(value)
        return functional_call(self.discriminator, ahead, fake)

    def _discriminator_step(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = self.losses.discriminator(self.discriminator(torch.cat([real, fake])))
        self.optimizers[1].zero_grad()
        loss.backward()
        self.optimizers[1].step()
        return loss

    def _real(self, stream: str) -> Tensor:
        return ring.draw(self.config.batch_size, self.weights, self.streams[stream])

    def _noise(self) -> Tensor:
        return torch.randn(self.config.batch_size, self.config.latent_dim, generator=self.streams["noise"])

    def train_line(self) -> dict[str, Any]:
        """Losses of the last step; the spread of the directions of its fake batch."""
        losses = {name: _number(value) for name, value in self._last.items() if name != "fake"}
        spread = _number(spectrum(self._last["fake"]).spread)
        return {**self._names(), **losses, "spread": spread, "lr": self.config.lr}

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """How much of the ring 10,000 samples cover; the noise is the same at every picture."""
        noise = torch.randn(SAMPLES, self.config.latent_dim, generator=_stream(self.config.seed, "picture"))
        samples = self.generator(noise)
        self.samples[self.done] = samples
        per_step = self.seconds / max(self.done, 1)
        found = ring.coverage(samples, self.config.batch_size)
        return {**self._names(), **found, "seconds_per_1000_steps": 1000 * per_step}

    def _names(self) -> dict[str, Any]:
        return {"row": self.config.row, "seed": self.config.seed}

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "streams": {name: stream.get_state() for name, stream in self.streams.items()},
            "samples": self.samples,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        for name, stream in self.streams.items():
            stream.set_state(state["streams"][name])
        self.samples = dict(state["samples"])
        self.seconds = state["seconds"]
        self.done = state["step"]


def _stream(seed: int, name: str) -> torch.Generator:
    """Of random numbers, another one for each name and seed."""
    # torch's generator looks at 32 bits of a seed; NumPy spreads all that it is given over them.
    mixed = np.random.SeedSequence([seed, _STREAMS.index(name)]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))


def _number(value: Tensor) -> float | None:
    """None where it is not finite, which JSON has no word for."""
    number = value.item()
    return number if math.isfinite(number) else None


def evaluations(config: GanConfig) -> Iterator[int]:
    """The steps that have a picture: the first, every so many, the last."""
    yield 1
    yield from range(config.evaluate_every, config.steps, config.evaluate_every)
    yield config.steps
