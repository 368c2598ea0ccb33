"""Every kernel of the library -> a C function that LLVM can translate.

Before: `Kernel.func`, a TIR function on buffers. Generated kernels are flat loops with explicit
vectors already; fallback kernels are blocks on multi-dimensional buffers.
After: functions on raw pointers, intrinsics lowered, no call into any runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import tvm
from tvm import s_tir, tirx

from levit_deploy.compiler.compile_log import FALLBACK
from levit_deploy.compiler.kernel_library import KernelLibrary
from levit_deploy.compiler.passes.raw_pointers import RawFunction, raw_pointers


def lower_kernels(
    library: KernelLibrary,
    unaligned: Mapping[str, Collection[int]],
    target: tvm.target.Target,
) -> dict[str, RawFunction]:
    """`unaligned`: for each symbol the positions of arguments that are the caller's buffers."""
    bind_target = tirx.transform.BindTarget(target)
    lowered: dict[str, RawFunction] = {}
    for symbol, kernel in library.kernels.items():
        fallback = kernel.kind == FALLBACK
        passes = _fallback_passes() if fallback else _generated_passes()
        module = tvm.IRModule({symbol: kernel.func.with_attr("global_symbol", symbol)})
        module = tvm.transform.Sequential([bind_target, *passes])(module)
        raw = raw_pointers(
            module[symbol], symbol, target, unaligned=unaligned[symbol], lift_locals=fallback
        )
        if kernel.scratch_bytes:
            raw = replace(raw, scratch_bytes=(kernel.scratch_bytes,))
        lowered[symbol] = raw
    return lowered


def _generated_passes() -> list[tvm.transform.Pass]:
    return [tirx.transform.StmtSimplify()]


def _fallback_passes() -> list[tvm.transform.Pass]:
    """What TVM's default CPU pipeline does to a function up to MakePackedAPI.

    The passes of `s_tir.pipeline.default_s_tir_pipeline` that concern a CPU, in its order.
    """
    return [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        s_tir.transform.LoopPartition(),
        tirx.transform.VectorizeLoop(),
        tirx.transform.StorageRewrite(),
        s_tir.transform.HoistIfThenElse(),
        tirx.transform.UnrollLoop(),
        s_tir.transform.RenormalizeSplitPattern(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        tirx.transform.CommonSubexprElim(),
        tirx.transform.VerifyMemory(),
    ]
