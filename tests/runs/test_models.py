"""The embedding networks: torchvision's and timm's with an embedding in the classifier's place, and their weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn

from svmax_ops.runs.errors import UserError
from svmax_ops.runs.retrieval.config import RetrievalConfig
from svmax_ops.runs.retrieval.models import CHANNELS, SmallNetwork, build_network, last_linear

PAPERS = {"googlenet": "fc", "resnet50": "fc", "mobilenet_v2": "classifier.1"}
COLOUR = (3, 64, 64)


def network(name: str, picture: tuple[int, int, int] = COLOUR, dim: int = 16, weights: object = "none") -> nn.Module:
    torch.manual_seed(0)
    return build_network(RetrievalConfig(network=name, weights=str(weights), dim=dim).resolved(), picture)


def pictures(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def state(name: str, **options: object) -> dict[str, Tensor]:
    """Weights of torchvision's network that no seed of these tests gives."""
    torch.manual_seed(5)
    return torchvision.models.get_model(name, weights=None, **options).state_dict()


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_networks_map_pictures_to_activations(name: str):
    model = network(name)
    assert model.training
    for mode in (True, False):  # GoogLeNet's output is a tuple in training where it has auxiliary classifiers
        activations = model.train(mode)(pictures(3, *COLOUR))
        assert activations.shape == (3, 16)
        assert activations.isfinite().all()
    classifier, layer = last_linear(model)
    assert classifier == PAPERS[name]
    torch.testing.assert_close(layer.weight @ layer.weight.mT, torch.eye(16))
    assert not layer.bias.any()
    assert {key.split(".")[0] for key in model.state_dict()}.isdisjoint({"aux1", "aux2", "AuxLogits"})
    activations.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "classifier", "picture"),
    [
        ("inception_v3", "fc", (3, 80, 80)),
        ("shufflenet_v2_x0_5", "fc", COLOUR),
        ("efficientnet_b0", "classifier.1", COLOUR),
        ("convnext_tiny", "classifier.2", COLOUR),
        ("swin_t", "head", COLOUR),
        ("vit_b_32", "heads.head", (3, 224, 224)),
    ],
)
def test_other_networks_of_torchvision(name: str, classifier: str, picture: tuple[int, int, int]):
    model = network(name, picture)
    assert last_linear(model)[0] == classifier
    assert model(pictures(2, *picture)).shape == (2, 16)


@pytest.mark.parametrize("name", PAPERS)
def test_the_seed_alone_decides_the_initial_weights(name: str):
    first, second = network(name).state_dict(), network(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_small_has_the_weights_that_it_always_had():
    built = network("small", (1, 32, 32), dim=64)
    torch.manual_seed(0)
    layers, incoming = [], 1
    for channels in CHANNELS:
        layers += [nn.Conv2d(incoming, channels, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(channels)]
        incoming = channels
    expected = [weight for layer in layers for weight in layer.parameters()] + list(nn.Linear(512, 64).parameters())
    assert isinstance(built, SmallNetwork)
    for actual, weight in zip(built.parameters(), expected, strict=True):
        assert torch.equal(actual, weight)


@pytest.mark.parametrize("name", PAPERS)
def test_grey_pictures_are_repeated_to_three_channels(name: str):
    grey, colour = network(name, (1, 32, 32)).eval(), network(name, (3, 32, 32)).eval()
    x = pictures(3, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(grey(x), colour(torch.cat([x, x, x], 1)))


@pytest.mark.parametrize("name", ["small", *PAPERS])
def test_channels_last_and_autocast_change_no_more_than_rounding(name: str):
    x = pictures(4, *COLOUR)
    with torch.no_grad():
        model = network(name).eval()
        expected = model(x)
        model = model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), expected, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x)
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).norm() < 0.05 * expected.norm()


def features(model: nn.Module, classifier: str, x: Tensor) -> Tensor:
    """What the classifier would be given."""
    seen = []
    model.eval().get_submodule(classifier).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(x)
    return seen[-1]


