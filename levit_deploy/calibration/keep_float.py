"""What stays float32, and why: one line for each tensor that is not computed in integers."""

from __future__ import annotations

from collections.abc import Iterator

from levit_deploy.calibration.recipe import Recipe
from levit_deploy.calibration.table import FloatTensor
from levit_deploy.network.network import (
    MEAN,
    Attention,
    Block,
    Layer,
    Mlp,
    Network,
    activated,
    reading_layers,
    writing_layer,
)

_ATTENTION = "attention: its sums; where its projections are in 8 bits, what it multiplies is too"
_STREAM = "residual stream: float32; each layer that reads it gets an 8-bit copy"
_ACTIVATION = "activation: of the float32 sum, in the kernel that makes the sum"


def kept_float(network: Network, recipe: Recipe) -> Iterator[FloatTensor]:
    """In order of execution; tensors whose values are only moved are left out."""

    def chosen(layer: Layer) -> Iterator[FloatTensor]:
        if layer.name in recipe.float_layers:
            yield FloatTensor(layer.name, f"layer: the recipe `{recipe.name}` keeps it")

    first, *_ = network.stem
    for conv in network.stem:
        if conv is first:
            reason = "first convolution: it reads the image, which is float32"
            yield FloatTensor(conv.name, reason)
        yield from chosen(conv)
        if conv is not network.stem[-1]:
            yield FloatTensor(activated(conv), _ACTIVATION)
    for block in network.blocks:
        for layer in reading_layers(block):
            yield from chosen(layer)
        yield from _inside(block)
        yield from chosen(writing_layer(block))
        if isinstance(block, Attention | Mlp):
            yield FloatTensor(block.output, _STREAM)
    yield FloatTensor(MEAN, "mean over tokens: of the float32 stream")
    if network.head is not None:
        yield from chosen(network.head)


def _inside(block: Block) -> Iterator[FloatTensor]:
    """What a block makes between the layers that read its input and the one that makes its
    output."""
    if not isinstance(block, Mlp):
        for part in ("products", "scores", "softmax", "context.by_head"):
            yield FloatTensor(f"{block.name}.{part}", _ATTENTION)
    yield FloatTensor(block.hidden, _ACTIVATION)
