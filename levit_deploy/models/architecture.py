"""The shapes of trained tensors -> what network they are of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count

from torch import Tensor

from levit_deploy.models.spec import (
    FAMILY,
    Activation,
    AttentionSizes,
    BlockSizes,
    Layout,
    MlpSizes,
    ModelSpec,
    ShrinkSizes,
)

CUSTOM = "levit_custom"  # what a LeViT is called that nobody has published
MAX_GRID = 256  # 4096 px: a larger bias table is taken for a damaged file


class ShapeError(ValueError):
    """A tensor, by its canonical name, whose shape no LeViT has."""


def spec_of(state: Mapping[str, Tensor], activation: Activation | None) -> ModelSpec:
    """The network of weights under canonical names.

    `activation`: which the shapes do not show; None: the published variant's of these sizes, or
    hardswish. Class count, image size, channels of the input and heads are as the weights have
    them. At least one block must be an attention, and each layer's tensors must all be there.
    Raises ShapeError for the first tensor that cannot be read; others may still not fit.
    """
    layout = _layout(state)
    stride = 2 ** len(layout.stem)
    named = _published(layout)
    shrinks = [block for block in layout.blocks if isinstance(block, ShrinkSizes)]
    stages = _attentions(layout)
    keyed = next(block for block in layout.blocks if not isinstance(block, MlpSizes))
    spec = ModelSpec(
        name=named.name if named else CUSTOM,
        channels=(layout.blocks[0].channels, *(shrink.out_channels for shrink in shrinks)),
        depths=tuple(map(len, stages)),
        heads=tuple(stage[0].heads if stage else 0 for stage in stages),
        key_dim=keyed.key_dim,
        image_size=_grid(state, layout) * stride,
        classes=_shape(state, "head.l.weight", 2)[0] if "head.l.weight" in state else 0,
        distilled="head_dist.l.weight" in state,
        activation=activation or (named.activation if named else Activation.HARD_SWISH),
        in_chans=_shape(state, "patch_embed.0.c.weight", 4)[1],
        stem_stride=stride,
        custom=layout,
    )
    plain = replace(spec, custom=None)
    return plain if plain.layout == layout else spec


def _published(layout: Layout) -> ModelSpec | None:
    return next((spec for spec in FAMILY.values() if spec.layout == layout), None)


def _layout(state: Mapping[str, Tensor]) -> Layout:
    stem = []
    for n in count(step=2):
        if f"patch_embed.{n}.c.weight" not in state:
            break
        stem.append(_shape(state, f"patch_embed.{n}.c.weight", 4)[0])
    return Layout(tuple(stem), tuple(_blocks(state)))


def _blocks(state: Mapping[str, Tensor]) -> Iterator[BlockSizes]:
    for number in count():
        block = f"blocks.{number}"
        if f"{block}.m.qkv.c.weight" in state:
            heads, _ = _shape(state, f"{block}.m.attention_biases", 2)
            rows, channels = _shape(state, f"{block}.m.qkv.c.weight", 2)
            value_dim = _shape(state, f"{block}.m.proj.1.c.weight", 2)[1] // heads
            key_dim = (rows // heads - value_dim) // 2
            if key_dim < 1:
                raise ShapeError(f"{block}.m.qkv.c.weight")
            yield AttentionSizes(channels, heads, key_dim, value_dim)
        elif f"{block}.kv.c.weight" in state:
            heads, _ = _shape(state, f"{block}.attention_biases", 2)
            rows, channels = _shape(state, f"{block}.q.1.c.weight", 2)
            out_channels, columns = _shape(state, f"{block}.proj.1.c.weight", 2)
            yield ShrinkSizes(channels, heads, rows // heads, columns // heads, out_channels)
        elif f"{block}.m.0.c.weight" in state:
            hidden, channels = _shape(state, f"{block}.m.0.c.weight", 2)
            yield MlpSizes(channels, hidden)
        else:
            return


def _grid(state: Mapping[str, Tensor], layout: Layout) -> int:
    """Side of the first token grid: an attention has one bias per offset, grid ** 2."""
    first = next(n for n, block in enumerate(layout.blocks) if not isinstance(block, MlpSizes))
    is_shrink = isinstance(layout.blocks[first], ShrinkSizes)
    name = f"blocks.{first}.attention_biases" if is_shrink else f"blocks.{first}.m.attention_biases"
    offsets = _shape(state, name, 2)[1]
    grid = math.isqrt(offsets)
    if not 0 < grid <= MAX_GRID or grid**2 != offsets:
        raise ShapeError(name)
    return grid


def _attentions(layout: Layout) -> list[list[AttentionSizes]]:
    """Those of each stage; a shrinking attention begins the next."""
    stages: list[list[AttentionSizes]] = [[]]
    for block in layout.blocks:
        if isinstance(block, ShrinkSizes):
            stages.append([])
        elif isinstance(block, AttentionSizes):
            stages[-1].append(block)
    return stages


def _shape(state: Mapping[str, Tensor], name: str, rank: int) -> tuple[int, ...]:
    """The shape of a tensor that must have so many axes, all of them at least 1 long."""
    shape = tuple(state[name].shape)
    if len(shape) != rank or 0 in shape:
        raise ShapeError(name)
    return shape
