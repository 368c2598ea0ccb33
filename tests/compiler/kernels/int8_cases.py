"""8-bit gemm: random layers, and their results by numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.gemm.int8_panels import PAIR_LIMIT, pack_weights_int8
from levit_deploy.compiler.kernels.gemm.spec import PANEL_COLUMNS, GemmInt8Spec, GemmTile, Layout
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.quantize import pack_quantization
from levit_deploy.targets.target import Target
from tests.compiler.kernels.rounding import Float32, fma, hardswish, quantize
from tests.compiler.kernels.storage import pack


@dataclass(frozen=True)
class StoringSpec(GemmInt8Spec):
    """A layer, and what its kernel makes of its result."""

    stored: Stored = Stored.FLOAT


@dataclass(frozen=True)
class Layer:
    """q (input rows, depth) and weights (depth, columns); `zero_points` of input and output."""

    spec: StoringSpec
    q: NDArray[np.uint8]
    weights: NDArray[np.int8]
    multiplier: Float32
    bias: Float32
    residual: Float32
    factors: Float32
    zero_points: tuple[int, int]


def make_layer(spec: StoringSpec, zero_points: tuple[int, int] = (37, 200), seed: int = 0) -> Layer:
    """All values of q and of the weights occur; results have a standard deviation of about 3.

    Where two neighbours in a column would exceed the limit, the second has the other sign.
    """
    rng = np.random.default_rng(seed)
    spread = 3 / (0.58 * 127 * 80 * np.sqrt(spec.depth))
    weights = rng.integers(-127, 128, (spec.depth, spec.columns), np.int8)
    second = weights[1::2].astype(np.int16)
    exceeds = np.abs(weights[: 2 * len(second) : 2] + second) > PAIR_LIMIT
    weights[1::2] = np.where(exceeds, -second, second)
    return Layer(
        spec,
        rng.integers(0, 256, (spec.input_rows, spec.depth), np.uint8),
        weights,
        (spread * rng.uniform(0.5, 2, spec.columns)).astype(np.float32),
        rng.standard_normal(spec.columns, np.float32),
        rng.standard_normal((spec.rows, spec.columns), np.float32),
        rng.uniform(10, 40, spec.columns).astype(np.float32),
        zero_points,
    )


def extreme_layer(spec: StoringSpec, q: int) -> Layer:
    """The largest sums there can be, of either sign: anything that saturates on the way shows.

    `q`: of all activations, 0 or 255; the zero point is at the other end.
    """
    layer = make_layer(spec, zero_points=(255 - q, 128))
    layer.q[:] = q
    layer.weights[::2], layer.weights[1::2] = 127, PAIR_LIMIT - 127
    layer.weights[:, 1::2] *= -1
    layer.multiplier[:] = np.float32(3 / (255 * PAIR_LIMIT / 2 * spec.depth))
    return layer


def arguments(layer: Layer, tile: GemmTile, target: Target) -> list[NDArray[np.generic]]:
    """The kernel's inputs and constants in their order."""
    spec, zero_point = layer.spec, layer.zero_points[0]
    panels = pack_weights_int8(
        layer.weights, layer.multiplier, layer.bias, zero_point, tile, target
    )
    inputs = [pack(isa_of(target).storage, layer.q), panels]
    inputs += [layer.residual] * spec.residual
    return inputs + [pack_quantization(layer.factors, layer.zero_points[1])] * spec.stored.quantized


def reference(layer: Layer, *, fused: bool = True) -> tuple[Float32, NDArray[np.uint8]]:
    """x and its quantized copy, (rows, columns), by the definition of the numbers.

    `fused`: whether the target has FMA.
    """
    spec, q = layer.spec, layer.q.astype(np.int64) - layer.zero_points[0]
    if spec.gather_side:
        grid = q.reshape(spec.gather_side, spec.gather_side, spec.depth)
        q = grid[::2, ::2].reshape(spec.rows, spec.depth)
    total = q @ layer.weights.astype(np.int64)
    assert np.abs(total).max() < 2**31, "the sums fit int32"
    x = fma(total.astype(np.float32), layer.multiplier, layer.bias, fused=fused)
    if spec.activation is Activation.HARDSWISH:
        x = hardswish(x, fused=fused)
    if spec.residual:
        x = x + layer.residual
    return x, quantize(x, layer.factors, layer.zero_points[1])


def rows_of(spec: StoringSpec, flat: Float32) -> Float32:
    """The float output in any layout -> (rows, columns)."""
    if spec.layout is Layout.ROWS:
        return flat.reshape(spec.rows, spec.columns)
    panels = flat.reshape(-1, spec.rows, PANEL_COLUMNS).transpose(1, 0, 2)
    return panels.reshape(spec.rows, -1)[:, : spec.columns]
