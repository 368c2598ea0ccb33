"""Real numbers to 8-bit steps: scales from ranges, and the rounding that kernels repeat.

Weights are symmetric in [-127, 127], so that two products fit 16 bits; activations are 0..255 with
the zero point at a step of its own, so that zero is exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.export.folded import Float64

WEIGHT_LIMIT = 127
LEVELS = 255  # steps between the least and the greatest activation

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
    """One for each output channel, weight (in, out) -> (out,); 1 where all weights are zero."""
    largest = np.abs(weight).max(axis=0)
    scales = np.where(largest > 0, np.maximum(largest / WEIGHT_LIMIT, _SMALLEST), 1.0)
    return scales.astype(np.float32)


def weight_steps(weight: Float64, scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Nearest multiples of each output channel's scale: weight (in, out), scales (out,)."""
    steps = np.rint(weight / scales.astype(np.float64))
    return np.clip(steps, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)


def shortest(value: float) -> float:
    """The shortest decimal number that is the nearest to the same float32 as `value` is."""
    return float(str(np.float32(value)))
