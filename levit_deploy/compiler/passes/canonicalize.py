"""Bring the imported module into the one form that later passes read.

Before: inference-time ops, variables bound twice, operations on constants.
After: every value is bound once, what is constant is a constant (but quantized weights, which
stay quantized), every matrix product of a quantized tensor quantizes it, dead bindings are gone,
and every shape is known.
"""

from __future__ import annotations

import tvm
from tvm import relax, tirx

from levit_deploy.compiler.passes.canonicalize_qdq import canonicalize_qdq
from levit_deploy.compiler.passes.hold_weights import hold_weights
from levit_deploy.errors import DeployError


def canonicalize(module: tvm.IRModule) -> tvm.IRModule:
    """A module that computes the same. Raises DeployError if a shape depends on data."""
    passes = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.FoldConstant(),
        relax.transform.DeadCodeElimination(),
    ]
    module = hold_weights(module, tvm.transform.Sequential(passes))
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if not _is_static(binding.var.ty):
                raise DeployError(
                    f"`{binding.var.name}` has a shape that is known only at run time",
                    hint="export the model with static shapes",
                )
    return canonicalize_qdq(module)


def _is_static(type_: relax.Type) -> bool:
    if isinstance(type_, relax.TupleType):
        return all(map(_is_static, type_.fields))
    if not isinstance(type_, relax.TensorType):
        return True
    shape = type_.shape
    return shape is not None and all(isinstance(extent, tirx.IntImm) for extent in shape)
