"""CalibrationTable: every decision that turns a float model into an 8-bit one, as plain values.

`choose_scales` decides and writes one, `quantize` does what it says, people read and compare it.
Scales and factors are float32, written with as few digits as tell them apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from levit_deploy.calibration.recipe import Recipe, parse_recipe
from levit_deploy.errors import DeployError
from levit_deploy.export.whole_files import write_files

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class TensorScale:
    """How the activations x of one tensor become 8 bits, for the layers that read it.

    q[k] = clamp(rint(x[k] * factors[k] / scale), -zero_point, 255 - zero_point) + zero_point, ties
    to even; k is the channel. `factors`: (channels,), or empty for ones; the readers' weights are
    divided by them. 0..255 spans the range `low`..`high`; `seen_low`..`seen_high` is that of
    x * factors over all calibration images.
    """

    tensor: str
    readers: tuple[str, ...]
    scale: float
    zero_point: int
    low: float
    high: float
    seen_low: float
    seen_high: float
    factors: tuple[float, ...]


@dataclass(frozen=True)
class LayerScale:
    """How the weights of one layer become 8 bits: rint(w / scale) in [-127, 127].

    `scales`: one for each output channel. `bias_correction`: what is added to the bias, one for
    each output channel, or empty for none.
    """

    layer: str
    scales: tuple[float, ...]
    bias_correction: tuple[float, ...]


@dataclass(frozen=True)
class ConvScale:
    """How one convolution of the stem and the activations x that it reads become 16 bits.

    q[c] = rint(clamp(x[c] * factors[c], -largest_step * scale, largest_step * scale) / scale), ties
    to even; c is the channel. Weights become rint(w / factors / scales), with one of `scales` for
    each output channel, so that no sum of products leaves 32 bits. `seen_low`..`seen_high` is the
    range of x * factors over all calibration images.
    """

    layer: str
    tensor: str
    scale: float
    largest_step: int
    seen_low: float
    seen_high: float
    factors: tuple[float, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class FloatTensor:
    """A tensor that is computed in float32, and why."""

    tensor: str
    reason: str


@dataclass(frozen=True)
class StreamFactors:
    """What multiplies the channels of one stage's residual stream, (channels,).

    `tensor`: the first of the stream.
    """

    tensor: str
    factors: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationImages:
    """What was calibrated on. `digest`: hexadecimal SHA-256 of the content, in order.

    `preprocessing`: how pictures became model inputs. `skipped`: broken files passed over.
    """

    source: str
    images: int
    skipped: int
    preprocessing: str
    digest: str


@dataclass(frozen=True)
class CalibrationTable:
    """The decisions for one model: what `quantize` needs, and what people want to know.

    `weights_digest`: of the checkpoint that the decisions are for.
    """

    model: str
    weights_digest: str
    recipe: Recipe
    images: CalibrationImages
    streams: tuple[StreamFactors, ...]
    stem: tuple[ConvScale, ...]
    tensors: tuple[TensorScale, ...]
    layers: tuple[LayerScale, ...]
    kept_float: tuple[FloatTensor, ...]

    @property
    def quantized_layers(self) -> tuple[str, ...]:
        """By name, in order of execution."""
        stem, linear = (scale.layer for scale in self.stem), (scale.layer for scale in self.layers)
        return (*stem, *linear)

    def save(self, path: Path) -> None:
        """Write `to_json` as one file, whole or not at all.

        Raises DeployError if it cannot be written.
        """
        write_files({path: self.to_json().encode()})

    def to_json(self) -> str:
        """One value or one list of numbers a line, so that two tables can be compared."""
        values = asdict(self)
        values["recipe"] = self.recipe.to_json()
        text = json.dumps({"schema_version": SCHEMA_VERSION, **values}, indent=1)
        numbers = re.compile(r"\[[-+.\deE,\s]*\]")
        return numbers.sub(lambda match: " ".join(match[0].split()), text) + "\n"

    @staticmethod
    def load(path: Path) -> CalibrationTable:
        """Read a file that `save` wrote.

        Raises DeployError if it is no such file, damaged, or of another schema version.
        """
        hint = "make one with `levit-deploy quantize`"
        try:
            values = json.loads(path.read_bytes())
        except OSError as error:
            raise DeployError(f"cannot read `{path}`: {error.strerror}", hint=hint) from error
        except ValueError as error:
            raise DeployError(f"`{path}` is not JSON: {error}", hint=hint) from error
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise DeployError(
                f"`{path}` has schema version `{version}`, expected `{SCHEMA_VERSION}`", hint=hint
            )
        try:
            return _table(values, path)
        except (KeyError, TypeError, ValueError) as error:
            raise DeployError(f"the calibration table `{path}` is damaged", hint=hint) from error


def _table(values: Mapping[str, Any], path: Path) -> CalibrationTable:
    images = values["images"]
    return CalibrationTable(
        model=str(values["model"]),
        weights_digest=str(values["weights_digest"]),
        recipe=parse_recipe(values["recipe"], str(path)),
        images=CalibrationImages(
            source=str(images["source"]),
            images=int(images["images"]),
            skipped=int(images["skipped"]),
            preprocessing=str(images["preprocessing"]),
            digest=str(images["digest"]),
        ),
        streams=tuple(
            StreamFactors(str(entry["tensor"]), _numbers(entry["factors"]))
            for entry in values["streams"]
        ),
        stem=tuple(_conv(entry) for entry in values["stem"]),
        tensors=tuple(_tensor(entry) for entry in values["tensors"]),
        layers=tuple(
            LayerScale(
                layer=str(entry["layer"]),
                scales=_numbers(entry["scales"]),
                bias_correction=_numbers(entry["bias_correction"]),
            )
            for entry in values["layers"]
        ),
        kept_float=tuple(
            FloatTensor(str(entry["tensor"]), str(entry["reason"]))
            for entry in values["kept_float"]
        ),
    )


def _tensor(entry: Mapping[str, Any]) -> TensorScale:
    return TensorScale(
        tensor=str(entry["tensor"]),
        readers=tuple(map(str, entry["readers"])),
        scale=float(entry["scale"]),
        zero_point=int(entry["zero_point"]),
        low=float(entry["low"]),
        high=float(entry["high"]),
        seen_low=float(entry["seen_low"]),
        seen_high=float(entry["seen_high"]),
        factors=_numbers(entry["factors"]),
    )


def _conv(entry: Mapping[str, Any]) -> ConvScale:
    return ConvScale(
        layer=str(entry["layer"]),
        tensor=str(entry["tensor"]),
        scale=float(entry["scale"]),
        largest_step=int(entry["largest_step"]),
        seen_low=float(entry["seen_low"]),
        seen_high=float(entry["seen_high"]),
        factors=_numbers(entry["factors"]),
        scales=_numbers(entry["scales"]),
    )


def _numbers(values: list[float]) -> tuple[float, ...]:
    return tuple(map(float, values))
