"""Convolutions in 16-bit integers: random layers, and their results by numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.conv.block_bytes import parts_of
from levit_deploy.compiler.kernels.conv.int16 import (
    largest_step,
    pack_weights_int16,
)
from levit_deploy.compiler.kernels.conv.kernel import conv_kernel, pack_weights
from levit_deploy.compiler.kernels.conv.output_int16 import pack_steps
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, Destination, Source
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.targets.target import Target
from tests.compiler.kernels.conv_cases import in_zero_border
from tests.compiler.kernels.linked_calls import Buffer, Call, undefined
from tests.compiler.kernels.rounding import Float32, fma, hardswish

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

    def call(self, symbol: str, tile: ConvTile, target: Target, ranges: object = None) -> Call:
        spec = self.spec
        kernel = conv_kernel(symbol, spec, tile, target)
        if spec.source is Source.PADDED_INT16:
            panels = pack_weights_int16(self.weights, self.multiplier, self.bias, tile, target)
            inputs = [stored(in_zero_border(self.x), target), panels]
        else:
            image = np.ascontiguousarray(self.x.transpose(2, 0, 1))
            inputs = [image, pack_weights(self.weights, self.bias, spec, tile)]
        if spec.destination is Destination.PADDED_INT16:
            inputs.append(pack_steps(self.factors, LARGEST))
        output = undefined(spec.destination_size, spec.destination.dtype)
        return Call(kernel, inputs, [output], ranges)


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
    weights = rng.integers(-2000, 2001, (spec.out_channels, spec.in_channels, 3, 3), np.int16)
    most = largest_step(weights)
    x = rng.integers(-most, most + 1, shape).astype(np.int16)
    spread = 3 / (0.58 * most * 1155 * np.sqrt(spec.depth))
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
    layer.weights[:] = 1211
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
    if spec.source is Source.PADDED_INT16:
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
