"""Attention in ONNX, in each of its arithmetics. Queries, keys, values: (1, heads, tokens, dim).

Float32
    products = MatMul(q, Transpose k), scores = Add [bias], softmax = Softmax
    context  = MatMul(softmax, v)
Half, queries, keys and values through `Cast` to it and back
    products = MatMul(queries, keys^T), scores = Add [bias]
    exp      = Exp(scores - max)
    context  = MatMul(exp through Cast and back, values) / (sum of exp)
DynamicInt8
    keys     = Round(k / key_step)                   a step of each channel over all keys
    queries  = Round(q * key_step / query_step)      a step of each query
    scores   = MatMul(queries, keys^T) * query_step + [bias]
    weights  = MatMul(Round(MatMul(254 * Exp(scores - max), [cumulative])), [differences])
    values   = Round(v / value_step)                 a step of each channel over all keys
    context  = MatMul(weights, values) / (sum of weights) * value_step

A step is a 127th of the largest magnitude, so nothing is cut off. Rounding running sums, of every
16th key, and taking their differences gives what rounding takes from one weight to the next;
rounded one by one, many small weights would all become zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.export.graph_writer import GraphWriter
from levit_deploy.half_format import HalfFormat
from levit_deploy.network.arithmetic import (
    DIFFUSION_STEP,
    LARGEST_INTEGER,
    LARGEST_WEIGHT,
    DynamicInt8,
    Float32,
    Half,
)
from levit_deploy.network.network import Attention, ShrinkingAttention

SMALLEST = 1e-30  # added to a largest magnitude, which may be zero


def write_attention(
    graph: GraphWriter, block: Attention | ShrinkingAttention, q: str, k: str, v: str
) -> str:
    """The context of each head, (1, heads, queries, value_dim)."""
    match block.arithmetic:
        case Float32():
            return _float32(graph, block, q, k, v)
        case Half(format=format):
            return _half(graph, block, format, q, k, v)
        case DynamicInt8():
            return _dynamic_int8(graph, block, q, k, v)


def _float32(
    graph: GraphWriter, block: Attention | ShrinkingAttention, q: str, k: str, v: str
) -> str:
    name = block.name
    columns = graph.transpose(k, (0, 1, 3, 2), f"{name}.key.columns")
    scores = _biased(graph, block, graph.node("MatMul", [q, columns], f"{name}.products"))
    weights = graph.node("Softmax", [scores], f"{name}.softmax", axis=-1)
    return graph.node("MatMul", [weights, v], f"{name}.context.by_head")


def _half(
    graph: GraphWriter,
    block: Attention | ShrinkingAttention,
    format: HalfFormat,
    *tensors: str,
) -> str:
    name, context = block.name, f"{block.name}.context.by_head"
    q, k, v = (graph.halved(x, format) for x in tensors)
    columns = graph.transpose(k, (0, 1, 3, 2), f"{name}.key.columns")
    scores = _biased(graph, block, graph.node("MatMul", [q, columns], f"{name}.products"))
    exp = _exponentials(graph, scores, f"{name}.weights")
    whole = graph.node("MatMul", [graph.halved(exp, format), v], f"{context}.whole")
    total = graph.reduce("ReduceSum", exp, f"{name}.weights.sum", axis=3, keepdims=1)
    return graph.node("Div", [whole, total], context)


def _dynamic_int8(
    graph: GraphWriter, block: Attention | ShrinkingAttention, q: str, k: str, v: str
) -> str:
    name, context = block.name, f"{block.name}.context.by_head"
    keys, key_step = _rounded(graph, k, f"{name}.key", axis=2)
    columns = graph.transpose(keys, (0, 1, 3, 2), f"{name}.key.columns")
    scaled = graph.node("Mul", [q, key_step], f"{name}.query.scaled")
    queries, query_step = _rounded(graph, scaled, f"{name}.query", axis=3)
    whole = graph.node("MatMul", [queries, columns], f"{name}.products.whole")
    scores = _biased(graph, block, graph.node("Mul", [whole, query_step], f"{name}.products"))
    weights = _weights(graph, scores, block.bias.shape[2], f"{name}.weights")
    values, value_step = _rounded(graph, v, f"{name}.value", axis=2)
    whole = graph.node("MatMul", [weights, values], f"{context}.whole")
    total = graph.reduce("ReduceSum", weights, f"{name}.weights.sum", axis=3, keepdims=1)
    mean = graph.node("Div", [whole, total], f"{context}.mean")
    return graph.node("Mul", [mean, value_step], context)


def _biased(graph: GraphWriter, block: Attention | ShrinkingAttention, products: str) -> str:
    table = graph.constant(f"{block.name}.attention_bias", block.bias)
    return graph.node("Add", [products, table], f"{block.name}.scores")


def _rounded(graph: GraphWriter, x: str, name: str, axis: int) -> tuple[str, str]:
    """x in steps of a 127th of its largest magnitude along `axis`, and the steps."""
    magnitude = graph.node("Abs", [x], f"{name}.magnitude")
    most = graph.reduce("ReduceMax", magnitude, f"{name}.most", axis=axis, keepdims=1)
    largest = graph.node("Add", [most, graph.number(SMALLEST)], f"{name}.largest")
    step = graph.node("Div", [largest, graph.number(LARGEST_INTEGER)], f"{name}.step")
    divided = graph.node("Div", [x, step], f"{name}.divided")
    return graph.node("Round", [divided], f"{name}.rounded"), step


def _exponentials(graph: GraphWriter, scores: str, name: str) -> str:
    largest = graph.reduce("ReduceMax", scores, f"{name}.largest", axis=3, keepdims=1)
    shifted = graph.node("Sub", [scores, largest], f"{name}.shifted")
    return graph.node("Exp", [shifted], f"{name}.exp")


def _weights(graph: GraphWriter, scores: str, keys: int, name: str) -> str:
    exp = _exponentials(graph, scores, name)
    exact = graph.node("Mul", [exp, graph.number(LARGEST_WEIGHT)], f"{name}.exact")
    sums, differences = _diffusion(keys)
    running = [exact, graph.constant(f"cumulative.{keys}", sums)]
    steps = graph.node(
        "Round", [graph.node("MatMul", running, f"{name}.cumulative")], f"{name}.steps"
    )
    return graph.node("MatMul", [steps, graph.constant(f"differences.{keys}", differences)], name)


def _diffusion(keys: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Matrices (keys, keys) that make running sums of every DIFFUSION_STEP-th weight, and take
    them apart again."""
    place = np.arange(keys)
    same_chain = (place[:, None] - place) % DIFFUSION_STEP == 0
    cumulative = same_chain & (place[:, None] <= place)
    differences = np.eye(keys, dtype=np.float32) - np.eye(keys, k=DIFFUSION_STEP, dtype=np.float32)
    return cumulative.astype(np.float32), differences
