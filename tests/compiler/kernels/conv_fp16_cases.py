"""Convolutions in float16: random and hostile layers, and their results to the bit by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.conv.block_fp16 import Fp16Block
from levit_deploy.compiler.kernels.conv.family import CONV
from levit_deploy.compiler.kernels.conv.kernel import pack_weights_half
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, Destination, Source
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.compiler.kernels.conv_cases import in_zero_border
from tests.compiler.kernels.half_cases import added_up
from tests.compiler.kernels.harness import Buffer, undefined
from tests.compiler.kernels.rounding import Float32, hardswish
from tests.compiler.kernels.suite import Case, Suite

Float16 = NDArray[np.float16]


@dataclass(frozen=True)
class Layer:
    """x (y, x, channels); weights (out, in, 3, 3), numbers of float16."""

    spec: ConvSpec
    x: Float16
    weights: Float32
    bias: Float32

    def inputs(self, tile: ConvTile, target: Target) -> list[Buffer]:
        return [
            in_zero_border(self.x),
            pack_weights_half(self.weights, self.bias, self.spec, tile, target),
        ]


def make_layer(spec: ConvSpec, x: float = 1, weight: float = 1, seed: int = 0) -> Layer:
    """Normally distributed, with standard deviations `x` and `weight`."""
    rng = np.random.default_rng(seed)
    pixels = x * rng.standard_normal((spec.in_size, spec.in_size, spec.in_channels))
    weights = weight * rng.standard_normal((spec.out_channels, spec.in_channels, 3, 3))
    bias = rng.standard_normal(spec.out_channels, np.float32)
    return Layer(
        spec, pixels.astype(np.float16), weights.astype(np.float16).astype(np.float32), bias
    )


def convolution(layer: Layer) -> Float32:
    """(y, x, out) before the activation, by the definition of the sums.

    The product of two float16 is exact in float64, and so is its sum with a third where it is near
    to a tie of float16: one rounding, as in a fused multiply-add. Rows outside the image add 0.
    """
    spec, side = layer.spec, layer.spec.out_size
    padded = np.zeros((2 * side + 1, 2 * side + 1, spec.in_channels))
    padded[1 : spec.in_size + 1, 1 : spec.in_size + 1] = layer.x
    sums: list[Float16] = []
    for row in range(3):
        lines = padded[row : row + 2 * side : 2]
        columns = [lines[:, x : x + 2 * side : 2] for x in range(3)]
        values = np.concatenate(columns, axis=2)  # (y, x, products)
        weights = layer.weights[:, :, row].transpose(2, 1, 0).reshape(-1, spec.out_channels)
        weights = weights.astype(np.float64)
        done = 0
        for count in Fp16Block.chains(len(weights)):
            chain = np.zeros((side, side, spec.out_channels), np.float16)
            for k in range(done, done + count):
                product = values[:, :, k, None] * weights[k]
                chain = (product + chain.astype(np.float64)).astype(np.float16)
            sums.append(chain)
            done += count
    return added_up(layer.bias, sums)


@np.errstate(over="ignore", invalid="ignore")
def reference(layer: Layer) -> Float32:
    """(y, x, out) as float32, as the kernel has it before it is stored."""
    z = convolution(layer)
    return hardswish(z) if layer.spec.activation is Activation.HARDSWISH else z


_HALF = Source.PADDED_FP16
MIDDLE = ConvSpec(16, 8, 16, Activation.HARDSWISH, _HALF, Destination.PADDED_FP16)
LAST = ConvSpec(8, 16, 32, Activation.NONE, _HALF, Destination.TOKENS)

LAYERS = {
    "in many ways": make_layer(replace(MIDDLE, in_size=35, in_channels=12, out_channels=48)),
    "second": make_layer(replace(MIDDLE, in_size=28, in_channels=16, out_channels=32)),
    "two chains": make_layer(replace(MIDDLE, in_size=9, in_channels=32, out_channels=64)),
    "chains of two sizes": make_layer(replace(LAST, in_size=5, in_channels=44)),
    "last": make_layer(replace(LAST, in_size=28, in_channels=64), weight=0.05),
    "few channels": make_layer(replace(MIDDLE, in_size=9, in_channels=4, out_channels=12)),
    "one pixel": make_layer(replace(LAST, in_size=1)),
    "three pixels": make_layer(replace(MIDDLE, in_size=3)),
    "subnormal numbers": make_layer(replace(LAST, in_size=9), x=1e-5, weight=0.1),
    "subnormal products": make_layer(replace(LAST, in_size=9), x=1e-5, weight=1e-3),
    "too large": make_layer(replace(LAST, in_size=9), x=100, weight=100),
    "too large to store": make_layer(replace(MIDDLE, activation=Activation.NONE), 100, 50),
}


def case(layer: Layer, stored: Stored = Stored.FLOAT) -> Case:
    spec = layer.spec
    border = spec.destination is Destination.PADDED_FP16
    types = [np.float32] * (stored.float and not border) + [np.float16] * (stored.half or border)

    @np.errstate(over="ignore")
    def check(outputs: Sequence[Buffer], target: Target) -> None:
        z = reference(layer)
        for output, dtype in zip(outputs, types, strict=True):
            numbers = z.astype(dtype)
            expected = in_zero_border(numbers) if border else numbers
            np.testing.assert_array_equal(output, expected.ravel())

    return Case(
        spec,
        layer.inputs,
        lambda target: [undefined(spec.destination_size, np.dtype(t).name) for t in types],
        check,
        stored=stored,
        portable=False,
    )


SUITE = Suite(
    CONV,
    (get_target("arm64-dotprod"),),
    {
        **{name: case(layer) for name, layer in LAYERS.items()},
        "as tokens of both types": case(make_layer(LAST), Stored.FLOAT_AND_FP16),
    },
    cut="in many ways",
)
