"""Linear layers: matmul with a constant, bias, then hardswish or a residual.

Before: multiply(y, divide(clip(add(y, 3), 0, 6), 6)) with y = add(matmul(x, [weight]), [bias])
        add(r, add(matmul(x, [weight]), [bias])), or the other way round
        add(matmul(x, [weight]), [bias])
After:  one gemm call each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from tvm.ir import Expr
from tvm.relax.dpl import is_const, is_op, wildcard

from levit_deploy.compiler.groups.group import Group, Parts
from levit_deploy.compiler.groups.kernel_calls import KernelCalls
from levit_deploy.compiler.groups.patterns import (
    array_of,
    hardswish,
    is_bias,
    is_float32,
    linear,
    shape_of,
)
from levit_deploy.compiler.kernels.gemm import GemmSpec, Layout
from levit_deploy.compiler.kernels.kernel import Activation


def linear_groups() -> list[Group]:
    """The longer patterns first."""
    x, weight, bias, residual = wildcard(), is_const(), is_const(), wildcard()
    product = linear(x, weight, bias)
    parts = {"x": x, "weight": weight, "bias": bias}
    with_residual = {**parts, "residual": residual}
    add = is_op("relax.add")
    hardswish_plan = partial(_plan, Activation.HARDSWISH)
    plain_plan = partial(_plan, Activation.NONE)
    return [
        Group("linear_hardswish", hardswish(product), parts, hardswish_plan),
        Group("residual_linear", add(residual, product), with_residual, plain_plan),
        Group("linear_residual", add(product, residual), with_residual, plain_plan),
        Group("linear", product, parts, plain_plan),
    ]


@dataclass(frozen=True)
class _LinearPlan:
    spec: GemmSpec
    shape: tuple[int, ...]

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        weight, bias = array_of(parts["weight"]), array_of(parts["bias"]).ravel()
        residual = parts["residual"] if self.spec.residual else None
        return calls.gemm(self.spec, parts["x"], weight, bias, self.shape, residual)


def _plan(activation: Activation, parts: Parts) -> _LinearPlan | None:
    x, weight = shape_of(parts["x"]), shape_of(parts["weight"])
    if not all(map(is_float32, parts.values())) or len(weight) != 2 or len(x) < 2:
        return None
    depth, columns = weight
    shape = (*x[:-1], columns)
    if not is_bias(parts["bias"], columns):
        return None
    if "residual" in parts and shape_of(parts["residual"]) != shape:
        return None
    spec = GemmSpec(
        rows=math.prod(x[:-1]),
        columns=columns,
        depth=depth,
        activation=activation,
        residual="residual" in parts,
        layout=Layout.ROWS,
    )
    return _LinearPlan(spec, shape)
