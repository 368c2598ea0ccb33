"""A float32 network -> the one in 16-bit floats: every layer but the one that reads the image.

Also the products of attention, where heads have parts that the kernels take.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.half_format import FP16_CHAIN, HalfFormat
from levit_deploy.network.arithmetic import Half
from levit_deploy.network.network import (
    IMAGE,
    Block,
    Conv,
    Layer,
    Linear,
    Mlp,
    Network,
    map_layers,
)

# What a head's keys and values are multiples of, in kernels of attention in 16 bits; a score of
# float16 is one chain.
KEY_COLUMNS = {HalfFormat.FP16: 8, HalfFormat.BF16: 16}
VALUE_COLUMNS = 16


def in_half(network: Network, format: HalfFormat) -> Network:
    """A rounded float32 network whose layers compute in `format`, its linear ones with their
    weights rounded to it.

    Raises DeployError, naming the layer, if one of its weights is larger than the format's largest.
    """
    first = next(layer.name for layer, tensor in network.reading() if tensor == IMAGE)

    def rounded(layer: Layer) -> NDArray[np.float32]:
        weight = format.rounded(layer.weight)
        if not np.isfinite(weight).all():
            raise DeployError(
                f"weights of `{layer.name}` are larger than {format}'s largest number, "
                f"{format.largest:g}",
                hint="bf16 has the range of float32: --precision bf16",
            )
        return weight

    def convolution(conv: Conv) -> Conv:
        if conv.name == first:
            return conv
        rounded(conv)
        return replace(conv, arithmetic=Half(format))

    def linear(layer: Linear) -> Linear:
        return replace(layer, weight=rounded(layer), arithmetic=Half(format))

    network = map_layers(network, convolution, linear)
    blocks = tuple(_attention_in_half(block, format) for block in network.blocks)
    return replace(network, blocks=blocks)


def _attention_in_half(block: Block, format: HalfFormat) -> Block:
    if isinstance(block, Mlp):
        return block
    fits = block.key_dim % KEY_COLUMNS[format] == block.value_dim % VALUE_COLUMNS == 0
    fits &= format is HalfFormat.BF16 or block.key_dim <= FP16_CHAIN
    return replace(block, arithmetic=Half(format)) if fits else block
