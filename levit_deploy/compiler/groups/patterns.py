"""Patterns that several groups are made of, and what the groups read from matched expressions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax, tirx
from tvm.ir import Expr
from tvm.relax.dpl import DFPattern, is_expr, is_op

Float32 = NDArray[np.float32]


def linear(x: DFPattern, weight: DFPattern, bias: DFPattern) -> DFPattern:
    """x @ weight + bias."""
    return is_op("relax.add")(is_op("relax.matmul")(x, weight), bias)


def hardswish(x: DFPattern) -> DFPattern:
    """x * clip(x + 3, 0, 6) / 6, as the ONNX operator arrives."""
    three, six = (is_expr(relax.const(value, "float32")) for value in (3.0, 6.0))
    low, high = (is_expr(tirx.IntImm("int64", value)) for value in (0, 6))
    gate = is_op("relax.clip")(is_op("relax.add")(x, three), low, high)
    return is_op("relax.multiply")(x, is_op("relax.divide")(gate, six))


def permuted(x: DFPattern, *axes: int) -> DFPattern:
    return is_op("relax.permute_dims")(x).has_attr({"axes": list(axes)})


def shape_of(expr: Expr) -> tuple[int, ...]:
    return tuple(int(extent) for extent in expr.ty.shape)


def dtype_of(expr: Expr) -> str:
    return str(expr.ty.dtype)


def is_float32(expr: Expr) -> bool:
    return dtype_of(expr) == "float32"


def is_bias(expr: Expr, columns: int) -> bool:
    """Whether it adds one value to each of `columns` columns: (columns,), (1, columns), ..."""
    shape = shape_of(expr)
    return bool(shape) and shape[-1] == math.prod(shape) == columns


def source_of(call: Expr) -> str:
    """The node of the ONNX graph that the span of `call` names, or nothing."""
    return str(call.span.source_name.name) if call.span is not None else ""


def array_of(constant: tvm.ir.GenericConst) -> Float32:
    return np.ascontiguousarray(constant.value.numpy(), np.float32)


def numbers_of(constant: tvm.ir.GenericConst) -> NDArray[Any]:
    """The constant's values in its own type."""
    return np.asarray(constant.value.numpy())
