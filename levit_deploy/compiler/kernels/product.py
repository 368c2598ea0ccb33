"""A product of matrices with the results in registers, whatever the layout of its factors.

acc[row][vector] += value[row, step] * vector[step, vector]     step after step
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.simd import Simd

# Registers by row and vector, which LLVM keeps in registers. One array for each: TVM moves local
# arrays of 1 KiB to the heap.
Accumulators = list[list[tirx.Buffer]]

_QUAD = 4


class Arithmetic(NamedTuple):
    """`splats`: as those of Simd, for `multiply_add`, which takes a value, a vector and a sum."""

    splats: Callable[[tirx.Buffer, Expr | int, int], list[Expr]]
    multiply_add: Callable[[Expr, Expr, Expr], Expr]


def accumulators(simd: Simd, rows: int, vectors: int, dtype: str = "float32") -> Accumulators:
    """Registers for rows x vectors sums, not yet set."""
    return [[simd.register(dtype) for _ in range(vectors)] for _ in range(rows)]


def steps_together(isa: Isa) -> int:
    """Steps in one turn of a product's loop: few enough for the values of all rows to have
    registers where they are loaded in vectors; with 32 registers two vectors, in one instruction.
    """
    return 8 if isa.multiplies_by_lane and isa.registers == 32 else 4


def for_steps(simd: Simd, depth: int, body: Callable[[Expr | int, int], None]) -> None:
    """Emit body(first, count) for `depth` steps in order, most of them in a loop."""
    together = steps_together(simd.isa)
    if depth >= together:
        with T.serial(depth // together) as turn:
            body(turn * together, together)
    first = depth - depth % together
    while first < depth:
        count = _QUAD if depth - first >= _QUAD else 1
        body(first, count)
        first += count


def add_products(
    simd: Simd,
    acc: Accumulators,
    values: tirx.Buffer,
    values_at: list[Expr],
    vectors: tirx.Buffer,
    vectors_at: list[list[Expr]],
    arithmetic: Arithmetic | None = None,
) -> None:
    """acc[i][v] += values[values_at[i] + step] * vectors[vectors_at[step][v]] for every step.

    `arithmetic`: that of float32 by default. Vectors first, then row by row: the order in which
    LLVM needs the fewest registers.
    """
    arithmetic = arithmetic or Arithmetic(simd.splats, simd.fma)
    count = len(vectors_at)
    group = simd.isa.splat_group if count % simd.isa.splat_group == 0 else 1
    rows = [
        [
            splat
            for k in range(0, count, group)
            for splat in arithmetic.splats(values, at + k, group)
        ]
        for at in values_at
    ]
    for step, places in enumerate(vectors_at):
        for some in simd.load_groups(len(places)):
            loaded = [T.bind(simd.load(vectors, places[v])) for v in some]
            for i, row in enumerate(rows):
                value = T.bind(row[step])
                for v, vector in zip(some, loaded, strict=True):
                    total = arithmetic.multiply_add(value, vector, simd.load(acc[i][v], 0))
                    simd.store(acc[i][v], 0, total)


def add_matrices(
    simd: Simd,
    acc: Accumulators,
    rows: Sequence[Expr],
    columns: Callable[[range], list[Expr]],
    multiply_add: Callable[[Expr, Expr, Expr], Expr],
) -> None:
    """acc[i][j] += rows[i] @ columns[j], all of them small matrices in registers.

    `columns`: loads some of them, by number. `multiply_add`: takes a sum and its two factors.
    """
    for some in simd.load_groups(len(acc[0])):
        factors = columns(some)
        for registers, row in zip(acc, rows, strict=True):
            for j, column in zip(some, factors, strict=True):
                simd.store(registers[j], 0, multiply_add(simd.load(registers[j], 0), row, column))
