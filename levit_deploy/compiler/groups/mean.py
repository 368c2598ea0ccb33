"""The mean over tokens in front of an 8-bit classifier.

Before: mean(x, axis=[1]) with x of shape (1, tokens, channels)
After:  one mean call. (A float classifier takes its mean along: see `head`.)
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.relax.dpl import is_op, wildcard

from levit_deploy.compiler.groups.group import Group, Parts
from levit_deploy.compiler.groups.kernel_calls import KernelCalls
from levit_deploy.compiler.groups.patterns import is_float32, shape_of
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.mean import mean_kernel
from levit_deploy.compiler.kernels.output import Stored


def mean_group() -> Group:
    x = wildcard()
    mean = is_op("relax.mean")(x).has_attr({"axis": [1], "keepdims": False})
    return Group("mean", mean, {"x": x}, _plan)


@dataclass(frozen=True)
class _MeanPlan:
    tokens: int
    channels: int

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        def kernel(symbol: str, stored: Stored) -> Kernel:
            return mean_kernel(symbol, self.tokens, self.channels, calls.target, stored)

        symbol = f"mean_t{self.tokens}_k{self.channels}"
        return calls.call_storing(symbol, kernel, [parts["x"]], (1, self.channels))


def _plan(parts: Parts) -> _MeanPlan | None:
    x = shape_of(parts["x"])
    if not is_float32(parts["x"]) or len(x) != 3 or x[0] != 1:
        return None
    return _MeanPlan(tokens=x[1], channels=x[2])
