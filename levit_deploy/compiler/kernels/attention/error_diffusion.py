"""Softmax with error diffusion: rows of scores -> whole weights 0 ... 254, and their sums.

    t      = 254 * 2^(score - max) + residual of the column 16 before
    weight = rint(t), ties to even;  residual = t - weight

Rounded one by one, the many small weights of a row would all become zero. What rounding takes from
a column is given to the column 16 further on, so the sum of a row, and of each part of it, is right
within a few steps. Scores are logarithms to the base 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.packed_dot import COLUMNS, LARGEST_WEIGHT, PackedDot
from levit_deploy.compiler.kernels.attention.score_rows import (
    ScoreRows,
    combine_registers,
)
from levit_deploy.compiler.kernels.isa.lanes import lanes_of
from levit_deploy.compiler.kernels.isa.simd import ROUNDING

_MANTISSA_BITS = 23


class WeightConstants(NamedTuple):
    """Numbers, or registers filled with them."""

    # So small a weight that even hundreds of them are no step, and leave no residual as they are.
    smallest: Expr | float = -64.0
    # 1.5 * 2^23 + 127: adding it rounds to an integer, which ends up in the low bits of the
    # mantissa, plus the bias of a float32's exponent.
    exponent: Expr | float = ROUNDING + 127
    # ROUNDING, less 128 where weights are stored so.
    rounding: Expr | float = ROUNDING
    # 254 * 2^f = c0 + c1 f + f^2 (c2 + c3 f + c4 f^2) for |f| <= 1/2: the least maximum relative
    # error of this form, 2.6e-6, found by Lawson's iterated weights in float64: running sums are
    # not to round otherwise than those of an exact exponential.
    c0: Expr | float = LARGEST_WEIGHT * 0.99999926
    c1: Expr | float = LARGEST_WEIGHT * 0.69312181
    c2: Expr | float = LARGEST_WEIGHT * 0.24024745
    c3: Expr | float = LARGEST_WEIGHT * 0.05591786
    c4: Expr | float = LARGEST_WEIGHT * 0.0095701


def weigh(dot: PackedDot, x: Expr, residual: Expr, constants: WeightConstants) -> tuple[Expr, Expr]:
    """For scores x <= 0: the rounded weight, see `PackedDot`, and what rounding left."""
    simd, k = dot.simd, constants
    x = T.bind(simd.maximum(x, k.smallest))
    biased = T.bind(T.reinterpret(f"int32x{simd.lanes}", x + k.exponent))
    nearest = T.reinterpret(simd.type(), biased) - k.exponent
    f = T.bind(simd.isa.remainder(x, nearest))
    f2 = T.bind(f * f)
    low, high = simd.fma(f, k.c1, k.c0), simd.fma(f, k.c3, k.c2)
    mantissa = simd.fma(f2, simd.fma(f2, k.c4, high), low)
    shift = T.broadcast(T.int32(_MANTISSA_BITS), simd.lanes)
    power = T.reinterpret(simd.type(), T.shift_left(biased, shift))
    exact = T.bind(simd.fma(power, mantissa, residual))
    return dot.round_weight(exact, k.rounding)


def weigh_rows(
    rows: ScoreRows,
    maxima: Sequence[Expr],
    dot: PackedDot,
    weights_at: Sequence[Expr],
    constants: WeightConstants,
) -> list[Expr]:
    """Store the weights of each row as words from scratch[weights_at[row]] on, in whole groups of
    16 columns. Returns a register of partial sums of each row, for `PackedDot.sums_of_weights`.

    `maxima`: of the scores of each row, in all lanes.

    Past the last column weights are 0: a residual is at most half a step, which rounds to 0.
    """
    simd = rows.simd
    residuals, sums = rows.variables(), rows.variables()
    for register in itertools.chain(*residuals, *sums):
        simd.store(register, 0, simd.splat(0.0))

    def weigh_group(row: int, first: Expr | int, vectors: int) -> None:
        weights = []
        for v in range(vectors):
            x = rows.load(row, first + v * simd.lanes) - maxima[row]
            residual = residuals[row][v % rows.registers]
            weight, rest = weigh(dot, x, simd.load(residual, 0), constants)
            simd.store(residual, 0, rest)
            weights.append(weight)
        weights += [dot.no_weight] * (-vectors % (COLUMNS // simd.lanes))
        group = T.bind(dot.pack_weights(weights))
        place = weights_at[row] + first // dot.per_word
        T.buffer_store(rows.scores, group, [T.ramp(place, 1, lanes_of(group))])
        totals = [simd.load(total, 0) for total in sums[row]]
        for total, value in zip(sums[row], dot.add_weights(totals, weights, group), strict=True):
            simd.store(total, 0, value)

    # The last vector, of which perhaps not all exists, is not in the loop.
    together = dot.weights_together // simd.lanes
    turns = (rows.vectors - 1) // together
    if turns:
        with T.serial(turns) as turn:
            for row in rows.indices:
                weigh_group(row, turn * dot.weights_together, together)
    at_last = rows.vectors - turns * together
    size = together if at_last == together else COLUMNS // simd.lanes
    for first, row in itertools.product(range(0, at_last, size), rows.indices):
        column = (turns * together + first) * simd.lanes
        weigh_group(row, column, min(size, at_last - first))
    return [
        combine_registers([simd.load(register, 0) for register in registers], dot.add)
        for registers in sums
    ]
