"""What training saw: mean and deviation of each channel, which BatchNorm keeps in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from torch import Tensor, nn

from levit_deploy.errors import DeployError
from levit_deploy.models.reference import ConvBN, Levit, LinearBN
from levit_deploy.network.fold import batchnorm_affine, float64
from levit_deploy.network.network import Float64
from levit_deploy.network.values import Values

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


@dataclass(frozen=True, eq=False)
class Moments(Values):
    """`mean`, `deviation`: (channels,), over all places of all images that training averaged."""

    mean: Float64
    deviation: Float64


def trained_moments(net: Levit) -> Mapping[str, Moments]:
    """Of what each layer but the head writes, behind its BatchNorm, by the layer's name.

    Raises DeployError if the BatchNorms were folded into the weights before, or keep no statistics.
    """
    moments = {}
    for name, module in net.named_modules():
        if isinstance(module, ConvBN | LinearBN):
            bn = cast(BatchNorm, module.bn)
            gain, _ = batchnorm_affine(bn)  # which refuses one without statistics
            mean, variance = (float64(cast(Tensor, v)) for v in (bn.running_mean, bn.running_var))
            if not mean.any():
                raise DeployError(
                    f"weights do not say what layers see: the BatchNorm of `{name}` is folded",
                    hint="calibrate on pictures: --data FOLDER",
                )
            moments[name] = Moments(float64(bn.bias), np.abs(gain) * np.sqrt(variance))
    return moments
