"""Generator, discriminator, their losses, and the discriminator's steps ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.gan.config import GanConfig

HIDDEN = 128
BETAS = (0.5, 0.999)
_EPS = 1e-8
_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def generator(config: GanConfig) -> nn.Module:
    """``[b, latent_dim]`` to ``[b, 2]``: two hidden layers of 128, a linear end."""
    return _perceptron(config.latent_dim, 2, _ACTIVATIONS[config.generator_activation])


def discriminator() -> nn.Module:
    """``[b, 2]`` to ``[b, 1]`` logits: two hidden layers of 128, ReLU."""
    return _perceptron(2, 1, nn.ReLU)


def _perceptron(inputs: int, outputs: int, activation: type[nn.Module]) -> nn.Module:
    hidden = [nn.Linear(inputs, HIDDEN), activation(), nn.Linear(HIDDEN, HIDDEN), activation()]
    return nn.Sequential(*hidden, nn.Linear(HIDDEN, outputs))


class Adversarial:
    """Both players' losses: binary cross-entropy, non-saturating for the generator.

    Args:
        logits: take it of logits. Otherwise of a sigmoid's value, of which torch cuts the logarithm off at -100.
    """

    def __init__(self, logits: bool) -> None:
        self.logits = logits

    def discriminator(self, outputs: Tensor) -> Tensor:
        """Of ``outputs`` ``[2 b, 1]``: first of b real samples, then of b fake ones."""
        real, fake = outputs.chunk(2)
        return self._cross_entropy(real, 1.0) + self._cross_entropy(fake, 0.0)

    def generator(self, outputs: Tensor) -> Tensor:
        """Of ``outputs`` ``[b, 1]`` of fake samples."""
        return self._cross_entropy(outputs, 1.0)

    def _cross_entropy(self, outputs: Tensor, label: float) -> Tensor:
        if not outputs.isfinite().all():  # of which torch would speak as of an input outside of [0, 1]
            raise UserError("the networks' outputs are not finite any more; try a smaller --lr in a new --out.")
        target = torch.full_like(outputs, label)
        if self.logits:
            return functional.binary_cross_entropy_with_logits(outputs, target)
        return functional.binary_cross_entropy(torch.sigmoid(outputs), target)


class Moments(NamedTuple):
    """Adam's averages of a parameter's gradient and of its square."""

    first: Tensor
    second: Tensor


def adam_state(optimizer: torch.optim.Adam) -> tuple[int, list[Moments]]:
    """Steps taken, and the moments of each parameter; zeros before the first step."""
    parameters = optimizer.param_groups[0]["params"]
    states = [optimizer.state.get(parameter) for parameter in parameters]
    if None in states:
        return 0, [Moments(torch.zeros_like(parameter), torch.zeros_like(parameter)) for parameter in parameters]
    return int(states[0]["step"]), [Moments(state["exp_avg"], state["exp_avg_sq"]) for state in states]


def steps_ahead(
    network: nn.Module,
    optimizer: torch.optim.Adam,
    loss: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    lr: float,
) -> dict[str, Tensor]:
    """The discriminator's parameters after a step of Adam on each of ``batches``, as functions of these.

    Differentiable through the steps, Adam's averages included (Metz et al., 2017, eq. 8 to 10, with Adam for gradient
    descent). ``network`` and ``optimizer``, which they start from, stay as they are.
    """
    parameters = dict(network.named_parameters())
    step, moments = adam_state(optimizer)
    for batch in batches:
        step += 1
        value = loss(functional_call(network, parameters, batch))
        gradients = torch.autograd.grad(value, list(parameters.values()), create_graph=True)
        for (name, parameter), gradient, i in zip(
            list(parameters.items()), gradients, range(len(moments)), strict=True
        ):
            moments[i], change = _adam(moments[i], gradient, step, lr)
            parameters[name] = parameter - change
    return parameters


def _adam(moments: Moments, gradient: Tensor, step: int, lr: float) -> tuple[Moments, Tensor]:
    """The moments after ``gradient``, and what a step takes off the parameter."""
    first = torch.lerp(moments.first, gradient, 1 - BETAS[0])
    second = torch.lerp(moments.second, gradient.square(), 1 - BETAS[1])
    # The root has no derivative at 0, where a dead unit's gradient has always been 0: there it is a constant.
    root = (second.clamp_min(torch.finfo(second.dtype).tiny) / (1 - BETAS[1] ** step)).sqrt()
    return Moments(first, second), lr / (1 - BETAS[0] ** step) * first / (root + _EPS)
