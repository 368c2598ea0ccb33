"""Network: a LeViT with nothing left in it but convolutions, linear layers and bias tables.

The classes mirror the network from the image to the logits. Every layer says its arithmetic, and
bears the name of the module it came from (`blocks.3.m.qkv`), which the ONNX graph, the calibration
table and the audit use in their turn. Layouts are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from levit_deploy.errors import DeployError
from levit_deploy.models.spec import Activation
from levit_deploy.network.arithmetic import (
    FLOAT32,
    AttentionArithmetic,
    ConvArithmetic,
    Float32,
    Half,
    Int8,
    Int16,
    LayerArithmetic,
    LinearArithmetic,
)
from levit_deploy.network.values import Values

Float64 = NDArray[np.float64]
Floats = NDArray[np.float64] | NDArray[np.float32]
Weights = Floats | NDArray[np.int8] | NDArray[np.int16]


# Names of tensors; those of blocks are properties of the blocks.
IMAGE = "image"  # (1, channels, size, size), normalised RGB or grey
TOKENS = "patch_embed.tokens"  # the stem's result, (1, tokens, channels)
MEAN = "head.mean"  # over the tokens of the last block
LOGITS = "logits"


class Precision(StrEnum):
    """What a network as a whole is called after: any of its layers that is not float32."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


@dataclass(frozen=True, eq=False)
class Layer(Values):
    """What convolutions and linear layers have in common.

    weight: (out, in, ..), floats, or integers where the arithmetic says so. bias: (out,), floats.
    Floats are float64 while the network is changed, float32 once `rounded`.
    """

    name: str
    weight: Weights
    bias: Floats
    arithmetic: LayerArithmetic = FLOAT32

    @property
    def inputs(self) -> int:
        return int(self.weight.shape[1])

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """A convolution of 3x3, stride 2, zero padding 1; weight: (out, in, 3, 3)."""

    arithmetic: ConvArithmetic = FLOAT32


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    """`weight @ x + bias` over the channels of each token; weight: (out, in)."""

    arithmetic: LinearArithmetic = FLOAT32


@dataclass(frozen=True, eq=False)
class Attention(Values):
    """`x + proj(act(softmax(q k^T + bias) v))` over the tokens x of a square grid.

    qkv: rows by head; in each head `key_dim` of q, `key_dim` of k, then v.
    bias: (heads, tokens, tokens).
    """

    name: str
    qkv: Linear
    bias: Floats
    proj: Linear
    key_dim: int
    arithmetic: AttentionArithmetic = FLOAT32

    @property
    def value_dim(self) -> int:
        return self.qkv.outputs // len(self.bias) - 2 * self.key_dim

    @property
    def hidden(self) -> str:
        """The tensor that `proj` reads."""
        return f"{self.name}.proj.0"

    @property
    def output(self) -> str:
        """The tensor after the residual."""
        return self.name.removesuffix(".m")


@dataclass(frozen=True, eq=False)
class ShrinkingAttention(Values):
    """`proj(act(softmax(q k^T + bias) v))`; only every second row and column of the token
    grid asks, so that the grid shrinks.

    q: rows by head. kv: rows by head; in each head `key_dim` of k, then v.
    bias: (heads, queries, keys).
    """

    name: str
    q: Linear
    kv: Linear
    bias: Floats
    proj: Linear
    key_dim: int
    arithmetic: AttentionArithmetic = FLOAT32

    @property
    def value_dim(self) -> int:
        return self.kv.outputs // len(self.bias) - self.key_dim

    @property
    def hidden(self) -> str:
        """The tensor that `proj` reads."""
        return f"{self.name}.proj.0"

    @property
    def output(self) -> str:
        """The tensor of the new, smaller grid."""
        return self.proj.name


@dataclass(frozen=True, eq=False)
class Mlp(Values):
    """`x + contract(act(expand(x)))` for each token x."""

    name: str
    expand: Linear
    contract: Linear

    @property
    def hidden(self) -> str:
        """The tensor that `contract` reads."""
        return f"{self.name}.1"

    @property
    def output(self) -> str:
        """The tensor after the residual."""
        return self.name.removesuffix(".m")


LayerT = TypeVar("LayerT", bound=Layer)
Block = Attention | ShrinkingAttention | Mlp


