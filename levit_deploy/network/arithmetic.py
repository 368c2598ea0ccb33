"""Arithmetic: how a layer of the network computes, as a value.

A precision is a class of this file; everything that depends on it asks for the class: the ONNX
writer and reader, the lowering to kernels, the report. Arrays are float32 unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from levit_deploy.half_format import HalfFormat
from levit_deploy.network.values import Values

Float32s = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Float32(Values):
    """Weights, activations and sums are float32."""


@dataclass(frozen=True, eq=False)
class Half(Values):
    """A layer whose weights and inputs are numbers of 16 bits; sums and results are float32.

    Of an attention, both products: the inputs are queries, keys and values, and the exponentials of
    its scores, that is softmax's weights before they are divided by their sum.

    Inputs are rounded to it, ties to even, where the CPU multiplies the format; elsewhere that is
    how weights of linear layers are stored, and inputs stay float32. These weights are held as
    float32 values that the format has. Those of a convolution are held unrounded, and are rounded
    where they are multiplied in the format; sums of them may be instead, and of inputs. Sums of
    16-bit products may be 16-bit over at most FP16_CHAIN terms, and so may the sum of two of these.
    """

    format: HalfFormat


@dataclass(frozen=True, eq=False)
class Int8(Values):
    """A linear layer whose weights and inputs are 8-bit integers; sums are exact in 32 bits.

    The input x[k] becomes q[k] = clamp(rint(x[k] * factors[k] / scale), -zero_point,
    255 - zero_point) + zero_point, ties to even, k being the channel; `factors`: (in,), or None
    for ones. `scale` is a float32 value. The layer's weights are int8, each output channel's in
    steps of its `weight_scales`, (out,).
    """

    factors: Float32s | None
    scale: float
    zero_point: int
    weight_scales: Float32s


@dataclass(frozen=True, eq=False)
class Int16(Values):
    """A convolution whose weights and inputs are 16-bit integers; sums are exact in 32 bits.

    The input x[c] becomes q[c] = rint(clamp(x[c] * factors[c], -limit, limit) / scale), ties to
    even, c being the channel, with limit = largest_step * scale rounded to float32. `factors`:
    (in,). The weights are int16, each output channel's in steps of its `weight_scales`, (out,).
    """

    factors: Float32s
    scale: float
    largest_step: int
    weight_scales: Float32s

    @property
    def limit(self) -> np.float32:
        """The largest magnitude of x * factors that does not saturate."""
        return np.float32(self.largest_step * self.scale)


@dataclass(frozen=True, eq=False)
class DynamicInt8(Values):
    """An attention that multiplies 8-bit integers whose scales each image makes for itself.

    Scales are a 127th of the largest magnitude: of each query, and of each channel of keys and of
    values over all keys. Softmax weights are integers 0 ... 254, rounded with error diffusion: what
    rounding takes from the weight of one key goes to the key DIFFUSION_STEP further on.
    """


LinearArithmetic = Float32 | Half | Int8
ConvArithmetic = Float32 | Half | Int16
LayerArithmetic = Float32 | Half | Int8 | Int16
AttentionArithmetic = Float32 | Half | DynamicInt8

FLOAT32 = Float32()
DYNAMIC_INT8 = DynamicInt8()

LARGEST_INTEGER = 127  # of DynamicInt8's queries, keys and values
LARGEST_WEIGHT = 254  # of its softmax weights: with half a step added it still rounds to itself
DIFFUSION_STEP = 16  # keys from one softmax weight to the one that gets what its rounding took
