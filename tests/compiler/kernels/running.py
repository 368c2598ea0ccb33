"""Run one generated kernel on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import tirx

from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.targets.target import Target

Array = NDArray[np.float32]


@lru_cache(maxsize=1)
def build(kernel: Kernel, target: Target) -> tvm.runtime.Module:
    """A function of this process, by the passes that the product runs on generated kernels."""
    passes = [
        tirx.transform.BindTarget(llvm_target(target)),
        tirx.transform.StmtSimplify(),
        tirx.transform.MakePackedAPI(),
        tirx.transform.LowerTVMBuiltin(),
        tirx.transform.LowerIntrin(),
    ]
    module = tvm.transform.Sequential(passes)(tvm.IRModule.from_expr(kernel.func))
    return tvm.get_global_func("target.build.llvm")(module, llvm_target(target))


def run(
    kernel: Kernel,
    target: Target,
    inputs: Sequence[Array],
    output_size: int,
    ranges: Iterable[tuple[int, int]] | None = None,
) -> Array:
    """The flat output after the given task ranges (default: all at once).

    The output starts as NaN, so that what was not written shows.
    """
    function = build(kernel, target)[kernel.symbol]
    buffers = [tvm.runtime.tensor(np.ascontiguousarray(array).ravel()) for array in inputs]
    output = tvm.runtime.tensor(np.full(output_size, np.nan, np.float32))
    buffers.append(output)
    if kernel.scratch_bytes:
        buffers.append(tvm.runtime.tensor(np.full(kernel.scratch_bytes // 4, np.nan, np.float32)))
    for begin, end in ranges or [(0, kernel.tasks)]:
        function(*buffers, begin, end)
    return output.numpy()
