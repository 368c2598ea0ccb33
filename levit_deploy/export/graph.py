"""FoldedLevit -> ONNX, in the plainest form: ten operators, and names that say the layer.

`[...]` is a constant of the model; `x` the running tensor, tokens (1, N, C) in row-major order of
their grid. A linear layer is always `MatMul [weight (in, out)]`, `Add [bias (out,)]`.

stem, for (1, 3, S, S) -> (1, N, C)
    Conv [weight, bias], HardSwish, Conv, HardSwish, Conv, HardSwish, Conv
    Reshape (1, C, N), Transpose (0, 2, 1)
attention, x -> x
    qkv    = linear(x)                     (1, N, heads * (2 * key_dim + value_dim))
    Reshape (1, N, heads, 2 * key_dim + value_dim), Transpose (0, 2, 1, 3)
    q,k,v  = Split(axis 3)                 (1, heads, N, key_dim | key_dim | value_dim)
    scores = MatMul(q, Transpose(k, (0, 1, 3, 2)))
    Add [bias (heads, N, N)], Softmax(axis -1), MatMul(.., v)
    Transpose (0, 2, 1, 3), Reshape (1, N, heads * value_dim), HardSwish
    linear, Add(x, ..)
shrinking attention, x (1, N, C) -> (1, M, C')
    kv     = linear(x)                     (1, N, heads * (key_dim + value_dim))
    Reshape (1, N, heads, key_dim + value_dim), Transpose (0, 2, 1, 3)
    k,v    = Split(axis 3)
    Reshape(x, (1, grid, grid, C)), Slice [::2, ::2] over axes 1 and 2, Reshape (1, M, C)
    q      = linear(..)                    (1, M, heads * key_dim)
    Reshape (1, M, heads, key_dim), Transpose (0, 2, 1, 3)
    scores = MatMul(q, Transpose(k, (0, 1, 3, 2)))
    Add [bias (heads, M, N)], Softmax(axis -1), MatMul(.., v)
    Transpose (0, 2, 1, 3), Reshape (1, M, heads * value_dim), HardSwish
    linear
mlp, x -> x
    linear, HardSwish, linear, Add(x, ..)
head, x (1, N, C) -> (1, classes)
    ReduceMean(axis 1) to (1, C), MatMul [weight (C, classes)], Add [bias]

A tensor is named after the module of the reference network that computes it: `patch_embed.6` and
`blocks.3.m.qkv` with their bias added, `blocks.3.m.1` the hardswish of an MLP, `blocks.3` after the
residual; `patch_embed.tokens` is the stem's result. (Rows of q are scaled in `.qkv` and `.q.1`.)
Inside an attention: `.query`, `.key`, `.value` (1, heads, tokens, dim), `.products`, `.scores` with
the bias added, `.softmax`, `.context` (1, tokens, heads * value_dim). A node is named after its
output. Constants: `blocks.3.m.qkv.weight`, `.bias`, `blocks.3.m.attention_bias`; integers by their
value, such as `int64.1x196x128`.
"""

from __future__ import annotations

from math import isqrt

import onnx

from levit_deploy.export.exported import INPUT_NAME, OUTPUT_NAME
from levit_deploy.export.folded import (
    Attention,
    Block,
    FoldedLevit,
    Mlp,
    ShrinkingAttention,
)
from levit_deploy.export.graph_writer import GraphWriter
from levit_deploy.models.spec import STEM_STRIDE

TOKENS_NAME = "patch_embed.tokens"


def build_graph(model: FoldedLevit) -> onnx.ModelProto:
    """The ONNX model: constants rounded to float32, static batch 1, input `image`, output `logits`.

    The same model gives the same bytes. Raises DeployError if a constant is not finite in float32.
    """
    graph = GraphWriter()
    tokens = _stem(graph, model)
    for block in model.blocks:
        tokens = _block(graph, tokens, block)
    mean = graph.node("ReduceMean", [tokens], "head.mean", axes=[1], keepdims=0)
    logits = graph.linear(mean, model.head, OUTPUT_NAME)

    image_shape = (1, 3, model.image_size, model.image_size)
    return graph.model((INPUT_NAME, image_shape), (logits, (1, model.head.affine.bias.size)))


