"""Constants of a kernel's inner loop as registers that are loaded, so that LLVM keeps them.

Constants of its own LLVM makes anew in every turn of the loop (NEON: dup), or it gives them all
registers and spills what it computes (AVX2).
"""

from __future__ import annotations

from collections.abc import Iterable

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.simd import Simd


def store_constants(
    simd: Simd, buffer: tirx.Buffer, at: int, numbers: Iterable[Expr | float]
) -> None:
    """Emit: a vector of each number from buffer[at] on."""
    for i, number in enumerate(numbers):
        simd.store(buffer, at + i * simd.lanes, simd.splat(number))


def load_constants(simd: Simd, buffer: tirx.Buffer, at: int, count: int) -> list[Expr]:
    """What `store_constants` stored: loaded here, or, with 16 registers, where it is used.

    Operands in memory cost x86 nothing.
    """
    loads = [simd.load(buffer, at + i * simd.lanes) for i in range(count)]
    if simd.isa.registers > 16:
        loads = [T.bind(load) for load in loads]
    return loads
