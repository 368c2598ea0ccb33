"""Random attention layers, in the layouts of the kernel and as torch computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.attention.family import ATTENTION
from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, pack_bias
from tests.compiler.kernels.harness import Array, undefined
from tests.compiler.kernels.kernel_targets import FLOAT_TARGETS
from tests.compiler.kernels.suite import Case, Suite, assert_within

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
class AttentionLayer:
    """One layer's numbers: q (queries, heads, key_dim), k, v (keys, heads, ...), bias
    (heads, queries, keys)."""

    spec: AttentionSpec
    q: Array
    k: Array
    v: Array
    bias: Array

    @staticmethod
    def random(spec: AttentionSpec, seed: int = 0, scale: float = 1.0) -> AttentionLayer:
        """Standard normal numbers, the queries times `scale`."""
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> Array:
            return rng.standard_normal(shape, dtype=np.float32)

        by_distance = 2 * normal(spec.heads, spec.key_side, spec.key_side)
        return AttentionLayer(
            spec,
            normal(spec.queries, spec.heads, spec.key_dim) * np.float32(scale),
            normal(spec.keys, spec.heads, spec.key_dim),
            normal(spec.keys, spec.heads, spec.value_dim),
            dense_bias(by_distance, spec),
        )

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


def within_bound(layer: AttentionLayer, out: Array) -> None:
    assert_within(out, *layer.reference())


def close(
    rtol: float, atol: float, expected: Array | np.float32 | None = None
) -> Callable[[AttentionLayer, Array], None]:
    """To `expected`, or to torch's result."""

    def check(layer: AttentionLayer, out: Array) -> None:
        wanted = layer.reference()[0] if expected is None else expected
        np.testing.assert_allclose(out, wanted, rtol=rtol, atol=atol)

    return check


def case(
    layer: AttentionLayer,
    check: Callable[[AttentionLayer, Array], None] = within_bound,
    portable: bool = True,
) -> Case:
    return Case(
        layer.spec,
        lambda tile, target: layer.inputs(),
        lambda target: [undefined(layer.output_size)],
        lambda outputs, target: check(layer, outputs[0]),
        portable=portable,
    )


def equal_scores(spec: AttentionSpec, bias: float) -> AttentionLayer:
    layer = AttentionLayer.random(spec)
    return replace(layer, q=np.zeros_like(layer.q), bias=np.full_like(layer.bias, bias))


def own_value_only(low: float) -> AttentionLayer:
    """A bias far below for every other token."""
    spec = plain(7)
    by_distance = np.full((spec.heads, 7, 7), low, np.float32)
    by_distance[:, 0, 0] = 0
    layer = AttentionLayer.random(spec, scale=1e-3)
    return replace(layer, bias=dense_bias(by_distance, spec))


def hardswish_of(values: Array) -> Array:
    z = values.reshape(-1)
    return z * np.clip(z / np.float32(6) + np.float32(0.5), 0, 1)


def _one_nan() -> AttentionLayer:
    layer = AttentionLayer.random(plain(4))
    layer.v[5, 1, 3] = np.nan
    return layer


def _reaches_every_query_of_its_head(layer: AttentionLayer, out: Array) -> None:
    by_head = out.reshape(16, 2, 32)
    assert np.isnan(by_head[:, 1, 3]).all()
    assert np.isnan(out).sum() == 16


LOWEST = float(np.finfo(np.float32).min)
PARTS_OF_PANELS = (
    plain(4, heads=3, key_dim=8, value_dim=16),  # two heads' parts in a panel
    shrinking(4, heads=3, key_dim=8, value_dim=32),
    plain(2, heads=3, key_dim=12, value_dim=16),  # a head's part lies across panels
    shrinking(3, heads=3, key_dim=12, value_dim=16),
)
SUITE = Suite(
    ATTENTION,
    FLOAT_TARGETS,
    {
        **{
            name(spec): case(AttentionLayer.random(spec))
            for spec in (plain(7), *WHOLE_SPECS, shrinking(8), *PARTS_OF_PANELS)
        },
        "scores of 1e4 select one key": case(
            AttentionLayer.random(plain(7), scale=5e3), close(1e-5, 1e-5)
        ),
        "equal scores average the values": case(equal_scores(plain(7), -3.5), close(1e-5, 1e-6)),
        **{
            f"others at {low:g} have no influence": case(
                own_value_only(low), close(1e-6, 1e-7, hardswish_of(own_value_only(low).v))
            )
            for low in (-1e30, -100.0, LOWEST)
        },
        # The 49 keys count, what fills the last vector does not.
        **{
            f"all scores at {low:g}": case(equal_scores(plain(7), low), close(1e-5, 1e-6))
            for low in (-1e30, LOWEST)
        },
        "a value that is no number": case(
            _one_nan(), _reaches_every_query_of_its_head, portable=False
        ),
    },
    cut=name(plain(7)),
)
