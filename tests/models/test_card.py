"""Preprocessing, labels and activation of a folder, against what its own library makes of it."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from levit_deploy.errors import DeployError
from levit_deploy.models.card import (
    ClassOrder,
    ModelCard,
    with_class_order,
    with_labels,
    with_mean,
    with_preprocess,
    with_std,
)
from levit_deploy.models.checkpoint import Checkpoint, load_checkpoint
from levit_deploy.models.preprocessing import Preprocessing, Resize
from levit_deploy.models.spec import TINY, Activation
from levit_deploy.models.timm_config import crop_ratio
from tests.models.libraries import (
    timm_model,
    timm_module,
    transformers_model,
    transformers_processor,
)

SPEC = replace(TINY, distilled=False, classes=3)


def transformers_folder(folder: Path, **processor: object) -> Path:
    """A model and a processor that transformers has saved, the sizes those of the model."""
    model = transformers_model(SPEC).inner
    model.config.id2label = {0: "zebra", 1: "ape", 2: "newt"}
    model.save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    transformers_processor(**{**sizes, **processor}).save_pretrained(folder)
    return folder


def timm_folder(folder: Path, **options: Any) -> Path:
    """A model that timm's `save_for_hf` has saved: weights and config.json."""
    model = timm_module("timm").create_model("levit_128s", num_classes=3, img_size=64)
    labels = {"label_names": ["zebra", "ape", "newt"]}
    hub = timm_module("timm.models._hub")
    hub.save_for_hf(model, folder, model_config=labels, safe_serialization=True, **options)
    return folder


def edited(folder: Path, name: str, **fields: object) -> Path:
    """The folder with other fields in a JSON file; `...` removes one."""
    content = {**json.loads((folder / name).read_text()), **fields}
    content = {field: value for field, value in content.items() if value is not ...}
    (folder / name).write_text(json.dumps(content))
    return folder


def sources(checkpoint: Checkpoint) -> dict[str, str]:
    return dict(checkpoint.card.sources)


def our_input(card: ModelCard, picture: Image.Image) -> NDArray[np.float64]:
    """What the card says, done by Pillow and in float64: (in_chans, size, size)."""
    way, size = card.preprocessing, card.image_size
    side = way.resized_side(size)
    width, height = picture.size
    if way.resize is Resize.SHORTER:
        shorter = min(width, height)
        width, height = side * width // shorter, side * height // shorter
    elif way.resize is Resize.SQUASH:
        width, height = side, side
    resized = picture.resize((width, height), Image.Resampling[way.resample.upper()])
    left, top = way.crop_start(width, size), way.crop_start(height, size)
    pixels = np.asarray(resized.crop((left, top, left + size, top + size)), np.float64)
    mean, std = card.normalization.mean, card.normalization.std
    return ((pixels / 255 - np.array(mean)) / np.array(std)).transpose(2, 0, 1)


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


PICTURES = [picture(90, 60), picture(61, 133), picture(64, 64), picture(200, 200)]


# transformers


@pytest.mark.parametrize(
    "processor",
    [
        {},
        {"image_mean": [0.5] * 3, "image_std": [0.25, 0.5, 0.75]},
        {"size": {"height": 64, "width": 64}, "resample": 2},
        {"size": {"height": 71, "width": 71}, "resample": 1},
        {"size": {"height": 64, "width": 64}, "do_center_crop": False, "resample": 0},
        {"size": {"shortest_edge": 67}, "resample": 4},
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [60.0] * 3},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3},
        {"do_normalize": False},
    ],
    ids=str,
)
def test_inputs_are_those_of_the_folders_own_processor(
    processor: dict[str, Any], tmp_path: Path
) -> None:
    folder = transformers_folder(tmp_path, **processor)
    card = load_checkpoint(folder).card
    theirs = type(transformers_processor()).from_pretrained(folder)
    for each in PICTURES:
        expected = theirs(each, return_tensors="np")["pixel_values"][0]
        assert np.abs(our_input(card, each) - expected).max() <= 1e-5 * np.ptp(expected)


