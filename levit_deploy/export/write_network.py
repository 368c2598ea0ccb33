"""Network -> ONNX, in the plainest form, with names that say the layer.

`[...]` is a constant of the model; `x` the running tensor, tokens (1, N, C) in row-major order of
their grid. A linear layer is always `MatMul [weight (in, out)]`, `Add [bias (out,)]`. The input of
one in 8 bits goes through `Mul [factors]` (if it has any), `QuantizeLinear` and `DequantizeLinear`,
and its weight is `DequantizeLinear [int8]`; a convolution in 16 bits has a `Clip` before
`QuantizeLinear`. The input of a layer in 16-bit floats goes through `Cast` to them and `Cast` back,
and its weight is `Cast [float16 or bfloat16]`; a convolution's is float32 and is rounded like an
input.

`act` is HardSwish, Relu, SiLU (Sigmoid, Mul) or GELU (Div, Erf, Mul, Add, Mul).

stem, for (1, 3, S, S) -> (1, N, C)
    Conv [weight, bias], act, Conv, act, Conv, act, Conv
    Reshape (1, C, N), Transpose (0, 2, 1)
attention, x -> x
    qkv    = linear(x)                     (1, N, heads * (2 * key_dim + value_dim))
    Reshape (1, N, heads, 2 * key_dim + value_dim), Transpose (0, 2, 1, 3)
    q,k,v  = Split(axis 3)                 (1, heads, N, key_dim | key_dim | value_dim)
    attend(q, k, v) with [bias (heads, N, N)], see `write_attention`
    Transpose (0, 2, 1, 3), Reshape (1, N, heads * value_dim), act
    linear, Add(x, ..)
shrinking attention, x (1, N, C) -> (1, M, C')
    kv     = linear(x)                     (1, N, heads * (key_dim + value_dim))
    Reshape (1, N, heads, key_dim + value_dim), Transpose (0, 2, 1, 3)
    k,v    = Split(axis 3)
    Reshape(x, (1, grid, grid, C)), Slice [::2, ::2] over axes 1 and 2, Reshape (1, M, C)
    q      = linear(..)                    (1, M, heads * key_dim)
    Reshape (1, M, heads, key_dim), Transpose (0, 2, 1, 3)
    attend(q, k, v) with [bias (heads, M, N)]
    Transpose (0, 2, 1, 3), Reshape (1, M, heads * value_dim), act
    linear
mlp, x -> x
    linear, act, linear, Add(x, ..)
head, x (1, N, C) -> (1, classes)
    ReduceMean(axis 1) to (1, C), MatMul [weight (C, classes)], Add [bias]; without a head the mean
    alone is the output

A tensor is named after the module of the reference network that computes it: `patch_embed.6` and
`blocks.3.m.qkv` with their bias added, `blocks.3.m.1` the activation of an MLP, `blocks.3` after
the residual; `patch_embed.tokens` is the stem's result. (Rows of q are scaled in `.qkv`, `.q.1`.)
Inside an attention: `.query`, `.key`, `.value` (1, heads, tokens, dim), `.products`, `.scores` with
the bias added, `.softmax`, `.context` (1, tokens, heads * value_dim). A node is named after its
output. Constants: `blocks.3.m.qkv.weight`, `.bias`, `blocks.3.m.attention_bias`; integers by their
value, such as `int64.1x196x128`. Of a quantized y: `y.scaled`, `.limited`, `.quantized`,
`.dequantized`, with the constants `y.factors`, `.scale`, `.zero_point`, `.lowest`, `.highest`; of a
quantized weight w: `w.dequantized`, with `w.scale` and `w.zero_point`, all zero. Of a y in 16-bit
floats, and of a weight that becomes one: `y.halved`, `y.widened`.
"""

from __future__ import annotations

from math import isqrt

import onnx

from levit_deploy.export.graph_writer import GraphWriter
from levit_deploy.export.write_attention import write_attention
from levit_deploy.models.spec import Activation
from levit_deploy.network.arithmetic import Int16
from levit_deploy.network.network import (
    IMAGE,
    LOGITS,
    MEAN,
    TOKENS,
    Attention,
    Block,
    Mlp,
    Network,
    ShrinkingAttention,
    activated,
)


