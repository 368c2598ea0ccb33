"""Weights of a convolution in 8 bits, where pictures show that this costs nothing.

Neighbouring pixels are alike, so what the rounding of one weight does can be undone by others
(`compensation.py`). Of the demonstration net, whose logits have a signal-to-noise ratio of 43.3 dB
with 16-bit weights in the stem and the nearest steps everywhere else:

    weights of the last three convolutions     error of the stem alone     logits
    nearest 8-bit steps                                      39.7 dB      38.3 dB
    rounded as here                                          55.2 dB      42.9 dB
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.calibration.compensation import compensated_steps
from levit_deploy.calibration.rounding import INT32_MAX, LARGEST_STEP, LOW_PART, WEIGHT_LIMIT
from levit_deploy.network.network import Float64

# Of a convolution's output channels, their mean, on one half of the windows, with weights rounded
# by the other. Three of 55 dB make 50.2 dB of the stem, with which a net of 43.3 dB has 42.5.
LEAST_SQNR_DB = 55.0


def byte_weights(
    weight: Float64, scales: NDArray[np.float32], windows: NDArray[np.float32] | None
) -> NDArray[np.int8] | None:
    """Steps of `scales` (out,) for `weight` (out, in, 3, 3), by `windows` (n, in, 3, 3).

    None if their error is too large, or cannot be known from so few windows or from zeros, or if
    sums of products with 16-bit steps could leave 32 bits.
    """
    columns = weight.reshape(len(weight), -1)
    depth = columns.shape[1]
    most = WEIGHT_LIMIT * depth * (LARGEST_STEP + LOW_PART)
    if windows is None or len(windows) < 2 * depth or most > INT32_MAX:
        return None
    seen = windows.reshape(-1, depth).astype(np.float64)
    fitted, kept_back = seen[::2], seen[1::2]
    wanted = kept_back @ columns.T
    if not fitted.any() or not wanted.any():
        return None
    real = columns.T / scales.astype(np.float64)
    steps = compensated_steps(real, fitted.T @ fitted, paired=False)
    error = np.square(kept_back @ (steps * scales.astype(np.float64)) - wanted).mean(axis=0)
    signal = np.square(wanted).mean(axis=0)
    noise = np.mean(error[signal > 0] / signal[signal > 0])
    if noise > 10 ** (-LEAST_SQNR_DB / 10):
        return None
    return compensated_steps(real, seen.T @ seen, paired=False).T.reshape(weight.shape)
