"""Expressions -> the tensors of a LeViT, from the logits back to the image.

    head        Layer(Mean(x)), or the mean of two of them, or Mean(x) alone
    mlp         Sum(x, Layer(act(Layer(x))))
    attention   Sum(x, Layer(act(Product(Softmax(Biased(scale * Product(q, k))), v)))), all of one
                Layer(x)
    shrinking   Layer(act(Product(.., v))), q of another Layer(x) than k and v
    stem        Layer(act(Layer(act(..Image)))), convolutions

Where heads, queries, keys and values lie in a layer is taken to be as every LeViT has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from levit_deploy.models.foreign_onnx.expressions import (
    Affine,
    Biased,
    Expression,
    Graph,
    Image,
    Layer,
    Mean,
    Pointwise,
    Product,
    Softmax,
    Sum,
)
from levit_deploy.models.reference import ACTIVATIONS, attention_bias_indices
from levit_deploy.models.spec import Activation

_POINTS = np.linspace(-12, 12, 4801, dtype=np.float32)
# Of functions at _POINTS: rounding is below; GELU and its form by tanh are 5e-4 apart.
_CLOSE = 1e-5


@dataclass(frozen=True)
class Reading:
    """`tensors`: by the names of the original repository, its BatchNorms fused. `features`: the
    tensor of the graph that the heads read."""

    tensors: Mapping[str, Tensor]
    activation: Activation
    features: str


@dataclass(frozen=True)
class _Attended:
    """An attention up to its context: the layers of its queries, keys and values, and its biases,
    (heads, queries, keys)."""

    q: Expression
    k: Expression
    v: Expression
    table: NDArray[np.float32]


def read_tensors(graph: Graph) -> Reading:
    """Raises DeployError, naming the first node that is not where a LeViT has it."""
    return _Reader(graph).read()


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._activation: Activation | None = None

    def read(self) -> Reading:
        heads, mean = self._heads()
        x = mean.x
        blocks: list[dict[str, Tensor]] = []
        while not (isinstance(x, Layer) and x.weight.ndim == 4):
            x, block = self._block(x)
            blocks.append(block)
        stem = self._stem(x)
        if self._activation is None:
            raise self._graph.misfit(x, "is followed by no activation")
        tensors: dict[str, Tensor] = {}
        for number, conv in enumerate(reversed(stem)):
            tensors |= _named(f"patch_embed.{2 * number}", conv)
        for number, block in enumerate(reversed(blocks)):
            tensors |= {f"blocks.{number}.{name}": tensor for name, tensor in block.items()}
        for name, head in zip(("head", "head_dist"), heads, strict=False):
            tensors |= _named(name, head)
        return Reading(tensors, self._activation, mean.tensor)

    def _heads(self) -> tuple[list[Layer], Mean]:
        """Those whose mean is the output, and what they read."""
        x, factor = self._scaled(self._graph.output)
        ends = [x.a, x.b] if isinstance(x, Sum) else [x]
        heads = [end for end in ends if isinstance(end, Layer)]
        mean = heads[0].x if heads else x
        whole = not heads or (len(heads) == len(ends) and all(head.x is mean for head in heads))
        if not isinstance(mean, Mean) or not whole or abs(factor * len(ends) - 1) > _CLOSE:
            raise self._graph.misfit(x, "is not the mean of classifiers of the mean over tokens")
        return heads, mean

    def _block(self, x: Expression) -> tuple[Expression, dict[str, Tensor]]:
        """What the block that makes x reads, and its tensors."""
        if isinstance(x, Sum):
            for before, branch in ((x.a, x.b), (x.b, x.a)):
                block = self._branch(before, branch) if isinstance(branch, Layer) else None
                if block is not None:
                    return before, block
            raise self._graph.misfit(x, "is no residual around an attention or two linear layers")
        inner = self._activated(x) if isinstance(x, Layer) else None
        if not isinstance(x, Layer) or not isinstance(inner, Product):
            raise self._graph.misfit(x, "is not where a LeViT has it")
        attended = self._attended(inner, x)
        q, kv = attended.q, attended.k
        if not isinstance(q, Layer) or not isinstance(kv, Layer) or kv is not attended.v:
            raise self._graph.misfit(inner, "is no shrinking attention of two linear layers")
        if q.x is not kv.x:
            raise self._graph.misfit(q, "and the keys read different tensors")
        tensors = {**_named("kv", kv), **_named("q.1", q), **_named("proj.1", x)}
        return kv.x, {**tensors, "attention_biases": self._offsets(inner, attended.table, stride=2)}

    def _branch(self, before: Expression, branch: Layer) -> dict[str, Tensor] | None:
        """The tensors of an MLP or an attention that reads `before`; None if it is neither."""
        inner = self._activated(branch)
        if isinstance(inner, Layer) and inner.x is before:
            return {**_named("m.0", inner), **_named("m.2", branch)}
        if not isinstance(inner, Product):
            return None
        attended = self._attended(inner, branch)
        qkv = attended.q
        if not isinstance(qkv, Layer) or qkv.x is not before or {attended.k, attended.v} != {qkv}:
            return None
        table = self._offsets(inner, attended.table, stride=1)
        return {
            **_named("m.qkv", qkv),
            **_named("m.proj.1", branch),
            "m.attention_biases": table,
        }

    def _attended(self, context: Product, projection: Layer) -> _Attended:
        """Its scores are scaled as they are where a LeViT is trained."""
        weights, v = context.a, context.b
        if not isinstance(weights, Softmax):
            weights, v = v, weights
        if not isinstance(weights, Softmax) or not isinstance(weights.x, Biased):
            raise self._graph.misfit(context, "is no product with a softmax of biased scores")
        products, factor = self._scaled(weights.x.x)
        if not isinstance(products, Product):
            raise self._graph.misfit(products, "is no product of queries and keys")
        (q, q_factor), (k, k_factor) = self._scaled(products.a), self._scaled(products.b)
        if q is v and k is not v:
            q, k = k, q
        shape = weights.x.table.shape
        table = weights.x.table.reshape(shape[-3:]) if math.prod(shape[:-3]) == 1 else None
        if table is None or not isinstance(q, Layer) or not isinstance(v, Layer):
            raise self._graph.misfit(context, "is no attention of linear layers")
        key_dim = len(q.weight) // len(table)
        if q is k:
            key_dim = (key_dim - projection.weight.shape[1] // len(table)) // 2
        scale = factor * q_factor * k_factor * math.sqrt(max(key_dim, 1))
        if abs(scale - 1) > _CLOSE:
            raise self._graph.misfit(products, "is not scaled by the root of its channels")
        return _Attended(q, k, v, table)

    def _offsets(self, context: Product, table: NDArray[np.float32], stride: int) -> Tensor:
        """(heads, queries, keys) -> (heads, grid * grid), one bias for each offset."""
        biases, grid = torch.from_numpy(table.copy()), math.isqrt(table.shape[2])
        indices = attention_bias_indices(grid, stride)
        offsets = torch.zeros(len(biases), grid * grid)
        if indices.shape == biases.shape[1:]:
            offsets[:, indices] = biases
        if not torch.equal(offsets[:, indices], biases):
            raise self._graph.misfit(context, "has biases that are not one for each offset")
        return offsets

    def _stem(self, x: Expression) -> list[Layer]:
        """The convolutions, the last one first."""
        stem = []
        while isinstance(x, Layer) and x.weight.ndim == 4:
            stem.append(x)
            if isinstance(x.x, Image):
                return stem
            if isinstance(x.x, Affine | Pointwise) and isinstance(x.x.x, Image):
                raise self._graph.misfit(x.x, "changes the picture before the first convolution")
            x = self._activated(x) or x.x
        raise self._graph.misfit(x, "is no part of a stem of convolutions that reads the picture")

    def _activated(self, layer: Layer) -> Expression | None:
        """What the activation before a layer reads; None if there is none before it."""
        function = layer.x
        if not isinstance(function, Pointwise):
            return None
        values = self._graph.values(function, _POINTS)
        for activation, module in ACTIVATIONS.items():
            if np.abs(module()(torch.from_numpy(_POINTS)).numpy() - values).max() <= _CLOSE:
                if self._activation not in (None, activation):
                    raise self._graph.misfit(function, f"is not {self._activation}, as others are")
                self._activation = activation
                return function.x
        known = ", ".join(ACTIVATIONS)
        raise self._graph.misfit(function, f"ends a function that is none of {known}")

    def _scaled(self, x: Expression) -> tuple[Expression, float]:
        """What x is a multiple of, and how much of it."""
        if not isinstance(x, Pointwise):
            return x, 1.0
        values = self._graph.values(x, _POINTS).astype(np.float64)
        factor = float(values[-1]) / float(_POINTS[-1])
        if not np.abs(values - factor * _POINTS).max() <= _CLOSE * max(1.0, abs(factor)):
            raise self._graph.misfit(x, "ends a function that is no multiple")
        return x.x, factor


def _named(module: str, layer: Layer) -> dict[str, Tensor]:
    return {
        f"{module}.weight": torch.from_numpy(layer.weight.astype(np.float32)),
        f"{module}.bias": torch.from_numpy(layer.bias.astype(np.float32)),
    }
