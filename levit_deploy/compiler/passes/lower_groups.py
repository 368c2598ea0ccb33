"""Composite functions -> calls of generated kernels.

Before: y = cls.fused_relax_matmul_relax_add(x)          Composite = "linear"
After:  y = R.call_dps_packed("levit_gemm_...", (x, [packed weights]), out_ty)
        and a Kernel of that symbol in the library
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from levit_deploy.compiler.groups.group import Group
from levit_deploy.compiler.groups.kernel_calls import KernelCalls
from levit_deploy.compiler.kernel_library import KernelLibrary
from levit_deploy.compiler.tuning.tile_table import TileTable
from levit_deploy.targets.target import Target


def lower_groups(
    module: tvm.IRModule,
    groups: list[Group],
    library: KernelLibrary,
    name: str,
    target: Target,
    tiles: TileTable,
) -> tvm.IRModule:
    """Lower every group that `group_kernels` found; the kernels join `library`."""
    by_name = {group.name: group for group in groups}
    composites = {
        gvar: (by_name[str(func.attrs["Composite"])], func)
        for gvar, func in module.functions.items()
        if func.attrs and "Composite" in func.attrs
    }

    @mutator
    class Lowering(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: relax.Call) -> relax.Expr:
            call = self.visit_expr_post_order(call)
            if call.op not in composites:
                return call
            group, func = composites[call.op]
            calls = KernelCalls(self.builder_, library, name, target, tiles)
            parts = _matched_parts(group, func, call.args)
            plan = group.plan(parts)
            assert plan is not None, f"{group.name} was grouped, so it has a plan"
            return plan.emit(calls, parts)

    lowering = Lowering(module)
    main = lowering.visit_expr(module["main"])
    return tvm.IRModule({"main": main})


def _matched_parts(
    group: Group, func: relax.Function, arguments: list[relax.Expr]
) -> dict[str, relax.Expr]:
    """The group's parts; inputs of the composite function become the caller's arguments."""
    bindings = relax.analysis.get_var2val(func)
    result = bindings[func.body.body]
    matched = group.pattern.extract_matched_expr(result, bindings)
    argument_of = dict(zip(func.params, arguments, strict=True))
    parts = {part: matched[pattern] for part, pattern in group.parts.items()}
    return {part: argument_of.get(expr, expr) for part, expr in parts.items()}