def test_every_value_says_where_it_is_from(tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    checkpoint = load_checkpoint(folder)
    lines = checkpoint.card.describe()
    assert "mean 0.5 0.5 0.5  from preprocessor_config.json" in lines
    assert "labels zebra, ape, newt  from config.json" in lines
    assert "input 3 x 64 x 64  from the weights" in lines
    assert checkpoint.card.assumed == ("class_order",)
    assert checkpoint.spec.normalization.mean == (0.5, 0.5, 0.5)


def test_without_a_processor_it_is_said_what_is_assumed(tmp_path: Path) -> None:
    (transformers_folder(tmp_path) / "preprocessor_config.json").unlink()
    card = load_checkpoint(tmp_path).card
    assert set(card.assumed) == {"preprocessing", "mean", "std", "rescale", "class_order"}
    assert "mean 0.485 0.456 0.406  assumed: transformers evaluates so" in card.describe()


def test_old_forms_of_the_processor(tmp_path: Path) -> None:
    """Before 4.26: one number for the size, that of the cut as well, and another class."""
    new = load_checkpoint(transformers_folder(tmp_path)).card
    old: dict[str, object] = {"size": 64, "crop_size": ..., "rescale_factor": ...}
    old |= {"do_rescale": ..., "image_processor_type": ...}
    old |= {"feature_extractor_type": "LevitFeatureExtractor"}
    card = load_checkpoint(edited(tmp_path, "preprocessor_config.json", **old)).card
    assert replace(card, sources={}) == replace(new, sources={})


def test_processor_of_another_model_that_does_as_it_is_told(tmp_path: Path) -> None:
    fields = {"image_processor_type": "ViTImageProcessorFast", "do_center_crop": ...}
    fields |= {"crop_size": ..., "size": {"height": 64, "width": 64}, "resample": 2}
    card = load_checkpoint(
        edited(transformers_folder(tmp_path), "preprocessor_config.json", **fields)
    ).card
    assert card.preprocessing.resize is Resize.SQUASH
    assert card.preprocessing.resized_side(64) == 64


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"image_processor_type": "ConvNextImageProcessor"}, "not followed"),
        ({"do_pad": True}, "not padded"),
        ({"resample": 9}, "no filter of Pillow"),
        ({"do_resize": False}, "would be cut"),
        ({"do_center_crop": False}, "would not become square"),
        ({"size": {"shortest_edge": 64, "longest_edge": 90}}, "nor a square"),
        ({"size": {"height": 64, "width": 80}}, "nor a square"),
        ({"size": {"height": 60, "width": 60}}, "padded"),
        ({"crop_size": {"height": 224, "width": 224}}, "the weights are for 64 px"),
    ],
    ids=str,
)
def test_what_cannot_be_followed_is_refused_by_name(
    fields: dict[str, object], match: str, tmp_path: Path
) -> None:
    folder = edited(transformers_folder(tmp_path), "preprocessor_config.json", **fields)
    with pytest.raises(DeployError, match=match) as caught:
        load_checkpoint(folder)
    assert any(f"`{name}`" in caught.value.message for name in fields)
    assert "preprocessor_config.json" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"kernel_size": 5}, "have 3"),
        ({"stride": 1}, "have 2"),
        ({"down_ops": [["Subsample", 8, 4, 4, 2, 3]]}, "every second token"),
        ({"image_size": 128}, "for 64 px"),
        ({"depths": [1, 1, 2]}, "have 1, 1, 1"),
        ({"num_channels": 1}, "have 3"),
        ({"id2label": {"0": "a", "1": "b"}}, "`2` labels, the model has 3 classes"),
    ],
    ids=str,
)
def test_config_that_contradicts_the_weights(
    fields: dict[str, object], match: str, tmp_path: Path
) -> None:
    folder = edited(transformers_folder(tmp_path), "config.json", **fields)
    with pytest.raises(DeployError, match=match) as caught:
        load_checkpoint(folder)
    assert "config.json" in caught.value.message


# timm


