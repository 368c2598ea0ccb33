"""Time single kernels on this CPU, as in the real run: constants cold, activations warm.

In a model the constants of every layer are read once for each inference, so they come from
memory or the outer cache. Here a kernel is called on many copies of its constants in turn,
together `COLD_BYTES`; its other buffers stay the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tvm
import tvm_ffi
from numpy.typing import NDArray
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.kernels.simd import Simd
from levit_deploy.targets.target import Target

COLD_BYTES = 24 << 20  # about all constants of LeViT-128S
CACHE_LINE_BYTES = 64


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, and the share of the core's multiply-add peak that it reached."""

    seconds: float
    share_of_peak: float


def build(func: tirx.PrimFunc, target: Target) -> tvm.runtime.Module:
    """Compile for this process, with no passes but those that a generated kernel needs."""
    config = {
        "kind": "llvm",
        "mtriple": target.triple,
        "mcpu": target.cpu,
        "mattr": list(target.features),
    }
    tvm_target = tvm.target.Target(config)
    passes = [
        tirx.transform.BindTarget(tvm_target.with_host(tvm_target)),
        tirx.transform.StmtSimplify(),
        tirx.transform.MakePackedAPI(),
        tirx.transform.LowerIntrin(),
    ]
    module = tvm.transform.Sequential(passes)(tvm.IRModule.from_expr(func))
    return tvm.get_global_func("target.build.llvm")(module, tvm_target)


def time_kernels(
    kernels: Sequence[Kernel], constants: Sequence[str], target: Target, rounds: int
) -> list[Timing]:
    """Interleaved rounds over all kernels.

    `constants`: names of the parameters that differ from call to call. Each call has its own best
    round and the mean over the calls counts, so that a disturbance spoils no more than one call.
    """
    runs = [_Run(kernel, constants, target) for kernel in kernels]
    peak, peak_multiply_adds = _peak_run(target)
    best_peak = math.inf
    for _ in range(rounds):
        for run in runs:
            run.one_round()
            best_peak = min(best_peak, peak())
    peak_rate = peak_multiply_adds / best_peak
    return [
        Timing(run.seconds, kernel.multiply_adds / run.seconds / peak_rate)
        for run, kernel in zip(runs, kernels, strict=True)
    ]


class _Run:
    """The calls of one kernel on all copies of its constants, and the best time of each."""

    def __init__(self, kernel: Kernel, constants: Sequence[str], target: Target) -> None:
        self.function = build(kernel.func, target)[kernel.symbol]
        self.tasks = kernel.tasks
        buffers = [param for param in kernel.func.params if tirx.is_buffer_var(param)]
        cold_bytes = sum(_bytes(param) for param in buffers if param.name in constants)
        copies = max(1, COLD_BYTES // cold_bytes) if cold_bytes else 8
        warm = {p.name: _tensor_for(p) for p in buffers if p.name not in constants}
        self.arguments = [
            [warm[param.name] if param.name in warm else _tensor_for(param) for param in buffers]
            for _ in range(copies)
        ]
        self.best = [math.inf] * copies
        self.overhead = math.inf

    def one_round(self) -> None:
        for copy, tensors in enumerate(self.arguments):
            self.best[copy] = min(self.best[copy], self._time(tensors, self.tasks))
        self.overhead = min(self.overhead, self._time(self.arguments[0], 0))

    def _time(self, tensors: list[tvm_ffi.Tensor], tasks: int) -> float:
        start = time.perf_counter()
        self.function(*tensors, 0, tasks)
        return time.perf_counter() - start

    @property
    def seconds(self) -> float:
        return sum(self.best) / len(self.best) - self.overhead


def _elements(param: tirx.Var) -> int:
    return math.prod(int(extent) for extent in param.shape)


def _bytes(param: tirx.Var) -> int:
    return _elements(param) * np.dtype(str(param.dtype)).itemsize


def _tensor(elements: int, dtype: str = "float32") -> tvm_ffi.Tensor:
    """An aligned buffer of ordinary numbers."""
    size = elements * np.dtype(dtype).itemsize
    raw = np.empty(size + CACHE_LINE_BYTES, np.uint8)
    offset = -raw.ctypes.data % CACHE_LINE_BYTES
    array: NDArray[np.generic] = raw[offset : offset + size].view(dtype)
    array[:] = np.random.default_rng(0).uniform(0, 1, elements).astype(dtype)
    return tvm_ffi.from_dlpack(array)


def _tensor_for(param: tirx.Var) -> tvm_ffi.Tensor:
    return _tensor(_elements(param), str(param.dtype))


def _peak_run(target: Target) -> tuple[Callable[[], float], int]:
    """A function that times a loop of register-only multiply-adds, and how many it does."""
    simd = Simd(target)
    turns, chains = 100_000, 12  # latency 4 x 2 a cycle needs 8 chains
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("peak")
        T.func_attr({"tirx.noalias": True})
        factor = T.arg("factor", T.Buffer((simd.lanes,), "float32"))
        out = T.arg("out", T.Buffer((chains * simd.lanes,), "float32"))
        acc = T.alloc_buffer((chains * simd.lanes,), "float32", scope="local")
        x = T.bind(simd.load(factor, 0))
        for chain in range(chains):
            simd.store(acc, chain * simd.lanes, simd.splat(float(chain)))
        with T.serial(turns):
            for chain in range(chains):
                at = chain * simd.lanes
                simd.store(acc, at, simd.fma(simd.load(acc, at), x, x))
        for chain in range(chains):
            simd.store(out, chain * simd.lanes, simd.load(acc, chain * simd.lanes))
    function = build(builder.get(), target)["peak"]
    arguments = [_tensor(simd.lanes), _tensor(chains * simd.lanes)]

    def run() -> float:
        start = time.perf_counter()
        function(*arguments)
        return time.perf_counter() - start

    return run, turns * chains * simd.lanes
