"""FoldedLevit: a LeViT with nothing left in it but convolutions, linear layers and bias tables.

Plain values in float64. The classes mirror the network from the image to the logits; every layer
bears the name of the module it came from (`blocks.3.m.qkv`), which the ONNX graph, the calibration
table and the audit use in their turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine:
    """`weight @ x + bias`; weight (out, in) or (out, in, kh, kw), bias (out,)."""

    weight: Float64
    bias: Float64


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer over channels, or a convolution (3x3, stride 2, zero padding 1)."""

    name: str
    affine: Affine


@dataclass(frozen=True, eq=False)
class Attention:
    """`x + proj(hardswish(softmax(q k^T + bias) v))` over the tokens x of a square grid.

    qkv: rows by head; in each head `key_dim` of q, `key_dim` of k, then v.
    bias: (heads, tokens, tokens).
    """

    name: str
    qkv: Layer
    bias: Float64
    proj: Layer
    key_dim: int

    @property
    def value_dim(self) -> int:
        return len(self.qkv.affine.bias) // len(self.bias) - 2 * self.key_dim

    @property
    def output(self) -> str:
        """The tensor after the residual."""
        return self.name.removesuffix(".m")


@dataclass(frozen=True, eq=False)
class ShrinkingAttention:
    """`proj(hardswish(softmax(q k^T + bias) v))`; only every second row and column of the token
    grid asks, so that the grid shrinks.

    q: rows by head. kv: rows by head; in each head `key_dim` of k, then v.
    bias: (heads, queries, keys).
    """

    name: str
    q: Layer
    kv: Layer
    bias: Float64
    proj: Layer
    key_dim: int

    @property
    def value_dim(self) -> int:
        return len(self.kv.affine.bias) // len(self.bias) - self.key_dim

    @property
    def output(self) -> str:
        """The tensor of the new, smaller grid."""
        return self.proj.name


@dataclass(frozen=True, eq=False)
class Mlp:
    """`x + contract(hardswish(expand(x)))` for each token x."""

    name: str
    expand: Layer
    contract: Layer

    @property
    def output(self) -> str:
        """The tensor after the residual."""
        return self.name.removesuffix(".m")


Block = Attention | ShrinkingAttention | Mlp


@dataclass(frozen=True, eq=False)
class FoldedLevit:
    """The whole network. A hardswish sits between the convolutions of `stem`; `head` follows the
    mean over tokens. `image_size` is in pixels."""

    stem: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    head: Layer
    image_size: int


def map_layers(model: FoldedLevit, change: Callable[[Layer], Layer]) -> FoldedLevit:
    """The same network with every layer replaced by `change(layer)`."""

    def changed(block: Block) -> Block:
        match block:
            case Attention():
                return replace(block, qkv=change(block.qkv), proj=change(block.proj))
            case ShrinkingAttention():
                q, kv, proj = change(block.q), change(block.kv), change(block.proj)
                return replace(block, q=q, kv=kv, proj=proj)
            case Mlp():
                return replace(block, expand=change(block.expand), contract=change(block.contract))

    return replace(
        model,
        stem=tuple(map(change, model.stem)),
        blocks=tuple(map(changed, model.blocks)),
        head=change(model.head),
    )
