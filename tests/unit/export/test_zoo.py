"""Networks by name: each with its own transforms, categories and weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.errors import ExportError, WeightsError
from worker.decode import decode
from worker.export.classifier import ImageClassifier
from worker.export.export import export_classifier
from worker.export.vision import imagenet_labels, vision
from worker.export.zoo import _network, architecture, architectures, card_of
from worker.models import golden, loader
from worker.models.card import Preprocessing

models = vision().models
TORCHVISION = models.list_models(module=models)


def random_weights(name: str, path: Path, **options: object) -> Path:
    """A state dict as training would leave it, without training."""
    torch.manual_seed(6)
    torch.save(models.get_model(name, weights=None, **options).state_dict(), path)
    return path


def test_every_classification_architecture_of_torchvision_is_known() -> None:
    assert len(TORCHVISION) >= 80
    assert set(TORCHVISION) | {"cifar10-cnn", "efficientnet-lite0"} == set(architectures())


def test_compiled_operators_are_not_needed() -> None:
    """Or torchvision could not be imported beside a CPU-only torch, as it is here."""
    assert torch.version.cuda is None or torch.ops.torchvision is not None
    assert len(imagenet_labels()) == 1000


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_card_says_what_the_weights_own_transforms_do(name: str) -> None:
    weights = models.get_model_weights(name).DEFAULT
    transforms, card = weights.transforms(), card_of(name)

    assert card.labels == tuple(weights.meta["categories"])
    assert [card.preprocessing.resize] == transforms.resize_size
    assert card.preprocessing.crop == tuple(transforms.crop_size * 2)
    assert list(card.preprocessing.mean) == transforms.mean
    assert list(card.preprocessing.std) == transforms.std
    assert card.preprocessing.interpolation == transforms.interpolation.value


@pytest.mark.parametrize("name", ["densenet161", "efficientnet_b3", "swin_t"])
def test_decode_and_the_graph_make_the_tensor_that_torchvision_makes(name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).resize((500, 400), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    card = card_of(name)
    expected = models.get_model_weights(name).DEFAULT.transforms()(Image.open(tmp_path / "photo.png"))

    pixels = decode((tmp_path / "photo.png").read_bytes(), card.preprocessing)
    inside = ImageClassifier(torch.nn.Identity(), card.preprocessing, "none")(torch.from_numpy(pixels[None]))[0]

    grey_level = 1 / (255 * min(card.preprocessing.std))
    assert inside.shape == expected.shape
    assert (inside - expected).abs().max() <= 1.01 * grey_level


def test_weights_from_disk_make_the_module_that_was_saved(tmp_path: Path) -> None:
    path = random_weights("squeezenet1_1", tmp_path / "squeezenet1_1.pth")

    network, card = architecture("squeezenet1_1", path)

    torch.manual_seed(6)
    original = models.squeezenet1_1(weights=None).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network(images), original(images))
    assert "squeezenet1_1.pth sha256:" in card.source


def test_labels_of_ones_own_make_a_head_of_that_size(tmp_path: Path) -> None:
    path = random_weights("squeezenet1_1", tmp_path / "pets.pth", num_classes=2)

    network, card = architecture("squeezenet1_1", path, labels=("cat", "dog"))

    assert card.labels == ("cat", "dog")
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 64, 64)).shape == (1, 2)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_left_behind(name: str, tmp_path: Path) -> None:
    path = random_weights(name, tmp_path / f"{name}.pth", aux_logits=True, init_weights=False)

    network, _ = architecture(name, path)

    with torch.inference_mode():
        assert network(torch.rand(1, 3, 299, 299)).shape == (1, 1000)
    assert not [key for key in network.state_dict() if key.lower().startswith("aux")]


def test_weights_in_the_spelling_of_the_published_densenet_fit(tmp_path: Path) -> None:
    path = random_weights("densenet121", tmp_path / "new.pth")
    state = torch.load(path, weights_only=True)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", key): value for key, value in state.items()}
    old = {key: value for key, value in old.items() if not key.endswith("num_batches_tracked")}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth")

    network, _ = architecture("densenet121", tmp_path / "old.pth")

    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items())


def test_weights_that_need_their_version_numbers_fit(tmp_path: Path) -> None:
    architecture("mnasnet0_5", random_weights("mnasnet0_5", tmp_path / "mnasnet.pth"))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = random_weights("squeezenet1_1", tmp_path / "squeezenet.pth")

    with pytest.raises(WeightsError, match=r"missing .*unexpected"):
        architecture("shufflenet_v2_x0_5", path)


def test_an_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(ExportError, match=r"resnet51.*densenet161.*--module"):
        architecture("resnet51")


#: One of each family of torchvision's, the smallest there is: its networks differ in size only.
FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3"),
    *("maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18"),
    *("resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vit_b_32"),
    "wide_resnet50_2",
)


#: Those whose weights fit one size of image only; the others are exported for a smaller one (pixels), to be quick.
OF_ONE_SIZE, SMALL = ("maxvit_t", "vit_b_32"), 96


def test_the_families_leave_no_network_out() -> None:
    def family(name: str) -> str:
        return models.get_model_builder(name).__module__

    assert {family(name) for name in FAMILIES} == {family(name) for name in TORCHVISION}


#: RegNets compute their widths in tensors, so that they cannot be built without memory; the small ones stand for them.
BUILT = [name for name in TORCHVISION if not name.startswith("regnet") or name.endswith("400mf")]


@pytest.mark.parametrize(
    "name",
    # In the fast run the only one whose weights are for another size than its builder's own.
    [pytest.param(name, marks=[] if name == "vit_h_14" else pytest.mark.slow) for name in BUILT],
)
def test_every_network_is_built_with_as_many_outputs_as_its_card_has_labels(name: str) -> None:
    card = card_of(name)
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = _network(name, None).eval()
        logits = network(torch.empty(1, 3, *card.preprocessing.size))

    assert logits.shape == (1, len(card.labels))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_every_family_becomes_an_onnx_file(name: str, tmp_path: Path) -> None:
    options = {"aux_logits": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network, card = architecture(name, random_weights(name, tmp_path / f"{name}.pth", **options))

    if name not in OF_ONE_SIZE:
        card = replace(card, preprocessing=Preprocessing(resize=SMALL, crop=(SMALL, SMALL)))

    report = export_classifier(network, card, tmp_path / f"{name}.onnx")

    assert report.largest_difference < 1e-4
    golden.verify(loader.load(tmp_path / f"{name}.onnx"))