@pytest.mark.parametrize(
    "data_config",
    [
        {},
        {"mean": [0.5] * 3, "std": [0.25, 0.5, 0.75]},
        {"interpolation": "bilinear", "crop_pct": 0.875},
        {"interpolation": "lanczos", "crop_pct": 1.0},
        {"crop_mode": "squash", "crop_pct": 0.95},
    ],
    ids=str,
)
def test_sizes_are_those_of_timms_own_transform(
    data_config: dict[str, Any], tmp_path: Path
) -> None:
    """timm's transforms are torchvision's; what they are built with is compared."""
    card = load_checkpoint(timm_folder(tmp_path, data_config=data_config)).card
    config = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    resolved = timm_module("timm.data").resolve_data_config(pretrained_cfg=config)
    assert card.mean == tuple(resolved["mean"])
    assert card.std == tuple(resolved["std"])
    way = card.preprocessing
    assert way.resample == resolved["interpolation"]
    assert way.resized_side(64) == int(64 // resolved["crop_pct"])
    assert (way.resize is Resize.SQUASH) is (resolved["crop_mode"] == "squash")
    assert card.labels == ("zebra", "ape", "newt")
    assert card.class_order is ClassOrder.NATURAL
    assert sources(load_checkpoint(tmp_path))["mean"] == "config.json"


@pytest.mark.parametrize("percent", [70, 80, 87.5, 90, 93.5, 95, 96.5, 100])
@pytest.mark.parametrize("size", [64, 192, 224, 240, 256, 288, 384])
def test_share_of_the_crop_gives_timms_side(percent: float, size: int) -> None:
    share = percent / 100
    side, crop = crop_ratio(share)
    assert Preprocessing("timm", side, crop).resized_side(size) == int(np.floor(size / share))


def test_activation_of_config(tmp_path: Path) -> None:
    timm = timm_module("timm")
    model = timm.create_model("levit_128s", num_classes=3, img_size=64, act_layer="relu")
    timm_module("timm.models._hub").save_for_hf(model, tmp_path, safe_serialization=True)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.spec.activation is Activation.RELU
    assert sources(checkpoint)["activation"] == "config.json"
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(checkpoint.build()(image), model.eval()(image), atol=1e-5)


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ({"act_layer": "mish"}, "`act_layer` is `'mish'`"),
        ({"act_layer": "gelu", "attn_act_layer": "relu"}, "the same activation everywhere"),
        ({"global_pool": ""}, "the mean over all tokens"),
        ({"stem_backbone": "resnet18"}, "a stem of convolutions"),
        ({"img_size": [64, 96]}, "for 64"),
    ],
    ids=str,
)
def test_model_arguments_that_cannot_be_followed(
    args: dict[str, object], match: str, tmp_path: Path
) -> None:
    folder = edited(timm_folder(tmp_path), "config.json", model_args=args)
    with pytest.raises(DeployError, match=match):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("fields", "match"),
    [({"crop_mode": "border"}, "`crop_mode`"), ({"interpolation": "random"}, "`interpolation`")],
)
def test_inputs_of_timm_that_cannot_be_followed(
    fields: dict[str, object], match: str, tmp_path: Path
) -> None:
    folder = edited(timm_folder(tmp_path), "config.json", pretrained_cfg=fields)
    with pytest.raises(DeployError, match=match):
        load_checkpoint(folder)


def test_arguments_of_timms_training(tmp_path: Path) -> None:
    spec = replace(TINY, activation=Activation.GELU)
    args = argparse.Namespace(
        model="levit_128s", model_kwargs={"act_layer": "gelu"}, mean=[0.5], std=None,
        interpolation="", crop_pct=1.0, lr=0.1,
    )  # fmt: skip
    run = {"state_dict": timm_model(spec, conv=False).state_dict(), "args": args}
    torch.save(run, tmp_path / "model_best.pth.tar")
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.spec.activation is Activation.GELU
    assert checkpoint.card.mean == (0.5, 0.5, 0.5)
    assert sources(checkpoint)["mean"] == "the arguments of its training"
    assert sources(checkpoint)["std"] == "timm's defaults"
    assert checkpoint.card.preprocessing.resized_side(64) == 64
    assert checkpoint.card.assumed == ()


@pytest.mark.parametrize(
    ("args", "order", "source"),
    [
        ({"dataset": ""}, ClassOrder.NATURAL, "the arguments of its training"),
        ({"dataset": "torch/image_folder"}, ClassOrder.STRING, "the arguments of its training"),
        ({"class_map": "map.txt"}, ClassOrder.NATURAL, "assumed: timm evaluates so"),
    ],
)
def test_order_of_classes_in_timms_training(
    args: dict[str, str], order: ClassOrder, source: str, tmp_path: Path
) -> None:
    state = timm_model(SPEC, conv=False).state_dict()
    run = {"state_dict": state, "args": argparse.Namespace(model="levit_128s", **args)}
    torch.save(run, tmp_path / "last.pth.tar")
    card = load_checkpoint(tmp_path / "last.pth.tar").card
    assert (card.class_order, card.sources["class_order"]) == (order, source)


def test_gaps_between_labels_of_timm(tmp_path: Path) -> None:
    folder = edited(timm_folder(tmp_path), "config.json", label_names={"0": "n1", "2": "n7"})
    assert load_checkpoint(folder).card.labels == ("n1", "1", "n7")


