"""Inputs of the stem's convolutions, and what they must give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.conv.kernel import pack_weights
from levit_deploy.compiler.kernels.conv.spec import (
    ConvSpec,
    ConvTile,
    Destination,
    Source,
    padded_size,
)
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.models.spec import IMAGENET
from tests.compiler.kernels.running import Array

EPS = 2.0**-24  # one float32 rounding


@dataclass(frozen=True)
class Case:
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
        if self.spec.source is Source.IMAGE_RGB8:
            return self.pixels
        return in_zero_border(self.image.transpose(1, 2, 0))

    def inputs(self, tile: ConvTile) -> list[NDArray[np.generic]]:
        return [self.source(), pack_weights(self.weights, self.bias, self.spec, tile)]


def make_case(spec: ConvSpec, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    shape = (spec.in_size, spec.in_size, spec.in_channels)
    weights = rng.standard_normal((spec.out_channels, spec.in_channels, 3, 3), np.float32)
    bias = rng.standard_normal(spec.out_channels, np.float32)
    if spec.source is Source.IMAGE_RGB8:
        pixels = rng.integers(0, 256, shape, np.uint8)
        return Case(spec, pixels, normalized(pixels), weights, bias)
    image = rng.standard_normal(shape, np.float32)
    return Case(spec, image, np.ascontiguousarray(image.transpose(2, 0, 1)), weights, bias)


def normalized(pixels: NDArray[np.uint8]) -> Array:
    """fma(pixel, float32(1 / (255 std)), float32(-mean / std)), HWC -> CHW.

    In float64 nothing is rounded (8 + 24 bits, then a sum of less than 53): one rounding, at the
    end, as in a fused multiply-add.
    """
    std, mean = np.array(IMAGENET.std), np.array(IMAGENET.mean)
    scale = (1 / (255 * std)).astype(np.float32).astype(np.float64)
    shift = (-mean / std).astype(np.float32).astype(np.float64)
    return np.ascontiguousarray((pixels * scale + shift).astype(np.float32).transpose(2, 0, 1))


def in_zero_border(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """(size, size, channels) -> the padded buffer that holds it."""
    size, _, channels = image.shape
    padded = np.zeros((padded_size(size),) * 2 + (channels,), image.dtype)
    padded[1 : size + 1, 1 : size + 1] = image
    return padded


def reference(case: Case) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
