"""CalibrationTable: every decision that turns a float model into an 8-bit one, as plain values.

`choose_scales` decides and writes one, `quantize` does what it says, people read and compare it.
All numbers are float32 values; `table_file.py` keeps them to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = 255  # steps between the least and the greatest 8-bit activation
WEIGHT_LIMIT = 127  # weights are symmetric in [-127, 127], so that two products fit 16 bits


@dataclass(frozen=True)
class TensorScale:
    """How the activations x of one tensor become 8 bits, for the layers that read it.

    q[k] = clamp(rint(x[k] * factors[k] / scale), -zero_point, 255 - zero_point) + zero_point, ties
    to even; k is the channel. `factors`: (channels,), or empty for ones; the readers' weights are
    divided by them. `observer` chose the range `low`..`high` that 0..255 spans, zero included;
    `seen` is the range of x * factors over all calibration images.
    """

    tensor: str
    readers: tuple[str, ...]
    scale: float
    zero_point: int
    low: float
    high: float
    seen: tuple[float, float]
    observer: str
    factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class LayerScale:
    """How the weights of one layer become 8 bits: rint(w / scale) in [-127, 127].

    `scales`: one for each output channel. `bias_correction`: what is added to the bias, one for
    each output channel, or empty for none.
    """

    layer: str
    scales: tuple[float, ...]
    bias_correction: tuple[float, ...] = ()


@dataclass(frozen=True)
class FloatTensor:
    """A tensor that is computed in float32, and why."""

    tensor: str
    reason: str


@dataclass(frozen=True)
class StreamFactors:
    """Factors of one stage's residual stream: (channels,); `tensor` is the stream's first."""

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
    recipe: str
    images: CalibrationImages
    streams: tuple[StreamFactors, ...]
    tensors: tuple[TensorScale, ...]
    layers: tuple[LayerScale, ...]
    kept_float: tuple[FloatTensor, ...]
