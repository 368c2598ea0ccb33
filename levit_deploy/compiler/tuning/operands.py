"""What a kernel reads and writes while it is timed: the same numbers for every tile.

Weights are packed for the kernel's own tile, so that all tiles of a spec compute the same; a
family promises that they do so to the bit. Everything lies within what the kernel takes: no
integer sum overflows, no float is a NaN or a denormal number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from levit_deploy.compiler.kernels.conv import int16
from levit_deploy.compiler.kernels.conv import kernel as conv
from levit_deploy.compiler.kernels.conv.output_int16 import pack_steps
from levit_deploy.compiler.kernels.conv.spec import KERNEL_SIDE, ConvSpec, ConvTile, Source
from levit_deploy.compiler.kernels.gemm.float32 import pack_weights
from levit_deploy.compiler.kernels.gemm.int8_panels import pack_weights_int8
from levit_deploy.compiler.kernels.gemm.spec import (
    GemmBf16Spec,
    GemmFp16Spec,
    GemmInt8Spec,
    GemmSpec,
    GemmStoredHalfSpec,
    GemmTile,
)
from levit_deploy.compiler.kernels.gemm.stored_half import pack_halves
from levit_deploy.compiler.kernels.head import HeadSpec
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.widen import STORED
from levit_deploy.compiler.tiles.registry import Spec, Tile
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.target import Target

Array = NDArray[np.generic]

_ZERO_POINT = 128
_WEIGHT = 60  # in 8 bits: two of them do not reach int8_panels.PAIR_LIMIT
_WIDE_WEIGHT = 100  # in 16 bits: times _PART * 257, a depth of 9 * 384 stays below 2**31
_PART = 16  # of both bytes of 16-bit steps, which some targets keep apart
_FACTOR, _LARGEST_STEP = 100.0, 4000  # of a 16-bit output


class Role(StrEnum):
    """INPUT: stays in the cache, as what the kernel before has written. CONSTANT: comes from far
    away. OUTPUT: written from one end to the other. SCRATCH: the kernel's own."""

    INPUT = "input"
    CONSTANT = "constant"
    OUTPUT = "output"
    SCRATCH = "scratch"


_ROLES = {
    "panels": Role.CONSTANT,
    "bias": Role.CONSTANT,
    "mirrored_bias": Role.CONSTANT,
    "out": Role.OUTPUT,
    "out_half": Role.OUTPUT,
    "logits": Role.OUTPUT,
    "scratch": Role.SCRATCH,
}


@dataclass(frozen=True)
class Operand:
    """One buffer of `size` bytes. `content`: what is in it at first; None for OUTPUT, SCRATCH."""

    role: Role
    size: int
    content: bytes | None


def operands(kernel: Kernel, spec: Spec, tile: Tile, target: Target) -> list[Operand]:
    """The buffers of `kernel`, which is that of `spec` with a float result, cut by `tile`."""
    numbers = np.random.default_rng(0)
    found = []
    for param in filter(tirx.is_buffer_var, kernel.func.params):
        role, dtype = _ROLES.get(param.name, Role.INPUT), np.dtype(str(param.dtype))
        size = math.prod(int(extent) for extent in param.shape)
        content: Array | None = None
        match param.name:
            case "panels":
                content = _panels(np.random.default_rng(1), spec, tile, target)
            case "quantization":
                assert isinstance(spec, ConvSpec)
                content = pack_steps(np.full(spec.out_channels, _FACTOR, np.float32), _LARGEST_STEP)
            case _ if role in (Role.INPUT, Role.CONSTANT):
                content = _values(numbers, size, dtype)
        assert content is None or content.nbytes == size * dtype.itemsize
        data = None if content is None else content.tobytes()
        found.append(Operand(role, size * dtype.itemsize, data))
    return found


def _values(numbers: np.random.Generator, size: int, dtype: np.dtype[np.generic]) -> Array:
    if dtype.kind == "f":
        return numbers.uniform(-1, 1, size).astype(dtype)
    if dtype == STORED[HalfFormat.BF16]:
        return numbers.uniform(-1, 1, size).astype(HalfFormat.BF16.dtype).view(dtype)
    if dtype.itemsize == 1:
        return numbers.integers(0, 256, size, np.uint8).view(dtype)
    return numbers.integers(-_PART, _PART, 2 * size, np.int8).view(dtype)


def _panels(numbers: np.random.Generator, spec: Spec, tile: Tile, target: Target) -> Array:
    """The packed weights and biases."""

    def floats(*shape: int) -> NDArray[np.float32]:
        return numbers.uniform(-1, 1, shape).astype(np.float32)

    match spec, tile:
        case GemmInt8Spec(), GemmTile():
            weights = numbers.integers(-_WEIGHT, _WEIGHT + 1, (spec.depth, spec.columns), np.int8)
            multiplier = np.full(spec.columns, 1e-5, np.float32)
            bias = floats(spec.columns)
            return pack_weights_int8(weights, multiplier, bias, _ZERO_POINT, tile, target)
        case GemmFp16Spec() | GemmBf16Spec() | GemmStoredHalfSpec(), GemmTile():
            format = spec.format
            weight = format.rounded(floats(spec.depth, spec.columns))
            return pack_halves(weight, format, tile, target)
        case GemmSpec(), GemmTile():
            return pack_weights(floats(spec.depth, spec.columns), floats(spec.columns), tile)
        case HeadSpec(), GemmTile():
            return pack_weights(floats(spec.channels, spec.classes), floats(spec.classes), tile)
        case ConvSpec(), ConvTile():
            shape = (spec.out_channels, spec.in_channels, KERNEL_SIDE, KERNEL_SIDE)
            bias = floats(spec.out_channels)
            if spec.source.half:
                return conv.pack_weights_half(floats(*shape), bias, spec, tile, target)
            if not spec.source.integers:
                return conv.pack_weights(floats(*shape), bias, spec, tile)
            dtype = np.int8 if spec.source is Source.PADDED_INT16_BYTES else np.int16
            wide = numbers.integers(-_WIDE_WEIGHT, _WIDE_WEIGHT + 1, shape, dtype)
            multiplier = np.full(spec.out_channels, 1e-5, np.float32)
            return int16.pack_weights_int16(wide, multiplier, bias, spec, tile, target)
    raise AssertionError(f"`{tile}` is no tile of `{spec}`, or that has no weights")
