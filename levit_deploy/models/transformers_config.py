"""config.json and preprocessor_config.json of a transformers folder -> the model's card.

What `LevitImageProcessor` and `LevitConfig` do with each field is done here; fields that they do
not know change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from levit_deploy.models.card import ModelCard, with_mean, with_std
from levit_deploy.models.config import Config
from levit_deploy.models.preprocessing import Resample, Resize
from levit_deploy.models.spec import ModelSpec

DEFAULTS = "LevitImageProcessor's defaults"
DEFAULT_SIZE = 224
# Processors that resize, cut, rescale and normalise as they are told. Of these, whether a single
# number for the size means both sides.
_PLAIN_PROCESSORS = {"CLIP": False, "Bit": False, "ViT": True, "DeiT": True}
_ENDING = re.compile("(ImageProcessor|FeatureExtractor)(Fast|Pil)?$")
_SIDES = ("shortest_edge", "height", "width")
# The only convolutions that are a LeViT's.
_CONVOLUTION = {"kernel_size": 3, "stride": 2, "padding": 1}


def state_config(card: ModelCard, config: Config, spec: ModelSpec) -> ModelCard:
    """The card with what `config.json` says. Raises DeployError if it contradicts the weights."""
    for name, value in _CONVOLUTION.items():
        if config.has(name) and config.wholes(name) != (value,):
            raise config.unsupported(name, f"the convolutions of a LeViT have {value}")
    for row in config.rows("down_ops"):
        if len(row) == 6 and (row[0], row[5]) != ("Subsample", 2):
            raise config.unsupported("down_ops", "a LeViT keeps every second token")
    sizes, patch = config.wholes("image_size") or (), config.whole("patch_size") or 16
    if any(size // patch != spec.grids[0] for size in sizes):
        raise config.contradiction("image_size", f"the weights are for {spec.image_size} px")
    said_and_had = {
        "num_channels": (spec.in_chans,),
        "hidden_sizes": spec.channels,
        "depths": spec.depths,
        "num_attention_heads": spec.heads,
    }
    for name, had in said_and_had.items():
        if config.has(name) and config.wholes(name) != had:
            raise config.contradiction(name, f"the weights have {', '.join(map(str, had))}")
    return card.stated("transformers, which knows no other", activation=card.activation)


def is_timms(config: Config) -> bool:
    """Whether transformers' processor only hands pictures to timm's."""
    return (config.text("image_processor_type") or "").startswith("TimmWrapper")


def state_processor(card: ModelCard, config: Config) -> ModelCard:
    """The card with what `preprocessor_config.json` says.

    Raises DeployError for a way of making inputs that cannot be followed.
    """
    named = "image_processor_type"
    named = named if config.has(named) else "feature_extractor_type"  # before 4.26
    kind = _ENDING.sub("", config.text(named) or "Levit")
    if kind != "Levit":
        if kind not in _PLAIN_PROCESSORS:
            raise config.unsupported(named, "a processor that is not followed")
        config.require("size", "resample", "image_mean", "image_std")
    if config.flag("do_pad", False):
        raise config.unsupported("do_pad", "pictures are cut, not padded")
    card = card.stated(DEFAULTS, mean=card.mean, std=card.std, rescale=card.rescale)
    card = _with_way(card, config, kind)
    normalizes = config.flag("do_normalize", True)
    mean = config.numbers("image_mean") if normalizes else (0.0,)
    std = config.numbers("image_std", above=0) if normalizes else (1.0,)
    rescale = config.number("rescale_factor") if config.flag("do_rescale", True) else 1.0
    if rescale is not None:
        card = card.stated(config.source, rescale=rescale)
    card = card if mean is None else with_mean(card, mean, config.source)
    return card if std is None else with_std(card, std, config.source)


def _with_way(card: ModelCard, config: Config, kind: str) -> ModelCard:
    """How pictures are resized and cut."""
    way, filters = card.preprocessing, list(Resample)
    number = config.number("resample")
    if number is not None:
        if number not in range(len(filters)):
            raise config.unsupported("resample", "no filter of Pillow")
        way = replace(way, resample=filters[int(number)])
    cuts = config.flag("do_center_crop", kind == "Levit")
    resize, side = _size(config, "size", _PLAIN_PROCESSORS.get(kind, False))
    if not config.flag("do_resize", True):
        if cuts:
            raise config.unsupported("do_resize", "pictures of all sizes would be cut")
        resize, side = Resize.NONE, card.image_size
    elif not cuts and resize is Resize.SHORTER:
        raise config.unsupported("do_center_crop", "pictures would not become square")
    cut = side
    if cuts:
        # Before 4.26 a single number for the size was that of the cut as well.
        old = isinstance(config.values.get("size"), int) and not config.has("crop_size")
        cut = side if old else _size(config, "crop_size", square=True)[1]
    if cut != card.image_size:
        name = "crop_size" if cuts else "size"
        raise config.contradiction(name, f"the weights are for {card.image_size} px")
    if kind == "Levit" and resize is Resize.SHORTER:
        side = int((256 / 224) * side)
    if side < cut:
        raise config.unsupported("size", "pictures would be padded to the size of the cut")
    way = replace(way, resize=resize, side=side, crop=cut)
    return card.stated(config.source, preprocessing=way)


def _size(config: Config, name: str, square: bool) -> tuple[Resize, int]:
    """What a size in any of its forms means: a number, two, or an object of sides."""
    value = config.values.get(name)
    if value is None:
        return Resize.SQUASH if square else Resize.SHORTER, DEFAULT_SIZE
    if isinstance(value, Mapping):
        given = Config(config.file, config.source, value)
        shorter, height, width = map(given.whole, ("shortest_edge", "height", "width"))
        others = [each for each in value if given.has(each) and each not in _SIDES]
        if shorter and not (height or width or others):
            return Resize.SHORTER, shorter
        if height and height == width and not (shorter or others):
            return Resize.SQUASH, height
    else:
        sides = config.wholes(name) or ()
        if isinstance(value, int) and not square:
            return Resize.SHORTER, sides[0]
        if len(set(sides)) == 1:
            return Resize.SQUASH, sides[0]
    raise config.unsupported(name, "neither one shorter side nor a square")
