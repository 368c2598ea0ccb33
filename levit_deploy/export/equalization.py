"""Rescaling that a LeViT cannot feel: factors between layers with nothing nonlinear in between.

After folding, the residual stream of a stage is written and read by linear layers only:

    write(x) * s  ->  stream * s  ->  read(stream * s / s)        s: a factor per channel
    (q * t) . (k / t) = q . k                                     t: a factor per head and dimension

So a quantizer may give every channel the range that suits it. Exact in real numbers, and to the
bit in float32 for powers of two. (Scaling channels between linear layers: Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from levit_deploy.errors import DeployError
from levit_deploy.export.folded import (
    Affine,
    Attention,
    Block,
    Float64,
    FoldedLevit,
    Layer,
    Mlp,
    ShrinkingAttention,
    map_layers,
)
from levit_deploy.export.graph import TOKENS_NAME


@dataclass(frozen=True)
class Stream:
    """The residual stream of one stage, by names in order of execution.

    `writers`: layers whose output channels are the stream's. `readers`: layers whose input
    channels are. `tensors`: the stream itself, (1, tokens, channels), between the blocks.
    """

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    tensors: tuple[str, ...]


def residual_streams(model: FoldedLevit) -> tuple[Stream, ...]:
    """The stream of each stage, from the stem to the head."""
    writers: list[list[str]] = [[model.stem[-1].name]]
    readers: list[list[str]] = [[]]
    tensors: list[list[str]] = [[TOKENS_NAME]]
    for block in model.blocks:
        readers[-1] += _readers(block)
        if isinstance(block, ShrinkingAttention):  # writes the first of the next stage
            for names in (writers, readers, tensors):
                names.append([])
        writers[-1].append(_writer(block))
        tensors[-1].append(block.output)
    readers[-1].append(model.head.name)
    return tuple(
        Stream(tuple(w), tuple(r), tuple(t))
        for w, r, t in zip(writers, readers, tensors, strict=True)
    )


def scale_stream(model: FoldedLevit, stream: Stream, factors: Float64) -> FoldedLevit:
    """Multiply each channel of a stream by its factor; the logits stay what they are.

    factors: (channels,), not zero.
    """

    def change(layer: Layer) -> Layer:
        if layer.name in stream.writers:
            return _scale_outputs(layer, factors)
        if layer.name in stream.readers:
            return Layer(layer.name, Affine(layer.affine.weight / factors, layer.affine.bias))
        return layer

    return map_layers(model, change)


def scale_query_key(model: FoldedLevit, attention: str, factors: Float64) -> FoldedLevit:
    """Multiply q by factors and divide k by them; the scores stay what they are.

    attention: name of the block, `blocks.0.m` or `blocks.4`. factors: (heads, key_dim), not zero.
    Raises DeployError if there is no such attention.
    """

    for index, block in enumerate(model.blocks):
        if block.name == attention and not isinstance(block, Mlp):
            changed = _scale_query_key(block, factors)
            blocks = (*model.blocks[:index], changed, *model.blocks[index + 1 :])
            return replace(model, blocks=blocks)
    raise DeployError(f"no attention `{attention}` in the network")


def _scale_query_key(
    block: Attention | ShrinkingAttention, factors: Float64
) -> Attention | ShrinkingAttention:
    unscaled = np.ones((len(factors), block.value_dim))
    match block:
        case Attention():
            rows = np.hstack([factors, 1 / factors, unscaled])
            return replace(block, qkv=_scale_outputs(block.qkv, rows.reshape(-1)))
        case ShrinkingAttention():
            rows = np.hstack([1 / factors, unscaled])
            q = _scale_outputs(block.q, factors.reshape(-1))
            return replace(block, q=q, kv=_scale_outputs(block.kv, rows.reshape(-1)))


def _scale_outputs(layer: Layer, factors: Float64) -> Layer:
    """Multiply each output channel of a layer by its factor; factors: (out,)."""
    weight, bias = layer.affine.weight, layer.affine.bias
    columns = factors.reshape(-1, *[1] * (weight.ndim - 1))
    return Layer(layer.name, Affine(weight * columns, bias * factors))


def _readers(block: Block) -> list[str]:
    match block:
        case Attention():
            return [block.qkv.name]
        case ShrinkingAttention():
            return [block.kv.name, block.q.name]
        case Mlp():
            return [block.expand.name]


def _writer(block: Block) -> str:
    return block.contract.name if isinstance(block, Mlp) else block.proj.name
