"""Random attention layers, in the layouts of the kernel and as torch computes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.attention.float32 import attention_kernel
from levit_deploy.compiler.kernels.attention.spec import (
    AttentionSpec,
    AttentionTile,
    default_tile,
    pack_bias,
)
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.targets.target import Target
from tests.compiler.kernels.running import Array

EPS = 2.0**-24  # one float32 rounding
EXP_ERROR = 2e-6  # relative, see softmax.exponential


def plain(side: int, heads: int = 2, key_dim: int = 16, value_dim: int = 32) -> AttentionSpec:
    return AttentionSpec(heads, key_dim, value_dim, side, side, 1, True)


def shrinking(side: int, heads: int = 2, key_dim: int = 16, value_dim: int = 64) -> AttentionSpec:
    return AttentionSpec(heads, key_dim, value_dim, (side + 1) // 2, side, 2, False)


# Parts of a head are whole panels: what both arithmetics have kernels for.
WHOLE_SPECS = (
    plain(14, heads=4),  # LeViT-128S at 224 px
    plain(7, heads=3),
    plain(4, heads=3),
    shrinking(14),
    shrinking(7, heads=3),
    plain(4, key_dim=32, value_dim=64),  # LeViT-192 and larger
    shrinking(7, key_dim=32, value_dim=128),
    plain(13),  # other image sizes
    plain(3),
    plain(2),
    plain(1),
    shrinking(15),
    shrinking(1),
)


def name(spec: AttentionSpec) -> str:
    sides = f"{spec.query_side}of{spec.key_side}"
    return f"{sides}-{spec.heads}x{spec.key_dim}+{spec.value_dim}"


@dataclass(frozen=True)
class AttentionCase:
    """One layer's numbers: q (queries, heads, key_dim), k, v (keys, heads, ...), bias
    (heads, queries, keys)."""

    spec: AttentionSpec
    q: Array
    k: Array
    v: Array
    bias: Array

    @staticmethod
    def random(spec: AttentionSpec, seed: int = 0, scale: float = 1.0) -> AttentionCase:
        """Standard normal numbers, the queries times `scale`."""
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> Array:
            return rng.standard_normal(shape, dtype=np.float32)

        by_distance = 2 * normal(spec.heads, spec.key_side, spec.key_side)
        return AttentionCase(
            spec,
            normal(spec.queries, spec.heads, spec.key_dim) * np.float32(scale),
            normal(spec.keys, spec.heads, spec.key_dim),
            normal(spec.keys, spec.heads, spec.value_dim),
            dense_bias(by_distance, spec),
        )

    def kernel(self, target: Target, tile: AttentionTile | None = None) -> Kernel:
        tile = tile or default_tile(self.spec, target)
        return attention_kernel("attention", self.spec, tile, target)

    def inputs(self) -> list[Array]:
        """What the kernel reads."""
        packed = pack_bias(self.bias, self.spec)
        assert packed is not None
        if self.spec.fused_qkv:
            return [panels(np.concatenate([self.q, self.k, self.v], axis=2)), packed]
        return [panels(self.q), panels(np.concatenate([self.k, self.v], axis=2)), packed]

    @property
    def output_size(self) -> int:
        return self.spec.queries * self.spec.heads * self.spec.value_dim

    def reference(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Torch's result in float64, and how far float32 arithmetic may be from it.

        A score is a chain of key_dim + 1 roundings (twice that without FMA), an output one of as
        many as there are keys (Higham, Accuracy and Stability of Numerical Algorithms, section
        3.1). An error d of the scores changes a weight by a factor of exp(2 d) at most.
        """
        q, k, v = (torch.from_numpy(a).double().transpose(0, 1) for a in (self.q, self.k, self.v))
        bias = torch.from_numpy(self.bias).double()
        magnitude = q.abs() @ k.abs().mT + bias.abs()
        scores = q @ k.mT + bias
        score_error = EPS * (2 * self.spec.key_dim + 2) * magnitude.amax(-1, keepdim=True)
        weights = scores.softmax(-1)
        z = weights @ v
        relative = 2 * score_error + 2 * EXP_ERROR + EPS * 4 * self.spec.keys
        error = 1.5 * relative * (weights @ v.abs()) + 8 * EPS * z.abs()
        z = torch.nn.functional.hardswish(z)
        return tuple(a.transpose(0, 1).flatten().numpy() for a in (z, error))  # type: ignore[return-value]


def dense_bias(by_distance: Array, spec: AttentionSpec) -> Array:
    """(heads, |dy|, |dx|) -> (heads, queries, keys), pair by pair as the LeViT paper words it."""
    table = np.empty((spec.heads, spec.queries, spec.keys), np.float32)
    for query in range(spec.queries):
        for key in range(spec.keys):
            query_y, query_x = divmod(query, spec.query_side)
            key_y, key_x = divmod(key, spec.key_side)
            dy = abs(query_y * spec.stride - key_y)
            dx = abs(query_x * spec.stride - key_x)
            table[:, query, key] = by_distance[:, dy, dx]
    return table


def panels(values: Array) -> Array:
    """(rows, heads, columns) -> PANELS layout; NaN where the last panel is not full."""
    matrix = values.reshape(len(values), -1)
    missing = -matrix.shape[1] % 16
    padded = np.pad(matrix, ((0, 0), (0, missing)), constant_values=np.nan)
    return np.ascontiguousarray(padded.reshape(len(values), -1, 16).transpose(1, 0, 2))
