"""Real numbers to 16-bit steps, for convolutions whose sums are exact in 32 bits.

Activations are q in -LARGEST_STEP ... LARGEST_STEP, weights symmetric with a scale for each output
channel, chosen so that no sum can wrap, whatever the activations:

    LARGEST_STEP * sum over the channel's weights of |w|  <  2^31 - 2^12 * weights

where the last term is for kernels that multiply bytes, and so is LARGEST_WEIGHT. What one operand
gets of the 31 bits, the other does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.calibration.rounding import shortest
from levit_deploy.network.network import Float64

# The largest that kernels of bytes can multiply.
LARGEST_STEP = 8191
# Of the range that is expected: one bit, so that what no calibration image showed does not
# saturate. In 8 bits that would be dear.
HEADROOM = 2.0

LARGEST_WEIGHT = 8191
_INT32_MAX = 2**31 - 1
_SMALLEST = float(np.finfo(np.float32).tiny)  # of a scale: below it float32 loses digits


def activation_scale_int16(low: float, high: float) -> float:
    """With which LARGEST_STEP is HEADROOM times the larger end of `low`..`high`; 1 for zeros."""
    largest = max(-low, high)
    return shortest(max(HEADROOM * largest / LARGEST_STEP, _SMALLEST)) if largest else 1.0


def weight_scales_int16(weight: Float64) -> NDArray[np.float32]:
    """One for each output channel, weight (out, ..) -> (out,); 1 where all weights are zero."""
    magnitudes = np.abs(weight).reshape(len(weight), -1)
    depth = magnitudes.shape[1]
    # Rounding can add half a step to each weight.
    steps = (_INT32_MAX - 2**12 * depth) / LARGEST_STEP - depth / 2
    scales = np.maximum(magnitudes.max(axis=1) / LARGEST_WEIGHT, magnitudes.sum(axis=1) / steps)
    # Rounded to float32 a scale may shrink by half a part in 2^24: up by more than that.
    scales = np.where(scales > 0, np.maximum(scales * (1 + 2**-22), _SMALLEST), 1.0)
    return scales.astype(np.float32)


def weight_steps_int16(weight: Float64, scales: NDArray[np.float32]) -> NDArray[np.int16]:
    """Nearest multiples of each output channel's scale: weight (out, ..), scales (out,)."""
    by_channel = scales.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    return np.rint(weight / by_channel).astype(np.int16)
