"""8-bit gemm: random layers, and their results to the bit by numpy in integers and exact fma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.gemm.family import GEMM_INT8
from levit_deploy.compiler.kernels.gemm.int8 import default_tile
from levit_deploy.compiler.kernels.gemm.int8_panels import PAIR_LIMIT, pack_weights_int8
from levit_deploy.compiler.kernels.gemm.spec import PANEL_COLUMNS, GemmInt8Spec, GemmTile, Layout
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.kernels.quantize import pack_quantization
from levit_deploy.targets.target import Target
from tests.compiler.kernels.harness import Buffer, undefined
from tests.compiler.kernels.kernel_targets import TARGETS
from tests.compiler.kernels.rounding import Float32, fma, hardswish, quantize
from tests.compiler.kernels.storage import pack, unpack
from tests.compiler.kernels.suite import Case, Suite


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


def small_layer(spec: StoringSpec, q: int, largest: int) -> Layer:
    """Weights of which many sums of four fit 16 bits, some of them exactly."""
    layer = make_layer(spec, zero_points=(255 - q, 128))
    layer.q[:] = q
    layer.weights[:] = np.random.default_rng(1).integers(-largest, largest + 1, layer.weights.shape)
    layer.weights[:16:2], layer.weights[1:16:2] = 64, 0
    layer.weights[:, 1::2] *= -1
    layer.multiplier[:] *= np.float32(127 / largest)
    return layer


def fours_layer(spec: StoringSpec) -> Layer:
    """With the lowest activations, products of which four fit 16 bits to the last bit, but for one
    column, where the sum of four is 2 ** 15."""
    layer = make_layer(spec, zero_points=(255, 128))
    layer.q[:] = 0
    layer.weights[:] = -64
    layer.weights[24:32, :-1] = layer.weights[56:64, :-1] = -63
    layer.multiplier[:] = np.float32(3 / (255 * 64 * spec.depth))
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


PLAIN = StoringSpec(7, 48, 32, Activation.NONE, False, Layout.ROWS)
STREAM = replace(PLAIN, residual=True, stored=Stored.BOTH)
HIDDEN = replace(PLAIN, activation=Activation.HARDSWISH, stored=Stored.QUANTIZED)


def gathered(side: int) -> StoringSpec:
    rows = ((side + 1) // 2) ** 2
    return replace(PLAIN, rows=rows, gather_side=side, layout=Layout.PANELS, stored=Stored.BOTH)


LAYERS = {
    "in many ways": make_layer(replace(STREAM, rows=23, columns=80, depth=112)),
    "hidden layer of an MLP": make_layer(replace(HIDDEN, rows=196, columns=64, depth=128)),
    "second layer of an MLP": make_layer(replace(STREAM, rows=49, columns=64, depth=256)),
    "queries, keys, values": make_layer(replace(PLAIN, layout=Layout.PANELS, rows=16, columns=160)),
    "one row, few classes": make_layer(replace(PLAIN, rows=1, columns=10, depth=384)),
    "one row, more classes": make_layer(replace(PLAIN, rows=1, columns=100)),
    "small columns": make_layer(replace(STREAM, rows=5, columns=24, depth=24)),
    "columns over the edge": make_layer(replace(STREAM, rows=3, columns=14, depth=33)),
    "columns far over the edge": make_layer(replace(STREAM, rows=2, columns=18, depth=8)),
    "one column, one k": make_layer(replace(STREAM, columns=1, depth=1)),
    "tile of one vector": make_layer(replace(STREAM, columns=40, depth=80)),
    "tile of three vectors": make_layer(replace(STREAM, columns=80, depth=112)),
    "hardswish and residual": make_layer(replace(STREAM, activation=Activation.HARDSWISH)),
    **{f"gather {side}": make_layer(gathered(side)) for side in (1, 5, 7, 14)},
    "largest sums": extreme_layer(replace(STREAM, depth=2048), q=255),
    "largest sums of the lowest activations": extreme_layer(replace(STREAM, depth=2048), q=0),
    "small weights": small_layer(replace(STREAM, columns=40, depth=256), q=255, largest=40),
    "smaller weights, lowest activations": small_layer(replace(STREAM, depth=64), q=0, largest=20),
    "four products, lowest activations": fours_layer(replace(STREAM, columns=40, depth=80)),
    "zero points at the ends": make_layer(STREAM, zero_points=(255, 0)),
    "other ends": make_layer(STREAM, zero_points=(0, 255)),
}
_VECTORS = {"tile of one vector": 1, "tile of three vectors": 3, "gather 5": 2}


_SHARED = ("one row, few classes", "small columns", "columns over the edge", "gather 7")
_SHARED += ("columns far over the edge", "largest sums", "largest sums of the lowest activations")


def case(layer: Layer, vectors: int | None = None, shared: bool = False) -> Case:
    """`vectors`: of a tile of 3 rows and 3 steps, unless it is the default one, or, `shared`, that
    whose panels are those of other targets."""
    spec = layer.spec

    def tile(target: Target) -> GemmTile:
        if vectors is None:
            return default_tile(spec, target, shared=True)
        lanes = target.float_lanes
        return GemmTile(mr=3, nr=vectors * lanes, lanes=lanes, depth_unroll=3)

    def outputs(target: Target) -> list[Buffer]:
        storage = isa_of(target).storage
        floats = [undefined(spec.output_size)] * spec.stored.float
        size = storage.size(spec.rows, spec.columns)
        return floats + [undefined(size, storage.dtype)] * spec.stored.quantized

    def check(written: Sequence[Buffer], target: Target) -> None:
        x, q = reference(layer, fused=target.fma)
        if spec.stored.float:
            np.testing.assert_array_equal(rows_of(spec, written[0]), x)
        if spec.stored.quantized:
            stored = unpack(isa_of(target).storage, written[-1], spec.rows, spec.columns)
            np.testing.assert_array_equal(stored, q)

    return Case(
        spec,
        lambda tile, target: arguments(layer, tile, target),
        outputs,
        check,
        tile if vectors or shared else None,
        stored=spec.stored,
        portable=False,
    )


SUITE = Suite(
    GEMM_INT8,
    TARGETS,
    {
        **{name: case(layer, _VECTORS.get(name)) for name, layer in LAYERS.items()},
        **{f"{name}, shared": case(LAYERS[name], shared=True) for name in _SHARED},
    },
    cut="in many ways",
)
