"""Bring the imported module into the one form that later passes read.

Before: inference-time ops, variables bound twice, operations on constants.
After: every value is bound once, what is constant is a constant, dead bindings are gone.
"""

from __future__ import annotations

import tvm
from tvm import relax


def canonicalize(module: tvm.IRModule) -> tvm.IRModule:
    """A module that computes the same; only `main` is left."""
    passes = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.transform.FoldConstant(),
        relax.transform.DeadCodeElimination(),
    ]
    return tvm.transform.Sequential(passes)(module)
