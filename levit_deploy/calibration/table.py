"""CalibrationTable: every decision that turns a float model into an 8-bit one, as plain values.

`choose_scales` decides and writes one, `quantize` does what it says, people read and compare it.
Scales and factors are float32, written with as few digits as tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from levit_deploy.calibration.recipe import Recipe
from levit_deploy.files import write_files
from levit_deploy.records import Text, load_record, to_json


@dataclass(frozen=True)
class TensorScale:
    """How the activations x of one tensor become 8 bits, for the layers that read it.

    q[k] = clamp(rint(x[k] * factors[k] / scale), -zero_point, 255 - zero_point) + zero_point, ties
    to even; k is the channel. `factors`: (channels,), or empty for ones; the readers' weights are
    divided by them. 0..255 spans the range `low`..`high`; `seen_low`..`seen_high` is that of
    x * factors over all calibration images, or the expected one without images.
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

    `scales`: one for each output channel. `roundings`: what is added to the nearest steps so that
    their errors cancel, by `pack_steps` in the order of (out, in), or empty for nothing.
    `bias_correction`: what is added to the bias, one for each output channel, or empty for none.
    """

    layer: str
    scales: tuple[float, ...]
    roundings: bytes
    bias_correction: tuple[float, ...]


@dataclass(frozen=True)
class ConvScale:
    """How one convolution of the stem and the activations x that it reads become 16 bits.

    q[c] = rint(clamp(x[c] * factors[c], -largest_step * scale, largest_step * scale) / scale), ties
    to even; c is the channel. Weights become rint(w / factors / scales), with one of `scales` for
    each output channel, so that no sum of products leaves 32 bits. `seen_low`..`seen_high` is the
    range of x * factors over all calibration images.

    `byte_weights`: where 8 bits suffice for the weights, what they become instead, by `pack_steps`
    in the order of (out, in, 3, 3): whole numbers from -127 to 127. Empty for 16 bits.
    """

    layer: str
    tensor: str
    scale: float
    largest_step: int
    seen_low: float
    seen_high: float
    factors: tuple[float, ...]
    scales: tuple[float, ...]
    byte_weights: bytes


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

    source: Text
    images: int
    skipped: int
    preprocessing: str
    digest: str


@dataclass(frozen=True)
class CalibrationTable:
    """The decisions for one model: what `quantize` needs, and what people want to know.

    `weights_digest`: of the checkpoint that the decisions are for. `images`: None if they were made
    from what its BatchNorms know.
    """

    SCHEMA_VERSION: ClassVar[int] = 4

    model: str
    weights_digest: str
    recipe: Recipe
    images: CalibrationImages | None
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
        """Write one file, one value or one list of numbers a line, whole or not at all.

        Raises DeployError if it cannot be written.
        """
        write_files({path: to_json(self).encode()})

    @staticmethod
    def load(path: Path) -> CalibrationTable:
        """Read a file that `save` wrote.

        Raises DeployError if it is no such file, damaged, or of another schema version.
        """
        return load_record(CalibrationTable, path, hint="make one with `levit-deploy quantize`")
