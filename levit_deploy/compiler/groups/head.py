"""The classifier.

Before: add(matmul(mean(x, axis=[1]), [weight]), [bias]) with x of shape (1, tokens, channels)
After:  one head call.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.relax.dpl import is_const, is_op, wildcard

from levit_deploy.compiler.groups.group import Group, Parts
from levit_deploy.compiler.groups.kernel_calls import KernelCalls
from levit_deploy.compiler.groups.patterns import array_of, is_bias, is_float32, linear, shape_of
from levit_deploy.compiler.kernels.gemm import pack_weights
from levit_deploy.compiler.kernels.head import HeadSpec, head_kernel


def head_group() -> Group:
    x, weight, bias = wildcard(), is_const(), is_const()
    mean = is_op("relax.mean")(x).has_attr({"axis": [1], "keepdims": False})
    parts = {"x": x, "weight": weight, "bias": bias}
    return Group("head", linear(mean, weight, bias), parts, _plan)


@dataclass(frozen=True)
class _HeadPlan:
    spec: HeadSpec

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        spec = self.spec
        tile = calls.tiles.head(spec, calls.target)
        panels = pack_weights(array_of(parts["weight"]), array_of(parts["bias"]).ravel(), tile)
        return calls.call(
            f"head_t{spec.tokens}_k{spec.channels}_n{spec.classes}_{tile}_u{tile.depth_unroll}",
            lambda symbol: head_kernel(symbol, spec, tile, calls.target),
            [parts["x"], panels],
            (1, spec.classes),
        )


def _plan(parts: Parts) -> _HeadPlan | None:
    x, weight = shape_of(parts["x"]), shape_of(parts["weight"])
    if not all(map(is_float32, parts.values())) or len(x) != 3 or x[0] != 1 or len(weight) != 2:
        return None
    if not is_bias(parts["bias"], weight[1]):
        return None
    return _HeadPlan(HeadSpec(tokens=x[1], channels=x[2], classes=weight[1]))
