"""A float32 network -> the one in 16-bit floats: every layer but the one that reads the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from levit_deploy.errors import DeployError
from levit_deploy.half_format import HalfFormat
from levit_deploy.network.arithmetic import Half
from levit_deploy.network.network import IMAGE, LayerT, Network, map_layers


def in_half(network: Network, format: HalfFormat) -> Network:
    """A rounded float32 network with its weights rounded to `format`.

    Raises DeployError, naming the layer, if one of its weights is larger than the format's largest.
    """
    first = next(layer.name for layer, tensor in network.reading() if tensor == IMAGE)

    def halved(layer: LayerT) -> LayerT:
        if layer.name == first:
            return layer
        weight = format.rounded(layer.weight)
        if not np.isfinite(weight).all():
            raise DeployError(
                f"weights of `{layer.name}` are larger than {format}'s largest number, "
                f"{format.largest:g}",
                hint="bf16 has the range of float32: --precision bf16",
            )
        return replace(layer, weight=weight, arithmetic=Half(format))

    return map_layers(network, halved, halved)
