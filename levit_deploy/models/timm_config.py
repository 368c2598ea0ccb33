"""config.json of a timm folder, or the arguments in its training checkpoint -> the model's card.

What timm's `create_model` and `transforms_imagenet_eval` do with each field is done here; fields
that they do not know change nothing.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from levit_deploy.models.card import ClassOrder, ModelCard, with_mean, with_std
from levit_deploy.models.config import Config
from levit_deploy.models.preprocessing import Resample, Resize
from levit_deploy.models.spec import FAMILY, Activation, ModelSpec

DEFAULTS = "timm's defaults"
_ACTIVATIONS = {
    "hard_swish": Activation.HARD_SWISH,
    "hardswish": Activation.HARD_SWISH,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "relu": Activation.RELU,
    "gelu": Activation.GELU,
}
_RESIZES = {"center": Resize.SHORTER, "squash": Resize.SQUASH}


def training_config(content: Mapping[str, object], file: str) -> Config | None:
    """What timm's training keeps beside the weights, as its `save_for_hf` would write it."""
    args = content.get("args")
    given = {
        name: value
        for name, value in (vars(args) if isinstance(args, Namespace) else {}).items()
        if value not in (None, "")
    }
    architecture = content.get("arch") or given.get("model")
    if not isinstance(architecture, str):
        return None
    settings = {name: given[name] for name in _SETTINGS if name in given}
    values = {
        "architecture": architecture,
        "model_args": given.get("model_kwargs"),
        "pretrained_cfg": settings,
        "class_order": None if "class_map" in given else _class_order(given.get("dataset")),
    }
    return Config(file, "the arguments of its training", values)


def _class_order(dataset: object) -> ClassOrder:
    """Of timm's own readers, or of torchvision's, which are named `torch/...`."""
    is_torchvision = isinstance(dataset, str) and dataset.startswith("torch/")
    return ClassOrder.STRING if is_torchvision else ClassOrder.NATURAL


_SETTINGS = ("interpolation", "crop_pct", "crop_mode", "mean", "std")


def architecture(config: Config) -> str:
    """timm's name of the model, without its tag and whether its layers are convolutions."""
    name = config.text("architecture") or ""
    return name.partition(".")[0].replace("levit_conv_", "levit_")


def activation(config: Config) -> Activation | None:
    """That of `act_layer`, else of the named architecture; None if neither is there.

    Raises DeployError for one that is not compiled.
    """
    published = FAMILY.get(architecture(config))
    found = published.activation if published else None
    args = config.section("model_args")
    for name in ("act_layer", "attn_act_layer"):
        given = args.text(name) if args else None
        if args is None or given is None:
            continue
        if given not in _ACTIVATIONS:
            raise args.unsupported(name, f"activations are {', '.join(Activation)}")
        if name == "attn_act_layer" and _ACTIVATIONS[given] is not (found or Activation.HARD_SWISH):
            raise args.unsupported(name, "a LeViT has the same activation everywhere")
        found = _ACTIVATIONS[given]
    return found


def state_config(card: ModelCard, config: Config, spec: ModelSpec) -> ModelCard:
    """The card with what `config.json` says. Raises DeployError if it cannot be followed."""
    args = config.section("model_args") or Config(config.file, config.source, {})
    if args.has("stem_backbone"):
        raise args.unsupported("stem_backbone", "a LeViT has a stem of convolutions")
    if args.values.get("global_pool") == "":
        raise args.unsupported("global_pool", "the mean over all tokens is what is computed")
    for name, had in (("img_size", spec.image_size), ("in_chans", spec.in_chans)):
        if any(said != had for said in args.wholes(name) or ()):
            raise args.contradiction(name, f"the weights are for {had}")
    if activation(config):
        card = card.stated(config.source, activation=card.activation)
    order = config.values.get("class_order")
    if isinstance(order, ClassOrder):
        card = card.stated(config.source, class_order=order)
    return _with_inputs(card, config.section("pretrained_cfg") or config)


def _with_inputs(card: ModelCard, config: Config) -> ModelCard:
    """The card with a `pretrained_cfg`'s way of making inputs."""
    card = card.stated(DEFAULTS, preprocessing=card.preprocessing, mean=card.mean, std=card.std)
    card = card.stated(DEFAULTS, rescale=card.rescale)
    for name, read in (("mean", with_mean), ("std", with_std)):
        values = config.numbers(name, above=0 if name == "std" else None)
        if values is not None:
            if len(values) not in (1, card.in_chans):  # timm takes the mean where they do not fit
                values = (sum(values) / len(values),)
            card = read(card, values, config.source)
    changes: dict[str, object] = {}
    interpolation = config.text("interpolation")
    if interpolation:
        if interpolation not in list(Resample):
            raise config.unsupported("interpolation", f"filters are {', '.join(Resample)}")
        changes["resample"] = Resample(interpolation)
    mode = config.text("crop_mode")
    if mode:
        if mode not in _RESIZES:
            raise config.unsupported("crop_mode", f"modes are {', '.join(_RESIZES)}")
        changes["resize"] = _RESIZES[mode]
    share = config.number("crop_pct")
    if share is not None:
        if not 0 < share <= 1:
            raise config.unsupported("crop_pct", "pictures are cut, not padded")
        changes |= dict(zip(("side", "crop"), crop_ratio(share), strict=True))
    if not changes:
        return card
    way = replace(card.preprocessing, **changes)  # type: ignore[arg-type]
    return card.stated(config.source, preprocessing=way)


def crop_ratio(share: float) -> tuple[int, int]:
    """Resized side : cut, of the share that is kept: exactly what its decimals say, 0.9 as 10 : 9.

    `image_size * side // crop` is then timm's `floor(image_size / share)`.
    """
    ratio = Fraction(repr(share))
    return ratio.denominator, ratio.numerator
