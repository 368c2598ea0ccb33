"""What a checkpoint's owner knows beside the weights, and where each value came from.

files beside the weights -> ModelCard -> the exported graph, the manifest, what commands show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from levit_deploy.errors import DeployError
from levit_deploy.models.key_names import Origin
from levit_deploy.models.preprocessing import (
    ORIGINAL_PREPROCESSING,
    TIMM_PREPROCESSING,
    TRANSFORMERS_PREPROCESSING,
    Preprocessing,
    Resample,
    Resize,
)
from levit_deploy.models.spec import IMAGENET, Activation, ModelSpec, Normalization

ASSUMED = "assumed: "
RESCALE = 1 / 255


class ClassOrder(StrEnum):
    """How folders of classes are numbered where nothing names them.

    STRING: 1, 10, 2 (torchvision, transformers). NATURAL: 1, 2, 10 (timm).
    """

    STRING = "string"
    NATURAL = "natural"


@dataclass(frozen=True)
class ModelCard:
    """What a model's inputs and outputs mean.

    The network sees `(value * rescale - mean) / std` of each 8-bit value; `mean` and `std`: one
    number for each of `in_chans` channels, RGB or grey (Pillow's `L`). `heads`: 0, then the output
    is features; of two, the mean. `labels`: what each class is called, empty if nobody says.
    `class_order`: of folders, where names do not decide. `licence`: of the weights, empty if nobody
    says. `sources`: where each value came from, by
    the names of these fields and of those of `preprocessing`.
    """

    origin: Origin
    image_size: int
    in_chans: int
    heads: int
    activation: Activation
    preprocessing: Preprocessing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float
    labels: tuple[str, ...]
    class_order: ClassOrder
    licence: str
    sources: Mapping[str, str]

    @property
    def normalization(self) -> Normalization:
        """Mean and std of `value / 255`, whatever `rescale` is."""
        scale = 255 * self.rescale
        if math.isclose(scale, 1, rel_tol=1e-9):
            return Normalization(self.mean, self.std)
        return Normalization(
            tuple(value / scale for value in self.mean), tuple(value / scale for value in self.std)
        )

    @property
    def recipe(self) -> str:
        """How a picture becomes what the network sees, in a sentence."""
        way = self.preprocessing.describe(self.image_size)
        mean, std = (
            _numbers(values) for values in (self.normalization.mean, self.normalization.std)
        )
        return f"{way}; then (value / 255 - mean) / std with mean {mean}, std {std}"

    @property
    def assumed(self) -> tuple[str, ...]:
        """Fields that nothing beside the weights says."""
        return tuple(name for name, source in self.sources.items() if source.startswith(ASSUMED))

    def stated(self, source: str, **values: object) -> ModelCard:
        """The card with other values of its fields, or of its preprocessing's, from `source`."""
        own = {field.name for field in fields(self)}
        inner = {name: value for name, value in values.items() if name not in own}
        outer = {name: value for name, value in values.items() if name in own}
        way = outer.pop("preprocessing", self.preprocessing)
        assert isinstance(way, Preprocessing)
        changed = replace(way, **inner)  # type: ignore[arg-type]
        sources = {**self.sources, **dict.fromkeys(values, source)}
        return replace(self, preprocessing=changed, sources=sources, **outer)  # type: ignore[arg-type]

    def rows(self) -> list[tuple[str, str, str]]:
        """Each field that may be wrong, its value, and where it came from, in words."""
        way = self.preprocessing
        values = {
            "input": f"{self.in_chans} x {self.image_size} x {self.image_size}",
            "heads": f"{self.heads}" if self.heads else "none: the output is features",
            "activation": self.activation.value,
            "preprocessing": way.describe(self.image_size),
            "mean": _numbers(self.mean),
            "std": _numbers(self.std),
            "rescale": "1/255" if self.rescale == RESCALE else f"{self.rescale:g}",
            "labels": _labels(self.labels),
            "class_order": self.class_order.value,
            "licence": self.licence or "unknown",
        }
        return [(name, value, _from(self._source(name))) for name, value in values.items()]

    def describe(self) -> list[str]:
        """Such lines as `mean 0.5 0.5 0.5  from preprocessor_config.json`."""
        return [f"{name} {value}  {source}" for name, value, source in self.rows()]

    def _source(self, name: str) -> str:
        if name == "input":
            return self.sources["image_size"]
        if name != "preprocessing":
            return self.sources[name]
        own = [self.sources[f.name] for f in fields(Preprocessing) if f.name in self.sources]
        return ", ".join(dict.fromkeys([self.sources[name], *own]))


@dataclass(frozen=True)
class Overrides:
    """What a user says of a model, against or beside what its files say; None where nothing."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocess: str | None = None
    labels: tuple[str, ...] | None = None
    class_order: ClassOrder | None = None

    def of(self, card: ModelCard, classes: int) -> ModelCard:
        """The card with them. Raises DeployError for those that do not fit it."""
        if self.preprocess is not None:
            card = with_preprocess(card, self.preprocess)
        if self.mean is not None:
            card = with_mean(card, self.mean)
        if self.std is not None:
            card = with_std(card, self.std)
        if self.labels is not None:
            card = with_labels(card, self.labels, classes)
        return card if self.class_order is None else with_class_order(card, self.class_order)


def default_card(origin: Origin, spec: ModelSpec) -> ModelCard:
    """The card of weights with nothing beside them: how their origin evaluates, said so."""
    way = {
        Origin.TIMM: TIMM_PREPROCESSING,
        Origin.TRANSFORMERS: TRANSFORMERS_PREPROCESSING,
    }.get(origin, ORIGINAL_PREPROCESSING)
    mean, std = IMAGENET.mean, IMAGENET.std
    if spec.in_chans != len(mean):  # as timm does where channels and statistics do not fit
        mean, std = ((sum(values) / len(values),) * spec.in_chans for values in (mean, std))
    weights = dict.fromkeys(("image_size", "in_chans", "heads"), "the weights")
    whose = "the original" if origin is Origin.ONNX else origin.value
    habit = f"{ASSUMED}{whose} evaluates so"
    nothing = "nobody"
    return ModelCard(
        origin=origin,
        image_size=spec.image_size,
        in_chans=spec.in_chans,
        heads=(2 if spec.distilled else 1) if spec.classes else 0,
        activation=spec.activation,
        preprocessing=way,
        mean=mean,
        std=std,
        rescale=RESCALE,
        labels=(),
        class_order=ClassOrder.NATURAL if origin is Origin.TIMM else ClassOrder.STRING,
        licence="",
        sources={
            **weights,
            "activation": habit,
            "preprocessing": habit,
            "mean": habit,
            "std": habit,
            "rescale": habit,
            "labels": nothing,
            "class_order": habit,
            "licence": nothing,
        },
    )


def with_mean(card: ModelCard, mean: tuple[float, ...], source: str = "--mean") -> ModelCard:
    """Override the mean: one number, or one for each channel. Raises DeployError otherwise."""
    return card.stated(source, mean=_per_channel(card, mean, source))


def with_std(card: ModelCard, std: tuple[float, ...], source: str = "--std") -> ModelCard:
    """Override the standard deviation: one number, or one for each channel, none of them 0."""
    if any(value <= 0 for value in std):
        raise DeployError(
            f"a standard deviation of `{_numbers(std)}` is not positive", hint="--std 0.5"
        )
    return card.stated(source, std=_per_channel(card, std, source))


def with_labels(
    card: ModelCard, labels: Iterable[str], classes: int, source: str = "--labels"
) -> ModelCard:
    """Override the labels: one for each of `classes`. Raises DeployError otherwise."""
    names = tuple(labels)
    if len(names) != classes:
        raise DeployError(
            f"{source} gives `{len(names)}` labels, the model has {classes} classes",
            hint="give one label for each class, in the order of the model's outputs",
        )
    return card.stated(source, labels=names)


def with_class_order(card: ModelCard, order: ClassOrder) -> ModelCard:
    """Override how folders of classes are numbered."""
    return card.stated("--class-order", class_order=order)


def with_preprocess(card: ModelCard, text: str) -> ModelCard:
    """Override the preprocessing: `original`, `timm`, `transformers`, `squash` or `none`.

    Or in full, RESIZE:FILTER:SIDE, as `shorter:bicubic:256`. Raises DeployError for other texts.
    """
    known = {
        "original": ORIGINAL_PREPROCESSING,
        "timm": TIMM_PREPROCESSING,
        "transformers": TRANSFORMERS_PREPROCESSING,
        "squash": replace(card.preprocessing, name="squash", side=1, crop=1, resize=Resize.SQUASH),
        "none": replace(card.preprocessing, name="none", side=1, crop=1, resize=Resize.NONE),
    }
    way = known.get(text) or _in_full(card, text)
    sources = {name: source for name, source in card.sources.items() if name not in _INNER}
    return replace(card, sources=sources).stated("--preprocess", preprocessing=way)


_INNER = {field.name for field in fields(Preprocessing)}


def _in_full(card: ModelCard, text: str) -> Preprocessing:
    try:
        resize, resample, number = text.split(":")
        side = int(number)
        if side < card.image_size:
            raise ValueError
        return replace(
            card.preprocessing,
            name=text,
            side=side,
            crop=card.image_size,
            resample=Resample(resample),
            resize=Resize(resize),
        )
    except ValueError as error:
        raise DeployError(
            f"`--preprocess {text}` is no preprocessing",
            hint="use original, timm, transformers, squash or none, or in full, such as "
            f"--preprocess shorter:bicubic:{card.image_size * 8 // 7}",
        ) from error


def _per_channel(card: ModelCard, values: tuple[float, ...], source: str) -> tuple[float, ...]:
    if len(values) == 1:
        values *= card.in_chans
    if len(values) != card.in_chans or not all(map(math.isfinite, values)):
        raise DeployError(
            f"{source} is `{_numbers(values)}`, but the model takes {card.in_chans} channels",
            hint=f"give one number, or {card.in_chans}",
        )
    return values


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _labels(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:3]) or "none"
    return shown + (f", ... ({len(labels)})" if len(labels) > 3 else "")


def _from(source: str) -> str:
    return source if source.startswith(ASSUMED) else f"from {source}"
