"""TVM's own lowering for every operator that no group took: the fallback.

Before: `main` calls generated kernels (`call_dps_packed`) and may hold other Relax operators.
After: `main` is a list of bindings, each allocates a tensor, renames one (reshape) or calls a
kernel that writes one; the fallback kernels are TIR functions of the module.
"""

from __future__ import annotations

import math

import tvm
from tvm import relax, s_tir, tirx

from levit_deploy.compiler.compile_log import FALLBACK
from levit_deploy.compiler.kernel_library import KernelLibrary, fallback_symbol
from levit_deploy.compiler.kernels.kernel import Kernel


def lower_default(
    module: tvm.IRModule, target: tvm.target.Target, library: KernelLibrary, name: str
) -> tvm.IRModule:
    """Legalise, fuse what fuses, make allocations explicit; the new kernels join `library`."""
    passes = [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.DeadCodeElimination(),
    ]
    with target:
        module = tvm.transform.Sequential(passes)(module)
    for function, body in module.functions.items():
        if isinstance(body, tirx.PrimFunc):
            symbol = fallback_symbol(name, function)
            library.kernels[symbol] = _fallback_kernel(symbol, body)
    return module


def _fallback_kernel(symbol: str, func: tirx.PrimFunc) -> Kernel:
    shapes = [[int(extent) for extent in buffer.shape] for buffer in func.params]
    item_bytes = [tvm.DataType(str(buffer.dtype)).bits // 8 for buffer in func.params]
    sizes = [math.prod(s) * b for s, b in zip(shapes, item_bytes, strict=True)]
    return Kernel(
        symbol=symbol,
        func=func,
        tasks=1,
        scratch_bytes=0,
        unaligned=(),
        kind=FALLBACK,
        shape="x".join(map(str, shapes[-1])),
        tile="",
        multiply_adds=int(s_tir.analysis.estimate_tir_flops(tvm.IRModule({symbol: func}))) // 2,
        bytes_moved=sum(sizes),
    )
