"""float32 arithmetic with one rounding, in numpy: what kernels promise to the bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def fma(a: Float32, b: Float32, c: Float32, *, fused: bool = True) -> Float32:
    """a * b + c, rounded once; if not `fused`, twice, as on a target without FMA.

    The product of two float32 has at most 48 bits and is exact in float64. The sum in float64 is
    rounded to odd: if it is inexact and its last bit is even, it moves one step towards the exact
    value, whose error is known exactly (Knuth's TwoSum). A second rounding of such a value, to at
    least two bits fewer, gives what rounding the exact one once would have given (Boldo and
    Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
    odd", IEEE Transactions on Computers 57, 2008).
    """
    if not fused:
        return a * b + c
    product = np.multiply(a, b, dtype=np.float64)
    addend = np.broadcast_to(np.asarray(c, np.float64), product.shape)
    total = product + addend
    shift = total - product
    error = (product - (total - shift)) + (addend - shift)
    return odd(total, error).astype(np.float32)


def odd(total: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """`total`, which is the nearest to what it should be, from which `error` is missing, rounded to
    odd instead."""
    even = total.view(np.int64) % 2 == 0
    toward = np.where(error > 0, np.inf, -np.inf)
    return np.where((error != 0) & even, np.nextafter(total, toward), total)


def hardswish(z: Float32, *, fused: bool = True) -> Float32:
    """z * min(max(fma(z, 1/6, 0.5), 0), 1), as `Simd.hardswish`."""
    gate = fma(z, np.float32(1 / 6), np.float32(0.5), fused=fused)
    return z * np.clip(gate, np.float32(0), np.float32(1))


SMALLEST_NORMAL = np.float32(2.0**-126)


def flushed(x: Float32) -> Float32:
    """Denormal numbers as zeros of their sign."""
    return np.where(np.abs(x) < SMALLEST_NORMAL, np.copysign(np.float32(0), x), x)


@np.errstate(over="ignore", invalid="ignore")
def vdpbf16ps(total: Float32, a: Float32, b: Float32) -> Float32:
    """What `bf16_instructions` says of pairs a[..., 2] and b[..., 2], bfloat16 numbers.

    A result is denormal if it would be below 2^-126 rounded to 24 bits of any exponent.
    """
    lift = np.float32(2.0**64)
    for k in (1, 0):
        x, y, z = flushed(a[..., k]), flushed(b[..., k]), flushed(total)
        total = fma(x, y, z)
        tiny = np.abs(fma(x * lift, y, z * lift)) < SMALLEST_NORMAL * lift
        total = np.where(tiny, np.copysign(np.float32(0), total), total)
    return total


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def bfmmla(total: Float32, a: Float32, b: Float32) -> Float32:
    """What `bf16_instructions` says of four k, a[..., 4] and b[..., 4], bfloat16 numbers: BFDotAdd
    of the Arm Architecture Reference Manual (shared/functions/float/bfloat), twice.

    The products of two bfloat16 are exact in float32, unless they leave its range.
    """
    for k in (0, 2):
        products = [
            to_odd(np.multiply(flushed(a[..., i]), flushed(b[..., i]), dtype=np.float64))
            for i in (k, k + 1)
        ]
        total = add_to_odd(flushed(total), add_to_odd(*products))
    return total


def add_to_odd(a: Float32, b: Float32) -> Float32:
    """FPAdd_BF16: the sum, which float64 may not hold, is rounded to odd twice, which is once."""
    a, b = np.float64(a), np.float64(b)
    total = a + b
    shift = total - a
    error = (a - (total - shift)) + (b - shift)
    return to_odd(odd(total, error))


def to_odd(x: NDArray[np.float64]) -> Float32:
    """BFRound: cut to float32, with its last bit set if anything was lost; denormal numbers become
    zeros, what is too large infinite."""
    bits = x.view(np.int64)
    lost = bits & (1 << 29) - 1
    cut = (bits - lost | (lost != 0).astype(np.int64) << 29).view(np.float64)
    large = np.abs(x) >= 2.0**128
    return flushed(np.where(large, np.copysign(np.inf, x), cut).astype(np.float32))


def bf16_bits(x: Float32, *, flush: bool = True) -> NDArray[np.uint16]:
    """The nearest bfloat16, ties to even; denormal numbers are zeros, if they `flush` to them."""
    return (flushed(x) if flush else x).astype(ml_dtypes.bfloat16).view(np.uint16)


def quantize(x: Float32, factors: Float32, zero_point: int) -> NDArray[np.uint8]:
    """The 8-bit activations of x (..., channels): rint ties to even, limits, zero point."""
    steps = np.clip(np.rint(x * factors), -zero_point, 255 - zero_point)
    return (steps + zero_point).astype(np.uint8)
