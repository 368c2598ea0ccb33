"""How the stem's convolutions become 16 bits: all but the first, which reads the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from levit_deploy.calibration.factors import channel_factors
from levit_deploy.calibration.observers import extrapolated_range, seen_range
from levit_deploy.calibration.rounding import shortest
from levit_deploy.calibration.rounding_int16 import (
    LARGEST_STEP,
    activation_scale_int16,
    weight_scales_int16,
)
from levit_deploy.calibration.statistics import TensorStatistics
from levit_deploy.calibration.table import ConvScale
from levit_deploy.network.network import Conv


def choose_stem(
    convolutions: Sequence[tuple[Conv, str]], statistics: Mapping[str, TensorStatistics]
) -> tuple[ConvScale, ...]:
    """The decisions for convolutions and the tensors that they read, the same in every recipe."""
    return tuple(_conv_scale(conv, tensor, statistics[tensor]) for conv, tensor in convolutions)


def _conv_scale(layer: Conv, tensor: str, seen: TensorStatistics) -> ConvScale:
    weight = layer.weight.astype(np.float64)
    by_input = weight.transpose(0, 2, 3, 1).reshape(-1, weight.shape[1])
    factors = tuple(map(shortest, channel_factors(seen, [by_input])))
    seen = seen.scaled(np.array(factors))
    scales = weight_scales_int16(weight / np.array(factors).reshape(1, -1, 1, 1))
    seen_low, seen_high = seen_range(seen)
    return ConvScale(
        layer=layer.name,
        tensor=tensor,
        scale=activation_scale_int16(*extrapolated_range(seen)),
        largest_step=LARGEST_STEP,
        seen_low=shortest(seen_low),
        seen_high=shortest(seen_high),
        factors=factors,
        scales=tuple(map(shortest, scales)),
    )
