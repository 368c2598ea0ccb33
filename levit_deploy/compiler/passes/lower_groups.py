"""Composite functions -> calls of generated kernels.

Before: y = cls.fused_relax_matmul_relax_add(x)          Composite = "linear"
After:  y = R.call_dps_packed("levit_gemm_...", (x, [packed weights]), out_ty)
        and a Kernel of that symbol in the library
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import tvm
from tvm import relax

from levit_deploy.compiler.groups.group import Group
from levit_deploy.compiler.groups.kernel_calls import KernelCalls


def lower_groups(
    module: tvm.IRModule,
    groups: list[Group],
    make_calls: Callable[[relax.BlockBuilder], KernelCalls],
) -> tvm.IRModule:
    """Lower every group that `group_kernels` found; `make_calls` knows where kernels go.

    Written without TVM's mutators: an exception that crosses them loses its type.
    """
    by_name = {group.name: group for group in groups}
    composites = {
        function: (by_name[str(body.attrs["Composite"])], body)
        for function, body in module.functions.items()
        if body.attrs and "Composite" in body.attrs
    }
    main = module["main"]
    builder = relax.BlockBuilder()
    calls = make_calls(builder)
    with builder.function("main", main.params):
        for block in main.body.blocks:
            dataflow = isinstance(block, relax.DataflowBlock)
            with builder.dataflow() if dataflow else nullcontext():
                for binding in block.bindings:
                    value = binding.value
                    if isinstance(value, relax.Call) and value.op in composites:
                        value = _lower(calls, *composites[value.op], value.args)
                    builder.emit_normalized(relax.VarBinding(binding.var, value))
        builder.emit_func_output(main.body.body)
    return relax.transform.CanonicalizeBindings()(builder.get())


def _lower(
    calls: KernelCalls, group: Group, body: relax.Function, arguments: list[relax.Expr]
) -> relax.Expr:
    parts = _matched_parts(group, body, arguments)
    plan = group.plan(parts)
    assert plan is not None, f"{group.name} was grouped, so it has a plan"
    return plan.emit(calls, parts)


def _matched_parts(
    group: Group, body: relax.Function, arguments: list[relax.Expr]
) -> dict[str, relax.Expr]:
    """The group's parts; inputs of the composite function become the caller's arguments."""
    bindings = relax.analysis.get_var2val(body)
    result = bindings[body.body.body]
    matched = group.pattern.extract_matched_expr(result, bindings)
    argument_of = dict(zip(body.params, arguments, strict=True))
    parts = {part: matched[pattern] for part, pattern in group.parts.items()}
    return {part: argument_of.get(expr, expr) for part, expr in parts.items()}
