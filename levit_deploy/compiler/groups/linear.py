"""Linear layers in float or 8 bits, then hardswish or a residual.

Before: multiply(y, divide(clip(add(y, 3), 0, 6), 6)) with y = layer(x)
        add(r, layer(x)), or the other way round
        layer(x)
After:  one gemm call each; before one of 8 bits, the quantization of x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from tvm.ir import Expr
from tvm.relax.dpl import is_op, wildcard

from levit_deploy.compiler.groups.group import Group, Parts
from levit_deploy.compiler.groups.kernel_calls import KernelCalls
from levit_deploy.compiler.groups.layer import LAYER_FORMS, Layer, LayerForm
from levit_deploy.compiler.groups.patterns import hardswish, is_float32, shape_of
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, Layout
from levit_deploy.compiler.kernels.kernel import Activation


def linear_groups() -> list[Group]:
    """The longer patterns first."""
    return [group for form in LAYER_FORMS for group in _groups(form)]


def _groups(form: LayerForm) -> list[Group]:
    x, residual = wildcard(), wildcard()
    layer = form(x)
    parts = {"x": x, **layer.parts}
    with_residual = {**parts, "residual": residual}
    add = is_op("relax.add")
    hardswish_plan = partial(_plan, layer, Activation.HARDSWISH)
    plain_plan = partial(_plan, layer, Activation.NONE)
    name = f"{layer.form}linear"
    return [
        Group(f"{name}_hardswish", hardswish(layer.pattern), parts, hardswish_plan),
        Group(f"residual_{name}", add(residual, layer.pattern), with_residual, plain_plan),
        Group(f"{name}_residual", add(layer.pattern, residual), with_residual, plain_plan),
        Group(name, layer.pattern, parts, plain_plan),
    ]


@dataclass(frozen=True)
class _LinearPlan:
    layer: Layer
    spec: GemmSpec
    shape: tuple[int, ...]

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        residual = parts["residual"] if self.spec.residual else None
        return self.layer.emit(calls, self.spec, parts["x"], parts, self.shape, residual)


def _plan(layer: Layer, activation: Activation, parts: Parts) -> _LinearPlan | None:
    x, weight = shape_of(parts["x"]), layer.weight_shape(parts)
    floats = [parts[name] for name in ("x", "residual") if name in parts]
    if weight is None or not all(map(is_float32, floats)) or len(x) < 2:
        return None
    depth, columns = weight
    shape = (*x[:-1], columns)
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
    return _LinearPlan(layer, spec, shape)