def write_network(network: Network) -> onnx.ModelProto:
    """The ONNX model of a rounded network: static batch 1, input `image`, output `logits`.

    The same network gives the same bytes. Opset 17, or 21 where the stem has 16-bit integers.
    """
    graph = GraphWriter(any(isinstance(conv.arithmetic, Int16) for conv in network.stem))
    tokens = _stem(graph, network)
    for block in network.blocks:
        tokens = _block(graph, tokens, block, network.activation)
    name = LOGITS if network.head is None else MEAN
    mean = graph.reduce("ReduceMean", tokens, name, axis=1, keepdims=0)
    logits = graph.linear(mean, network.head, rank=2, name=LOGITS) if network.head else mean
    image_shape = (1, network.stem[0].inputs, network.image_size, network.image_size)
    return graph.model((IMAGE, image_shape), (logits, (1, network.outputs)))


def _stem(graph: GraphWriter, network: Network) -> str:
    *inner, last = network.stem
    x = IMAGE
    for conv in inner:
        x = graph.activate(graph.conv(x, conv), network.activation, activated(conv))
    x = graph.conv(x, last)
    flat = graph.reshape(x, (1, last.outputs, network.grid**2), "patch_embed.flat")
    return graph.transpose(flat, (0, 2, 1), TOKENS)


def _block(graph: GraphWriter, x: str, block: Block, activation: Activation) -> str:
    match block:
        case ShrinkingAttention():
            return _shrinking_attention(graph, x, block, activation)
        case Attention():
            branch = _attention(graph, x, block, activation)
        case Mlp():
            hidden = graph.activate(graph.linear(x, block.expand), activation, block.hidden)
            branch = graph.linear(hidden, block.contract)
    return graph.node("Add", [x, branch], block.output)


def _attention(graph: GraphWriter, x: str, block: Attention, activation: Activation) -> str:
    name, d, value_dim = block.name, block.key_dim, block.value_dim
    heads, tokens, _ = block.bias.shape
    qkv = graph.linear(x, block.qkv)
    qkv = graph.by_head(qkv, (tokens, heads, 2 * d + value_dim), f"{qkv}.by_head")
    outputs = [f"{name}.query", f"{name}.key", f"{name}.value"]
    q, k, v = graph.split(qkv, (d, d, value_dim), outputs, f"{name}.split")
    return _projected(graph, block, write_attention(graph, block, q, k, v), activation)


def _shrinking_attention(
    graph: GraphWriter, x: str, block: ShrinkingAttention, activation: Activation
) -> str:
    name, d, value_dim = block.name, block.key_dim, block.value_dim
    heads, queries, keys = block.bias.shape
    kv = graph.linear(x, block.kv)
    kv = graph.by_head(kv, (keys, heads, d + value_dim), f"{kv}.by_head")
    k, v = graph.split(kv, (d, value_dim), [f"{name}.key", f"{name}.value"], f"{name}.split")

    side, channels = isqrt(keys), block.q.inputs
    grid = graph.reshape(x, (1, side, side, channels), f"{name}.q.0.grid")
    asking = graph.every_second(grid, side, f"{name}.q.0.slice")
    asking = graph.reshape(asking, (1, queries, channels), f"{name}.q.0")
    q = graph.by_head(graph.linear(asking, block.q), (queries, heads, d), f"{name}.query")
    return _projected(graph, block, write_attention(graph, block, q, k, v), activation)


def _projected(
    graph: GraphWriter, block: Attention | ShrinkingAttention, context: str, activation: Activation
) -> str:
    """context: (1, heads, queries, value_dim); activation and projection of its tokens."""
    name = f"{block.name}.context"
    heads, queries, _ = block.bias.shape
    context = graph.transpose(context, (0, 2, 1, 3), f"{name}.by_token")
    context = graph.reshape(context, (1, queries, heads * block.value_dim), name)
    return graph.linear(graph.activate(context, activation, block.hidden), block.proj)
