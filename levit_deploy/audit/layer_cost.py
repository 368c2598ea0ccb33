"""What it costs to leave a layer in float32, as a share of the whole inference.

A model, not a measurement: time goes with multiply-adds, and those in 8 bits are INT8_SPEED times
as fast as those in float32, those of the stem in 16 bits INT16_SPEED times. It ranks layers for
every target alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from levit_deploy.network.network import (
    Mlp,
    Network,
    ShrinkingAttention,
    reading_layers,
    writing_layer,
)

# Between x86-64-v3, where the linear layers of levit_128s are 1.9 times as fast in 8 bits, and
# AVX-512 VNNI, 3.8 times: `levit-deploy bench DIR --per-kernel` of both precisions, on Zen 4.
INT8_SPEED = 2.5

# Between ARM, where 16 bits are as many instructions as float32, and AVX-512 VNNI, 1.9 times as
# fast by the same command.
INT16_SPEED = 1.5

Costs = Mapping[str, float]


def float_costs(network: Network, integer_layers: Set[str]) -> Costs:
    """For each of `integer_layers` the time that float32 would add, as a share of the whole of the
    8-bit model."""
    work = multiply_adds(network)
    stem = {conv.name for conv in network.stem}
    added = {
        layer: work[layer] * (1 - 1 / (INT16_SPEED if layer in stem else INT8_SPEED))
        for layer in integer_layers
    }
    total = sum(work.values()) - sum(added.values())
    return {layer: time / total for layer, time in added.items()}


def multiply_adds(network: Network) -> Mapping[str, int]:
    """Of each layer by its name, and of the products of each attention by the attention's."""
    work: dict[str, int] = {}
    size = network.image_size
    for conv in network.stem:
        size //= 2
        work[conv.name] = size**2 * conv.weight.size
    tokens = size**2
    for block in network.blocks:
        for layer in reading_layers(block):
            work[layer.name] = tokens * layer.weight.size
        if not isinstance(block, Mlp):
            heads, queries, keys = block.bias.shape
            work[block.name] = heads * queries * keys * (block.key_dim + block.value_dim)
        if isinstance(block, ShrinkingAttention):
            tokens = queries
            work[block.q.name] = tokens * block.q.weight.size
        last = writing_layer(block)
        work[last.name] = tokens * last.weight.size
    if network.head is not None:
        work[network.head.name] = network.head.weight.size
    return work
