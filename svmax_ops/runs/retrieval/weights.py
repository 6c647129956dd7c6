"""The weights that a network begins with: downloaded by its library, or from a file, of a run's too."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig


def pretrained(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    """``build()``, which downloads weights where they are not yet in its library's cache.

    Raises:
        UserError: they cannot be had; with the reason and the way out.
    """
    try:
        return build()
    except Exception as error:  # torch.hub and Hugging Face's hub have no class in common for what a network can do
        raise UserError(
            f"--weights imagenet: those of {name} cannot be had ({type(error).__name__}: {first_line(error)}); without"
            " a network connection give a file of them, --weights FILE."
        ) from error


def load_weights(network: nn.Module, config: RetrievalConfig, replaced: tuple[str, ...], within: str = "") -> nn.Module:
    """``network`` with the weights of the file ``config.weights``, which only tensors are read from.

    Args:
        replaced: beginnings of the names of layers that a file need not have. What it has of them is taken where it
            fits (an embedding of d dimensions) and left out where it does not (a classifier of 1000 classes).
        within: put before the names of a file that has none of an embedding.
    Raises:
        UserError: the file cannot be read, holds no state_dict, or one of another network.
    """
    state = _read(Path(config.weights))
    if within and not any(name.startswith(within) for name in state):
        state = {within + name: value for name, value in state.items()}
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    for layer in replaced:
        its = {name for name in state if name.startswith(layer)}
        if any(state[name].shape != shapes.get(name) for name in its):
            state = {name: value for name, value in state.items() if name not in its}
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a shape, in the lines after the first
        reason = str(error).strip().split("\n")[1].strip().rstrip(".")
    else:
        missing = [name for name in missing if not name.startswith(replaced)]
        if not missing and not unexpected:
            return network
        found = {"it lacks": missing, "the network has no": unexpected}
        reason = " and ".join(_some(text, names) for text, names in found.items() if names)
    raise UserError(f"--weights {config.weights} does not fit --network {config.network}: {reason}.")


def first_line(error: Exception) -> str:
    """Of what a library says, for use inside a sentence."""
    return str(error).strip().split("\n")[0].rstrip(".!")


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"--weights must be imagenet, none or a file of a state_dict; {path} is no file.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"--weights {path} is truncated or no file of torch.save ({first_line(error)}).") from error
    if isinstance(state, dict):
        state = state.get("network", state)  # of a run's best.pt or checkpoint.pt
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"--weights {path} holds no state_dict; it must be torch.save(network.state_dict(), FILE).")
    return {name.removeprefix("module."): value for name, value in state.items()}  # DataParallel's


def _some(text: str, names: list[str]) -> str:
    return f"{text} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
