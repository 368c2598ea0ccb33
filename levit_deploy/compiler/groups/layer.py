"""The two forms of a linear layer that groups are made of: float32 and 8 bits.

FloatLayer: add(matmul(x, [weight]), [bias])
Int8Layer:  add(matmul(dequantize(quantize(multiply(x, [factors]), [scale], [zero])),
                       dequantize([weight int8], [scales], [zeros])), [bias])
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from tvm.ir import Expr
from tvm.relax.dpl import DFPattern, is_const, is_op

from levit_deploy.compiler.groups.group import Parts
from levit_deploy.compiler.groups.kernel_calls import KernelCalls, Quantization
from levit_deploy.compiler.groups.patterns import (
    array_of,
    dtype_of,
    is_bias,
    is_float32,
    linear,
    numbers_of,
    shape_of,
    source_of,
)
from levit_deploy.compiler.kernels.gemm.int8_panels import within_limits
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec


class Layer(Protocol):
    """A linear layer of x in a pattern; `parts` are its constants by name."""

    form: str
    pattern: DFPattern
    parts: dict[str, DFPattern]

    def weight_shape(self, parts: Parts) -> tuple[int, int] | None:
        """(depth, columns) of the matched layer; None if there is no kernel for it."""

    def emit(
        self,
        calls: KernelCalls,
        spec: GemmSpec,
        x: Expr,
        parts: Parts,
        shape: tuple[int, ...],
        residual: Expr | None = None,
    ) -> Expr:
        """Call the kernel; `spec` as if it were float, `shape` is that of the result."""


class LayerForm(Protocol):
    """Makes the layer of `x`; `prefix` starts the names of its parts."""

    def __call__(self, x: DFPattern, prefix: str = "") -> Layer: ...


class FloatLayer:
    form = ""

    def __init__(self, x: DFPattern, prefix: str = "") -> None:
        self.weight, self.bias = f"{prefix}weight", f"{prefix}bias"
        self.parts: dict[str, DFPattern] = {self.weight: is_const(), self.bias: is_const()}
        self.pattern = linear(x, *self.parts.values())

    def weight_shape(self, parts: Parts) -> tuple[int, int] | None:
        weight, bias = parts[self.weight], parts[self.bias]
        shape = shape_of(weight)
        if len(shape) != 2 or not (is_float32(weight) and is_float32(bias)):
            return None
        depth, columns = shape
        return (depth, columns) if is_bias(bias, columns) else None

    def emit(
        self,
        calls: KernelCalls,
        spec: GemmSpec,
        x: Expr,
        parts: Parts,
        shape: tuple[int, ...],
        residual: Expr | None = None,
    ) -> Expr:
        weight, bias = array_of(parts[self.weight]), array_of(parts[self.bias]).ravel()
        return calls.gemm(spec, x, weight, bias, shape, residual)


class Int8Layer:
    form = "int8_"

    def __init__(self, x: DFPattern, prefix: str = "") -> None:
        factors, scale, zero, weight, scales, zeros, bias = (is_const() for _ in range(7))
        self.names = [
            f"{prefix}{name}"
            for name in ("factors", "scale", "zero", "weight", "scales", "zeros", "bias")
        ]
        scaled = is_op("relax.multiply")(x, factors)
        q = is_op("relax.quantize")(scaled, scale, zero)
        self.quantized = f"{prefix}quantized"
        self.parts: dict[str, DFPattern] = {
            **dict(
                zip(self.names, (factors, scale, zero, weight, scales, zeros, bias), strict=True)
            ),
            self.quantized: q,
        }
        dequantize = is_op("relax.dequantize")
        weights = dequantize(weight, scales, zeros)
        self.pattern = linear(dequantize(q, scale, zero), weights.has_attr({"axis": 1}), bias)

    def weight_shape(self, parts: Parts) -> tuple[int, int] | None:
        factors, scale, zero, weight, scales, zeros, bias = (parts[n] for n in self.names)
        shape = shape_of(weight)
        if len(shape) != 2 or dtype_of(weight) != "int8" or dtype_of(zero) != "uint8":
            return None
        depth, columns = shape
        fits = (
            all(map(is_float32, (factors, scale, scales, bias)))
            and shape_of(scale) == shape_of(zero) == ()
            and is_bias(factors, depth)
            and is_bias(scales, columns)
            and is_bias(bias, columns)
            and not numbers_of(zeros).any()
            and within_limits(numbers_of(weight))
        )
        return (depth, columns) if fits else None

    def emit(
        self,
        calls: KernelCalls,
        spec: GemmSpec,
        x: Expr,
        parts: Parts,
        shape: tuple[int, ...],
        residual: Expr | None = None,
    ) -> Expr:
        factors, scale, zero, weight, scales, _, bias = (numbers_of(parts[n]) for n in self.names)
        x_scale = scale.astype(np.float64)
        return calls.gemm_int8(
            spec,
            x,
            Quantization(
                (factors.ravel() / x_scale).astype(np.float32),
                int(zero),
                source_of(parts[self.quantized]),
            ),
            weight,
            (scales.ravel() * x_scale).astype(np.float32),
            bias.ravel(),
            shape,
            residual,
        )


LAYER_FORMS: tuple[LayerForm, ...] = (Int8Layer, FloatLayer)
