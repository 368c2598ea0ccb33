"""Attention whose two products are of 8-bit integers, as standard ONNX.

    products = MatMul(q, k^T), scores = Add [bias], softmax = Softmax, context = MatMul(softmax, v)
 => queries  = Round(q * key_step / query_step)      largest magnitude 127, of each query
    keys     = Round(k / key_step)                   of each channel over all keys
    values   = Round(v / value_step)                 of each channel over all keys
    scores   = MatMul(queries, keys^T) * query_step + [bias]
    weights  = MatMul(Round(MatMul(254 * Exp(scores - max), [cumulative])), [differences])
    context  = MatMul(weights, values) / (sum of weights) * value_step

Steps are made of the tensors themselves, for every image anew: there is nothing to calibrate, and
nothing is cut off. Weights are 0 ... 254. Rounding running sums, of every 16th key, and taking
their differences gives what rounding takes from one weight to the next; rounded one by one, many
small weights would all become zero.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

LARGEST = 127
LARGEST_WEIGHT = 254
CHAIN = 16  # keys from one weight to the one that gets what its rounding took
SMALLEST = 1e-30  # added to a largest magnitude, which may be zero

# What the kernels can do: parts of a head in whole registers, and sums that float32 holds exactly.
COLUMNS = 16
MOST_KEYS = 2**24 // (LARGEST * LARGEST_WEIGHT)


@dataclass(frozen=True)
class RoundedAttention:
    """The attention `name` of a float model, over `keys` keys."""

    name: str
    keys: int

    @staticmethod
    def all_in(graph: onnx.GraphProto, layers: Container[str]) -> Iterator[RoundedAttention]:
        """Those of the float model whose projections are among `layers`, and which kernels can
        compute so. The graph's shapes are known."""
        shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in graph.value_info
        }
        for node in graph.node:
            name = node.name.removesuffix(".softmax")
            if node.op_type != "Softmax":
                continue
            fused = f"{name}.qkv" in layers
            if not fused and not (f"{name}.kv" in layers and f"{name}.q.1" in layers):
                continue
            keys, key_dim = shapes[f"{name}.key"][2:]
            value_dim = shapes[f"{name}.value"][3]
            if keys <= MOST_KEYS and key_dim % COLUMNS == value_dim % COLUMNS == 0:
                yield RoundedAttention(name, keys)

    def constants(self) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
        """By name; shared by all attentions of as many keys."""
        place = np.arange(self.keys)
        same_chain = (place[:, None] - place) % CHAIN == 0
        cumulative = same_chain & (place[:, None] <= place)
        differences = np.eye(self.keys) - np.eye(self.keys, k=CHAIN)
        return {
            "float32.127": np.array(LARGEST, np.float32),
            "float32.254": np.array(LARGEST_WEIGHT, np.float32),
            "float32.smallest": np.array(SMALLEST, np.float32),
            "int64.3": np.array([3]),
            f"cumulative.{self.keys}": cumulative.astype(np.float32),
            f"differences.{self.keys}": differences.astype(np.float32),
        }

    @property
    def nodes(self) -> list[str]:
        """Those that `rewrite` replaces."""
        parts = "key.columns", "products", "softmax", "context.by_head"
        return [f"{self.name}.{part}" for part in parts]

    def rewrite(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """What takes the place of one of `nodes` of the float model."""
        match node.name.removeprefix(f"{self.name}."):
            case "key.columns":
                yield from self._rounded(node.input[0], "key", axis=2)
                yield _node("Transpose", [f"{self.name}.key.rounded"], node.name, perm=[0, 1, 3, 2])
            case "products":
                q, k = node.input
                yield _node("Mul", [q, f"{self.name}.key.step"], f"{self.name}.query.scaled")
                yield from self._rounded(f"{self.name}.query.scaled", "query", axis=3)
                yield _node("MatMul", [f"{self.name}.query.rounded", k], f"{node.name}.whole")
                steps = [f"{node.name}.whole", f"{self.name}.query.step"]
                yield _node("Mul", steps, node.name)
            case "softmax":
                yield from self._weights(node.input[0])
            case "context.by_head":
                yield from self._rounded(node.input[1], "value", axis=2)
                weights = f"{self.name}.weights"
                products = [weights, f"{self.name}.value.rounded"]
                yield _node("MatMul", products, f"{node.name}.whole")
                yield _node("ReduceSum", [weights, "int64.3"], f"{weights}.sum", keepdims=1)
                mean = f"{node.name}.mean"
                yield _node("Div", [f"{node.name}.whole", f"{weights}.sum"], mean)
                yield _node("Mul", [mean, f"{self.name}.value.step"], node.name)

    def _rounded(self, x: str, part: str, axis: int) -> Iterator[onnx.NodeProto]:
        """x over its step, which is a 127th of the largest magnitude along `axis`, rounded."""
        name = f"{self.name}.{part}"
        yield _node("Abs", [x], f"{name}.magnitude")
        yield _node("ReduceMax", [f"{name}.magnitude"], f"{name}.most", axes=[axis], keepdims=1)
        yield _node("Add", [f"{name}.most", "float32.smallest"], f"{name}.largest")
        yield _node("Div", [f"{name}.largest", "float32.127"], f"{name}.step")
        yield _node("Div", [x, f"{name}.step"], f"{name}.divided")
        yield _node("Round", [f"{name}.divided"], f"{name}.rounded")

    def _weights(self, scores: str) -> Iterator[onnx.NodeProto]:
        name = f"{self.name}.weights"
        yield _node("ReduceMax", [scores], f"{name}.largest", axes=[3], keepdims=1)
        yield _node("Sub", [scores, f"{name}.largest"], f"{name}.shifted")
        yield _node("Exp", [f"{name}.shifted"], f"{name}.exp")
        yield _node("Mul", [f"{name}.exp", "float32.254"], f"{name}.exact")
        yield _node("MatMul", [f"{name}.exact", f"cumulative.{self.keys}"], f"{name}.cumulative")
        yield _node("Round", [f"{name}.cumulative"], f"{name}.steps")
        yield _node("MatMul", [f"{name}.steps", f"differences.{self.keys}"], name)


def _node(
    op: str,
    inputs: Sequence[str],
    name: str,
    axes: list[int] | None = None,
    keepdims: int | None = None,
    perm: list[int] | None = None,
) -> onnx.NodeProto:
    attributes = {"axes": axes, "keepdims": keepdims, "perm": perm}
    node = helper.make_node(op, inputs, [name], name=name)
    node.attribute.extend(
        helper.make_attribute(key, value) for key, value in attributes.items() if value is not None
    )
    return node
