"""The classifier, and the last linear layer of the body where only its mean is wanted.

Before, `head`: add(matmul(mean(x, axis=[1]), [weight]), [bias]) with x of shape (1, tokens, c)
After:          one head call.
Before, `body_head`: the same with x = add(residual, add(matmul(h, [weight]), [bias])), or the
        other way round. The mean of a linear layer is the layer of the mean:
        mean(x) = mean(residual) + mean(h) @ weight + bias
After:  a head call with residual, which makes one row instead of one for each token, and a head
        call of that row.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.ir import Expr
from tvm.relax.dpl import DFPattern, is_const, is_op, wildcard

from levit_deploy.compiler.groups.group import Group, Parts
from levit_deploy.compiler.groups.kernel_calls import KernelCalls
from levit_deploy.compiler.groups.patterns import array_of, is_bias, is_float32, linear, shape_of
from levit_deploy.compiler.kernels.gemm.float32 import pack_weights
from levit_deploy.compiler.kernels.head import HeadSpec, head_kernel


def head_groups() -> list[Group]:
    """The longer patterns first."""
    return [_body_head_group(residual_first) for residual_first in (True, False)] + [_head_group()]


def _head_group() -> Group:
    x, weight, bias = wildcard(), is_const(), is_const()
    parts = {"x": x, "weight": weight, "bias": bias}
    return Group("head", linear(_mean(x), weight, bias), parts, _plan)


def _body_head_group(residual_first: bool) -> Group:
    x, residual = wildcard(), wildcard()
    body_weight, body_bias, weight, bias = (is_const() for _ in range(4))
    last = linear(x, body_weight, body_bias)
    terms = (residual, last) if residual_first else (last, residual)
    parts = {
        "x": x,
        "residual": residual,
        "body_weight": body_weight,
        "body_bias": body_bias,
        "weight": weight,
        "bias": bias,
    }
    name = "residual_body_head" if residual_first else "body_residual_head"
    pattern = linear(_mean(is_op("relax.add")(*terms)), weight, bias)
    return Group(name, pattern, parts, _plan_with_body)


def _mean(x: DFPattern) -> DFPattern:
    return is_op("relax.mean")(x).has_attr({"axis": [1], "keepdims": False})


@dataclass(frozen=True)
class _HeadPlan:
    """`prefix`: of the names of its constants in the parts."""

    spec: HeadSpec
    prefix: str = ""

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        return self.of(calls, parts, parts["x"])

    def of(self, calls: KernelCalls, parts: Parts, x: Expr) -> Expr:
        spec = self.spec
        tile = calls.tiles.head(spec, calls.target)
        weight, bias = (array_of(parts[f"{self.prefix}{name}"]) for name in ("weight", "bias"))
        residual = [parts["residual"]] if spec.residual else []
        words = ["head", f"t{spec.tokens}", f"k{spec.channels}", f"n{spec.classes}"]
        words += ["residual"] * spec.residual
        return calls.call(
            "_".join([*words, str(tile), f"u{tile.depth_unroll}"]),
            lambda symbol: head_kernel(symbol, spec, tile, calls.target),
            [x, pack_weights(weight, bias.ravel(), tile), *residual],
            (1, spec.classes),
        )


@dataclass(frozen=True)
class _BodyHeadPlan:
    body: _HeadPlan
    head: _HeadPlan

    def emit(self, calls: KernelCalls, parts: Parts) -> Expr:
        return self.head.of(calls, parts, self.body.emit(calls, parts))


def _plan(parts: Parts) -> _HeadPlan | None:
    x = shape_of(parts["x"])
    if len(x) != 3 or x[0] != 1:
        return None
    classes = _outputs(parts, "", x[2])
    return _HeadPlan(HeadSpec(x[1], x[2], classes)) if classes else None


def _plan_with_body(parts: Parts) -> _BodyHeadPlan | None:
    x = shape_of(parts["x"])
    if len(x) != 3 or x[0] != 1 or not is_float32(parts["residual"]):
        return None
    _, tokens, channels = x
    width = _outputs(parts, "body_", channels)
    if not width or shape_of(parts["residual"]) != (1, tokens, width):
        return None
    classes = _outputs(parts, "", width)
    if not classes:
        return None
    body = _HeadPlan(HeadSpec(tokens, channels, width, residual=True), "body_")
    return _BodyHeadPlan(body, _HeadPlan(HeadSpec(1, width, classes)))


def _outputs(parts: Parts, prefix: str, channels: int) -> int:
    """Columns of the linear layer of `channels` whose constants have `prefix`; 0 if it has none."""
    weight, bias = parts[f"{prefix}weight"], parts[f"{prefix}bias"]
    shape = shape_of(weight)
    if not all(map(is_float32, (parts["x"], weight, bias))):
        return 0
    fits = len(shape) == 2 and shape[0] == channels and is_bias(bias, shape[1])
    return shape[1] if fits else 0
