"""Convolutions in 16-bit integers: random layers, and their results to the bit by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.conv.block_bytes import parts_of
from levit_deploy.compiler.kernels.conv.family import CONV
from levit_deploy.compiler.kernels.conv.int16 import (
    largest_step,
    pack_weights_int16,
)
from levit_deploy.compiler.kernels.conv.kernel import pack_weights
from levit_deploy.compiler.kernels.conv.output_int16 import pack_steps
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, Destination, Source
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.targets.target import Target
from tests.compiler.kernels.conv_cases import in_zero_border
from tests.compiler.kernels.harness import Buffer, undefined
from tests.compiler.kernels.kernel_targets import TARGETS
from tests.compiler.kernels.rounding import Float32, fma, hardswish
from tests.compiler.kernels.suite import Case, Suite

LARGEST = 8191  # the step at which the output saturates


@dataclass(frozen=True)
class Layer:
    """x (y, x, channels): int16 steps, or a float image; weights (out, in, 3, 3) of that type."""

    spec: ConvSpec
    x: NDArray[np.generic]
    weights: NDArray[np.generic]
    multiplier: Float32
    bias: Float32
    factors: Float32

    def inputs(self, tile: ConvTile, target: Target) -> list[Buffer]:
        spec = self.spec
        if spec.source.integers:
            panels = pack_weights_int16(
                self.weights, self.multiplier, self.bias, spec, tile, target
            )
            inputs = [stored(in_zero_border(self.x), target), panels]
        else:
            image = np.ascontiguousarray(self.x.transpose(2, 0, 1))
            inputs = [image, pack_weights(self.weights, self.bias, spec, tile)]
        if spec.destination is Destination.PADDED_INT16:
            inputs.append(pack_steps(self.factors, LARGEST))
        return inputs


def stored(steps: NDArray[np.int16], target: Target) -> NDArray[np.int16]:
    """(y, x, channels) as the kernels of the target keep them, flat."""
    if not isa_of(target).int16_block(steps.shape[-1]).splits_bytes:
        return steps.ravel()
    groups = steps.reshape(-1, 8)
    return np.stack(parts_of(groups), axis=1).ravel().view(np.int16)


def make_layer(spec: ConvSpec, seed: int = 0) -> Layer:
    """Results have a standard deviation of about 3; some saturate as steps, at both ends."""
    rng = np.random.default_rng(seed)
    shape = (spec.in_size, spec.in_size, spec.in_channels)
    by_bytes = spec.source is Source.PADDED_INT16_BYTES
    largest, dtype = (127, np.int8) if by_bytes else (2000, np.int16)
    weights = rng.integers(
        -largest, largest + 1, (spec.out_channels, spec.in_channels, 3, 3), dtype
    )
    most = largest_step(weights)
    x = rng.integers(-most, most + 1, shape).astype(np.int16)
    spread = 3 / (0.58 * most * 0.58 * largest * np.sqrt(spec.depth))
    return Layer(
        spec,
        x,
        weights,
        (spread * rng.uniform(0.5, 2, spec.out_channels)).astype(np.float32),
        rng.standard_normal(spec.out_channels, np.float32),
        rng.uniform(500, 4000, spec.out_channels).astype(np.float32),
    )


def extreme_layer(spec: ConvSpec, sign: int) -> Layer:
    """The largest sums that `largest_step` allows: anything that wraps on the way shows."""
    layer = make_layer(spec)
    layer.weights[:] = 127 if layer.weights.dtype == np.int8 else 1211
    layer.weights[1::2] *= -1
    layer.x[:] = sign * largest_step(layer.weights)
    layer.multiplier[:] = np.float32(3 / 2**31)
    return layer


def float_layer(spec: ConvSpec) -> Layer:
    """A float image; its sums are whole numbers, so that all ways to add them up agree."""
    rng = np.random.default_rng(1)
    layer = make_layer(spec)
    x = rng.integers(-8, 9, layer.x.shape).astype(np.float32)
    weights = rng.integers(-8, 9, layer.weights.shape).astype(np.float32)
    bias = rng.integers(-8, 9, spec.out_channels).astype(np.float32)
    return Layer(spec, x, weights, layer.multiplier, bias, layer.factors)


def reference(layer: Layer, target: Target) -> Buffer:
    """The output by the definition of the numbers, flat."""
    spec, fused = layer.spec, target.fma
    x = torch.from_numpy(layer.x.transpose(2, 0, 1)[None].astype(np.float64))
    w = torch.from_numpy(layer.weights.astype(np.float64))
    total = torch.nn.functional.conv2d(x, w, stride=2, padding=1)[0].numpy().transpose(1, 2, 0)
    if spec.source.integers:
        assert np.abs(total).max() < 2**31, "the sums fit int32, and are exact in float64"
        z = fma(total.astype(np.float32), layer.multiplier, layer.bias, fused=fused)
    else:
        z = (total + layer.bias).astype(np.float32)
    if spec.activation is Activation.HARDSWISH:
        z = hardswish(z, fused=fused)
    if spec.destination is Destination.TOKENS:
        return z.ravel()
    steps = np.rint(np.clip(z * layer.factors, -LARGEST, LARGEST))
    return stored(in_zero_border(steps.astype(np.int16)), target)


_INT16, _BYTES = Source.PADDED_INT16, Source.PADDED_INT16_BYTES
MIDDLE = ConvSpec(16, 8, 16, Activation.HARDSWISH, _INT16, Destination.PADDED_INT16)
LAST = ConvSpec(8, 16, 32, Activation.NONE, _INT16, Destination.TOKENS)
FIRST = replace(MIDDLE, in_size=35, in_channels=3, source=Source.IMAGE_F32)

LAYERS = {
    "in many ways": make_layer(replace(MIDDLE, in_size=35, in_channels=12, out_channels=48)),
    "second": make_layer(replace(MIDDLE, in_size=112, out_channels=32)),
    "last": make_layer(replace(LAST, in_size=28, in_channels=64, out_channels=128)),
    "odd sizes": make_layer(replace(MIDDLE, in_size=33, in_channels=24, out_channels=48)),
    "few channels": make_layer(replace(MIDDLE, in_size=9, in_channels=4, out_channels=12)),
    "12 channels": make_layer(replace(LAST, in_channels=12, out_channels=24)),
    "one pixel": make_layer(replace(LAST, in_size=1)),
    "two pixels": make_layer(replace(MIDDLE, in_size=2)),
    "three pixels": make_layer(replace(MIDDLE, in_size=3)),
    "narrow tile": make_layer(replace(MIDDLE, out_channels=40)),
    "wide block": make_layer(replace(LAST, in_size=31)),
    "largest sums": extreme_layer(replace(LAST, in_channels=24, out_channels=8), 1),
    "lowest sums": extreme_layer(replace(MIDDLE, in_channels=24), -1),
    "from a float image": float_layer(FIRST),
    "bytes, middle": make_layer(replace(MIDDLE, in_size=33, in_channels=24, source=_BYTES)),
    "bytes, last": make_layer(replace(LAST, in_size=28, in_channels=64, source=_BYTES)),
    "bytes, 12 channels": make_layer(replace(LAST, in_channels=12, source=_BYTES)),
    "bytes, largest sums": extreme_layer(replace(LAST, in_channels=232, source=_BYTES), 1),
    "bytes, lowest sums": extreme_layer(replace(MIDDLE, in_channels=232, source=_BYTES), -1),
    "bytes, wide block": make_layer(replace(LAST, in_size=31, source=_BYTES)),
}
_PIXELS = {"narrow tile": 3, "wide block": 5, "bytes, wide block": 5}


def case(layer: Layer, pixels: int | None = None) -> Case:
    """`pixels`: of a tile of two narrow vectors, unless it is the default one."""
    spec = layer.spec

    def tile(target: Target) -> ConvTile:
        assert pixels is not None
        return ConvTile(pixels, (4, 4), 3, panels_apart=True)

    def check(outputs: Sequence[Buffer], target: Target) -> None:
        np.testing.assert_array_equal(outputs[0], reference(layer, target))

    return Case(
        spec,
        layer.inputs,
        lambda target: [undefined(spec.destination_size, spec.destination.dtype)],
        check,
        tile if pixels else None,
        portable=False,
    )


SUITE = Suite(
    CONV,
    TARGETS,
    {name: case(layer, _PIXELS.get(name)) for name, layer in LAYERS.items()},
    cut="in many ways",
)
