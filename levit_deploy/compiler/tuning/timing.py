"""Time kernels of one spec on this CPU, as in the real run: constants cold, activations warm.

In a model the constants of every layer are read once for each inference, so they come from
memory or the outer cache. Here a kernel is called on many copies of its constants in turn,
together `COLD_BYTES`; its other buffers stay the same.

A turn is one kernel on all copies, between two calibration loops of integer arithmetic. If these
take longer than they can, the machine was busy with something else: the turn is made again.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from levit_deploy.compiler.codegen import emit_object, lower_kernels
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.compiler.llvm_target import llvm_target
from levit_deploy.compiler.program import ALIGNMENT_BYTES
from levit_deploy.errors import DeployError
from levit_deploy.targets.toolchain import Toolchain

COLD_BYTES = 24 << 20  # about all constants of LeViT-128S
MOST_COPIES = 128  # small constants cost little, cold or not
CALM = 1.15  # of the fastest calibration
PATIENCE = 200  # noisy turns in a row
CONSTANTS = frozenset({"panels", "mirrored_bias"})  # names of parameters

_SOURCE = """\
#include <stdint.h>
#include <time.h>
#define EXPORTED __attribute__((visibility("default")))
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}
EXPORTED double calibrate(uint64_t *x) {
  double start = now();
  for (int i = 0; i < 20000; i++) *x = *x * 6364136223846793005u + 1442695040888963407u;
  return now() - start;
}
"""
_TIMED = """\
int32_t {symbol}({parameters}, int32_t begin, int32_t end);
EXPORTED double time_{index}(void **buffers) {{
  double start = now();
  {symbol}({arguments}, 0, {tasks});
  return now() - start;
}}
"""


class KernelTimer:
    """`kernels` compute the same and differ in their tiles, so they share all buffers.

    Builds a library in `work`. Raises DeployError if it cannot be built or loaded.
    """

    def __init__(self, kernels: Sequence[Kernel], toolchain: Toolchain, work: Path) -> None:
        library = _build(kernels, toolchain, work)
        self._calibrate = library.calibrate
        self._calibrate.restype = ctypes.c_double
        self._functions = [library[f"time_{index}"] for index in range(len(kernels))]
        for function in self._functions:
            function.restype = ctypes.c_double
        self._memory: list[NDArray[np.uint8]] = []  # what the pointers point to
        self._copies = self._allocate(kernels)
        self._state = ctypes.c_uint64(1)
        self._best_calibration = min(self._calibration() for _ in range(100))

    def microseconds(self, wanted: Sequence[int], rounds: int) -> list[float]:
        """Of one call of each of the kernels `wanted`, on one thread, by interleaved rounds.

        Each copy of the constants has its own best round, and the mean over the copies counts:
        a disturbance spoils no more than one call. Raises DeployError if this machine stays noisy.
        """
        best = np.full((len(wanted), len(self._copies)), math.inf)
        for _ in range(rounds):
            for at, index in enumerate(wanted):
                best[at] = np.minimum(best[at], self._calm_turn(index))
        return [float(mean) for mean in best.mean(axis=1)]

    def _calm_turn(self, index: int) -> list[float]:
        function = self._functions[index]
        for _ in range(PATIENCE):
            before = self._calibration()
            times = [function(pointers) for pointers in self._copies]
            after = self._calibration()
            self._best_calibration = min(self._best_calibration, before, after)
            if max(before, after) <= CALM * self._best_calibration:
                return times
        raise DeployError(
            "this machine is too busy to time kernels",
            hint="run the same command again when it is not: it goes on where it stopped",
        )

    def _calibration(self) -> float:
        return float(self._calibrate(ctypes.byref(self._state)))

    def _allocate(self, kernels: Sequence[Kernel]) -> list[ctypes.Array[Any]]:
        """The buffers' addresses, for each copy of the constants."""
        by_kernel = [_buffers(kernel) for kernel in kernels]
        sizes = [max(map(_bytes, params)) for params in zip(*by_kernel, strict=True)]
        constant = [param.name in CONSTANTS for param in by_kernel[0]]
        cold_bytes = sum(size for size, cold in zip(sizes, constant, strict=True) if cold)
        count = min(max(COLD_BYTES // cold_bytes, 2), MOST_COPIES)
        warm = [self._buffer(size, _type(p)) for size, p in zip(sizes, by_kernel[0], strict=True)]
        return [
            (ctypes.c_void_p * len(sizes))(
                *(
                    self._buffer(size, "float32") if cold else shared
                    for size, cold, shared in zip(sizes, constant, warm, strict=True)
                )
            )
            for _ in range(count)
        ]

    def _buffer(self, size: int, dtype: str) -> int:
        """The address of `size` bytes of ordinary numbers."""
        raw = np.empty(size + ALIGNMENT_BYTES, np.uint8)
        self._memory.append(raw)
        offset = -raw.ctypes.data % ALIGNMENT_BYTES
        values = raw[offset : offset + size].view(dtype)
        numbers = np.linspace(-1, 1, 997) if values.dtype.kind == "f" else np.arange(101)
        values[:] = np.resize(numbers, values.size)
        return raw.ctypes.data + offset


def _build(kernels: Sequence[Kernel], toolchain: Toolchain, work: Path) -> ctypes.CDLL:
    by_symbol = {kernel.symbol: kernel for kernel in kernels}
    unaligned = {kernel.symbol: kernel.unaligned for kernel in kernels}
    functions = lower_kernels(by_symbol, unaligned, llvm_target(toolchain.target))
    (work / "kernels.o").write_bytes(emit_object(functions, toolchain.target))
    (work / "timing.c").write_text(
        _SOURCE + "".join(_timed(index, kernel) for index, kernel in enumerate(kernels))
    )
    toolchain.compile(work / "timing.c", work / "timing.o")
    shared = work / f"{kernels[0].symbol}.so"  # a path of its own: the loader knows paths again
    toolchain.link_shared([work / "timing.o", work / "kernels.o"], shared)
    return ctypes.CDLL(str(shared.absolute()))


def _timed(index: int, kernel: Kernel) -> str:
    count = len(_buffers(kernel))
    return _TIMED.format(
        symbol=kernel.symbol,
        index=index,
        parameters=", ".join(["void *"] * count),
        arguments=", ".join(f"buffers[{i}]" for i in range(count)),
        tasks=kernel.tasks,
    )


def _buffers(kernel: Kernel) -> list[tirx.Var]:
    return [param for param in kernel.func.params if tirx.is_buffer_var(param)]


def _type(param: tirx.Var) -> str:
    return str(param.dtype)


def _bytes(param: tirx.Var) -> int:
    elements = math.prod(int(extent) for extent in param.shape)
    return elements * np.dtype(_type(param)).itemsize
