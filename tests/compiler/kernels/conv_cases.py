"""The stem's convolutions of floats around the edges of images and tiles, and their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.conv.family import CONV
from levit_deploy.compiler.kernels.conv.kernel import conv_kernel, pack_weights
from levit_deploy.compiler.kernels.conv.spec import (
    ConvSpec,
    ConvTile,
    Destination,
    Source,
    padded_size,
)
from levit_deploy.compiler.kernels.kernel import Activation, Kernel
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.models.spec import IMAGENET, Normalization
from levit_deploy.targets.target import Target
from tests.compiler.kernels.harness import Array, Buffer, undefined
from tests.compiler.kernels.kernel_targets import FLOAT_TARGETS
from tests.compiler.kernels.suite import Case, Suite, assert_within

EPS = 2.0**-24  # one float32 rounding
NORMALIZATIONS = {3: IMAGENET, 1: Normalization((0.449,), (0.226,))}  # by channels


@dataclass(frozen=True)
class Layer:
    """`pixels`: HWC, 8-bit for an 8-bit image; `image`: what is convolved, (channels, y, x)."""

    spec: ConvSpec
    pixels: NDArray[np.generic]
    image: Array
    weights: Array
    bias: Array

    def source(self) -> NDArray[np.generic]:
        """The kernel's first argument."""
        if self.spec.source is Source.IMAGE_F32:
            return self.image
        if self.spec.source.eight_bit:
            return self.pixels
        return in_zero_border(self.image.transpose(1, 2, 0))

    def inputs(self, tile: ConvTile) -> list[NDArray[np.generic]]:
        return [self.source(), pack_weights(self.weights, self.bias, self.spec, tile)]


def make_layer(spec: ConvSpec, seed: int = 0) -> Layer:
    rng = np.random.default_rng(seed)
    shape = (spec.in_size, spec.in_size, spec.in_channels)
    weights = rng.standard_normal((spec.out_channels, spec.in_channels, 3, 3), np.float32)
    bias = rng.standard_normal(spec.out_channels, np.float32)
    if spec.source.eight_bit:
        pixels = rng.integers(0, 256, shape, np.uint8)
        return Layer(spec, pixels, normalized(pixels), weights, bias)
    image = rng.standard_normal(shape, np.float32)
    return Layer(spec, image, np.ascontiguousarray(image.transpose(2, 0, 1)), weights, bias)


def normalized(pixels: NDArray[np.uint8]) -> Array:
    """fma(pixel, float32(1 / (255 std)), float32(-mean / std)), HWC -> CHW.

    In float64 nothing is rounded (8 + 24 bits, then a sum of less than 53): one rounding, at the
    end, as in a fused multiply-add.
    """
    normalization = NORMALIZATIONS[pixels.shape[2]]
    std, mean = np.array(normalization.std), np.array(normalization.mean)
    scale = (1 / (255 * std)).astype(np.float32).astype(np.float64)
    shift = (-mean / std).astype(np.float32).astype(np.float64)
    return np.ascontiguousarray((pixels * scale + shift).astype(np.float32).transpose(2, 0, 1))


def in_zero_border(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """(size, size, channels) -> the padded buffer that holds it."""
    size, _, channels = image.shape
    padded = np.zeros((padded_size(size),) * 2 + (channels,), image.dtype)
    padded[1 : size + 1, 1 : size + 1] = image
    return padded


def reference(case: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The output by torch in float64, and how far float32 in any order may be from it.

    The bound is the one of the test of gemm; in the border it is zero.
    """
    spec = case.spec

    def convolve(image: Array, weights: Array, bias: Array) -> NDArray[np.float64]:
        x, w, b = (torch.from_numpy(a).double() for a in (image, weights, bias))
        result = torch.nn.functional.conv2d(x[None], w, b, stride=2, padding=1)
        return result[0].numpy().transpose(1, 2, 0)

    z = convolve(case.image, case.weights, case.bias)
    magnitude = convolve(*(np.abs(a) for a in (case.image, case.weights, case.bias)))
    error = (2 * spec.depth + 2) * EPS * magnitude
    if spec.activation is Activation.HARDSWISH:
        error = 1.5 * error + 8 * EPS * np.abs(z)
        z = torch.nn.functional.hardswish(torch.from_numpy(z)).numpy()
    if spec.destination is Destination.PADDED:
        return in_zero_border(z).ravel(), in_zero_border(error).ravel()
    return z.ravel(), error.ravel()


FIRST = ConvSpec(32, 3, 8, Activation.HARDSWISH, Source.IMAGE_F32, Destination.PADDED)
MIDDLE = ConvSpec(16, 8, 16, Activation.HARDSWISH, Source.PADDED, Destination.PADDED)
LAST = ConvSpec(8, 16, 32, Activation.NONE, Source.PADDED, Destination.TOKENS)


def case(spec: ConvSpec, tile: Callable[[Target], ConvTile] | None = None, **shape: object) -> Case:
    spec = replace(spec, **shape)
    layer = make_layer(spec)

    def check(outputs: Sequence[Buffer], target: Target) -> None:
        assert_within(outputs[0], *reference(layer))

    return Case(
        spec,
        lambda tile, target: layer.inputs(tile),
        lambda target: [undefined(spec.destination_size)],
        check,
        tile,
        normalizing if spec.source.eight_bit else None,
    )


def normalizing(
    symbol: str, spec: ConvSpec, tile: ConvTile, target: Target, stored: Stored
) -> Kernel:
    """An 8-bit image is normalised, which no row of the registry knows how."""
    return conv_kernel(symbol, spec, tile, target, NORMALIZATIONS[spec.in_channels], stored)


def narrow(pixels: int, bands: int = 3) -> Callable[[Target], ConvTile]:
    return lambda target: ConvTile(pixels, (4, 4), bands, panels_apart=False)


SUITE = Suite(
    CONV,
    FLOAT_TARGETS,
    {
        "in many ways": case(FIRST, in_size=35, out_channels=16),
        **{
            f"{size} px from {source}": case(
                FIRST, in_size=size, source=source, in_channels=8 if source is Source.PADDED else 3
            )
            for size in (32, 33, 63, 112)
            for source in (Source.IMAGE_F32, Source.IMAGE_RGB8, Source.PADDED)
        },
        **{
            f"{size} px from {source}, grey": case(
                FIRST, in_size=size, source=source, in_channels=1
            )
            for size in (32, 63)
            for source in (Source.IMAGE_F32, Source.IMAGE_GRAY8)
        },
        **{
            f"{size} px, hardswish to tokens": case(
                MIDDLE, in_size=size, destination=Destination.TOKENS
            )
            for size in (1, 2, 3, 4, 14, 15)
        },
        **{
            f"{size} px, linear": case(MIDDLE, in_size=size, activation=Activation.NONE)
            for size in (1, 2, 15)
        },
        **{
            f"image in blocks of {pixels}": case(FIRST, narrow(pixels), in_size=35)
            for pixels in (1, 3, 17)
        },
        **{f"blocks of {pixels}": case(MIDDLE, narrow(pixels)) for pixels in (1, 8, 17)},
        **{f"{count} channels in": case(MIDDLE, in_channels=count) for count in (1, 2, 5, 12)},
        **{
            f"{count} channels from an image": case(FIRST, out_channels=count)
            for count in (4, 12, 24, 48)
        },
        **{
            f"{count} channels out": case(MIDDLE, out_channels=count)
            for count in (4, 12, 24, 40, 48)
        },
        "last": case(LAST),
    },
    cut="in many ways",
)