def test_one_channel(tmp_path: Path) -> None:
    """timm's mean over the channels, where it has none of its own."""
    spec = replace(SPEC, in_chans=1)
    torch.save(timm_model(spec, conv=True).state_dict(), tmp_path / "grey.pth")
    checkpoint = load_checkpoint(tmp_path / "grey.pth")
    assert checkpoint.spec.in_chans == 1
    assert checkpoint.card.mean == pytest.approx((0.449,))
    four = timm_model(replace(SPEC, in_chans=4), conv=False)
    torch.save(four.state_dict(), tmp_path / "four.pth")
    with pytest.raises(DeployError, match="takes 4 channels"):
        load_checkpoint(tmp_path / "four.pth")


# Whoever wrote them


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_unknown_fields_change_nothing(name: str, tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path)
    before = load_checkpoint(folder)
    after = load_checkpoint(edited(folder, name, version=9, hidden_act="relu", crop_fraction={}))
    assert after.card == before.card
    assert after.digest == before.digest


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"a": NaN', "\x00", '{"a":' * 10**5])
def test_damaged_file_is_one_error(name: str, content: str, tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(DeployError, match=f"{name}` (is not JSON|holds no object)"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_mean": "half"},
        {"image_mean": [0.5, None, 0.5]},
        {"image_mean": []},
        {"image_mean": [0.5, 0.5]},
        {"image_std": [0.5, 0.0, 0.5]},
        {"image_std": [0.5, float("nan"), 0.5]},
        {"size": {"shortest_edge": -64}},
        {"size": True},
        {"crop_size": {"height": 64.5, "width": 64}},
        {"resample": "bicubic"},
        {"do_rescale": "yes"},
        {"rescale_factor": []},
        {"image_processor_type": 3},
    ],
    ids=str,
)
def test_damaged_field_is_one_error(fields: dict[str, object], tmp_path: Path) -> None:
    folder = edited(transformers_folder(tmp_path), "preprocessor_config.json", **fields)
    with pytest.raises(DeployError, match=r"preprocessor_config\.json"):
        load_checkpoint(folder)


def test_loose_file_takes_nothing_from_what_lies_beside_it(tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path, image_mean=[0.5] * 3)
    assert load_checkpoint(folder / "model.safetensors").card.mean == (0.5, 0.5, 0.5)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert "mean" in load_checkpoint(folder / "other.safetensors").card.assumed


# Overrides


@pytest.fixture
def card(tmp_path: Path) -> ModelCard:
    return load_checkpoint(transformers_folder(tmp_path)).card


def test_overrides_say_so(card: ModelCard) -> None:
    card = with_std(with_mean(card, (0.5,)), (0.1, 0.2, 0.3))
    card = with_class_order(with_labels(card, ["x", "y", "z"], 3), ClassOrder.NATURAL)
    assert card.mean == (0.5, 0.5, 0.5)
    lines = card.describe()
    assert "std 0.1 0.2 0.3  from --std" in lines
    assert "labels x, y, z  from --labels" in lines
    assert "class_order natural  from --class-order" in lines
    assert card.assumed == ()


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("original", "original: shorter side bicubic to 73, centre 64"),
        ("timm", "timm: shorter side bicubic to 71, centre 64"),
        ("squash", "squash: turned by EXIF, both sides bicubic to 64"),
        ("none", "none: turned by EXIF, pictures of 64 as they are"),
        ("shorter:lanczos:80", "turned by EXIF, shorter side lanczos to 80, centre 64"),
    ],
)
def test_preprocess(text: str, described: str, card: ModelCard) -> None:
    card = with_preprocess(card, text)
    assert card.preprocessing.describe(64).endswith(described)
    assert any(line.endswith("from --preprocess") for line in card.describe())


@pytest.mark.parametrize("text", ["tim", "shorter:bicubic", "shorter:sinc:80", "squash:box:60", ""])
def test_no_preprocess(text: str, card: ModelCard) -> None:
    with pytest.raises(DeployError, match="is no preprocessing") as caught:
        with_preprocess(card, text)
    assert "--preprocess shorter:bicubic:73" in str(caught.value.hint)


def test_wrong_overrides(card: ModelCard) -> None:
    with pytest.raises(DeployError, match="the model takes 3 channels"):
        with_mean(card, (0.5, 0.5))
    with pytest.raises(DeployError, match="is not positive"):
        with_std(card, (0.5, 0.0, 0.5))
    with pytest.raises(DeployError, match="`2` labels, the model has 3 classes"):
        with_labels(card, ["x", "y"], 3)