@dataclass(frozen=True, eq=False)
class Network(Values):
    """The whole LeViT.

    `head` follows the mean over tokens; without one, that mean is the output: features. The same
    `activation` sits between the convolutions of `stem` and inside every block, where the blocks'
    descriptions say act. `image_size` is in pixels.
    """

    stem: tuple[Conv, ...]
    blocks: tuple[Block, ...]
    head: Linear | None
    image_size: int
    activation: Activation = Activation.HARD_SWISH

    @property
    def outputs(self) -> int:
        """Values that one image gives: logits, or features where there is no head."""
        return writing_layer(self.blocks[-1]).outputs if self.head is None else self.head.outputs

    @property
    def grid(self) -> int:
        """Side of the token grid behind the stem."""
        return self.image_size >> len(self.stem)

    @property
    def precision(self) -> Precision:
        for layer in self.layers():
            match layer.arithmetic:
                case Half(format=format):
                    return Precision(format.value)
                case Int8() | Int16():
                    return Precision.INT8
        return Precision.FP32

    def layers(self) -> Iterator[Layer]:
        """All of them, in order of execution."""
        for layer, _ in self.reading():
            yield layer

    def reading(self) -> Iterator[tuple[Layer, str]]:
        """Every layer with the name of the tensor that it reads, in order of execution.

        The q of a shrinking attention reads every second row and column of its tensor.
        """
        x = IMAGE
        for conv in self.stem:
            yield conv, x
            x = activated(conv)
        x = TOKENS
        for block in self.blocks:
            for layer in reading_layers(block):
                yield layer, x
            yield writing_layer(block), block.hidden
            x = block.output
        if self.head is not None:
            yield self.head, MEAN


def reading_layers(block: Block) -> tuple[Linear, ...]:
    """The layers that read the block's input, in order of execution."""
    match block:
        case Attention():
            return (block.qkv,)
        case ShrinkingAttention():
            return block.kv, block.q
        case Mlp():
            return (block.expand,)


def writing_layer(block: Block) -> Linear:
    """The layer that makes the block's output, before the residual if there is one."""
    return block.contract if isinstance(block, Mlp) else block.proj


def activated(conv: Conv) -> str:
    """The tensor behind a convolution of the stem and its activation: `patch_embed.1` for the
    convolution `patch_embed.0`."""
    module, index = conv.name.rsplit(".", 1)
    return f"{module}.{int(index) + 1}"


def map_layers(
    network: Network, conv: Callable[[Conv], Conv], linear: Callable[[Linear], Linear]
) -> Network:
    """The same network with every layer replaced by `conv(layer)` or `linear(layer)`."""

    def changed(block: Block) -> Block:
        match block:
            case Attention():
                return replace(block, qkv=linear(block.qkv), proj=linear(block.proj))
            case ShrinkingAttention():
                q, kv, proj = linear(block.q), linear(block.kv), linear(block.proj)
                return replace(block, q=q, kv=kv, proj=proj)
            case Mlp():
                return replace(block, expand=linear(block.expand), contract=linear(block.contract))

    return replace(
        network,
        stem=tuple(map(conv, network.stem)),
        blocks=tuple(map(changed, network.blocks)),
        head=linear(network.head) if network.head else None,
    )


def rounded(network: Network) -> Network:
    """The network with every float rounded to float32, here and nowhere else.

    Raises DeployError, naming the constant, if one is not finite then.
    """
    network = map_layers(network, _rounded_layer, _rounded_layer)
    blocks = tuple(
        block
        if isinstance(block, Mlp)
        else replace(block, bias=_float32(f"{block.name}.attention_bias", block.bias))
        for block in network.blocks
    )
    return replace(network, blocks=blocks)


def _rounded_layer(layer: LayerT) -> LayerT:
    weight = layer.weight
    if isinstance(layer.arithmetic, Float32):
        weight = _float32(f"{layer.name}.weight", weight)
    return replace(layer, weight=weight, bias=_float32(f"{layer.name}.bias", layer.bias))


def _float32(name: str, values: Weights) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(result).all():
        raise DeployError(
            f"`{name}` is not finite in float32 once BatchNorm is folded",
            hint="check the checkpoint: a weight or a running variance is out of range",
        )
    return result