def _stem(graph: GraphWriter, model: FoldedLevit) -> str:
    x = INPUT_NAME
    for index, conv in enumerate(model.stem):
        if index > 0:
            x = graph.node("HardSwish", [x], f"patch_embed.{2 * index - 1}")
        x = graph.conv(x, conv)
    tokens = (model.image_size // STEM_STRIDE) ** 2
    flat = graph.reshape(x, (1, model.stem[-1].affine.bias.size, tokens), "patch_embed.flat")
    return graph.transpose(flat, (0, 2, 1), TOKENS_NAME)


def _block(graph: GraphWriter, x: str, block: Block) -> str:
    match block:
        case ShrinkingAttention():
            return _shrinking_attention(graph, x, block)
        case Attention():
            branch = _attention(graph, x, block)
        case Mlp():
            hidden = graph.linear(x, block.expand)
            active = graph.node("HardSwish", [hidden], f"{block.name}.1")
            branch = graph.linear(active, block.contract)
    return graph.node("Add", [x, branch], block.output)


def _attention(graph: GraphWriter, x: str, block: Attention) -> str:
    name, d, value_dim = block.name, block.key_dim, block.value_dim
    heads, tokens, _ = block.bias.shape
    qkv = graph.linear(x, block.qkv)
    qkv = graph.by_head(qkv, (tokens, heads, 2 * d + value_dim), f"{qkv}.by_head")
    outputs = [f"{name}.query", f"{name}.key", f"{name}.value"]
    q, k, v = graph.split(qkv, (d, d, value_dim), outputs, f"{name}.split")
    return _attend(graph, block, q, k, v)


def _shrinking_attention(graph: GraphWriter, x: str, block: ShrinkingAttention) -> str:
    name, d, value_dim = block.name, block.key_dim, block.value_dim
    heads, queries, keys = block.bias.shape
    kv = graph.linear(x, block.kv)
    kv = graph.by_head(kv, (keys, heads, d + value_dim), f"{kv}.by_head")
    k, v = graph.split(kv, (d, value_dim), [f"{name}.key", f"{name}.value"], f"{name}.split")

    side, channels = isqrt(keys), block.q.affine.weight.shape[1]
    grid = graph.reshape(x, (1, side, side, channels), f"{name}.q.0.grid")
    asking = graph.every_second(grid, side, f"{name}.q.0.slice")
    asking = graph.reshape(asking, (1, queries, channels), f"{name}.q.0")
    q = graph.by_head(graph.linear(asking, block.q), (queries, heads, d), f"{name}.query")
    return _attend(graph, block, q, k, v)


def _attend(
    graph: GraphWriter, block: Attention | ShrinkingAttention, q: str, k: str, v: str
) -> str:
    """softmax(q k^T + bias) v, hardswish, projection; q, k, v are (1, heads, tokens, dim)."""
    name = block.name
    heads, queries, _ = block.bias.shape
    columns = graph.transpose(k, (0, 1, 3, 2), f"{name}.key.columns")
    products = graph.node("MatMul", [q, columns], f"{name}.products")
    table = graph.constant(f"{name}.attention_bias", block.bias)
    scores = graph.node("Add", [products, table], f"{name}.scores")
    weights = graph.node("Softmax", [scores], f"{name}.softmax", axis=-1)
    context = graph.node("MatMul", [weights, v], f"{name}.context.by_head")
    context = graph.transpose(context, (0, 2, 1, 3), f"{name}.context.by_token")
    context = graph.reshape(context, (1, queries, heads * block.value_dim), f"{name}.context")
    return graph.linear(graph.node("HardSwish", [context], f"{name}.proj.0"), block.proj)
