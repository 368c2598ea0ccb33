"""Find the groups: parts of the graph that generated kernels can compute.

Before: lv1 = matmul(x, [w]); lv2 = add(lv1, [b]); lv3 = add(lv2, 3) ... lv6 = multiply(lv2, lv5)
After:  lv6 = cls.fused_relax_matmul_relax_add...(x), a function with the attribute
        Composite = "linear_hardswish" that holds these operators
"""

from __future__ import annotations

import tvm
from tvm import relax

from levit_deploy.compiler.groups.group import Group


def group_kernels(module: tvm.IRModule, groups: list[Group]) -> tvm.IRModule:
    """`groups` in order of priority: an operator joins the first group that matches it."""
    patterns = [
        relax.transform.FusionPattern(g.name, g.pattern, dict(g.parts), _check(g)) for g in groups
    ]
    return relax.transform.FuseOpsByPattern(patterns)(module)


def _check(group: Group) -> object:
    def check(context: relax.transform.PatternCheckContext) -> bool:
        return _is_closed(context) and group.plan(context.annotated_expr) is not None

    return check


def _is_closed(context: relax.transform.PatternCheckContext) -> bool:
    """Whether nothing outside the group uses a value inside it, except its result."""
    inside = set(context.matched_bindings.keys())
    return all(
        isinstance(var, relax.DataflowVar) and inside.issuperset(context.var_usages[var])
        for var, value in context.matched_bindings.items()
        if not value.same_as(context.matched_expr)
    )