def reference(name: str, weights: dict[str, Tensor]) -> nn.Module:
    """torchvision's own network, told of ImageNet weights what it tells itself."""
    options = {"transform_input": True, "init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, **options)
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("name", ["googlenet", "resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("form", ["whole", "no classifier", "DataParallel"])
def test_weights_from_a_file_give_torchvisions_features(tmp_path: Path, name: str, form: str):
    weights = state(name, **({"init_weights": False} if name == "googlenet" else {}))
    assert name != "googlenet" or any(key.startswith("aux1.") for key in weights)
    classifier = PAPERS.get(name, "fc")
    saved = weights
    if form == "no classifier":
        saved = {key: value for key, value in weights.items() if not key.startswith((classifier, "aux"))}
    if form == "DataParallel":
        saved = {f"module.{key}": value for key, value in weights.items()}
    torch.save(saved, tmp_path / "weights.pt")
    model, x = network(name, weights=tmp_path / "weights.pt"), pictures(2, *COLOUR)
    assert torch.equal(features(model, classifier, x), features(reference(name, weights), classifier, x))
    layer = model.get_submodule(classifier)
    torch.testing.assert_close(layer.weight @ layer.weight.mT, torch.eye(16))


@pytest.mark.parametrize(("name", "of_a_run"), [("small", True), ("googlenet", False), ("mobilenet_v2", False)])
def test_the_weights_of_a_trained_network_come_back_with_its_embedding(tmp_path: Path, name: str, of_a_run: bool):
    trained = network(name)
    for weight in trained.parameters():
        weight.data.add_(0.01)
    state = trained.state_dict()
    torch.save({"step": 7, "network": state} if of_a_run else state, tmp_path / "weights.pt")
    again = network(name, weights=tmp_path / "weights.pt")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in trained.state_dict().items())
    smaller = network(name, weights=tmp_path / "weights.pt", dim=8)  # another d: the layers before the embedding
    fits = [key for key, value in trained.state_dict().items() if value.shape == smaller.state_dict()[key].shape]
    assert len(fits) == len(trained.state_dict()) - 2
    assert all(torch.equal(trained.state_dict()[key], smaller.state_dict()[key]) for key in fits)


@pytest.mark.parametrize(("name", "first"), [("googlenet", "conv1.conv"), ("inception_v3", "Conv2d_1a_3x3.conv")])
@pytest.mark.parametrize("weights", ["none", "imagenet"])
def test_weights_ported_from_tensorflow_see_pixels_from_minus_one_to_one(
    downloads, name: str, first: str, weights: str
):
    model = network(name, (3, 80, 80), weights=weights).eval()
    pixels = torch.rand(2, 3, 80, 80)
    mean, sd = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    seen = features(model, first, (pixels - mean) / sd)
    torch.testing.assert_close(seen, 2 * pixels - 1, rtol=0, atol=1e-5)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torchvision's downloads, answered from here; the addresses asked for."""
    asked: list[str] = []

    def answer(url: str, *_: object, **__: object) -> dict[str, Tensor]:
        asked.append(url)
        name = next(n for n in ("googlenet", "inception_v3", "mobilenet_v2", "resnet50") if f"/{n}" in url)
        return state(name, **({"init_weights": False} if name in ("googlenet", "inception_v3") else {}))

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", answer)
    return asked


@pytest.mark.parametrize("name", PAPERS)
def test_imagenet_weights_are_torchvisions_first(downloads: list[str], name: str):
    model, x = network(name, weights="imagenet"), pictures(2, *COLOUR)
    assert downloads == [torchvision.models.get_model_weights(name).IMAGENET1K_V1.url]
    own = torchvision.models.get_model(name, weights="IMAGENET1K_V1")
    assert torch.equal(features(model, PAPERS[name], x), features(own, PAPERS[name], x))
    assert model.train()(x).shape == (2, 16)


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    refused = refusal(lambda: network("resnet50", weights="imagenet"))
    assert "those of resnet50 cannot be had (URLError: <urlopen error Name or service not known>)" in refused
    assert "--weights FILE" in refused


def refusal(call: Callable[[], object]) -> str:
    """The sentence that ``call`` is refused with."""
    with pytest.raises(UserError) as refused:
        call()
    sentence = str(refused.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("name", "picture", "weights", "message"),
    [
        ("resnet5O", COLOUR, "none", "--network resnet5O is neither small nor one of torchvision's"),
        ("resnet5O", COLOUR, "none", "did you mean resnet50 or "),
        (
            "squeezenet1_1",
            COLOUR,
            "none",
            "--network squeezenet1_1 has no linear layer that an embedding could replace.",
        ),
        ("alexnet", (1, 32, 32), "none", "--network alexnet does not take pictures of 32 x 32: Given input size"),
        ("small", COLOUR, "imagenet", "--network small has no ImageNet weights; --weights must be none or a file"),
        ("resnet18", COLOUR, "nowhere.pt", "--weights must be imagenet, none or a file of a state_dict; nowhere.pt is"),
    ],
)
def test_networks_and_weights_that_are_not_there(name: str, picture, weights: str, message: str):
    assert message in refusal(lambda: network(name, picture, weights=weights))


def other_shape(weights: dict[str, Tensor]) -> object:
    return {**weights, "conv1.weight": torch.zeros(64, 1, 7, 7)}


def other_network(weights: dict[str, Tensor]) -> object:
    return state("mobilenet_v2")


def foreign_checkpoint(weights: dict[str, Tensor]) -> object:
    return {"epoch": 7, "model": weights}


def half(weights: dict[str, Tensor]) -> object:
    return {key: value for key, value in weights.items() if not key.startswith("layer4.1")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (other_shape, "does not fit --network resnet18: size mismatch for conv1.weight"),
        (other_network, "does not fit --network resnet18: it lacks conv1.weight and "),
        (half, "does not fit --network resnet18: it lacks layer4.1.conv1.weight and 9 more."),
        (foreign_checkpoint, "holds no state_dict; it must be torch.save(network.state_dict(), FILE)."),
        (list, "holds no state_dict; it must be torch.save(network.state_dict(), FILE)."),
    ],
)
def test_files_of_other_things(tmp_path: Path, content: Callable[[dict[str, Tensor]], object], message: str):
    torch.save(content(state("resnet18")), tmp_path / "weights.pt")
    refused = refusal(lambda: network("resnet18", weights=tmp_path / "weights.pt"))
    assert f"--weights {tmp_path / 'weights.pt'} {message}" in refused


@pytest.mark.parametrize("damage", [lambda content: content[:2000], lambda content: b"", lambda content: b"hello"])
def test_damaged_files(tmp_path: Path, damage: Callable[[bytes], bytes]):
    torch.save(state("resnet18"), tmp_path / "weights.pt")
    (tmp_path / "weights.pt").write_bytes(damage((tmp_path / "weights.pt").read_bytes()))
    refused = refusal(lambda: network("resnet18", weights=tmp_path / "weights.pt"))
    assert f"--weights {tmp_path / 'weights.pt'} is truncated or no file of torch.save (" in refused


def test_timms_networks_without_timm(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'svmax-ops[timm]'" in refusal(lambda: network("resnet10t"))


@pytest.mark.parametrize("form", ["whole", "no classifier", "trained here"])
def test_timms_networks(tmp_path: Path, form: str):
    import timm

    name, classifier = "tf_mobilenetv3_small_minimal_100", "classifier"  # one whose weights want pixels in [-1, 1]
    torch.manual_seed(5)
    theirs = timm.create_model(name).eval()
    assert theirs.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    saved = theirs.state_dict()
    if form == "no classifier":
        saved = {key: value for key, value in saved.items() if not key.startswith(classifier)}
    if form == "trained here":
        saved = {f"features.{key}": value for key, value in saved.items() if not key.startswith(classifier)}
        saved |= {"embedding.weight": torch.eye(16, 1024), "embedding.bias": torch.ones(16)}
    torch.save(saved, tmp_path / "weights.pt")
    model = network(name, weights=tmp_path / "weights.pt")
    layer = model.embedding
    torch.testing.assert_close(layer.weight @ layer.weight.mT, torch.eye(16))
    assert layer.bias.all() == (form == "trained here")
    pixels = torch.rand(2, *COLOUR)
    mean, sd = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    x = (pixels - mean) / sd
    actual, expected = features(model, "embedding", x), features(theirs, classifier, 2 * pixels - 1)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert model.train()(x).shape == (2, 16)


def test_timms_networks_on_grey_pictures():
    assert network("resnet10t", (1, 32, 32))(pictures(2, 1, 32, 32)).shape == (2, 16)
    assert "did you mean resnet10t" in refusal(lambda: network("resnet10tt"))
