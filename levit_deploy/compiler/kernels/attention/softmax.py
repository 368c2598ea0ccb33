"""Softmax without its division: the exponentials of a row of scores, and one over their sum.

    scores[columns]  ->  exp(scores - max) and 1 / sum

The order of the sum is defined and independent of the vector width: the exponential of column j
goes to partial sum j mod 16, in order of j; then the upper half of the partial sums is added to
the lower, 8, 4, 2 and 1 at a time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.attention.score_rows import ScoreRows, combine_partials
from levit_deploy.compiler.kernels.exponential import (
    ExpConstants,
    ShortExpConstants,
    exponential,
)

# Takes a row's number, the first column of a vector, and the vector.
Keep = Callable[[int, Expr | int, Expr], None]


def softmax_rows(
    rows: ScoreRows, constants: ExpConstants | ShortExpConstants, keep: Keep
) -> list[Expr]:
    """Give each row's exp(score - max) to `keep`.

    Returns 1 / (their sum) for each row. Whole vectors are read and given; what lies past the last
    column has no influence and becomes 0. Finite scores give no NaN.
    """
    simd = rows.simd
    sums = rows.variables()
    for registers in sums:
        for register in registers:
            simd.store(register, 0, simd.splat(0.0))
    maxima = rows.maxima()

    def to_exponential(row: int, register: int, column: Expr | int) -> None:
        value = T.bind(exponential(simd, rows.load(row, column) - maxima[row], constants))
        keep(row, column, value)
        total = sums[row][register]
        simd.store(total, 0, simd.load(total, 0) + value)

    rows.each_vector(to_exponential)
    totals = [combine_partials(simd, registers, operator.add) for registers in sums]
    return [T.bind(T.float32(1.0) / total) for total in totals]
