"""Real numbers to 8-bit and 16-bit steps: scales from ranges, and the rounding kernels repeat.

In 8 bits activations are 0..255 with the zero point at a step of its own, so that zero is exact.
Weights are symmetric in [-127, 127], and those of inputs 2 k and 2 k + 1 of a layer have a sum in
[-128, 128], so that the sum of two products fits 16 bits: what AVX2 multiplies by would saturate
there.

16 bits are for convolutions whose sums are exact in 32 bits. Activations are q in -LARGEST_STEP ...
LARGEST_STEP, weights symmetric with a scale for each output channel, chosen so that no sum can
wrap, whatever the activations:

    LARGEST_STEP * sum over the channel's weights of |w|  <  2^31 - 2^12 * weights

where the last term is for kernels that multiply bytes, and so is LARGEST_WEIGHT. What one operand
gets of the 31 bits, the other does not. Weights can have 8 bits there, as `byte_weights` chooses
them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.network.network import Float64

WEIGHT_LIMIT = 127
PAIR_LIMIT = 128  # of the sum of two neighbouring inputs' weights
# The largest weight, and sum of two neighbours, that scales of linear layers are chosen for.
# Roundings that make up for others have room then, and so have two more products in the 16 bits of
# AVX2 and NEON.
NOMINAL_LIMIT = 102
LEVELS = 255  # steps between the least and the greatest activation

# The largest that kernels of bytes can multiply.
LARGEST_STEP = 8191
# Of the range that is expected: one bit, so that what no calibration image showed does not
# saturate. In 8 bits that would be dear.
HEADROOM = 2.0

LARGEST_WEIGHT = 8191
LOW_PART = 64  # of a step, for kernels of bytes
INT32_MAX = 2**31 - 1

_SMALLEST = float(np.finfo(np.float32).tiny)  # of a scale: below it float32 loses digits


def activation_scale(low: float, high: float) -> tuple[float, int]:
    """(scale, zero point) with which 0..255 spans `low`..`high`, where low <= 0 <= high.

    A tensor that is always zero gets scale 1.
    """
    if low == high:
        return 1.0, 0
    scale = shortest(max((high - low) / LEVELS, _SMALLEST))
    return scale, min(max(round(-low / scale), 0), LEVELS)


def activation_steps(x: Float64, scale: float, zero_point: int) -> Float64:
    """Whole numbers `q - zero_point`: nearest multiples of the scale, ties to even, saturated."""
    return np.clip(np.rint(x / np.float32(scale)), -zero_point, LEVELS - zero_point)


def weight_scales(weight: Float64) -> NDArray[np.float32]:
    """One for each output channel, weight (in, out) -> (out,); 1 where all weights are zero.

    The least with which weights, and sums of two neighbours, are within NOMINAL_LIMIT.
    """
    pairs = np.abs(_pairs(weight).sum(axis=1))
    scales = np.maximum(np.abs(weight).max(axis=0), pairs.max(axis=0)) / NOMINAL_LIMIT
    return np.where(scales > 0, np.maximum(scales, _SMALLEST), 1.0).astype(np.float32)


def weight_steps(weight: Float64, scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Nearest multiples of each output channel's scale: weight (in, out), scales (out,), as
    `limited_steps`."""
    return limited_steps(np.rint(weight / scales.astype(np.float64)))


def limited_steps(steps: Float64) -> NDArray[np.int8]:
    """Whole numbers (in, out) of which what exceeds the limits is taken off: of a pair, half from
    each."""
    pairs = _pairs(np.clip(steps, -WEIGHT_LIMIT, WEIGHT_LIMIT))
    sums = pairs.sum(axis=1)
    excess = sums - np.clip(sums, -PAIR_LIMIT, PAIR_LIMIT)
    half = np.trunc(excess / 2)
    pairs -= np.stack([half, excess - half], axis=1)
    return pairs.reshape(-1, steps.shape[1])[: len(steps)].astype(np.int8)


def _pairs(weight: Float64) -> Float64:
    """(in, out) -> a copy as (in / 2, 2, out); an odd last one has a zero beside it."""
    even = np.pad(weight, ((0, len(weight) % 2), (0, 0)))
    return even.reshape(-1, 2, weight.shape[1])


def activation_scale_int16(low: float, high: float) -> float:
    """With which LARGEST_STEP is HEADROOM times the larger end of `low`..`high`; 1 for zeros."""
    largest = max(-low, high)
    return shortest(max(HEADROOM * largest / LARGEST_STEP, _SMALLEST)) if largest else 1.0


def weight_scales_int16(weight: Float64) -> NDArray[np.float32]:
    """One for each output channel, weight (out, ..) -> (out,); 1 where all weights are zero."""
    magnitudes = np.abs(weight).reshape(len(weight), -1)
    depth = magnitudes.shape[1]
    # Rounding can add half a step to each weight.
    steps = (INT32_MAX - 2**12 * depth) / LARGEST_STEP - depth / 2
    scales = np.maximum(magnitudes.max(axis=1) / LARGEST_WEIGHT, magnitudes.sum(axis=1) / steps)
    # Rounded to float32 a scale may shrink by half a part in 2^24: up by more than that.
    scales = np.where(scales > 0, np.maximum(scales * (1 + 2**-22), _SMALLEST), 1.0)
    return scales.astype(np.float32)


def weight_scales_of_bytes(weight: Float64) -> NDArray[np.float32]:
    """One for each output channel, weight (out, ..) -> (out,); 1 where all weights are zero. Their
    bytes are multiplied by 16-bit steps."""
    scales = np.abs(weight).reshape(len(weight), -1).max(axis=1) / WEIGHT_LIMIT
    return np.where(scales > 0, np.maximum(scales, _SMALLEST), 1.0).astype(np.float32)


def weight_steps_int16(weight: Float64, scales: NDArray[np.float32]) -> NDArray[np.int16]:
    """Nearest multiples of each output channel's scale: weight (out, ..), scales (out,)."""
    by_channel = scales.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    return np.rint(weight / by_channel).astype(np.int16)


def shortest(value: float) -> float:
    """The shortest decimal number that is the nearest to the same float32 as `value` is."""
    return float(str(np.float32(value)))
