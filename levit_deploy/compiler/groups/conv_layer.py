"""The two forms of a convolution that the stem is made of: float32 and 16 bits.

FloatConv: add(conv2d(x, [weight]), [bias])
Int16Conv: add(conv2d(dequantize(quantize(limited, [scale], [zero])),
                      dequantize([weight int16], [scales], [zeros])), [bias])
           with limited = minimum(maximum(multiply(x, [factors]), [low]), [high])
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tvm.relax.dpl import DFPattern, is_const, is_op

from levit_deploy.compiler.groups.group import Parts
from levit_deploy.compiler.groups.patterns import (
    array_of,
    dtype_of,
    is_float32,
    numbers_of,
    shape_of,
)
from levit_deploy.compiler.kernels.conv.int16 import largest_step, pack_weights_int16
from levit_deploy.compiler.kernels.conv.kernel import pack_weights
from levit_deploy.compiler.kernels.conv.output_int16 import pack_steps
from levit_deploy.compiler.kernels.conv.proof import prove_exact
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, Source
from levit_deploy.compiler.kernels.kernel import Proof
from levit_deploy.targets.target import Target

_CONV = {
    "strides": [2, 2],
    "padding": [1, 1, 1, 1],
    "dilation": [1, 1],
    "groups": 1,
    "data_layout": "NCHW",
    "kernel_layout": "OIHW",
    "out_layout": "NCHW",
}


class ConvLayer(Protocol):
    """A convolution of x in a pattern; `parts` are its constants by name.

    `source`: what its kernel reads where that is no image.
    """

    source: Source
    pattern: DFPattern
    parts: dict[str, DFPattern]

    def weight_shape(self, parts: Parts) -> tuple[int, ...] | None:
        """(out, in, 3, 3) of the matched convolution; None if there is no kernel for it."""

    def steps(self, parts: Parts) -> NDArray[np.float32]:
        """The constant of the kernel that writes x as steps; empty if x is float."""

    def panels(
        self, parts: Parts, spec: ConvSpec, tile: ConvTile, target: Target
    ) -> NDArray[np.generic]:
        """The packed weights."""

    def proof(self, parts: Parts, spec: ConvSpec, tile: ConvTile, target: Target) -> Proof | None:
        """What proves its kernel's integers exact, if it has any."""


class ConvForm(Protocol):
    """Makes the convolution of `x`; `suffix` ends the names of its parts."""

    def __call__(self, x: DFPattern, suffix: str) -> ConvLayer: ...


class FloatConv:
    source = Source.PADDED

    def __init__(self, x: DFPattern, suffix: str) -> None:
        self.weight, self.bias = f"weight{suffix}", f"bias{suffix}"
        self.parts: dict[str, DFPattern] = {self.weight: is_const(), self.bias: is_const()}
        self.pattern = _conv(x, *self.parts.values())

    def weight_shape(self, parts: Parts) -> tuple[int, ...] | None:
        weight, bias = parts[self.weight], parts[self.bias]
        shape = shape_of(weight)
        fits = is_float32(weight) and is_float32(bias) and shape_of(bias) == (1, shape[0], 1, 1)
        return shape if fits else None

    def steps(self, parts: Parts) -> NDArray[np.float32]:
        return np.empty(0, np.float32)

    def panels(
        self, parts: Parts, spec: ConvSpec, tile: ConvTile, target: Target
    ) -> NDArray[np.generic]:
        return pack_weights(
            array_of(parts[self.weight]), array_of(parts[self.bias]).ravel(), spec, tile
        )

    def proof(self, parts: Parts, spec: ConvSpec, tile: ConvTile, target: Target) -> Proof | None:
        return None


class Int16Conv:
    source = Source.PADDED_INT16

    def __init__(self, x: DFPattern, suffix: str) -> None:
        names = ("factors", "low", "high", "scale", "zero", "weight", "scales", "zeros", "bias")
        self.names = [f"{name}{suffix}" for name in names]
        self.parts: dict[str, DFPattern] = {name: is_const() for name in self.names}
        factors, low, high, scale, zero, weight, scales, zeros, bias = self.parts.values()
        limited = is_op("relax.maximum")(is_op("relax.multiply")(x, factors), low)
        q = is_op("relax.quantize")(is_op("relax.minimum")(limited, high), scale, zero)
        dequantize = is_op("relax.dequantize")
        weights = dequantize(weight, scales, zeros).has_attr({"axis": 0})
        self.pattern = _conv(dequantize(q, scale, zero), weights, bias)

    def weight_shape(self, parts: Parts) -> tuple[int, ...] | None:
        factors, low, high, scale, zero, weight, scales, zeros, bias = (
            parts[name] for name in self.names
        )
        shape = shape_of(weight)
        scalars = (low, high, scale, zero)
        fits = (
            dtype_of(weight) == dtype_of(zero) == "int16"
            and all(map(is_float32, (factors, low, high, scale, scales, bias)))
            and all(shape_of(value) == () for value in scalars)
            and shape_of(factors) == (1, shape[1], 1, 1)
            and shape_of(scales) == (shape[0],)
            and shape_of(bias) == (1, shape[0], 1, 1)
            and not numbers_of(zero).any()
            and not numbers_of(zeros).any()
            and float(numbers_of(low)) == -float(numbers_of(high))
            and 0 < self._largest(parts) <= largest_step(numbers_of(weight))
        )
        return shape if fits else None

    def _largest(self, parts: Parts) -> int:
        """The step at which x saturates."""
        high, scale = (float(numbers_of(parts[self.names[i]])) for i in (2, 3))
        return round(high / scale)

    def steps(self, parts: Parts) -> NDArray[np.float32]:
        factors, _, _, scale, *_ = (numbers_of(parts[name]) for name in self.names)
        steps = factors.ravel() / scale.astype(np.float64)
        return pack_steps(steps.astype(np.float32), self._largest(parts))

    def panels(
        self, parts: Parts, spec: ConvSpec, tile: ConvTile, target: Target
    ) -> NDArray[np.generic]:
        _, _, _, scale, _, weight, scales, _, bias = (numbers_of(parts[n]) for n in self.names)
        multiplier = (scales * scale.astype(np.float64)).astype(np.float32)
        return pack_weights_int16(weight, multiplier, bias.ravel(), tile, target)

    def proof(self, parts: Parts, spec: ConvSpec, tile: ConvTile, target: Target) -> Proof | None:
        return partial(
            prove_exact, spec=spec, tile=tile, target=target, largest=self._largest(parts)
        )


CONV_FORMS: tuple[ConvForm, ...] = (Int16Conv, FloatConv)


def _conv(x: DFPattern, weight: DFPattern, bias: DFPattern) -> DFPattern:
    return is_op("relax.add")(is_op("relax.nn.conv2d")(x, weight).has_attr(_CONV), bias)
