"""The embedding networks: pictures to raw activations ``[n, d]``."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from svmax_ops.runs.command_line import did_you_mean
from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.data.images import MEAN, SD
from svmax_ops.runs.retrieval.weights import first_line, load_weights, pretrained

CHANNELS = (32, 64, 96, 128)

# The ImageNet weights of these two came from TensorFlow and want pixels in [-1, 1], which transform_input makes of
# normalised ones. It is on for random weights too: what weights mean does not depend on where they come from.
_FROM_TENSORFLOW = {"transform_input": True, "init_weights": False}
_PORTED = {"googlenet": _FROM_TENSORFLOW, "inception_v3": _FROM_TENSORFLOW}
_AUXILIARY = ("aux1", "aux2", "AuxLogits")  # their classifiers beside the main one


def build_network(config: RetrievalConfig, picture: tuple[int, int, int]) -> nn.Module:
    """The network of a configuration, initialised from torch's global generator.

    ``small`` is :class:`SmallNetwork`. Of torchvision's classification networks the last linear layer is replaced by
    one of d outputs; the state_dict keeps torchvision's names. Other names are timm's: :class:`TimmNetwork`. The new
    layer is orthogonal with zero bias. Grey pictures are repeated to three channels. ImageNet weights are torchvision's
    IMAGENET1K_V1, those of the paper's time, where there are several.

    Args:
        config: resolved; ``network``, ``weights`` and ``dim`` are read.
        picture: ``(channels, height, width)`` of the input, one or three channels except for ``small``.
    Returns:
        A module of float32 ``[n, channels, height, width]`` to ``[n, d]``: raw activations. The losses divide each row
        by its L2 norm, SVMax does so itself.
    Raises:
        UserError: no such network, one without a last linear layer, one that does not take such pictures; weights
            that cannot be had or do not fit.
    """
    name = config.network
    if name == "small":
        if config.weights == "imagenet":
            raise UserError("--network small has no ImageNet weights; --weights must be none or a file.")
        network: nn.Module = SmallNetwork(picture, config.dim)
        return network if config.weights == "none" else load_weights(network, config, ("embedding.",))
    network = _torchvision_network(config) if name in _torchvision_names() else _timm_network(config)
    if picture[0] == 1:
        network.register_forward_pre_hook(_three_channels)
    _try(network, name, picture)
    return network


class SmallNetwork(nn.Module):
    """Four 3x3 convolutions of stride 2, each with BatchNorm and ReLU, then a linear layer: 218 k weights at d = 64.

    Args:
        picture: ``(channels, height, width)`` of the input.
        dim: d, of the embeddings.
    Shape:
        Input ``[n, channels, height, width]``, output ``[n, d]``: raw activations.
    """

    def __init__(self, picture: tuple[int, int, int], dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming, height, width = picture
        for channels in CHANNELS:
            convolution = nn.Conv2d(incoming, channels, 3, stride=2, padding=1, bias=False)  # BatchNorm has the bias
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            incoming, height, width = channels, (height + 1) // 2, (width + 1) // 2
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Linear(incoming * height * width, dim)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.embedding(self.features(pictures).flatten(1))


class TimmNetwork(nn.Module):
    """A network of timm's without its classifier, then a linear layer.

    Args:
        features: ``[n, 3, height, width]`` to ``[n, features.num_features]``, of pictures scaled as its
            ``pretrained_cfg`` says.
        incoming: size of a feature.
        dim: d, of the embeddings.
    """

    def __init__(self, features: nn.Module, incoming: int, dim: int) -> None:
        super().__init__()
        self.features = features
        self.embedding = orthogonal(incoming, dim)
        mean, sd = features.pretrained_cfg["mean"], features.pretrained_cfg["std"]
        scale = [ours / theirs for ours, theirs in zip(SD, sd, strict=True)]
        shift = [(ours - theirs) / s for ours, theirs, s in zip(MEAN, mean, sd, strict=True)]
        self.register_buffer("scale", torch.tensor(scale).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift).view(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.embedding(self.features(pictures * self.scale + self.shift))


def orthogonal(incoming: int, dim: int) -> nn.Linear:
    """A linear layer with an orthogonal weight ``[dim, incoming]`` and zero bias."""
    layer = nn.Linear(incoming, dim)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def last_linear(network: nn.Module) -> tuple[str, nn.Linear] | None:
    """A classification network's classifier, with its name: the last linear layer. None where there is none."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


def _torchvision_names() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models)  # this module alone: the classification networks


def _torchvision_network(config: RetrievalConfig) -> nn.Module:
    name = config.network
    if config.weights == "imagenet":
        choices = torchvision.models.get_model_weights(name)
        chosen = getattr(choices, "IMAGENET1K_V1", choices.DEFAULT)
        network = pretrained(name, lambda: torchvision.models.get_model(name, weights=chosen))
    else:
        network = torchvision.models.get_model(name, weights=None, **_PORTED.get(name, {}))
    if name in _PORTED:
        network.aux_logits = False
        for auxiliary in _AUXILIARY:
            if hasattr(network, auxiliary):
                setattr(network, auxiliary, None)
    found = last_linear(network)
    if found is None:
        raise UserError(f"--network {name} has no linear layer that an embedding could replace.")
    classifier, layer = found
    network.set_submodule(classifier, orthogonal(layer.in_features, config.dim))
    if config.weights in ("imagenet", "none"):
        return network
    return load_weights(network, config, (f"{classifier}.", *(f"{a}." for a in _AUXILIARY)))


def _timm_network(config: RetrievalConfig) -> nn.Module:
    name = config.network
    try:
        import timm
    except ModuleNotFoundError as error:
        near = did_you_mean(name, _torchvision_names(), 3, 0.5)
        raise UserError(
            f"--network {name} is neither small nor one of torchvision's{near}; for timm's: pip install"
            " 'svmax-ops[timm]'."
        ) from error
    names = [*timm.list_models(), *timm.list_pretrained()]
    if name not in names:
        near = did_you_mean(name, ["small", *_torchvision_names(), *names], 3, 0.5)
        raise UserError(f"--network {name} is neither small nor one of torchvision's or timm's{near}.")
    if config.weights == "imagenet":
        if not timm.models.is_model_pretrained(name):
            raise UserError(f"--network {name} has no ImageNet weights; --weights must be none or a file.")
        features = pretrained(name, lambda: timm.create_model(name, pretrained=True, num_classes=0))
    else:
        features = timm.create_model(name, num_classes=0)
    incoming = getattr(features, "head_hidden_size", features.num_features)
    network = TimmNetwork(features, incoming, config.dim)
    if config.weights in ("imagenet", "none"):
        return network
    classifiers = features.pretrained_cfg.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    return load_weights(network, config, ("embedding.", *(f"features.{c}." for c in classifiers)), within="features.")


def _three_channels(network: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0].repeat(1, 3, 1, 1)


@torch.no_grad()
def _try(network: nn.Module, name: str, picture: tuple[int, int, int]) -> None:
    """Refuse a network that pictures of this size do not go through, before anything is read or written."""
    network.eval()
    try:
        network(torch.zeros(1, *picture))
    except (AssertionError, RuntimeError, ValueError) as error:
        size = " x ".join(map(str, picture[1:]))
        raise UserError(f"--network {name} does not take pictures of {size}: {first_line(error)}.") from error
    network.train()
