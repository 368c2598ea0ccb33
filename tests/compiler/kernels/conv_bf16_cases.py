"""Convolutions in bfloat16: random and hostile layers, and their results to the bit by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from levit_deploy.compiler.kernels.conv.family import CONV
from levit_deploy.compiler.kernels.conv.kernel import pack_weights_half
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, Destination, Source
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.target import Arch, Target
from tests.compiler.kernels.bf16_cases import ARM_TARGET, TARGET, of_pairs
from tests.compiler.kernels.conv_cases import in_zero_border
from tests.compiler.kernels.harness import Buffer, undefined
from tests.compiler.kernels.rounding import Float32, bf16_bits, bfmmla, hardswish, vdpbf16ps
from tests.compiler.kernels.suite import Case, Suite


@dataclass(frozen=True)
class Layer:
    """x (y, x, channels), numbers of bfloat16, and weights (out, in, 3, 3)."""

    spec: ConvSpec
    x: Float32
    weights: Float32
    bias: Float32

    def inputs(self, tile: ConvTile, target: Target) -> list[Buffer]:
        x = in_zero_border(self.x.astype(HalfFormat.BF16.dtype)).view(np.uint16)
        return [x, pack_weights_half(self.weights, self.bias, self.spec, tile, target)]


def make_layer(spec: ConvSpec, scale: float = 1) -> Layer:
    """Normally distributed. `scale`: of x and of weights; that of products is its square."""
    rng = np.random.default_rng(0)
    x = scale * rng.standard_normal((spec.in_size, spec.in_size, spec.in_channels))
    weights = scale * rng.standard_normal((spec.out_channels, spec.in_channels, 3, 3))
    bias = (scale**2 * rng.standard_normal(spec.out_channels)).astype(np.float32)
    x = HalfFormat.BF16.rounded(x.astype(np.float32))
    return Layer(spec, x, weights.astype(np.float32), bias)


@np.errstate(over="ignore", invalid="ignore")
def reference(layer: Layer, arch: Arch) -> Float32:
    """(y, x, out) as float32, by the definition of the sums."""
    spec, side = layer.spec, layer.spec.out_size
    padded = np.zeros((2 * side + 1, 2 * side + 1, spec.in_channels), np.float32)
    padded[1 : spec.in_size + 1, 1 : spec.in_size + 1] = layer.x
    in_tiles = arch is Arch.X86_64 and side % 2 == 0
    total = of_tiles(layer, padded) if in_tiles else of_pixels(layer, padded, arch)
    return hardswish(total) if spec.activation is Activation.HARDSWISH else total


def of_tiles(layer: Layer, padded: Float32) -> Float32:
    """Before the activation, of `padded` (y, x, in): of differences of inputs and sums of weights.
    Rounding to bfloat16 makes denormal numbers zeros, as the products do."""
    side, rounded = layer.spec.out_size, HalfFormat.BF16.rounded
    w = layer.weights
    w = np.concatenate([w, w[:, :, :1] + w[:, :, 2:]], axis=2)
    w = rounded(np.concatenate([w, w[..., :1] + w[..., 2:]], axis=3))

    def five(x: Float32) -> list[Float32]:
        """Differences of rows, of every tile."""
        u0, v0, u1, v1, u2 = (x[i : i + 2 * side - 3 : 4] for i in range(5))
        return [u0 - u1, v0, u1, v1, u2 - u1]

    d = [[rounded(x.swapaxes(0, 1)) for x in five(rows.swapaxes(0, 1))] for rows in five(padded)]

    def chain(total: Float32, rows: Sequence[int], columns: Sequence[int]) -> Float32:
        """Differences, by their rows and columns, and what they are multiplied by."""
        taps = {0: 0, 1: 1, 2: 3, 3: 1, 4: 2}
        for row in rows:
            for column in columns:
                some = d[row][column][:, :, None]
                for k in range(0, layer.spec.in_channels, 2):
                    weights = w[:, k : k + 2, taps[row], taps[column]]
                    total = vdpbf16ps(total, some[..., k : k + 2], weights)
        return total

    tiles = (side // 2, side // 2, layer.spec.out_channels)
    zeros, own, shared = np.zeros(tiles, np.float32), ([0, 1], [4, 3]), [2]
    both = chain(np.broadcast_to(layer.bias, tiles), shared, shared)
    by_row = [chain(zeros, rows, shared) + both for rows in own]
    by_column = [chain(zeros, shared, columns) for columns in own]
    out = np.empty((side, side, layer.spec.out_channels), np.float32)
    for y, rows in enumerate(own):
        for x, columns in enumerate(own):
            out[y::2, x::2] = chain(zeros, rows, columns) + by_row[y] + by_column[x]
    return out


def of_pixels(layer: Layer, padded: Float32, arch: Arch) -> Float32:
    """The same, one chain each. Rows of the kernel outside the image are left out, which a sum of
    -0 shows."""
    spec, side = layer.spec, layer.spec.out_size
    rounded = HalfFormat.BF16.rounded(layer.weights)
    total = np.tile(layer.bias, (side, side, 1))
    for row in range(3):
        inside = [0 <= 2 * y + row - 1 < spec.in_size for y in range(side)]
        lines = padded[row : row + 2 * side : 2]
        values = np.concatenate([lines[:, x : x + 2 * side : 2] for x in range(3)], axis=2)
        weights = rounded[:, :, row].transpose(0, 2, 1).reshape(spec.out_channels, -1)
        step, multiply = (2, vdpbf16ps) if arch is Arch.X86_64 else (4, bfmmla)
        for k in range(0, values.shape[2], step):
            some = values[inside, :, None, k : k + step]
            total[inside] = multiply(total[inside], some, weights[:, k : k + step])
    return total


_BF16 = Source.PADDED_BF16
MIDDLE = ConvSpec(16, 8, 16, Activation.HARDSWISH, _BF16, Destination.PADDED_BF16)
LAST = ConvSpec(8, 16, 32, Activation.NONE, _BF16, Destination.TOKENS)

LAYERS = {
    "in many ways": make_layer(replace(MIDDLE, in_size=35, in_channels=12, out_channels=48)),
    "second": make_layer(replace(MIDDLE, in_size=28, in_channels=16, out_channels=32)),
    "registers of each width": make_layer(replace(MIDDLE, in_size=9, out_channels=28)),
    "last": make_layer(replace(LAST, in_size=28, in_channels=64, out_channels=96)),
    "few channels": make_layer(replace(MIDDLE, in_size=9, in_channels=4, out_channels=12)),
    "one pixel": make_layer(replace(LAST, in_size=1)),
    "denormal sums": make_layer(replace(MIDDLE, in_size=9), 2.0**-64),
    "infinite sums": make_layer(replace(MIDDLE, in_size=9, activation=Activation.NONE), 2.0**62),
    "denormal sums in tiles": make_layer(replace(MIDDLE, in_size=8), 2.0**-64),
}


def case(layer: Layer, stored: Stored = Stored.FLOAT) -> Case:
    spec = layer.spec
    border = spec.destination is Destination.PADDED_BF16
    types = ["float32"] * (stored.float and not border) + ["uint16"] * (stored.half or border)

    def check(outputs: Sequence[Buffer], target: Target) -> None:
        arch = target.arch
        z = reference(layer, arch)
        for output, dtype in zip(outputs, types, strict=True):
            numbers = z if dtype == "float32" else bf16_bits(z, flush=arch is Arch.X86_64)
            if dtype == "uint16" and not border and arch is Arch.AARCH64:
                output = of_pairs(output, spec.out_size**2, spec.out_channels)
            expected = in_zero_border(numbers) if border else numbers
            np.testing.assert_array_equal(output.ravel(), expected.ravel())

    return Case(
        spec,
        layer.inputs,
        lambda target: [undefined(spec.destination_size, dtype) for dtype in types],
        check,
        stored=stored,
        portable=False,
    )


SUITE = Suite(
    CONV,
    (TARGET, ARM_TARGET),
    {
        **{name: case(layer) for name, layer in LAYERS.items()},
        "as tokens of both types": case(make_layer(LAST), Stored.FLOAT_AND_BF16),
    },
    cut="in many ways",
)
