"""Observers: which range of values 0..255 should span.

A wider range makes coarser steps, a narrower one clips. What is clipped hurts more than its mean
square tells: it falls on few tokens of few images. So the default clips nothing, not even values
that the next thousands of images will bring.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from levit_deploy.calibration.rounding import LEVELS
from levit_deploy.network.network import Float64

if TYPE_CHECKING:
    from levit_deploy.calibration.statistics import TensorStatistics  # which runs networks

Range = tuple[float, float]


class Observer(StrEnum):
    """EXTRAPOLATED: the range that `EXPECTED_IMAGES` images would fill. MIN_MAX: the range seen.
    PERCENTILE: `PERCENTILE` of the values. MSE: least mean squared error. ENTROPY: least
    Kullback-Leibler divergence."""

    EXTRAPOLATED = "extrapolated"
    MIN_MAX = "min-max"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"


# The more images are calibrated on, the less it gains; with 512 it costs nothing: w8a8 beside
# w8a8-min-max in docs/quantization.md. With few: `levit-deploy audit` of an artifact compiled with
# `--data` of 32 pictures, and of one with `--recipe w8a8-min-max` as well.
EXPECTED_IMAGES = 4096
PERCENTILE = 99.99

_BINS = 2048
_SHARES = np.linspace(1.0, 0.4, 25)  # of each end of the range seen: what MSE and ENTROPY try


def observe(observer: Observer, seen: TensorStatistics) -> Range:
    """(low, high) with low <= 0 <= high."""
    match observer:
        case Observer.EXTRAPOLATED:
            return extrapolated_range(seen)
        case Observer.MIN_MAX:
            return seen_range(seen)
        case Observer.PERCENTILE:
            low, high = np.percentile(seen.sample, [100 - PERCENTILE, PERCENTILE])
            return min(float(low), 0.0), max(float(high), 0.0)
        case Observer.MSE:
            return _least(_squared_error, seen)
        case Observer.ENTROPY:
            return _least(_divergence, seen)


def seen_range(seen: TensorStatistics) -> Range:
    """Least and greatest value of all images and channels, and zero."""
    return min(float(seen.lows.min()), 0.0), max(float(seen.highs.max()), 0.0)


def extrapolated_range(seen: TensorStatistics) -> Range:
    """The range that `EXPECTED_IMAGES` would fill, each end for itself.

    The expected maximum of n values with an exponential tail grows with log n (Gumbel). How much
    it grows when the images double is seen by comparing half of them with all, over all channels.
    """
    doublings = max(0.0, math.log2(EXPECTED_IMAGES / seen.images))
    low, high = seen_range(seen)
    return (
        low * (1 + doublings * _growth(-seen.lows)),
        high * (1 + doublings * _growth(seen.highs)),
    )


def _growth(halves: Float64) -> float:
    """Relative growth of the channels' maxima, (2, channels), from half of the images to all."""
    halves = halves.clip(min=0)
    whole = halves.max(axis=0).sum()
    return float(1 - halves.mean(axis=0).sum() / whole) if whole > 0 else 0.0


Loss = Callable[[Float64, Float64, Range], float]  # of counts, centres, range


def _least(loss: Loss, seen: TensorStatistics) -> Range:
    """The range with the least loss among those within the range seen; of equals the widest."""
    low, high = seen_range(seen)
    if low == high:
        return low, high
    counts, edges = np.histogram(seen.sample, _BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    candidates = [
        (low * low_share, high * high_share)
        for low_share in (_SHARES if low < 0 else [1.0])
        for high_share in (_SHARES if high > 0 else [1.0])
    ]
    return min(candidates, key=lambda r: loss(counts.astype(np.float64), centres, r))


def _levels(centres: Float64, span: Range) -> NDArray[np.int64]:
    low, high = span
    steps = np.rint((centres - low) * (LEVELS / (high - low)))
    return np.clip(steps, 0, LEVELS).astype(np.int64)


def _squared_error(counts: Float64, centres: Float64, span: Range) -> float:
    low, high = span
    rounded = low + _levels(centres, span) * ((high - low) / LEVELS)
    return float(counts @ (centres - rounded) ** 2)


def _divergence(counts: Float64, centres: Float64, span: Range) -> float:
    """KL(p, q) in nats: p the values clipped to the range, q what 256 levels keep of them.

    What is clipped counts with the outermost bin for p but is unknown to q (Migacz, "8-bit
    Inference with TensorRT", GTC 2017).
    """
    inside = (centres >= span[0]) & (centres <= span[1])
    kept, levels = counts[inside], _levels(centres[inside], span)
    p = kept.copy()
    p[0] += counts[: int(np.argmax(inside))].sum()
    p[-1] += counts.sum() - p.sum()
    if not kept.any():
        return math.inf
    filled = p > 0
    in_level = np.bincount(levels, weights=kept, minlength=LEVELS + 1)
    bins_in_level = np.bincount(levels[filled], minlength=LEVELS + 1)
    q = np.where(filled, (in_level / np.maximum(bins_in_level, 1))[levels], 0.0)
    p, q = p[filled] / p.sum(), np.maximum(q[filled], 1e-10) / max(q.sum(), 1e-10)
    return float(p @ np.log(p / q))
