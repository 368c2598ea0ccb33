"""Softmax without its division: the exponentials of a row of scores, and one over their sum.

    scores[columns]  ->  exp(scores - max), in place, and 1 / sum

The order of the sum is defined and independent of the vector width: the exponential of column j
goes to partial sum j mod 16, in order of j; then the upper half of the partial sums is added to
the lower, 8, 4, 2 and 1 at a time.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.simd import Simd

PARTIAL_SUMS = 16
_EXCLUDED = -math.inf  # below every score

_MANTISSA_BITS = 23


class ExpConstants(NamedTuple):
    """What `exponential` computes with: numbers, or registers filled with them."""

    # Below it, exp is taken for zero; the multiple of ln 2 that is nearest to it is -127.
    smallest: Expr | float = -88.0
    log2_e: Expr | float = 1.4426950408889634
    minus_ln_2: Expr | float = -0.6931471805599453
    # 1.5 * 2^23 + 127: adding it rounds to an integer, which ends up in the low bits of the
    # mantissa, plus the bias of a float32's exponent.
    round: Expr | float = 12582912.0 + 127
    # exp(r) = 1 + r + r^2 (c2 + c3 r + c4 r^2 + c5 r^3) for |r| <= ln(2) / 2: the least maximum
    # relative error of this form, 1.06e-7, found by Lawson's iterated weights in float64.
    c2: Expr | float = 0.499992311
    c3: Expr | float = 0.166671157
    c4: Expr | float = 0.0418903306
    c5: Expr | float = 0.00831250101

    def store(self, simd: Simd, buffer: tirx.Buffer, at: int) -> None:
        """Emit: a vector of each number from buffer[at] on."""
        for i, number in enumerate(self):
            simd.store(buffer, at + i * simd.lanes, simd.splat(number))


def load_constants(simd: Simd, buffer: tirx.Buffer, at: int) -> ExpConstants:
    """What `ExpConstants.store` stored: loaded here, or, with 16 registers, where it is used.

    Constants of its own LLVM makes anew in every turn of the loop (NEON: dup), or it gives them
    all registers and spills what it computes (AVX2). Operands in memory cost x86 nothing.
    """
    places = range(at, at + len(ExpConstants()) * simd.lanes, simd.lanes)
    loads = [simd.load(buffer, place) for place in places]
    if simd.target.vector_registers > 16:
        loads = [T.bind(load) for load in loads]
    return ExpConstants(*loads)


def exponential(simd: Simd, x: Expr, constants: ExpConstants) -> Expr:
    """exp(x) of a register of values x <= 0: relative error below 2e-7 + 3e-9 |x|.

    Without FMA 2e-7 + 6e-8 |x|: there n ln 2 is rounded.

    exp(0) is 1; x < -87.4 gives 0, as -inf and NaN do.

    x = n ln 2 + r; exp(x) = 2^n exp(r). 2^n is made by shifting n + 127 into the exponent of a
    float32: n = -127 makes it 0.
    """
    k = constants
    x = T.bind(simd.maximum(x, k.smallest))
    sum_bits = T.reinterpret(f"int32x{simd.lanes}", simd.fma(x, k.log2_e, k.round))
    biased = T.bind(sum_bits)  # through its bits, or TVM would simplify (a + b) - b to a
    n = T.reinterpret(simd.type(), biased) - k.round
    r = T.bind(simd.fma(n, k.minus_ln_2, x))
    r2 = T.bind(r * r)
    low = simd.fma(r, k.c3, k.c2)
    high = simd.fma(r, k.c5, k.c4)
    fraction = T.bind(simd.fma(r2, simd.fma(r2, high, low), r))  # exp(r) - 1
    shift = T.broadcast(T.int32(_MANTISSA_BITS), simd.lanes)
    power = T.bind(T.reinterpret(simd.type(), T.shift_left(biased, shift)))
    return simd.fma(power, fraction, power)


def rows_together(simd: Simd, columns: int) -> int:
    """How many rows `softmax_rows` should take at a time, at most.

    With 16 lanes a row is one chain of maxima and one of sums, each step waiting for the one
    before: four rows fill each other's gaps (Zen 4: 2 % of an attention of 196 keys, 6 % of 49).
    Narrower registers make several chains of a row.
    """
    return 4 if _chains(simd, columns) == 1 else 1


def softmax_rows(
    simd: Simd, scores: tirx.Buffer, rows: Sequence[Expr], columns: int, constants: ExpConstants
) -> list[Expr]:
    """Replace scores[at : at + columns] by exp(score - max) for every `at` of `rows`.

    Returns 1 / (their sum) for each row. Whole vectors are read and written; what lies past
    `columns` has no influence and becomes 0. Finite scores give no NaN.
    """
    vectors = -(-columns // simd.lanes)
    chains = _chains(simd, columns)
    maxima = [[simd.register() for _ in range(chains)] for _ in rows]
    sums = [[simd.register() for _ in range(chains)] for _ in rows]

    def load(row: int, column: Expr | int) -> Expr:
        value = simd.load(scores, rows[row] + column)
        if not isinstance(column, int) or column + simd.lanes <= columns:
            return value
        exists = T.ramp(column, 1, simd.lanes) < T.broadcast(columns, simd.lanes)
        return T.Select(exists, value, simd.splat(_EXCLUDED))

    def for_each_vector(body: Callable[[int, int, Expr | int], None], first: int = 0) -> None:
        """Emit body(row, chain, column) for the vectors from `first` on; the last is not looped."""
        turns = max(vectors - 1 - first, 0) // chains
        if turns:
            with T.serial(turns) as turn:
                for chain, row in itertools.product(range(chains), range(len(rows))):
                    body(row, chain, (turn * chains + first + chain) * simd.lanes)
        for vector in range(first + turns * chains, vectors):
            for row in range(len(rows)):
                body(row, vector % chains, vector * simd.lanes)

    for row, chain in itertools.product(range(len(rows)), range(chains)):
        simd.store(maxima[row][chain], 0, load(row, chain * simd.lanes))
        simd.store(sums[row][chain], 0, simd.splat(0.0))

    def to_maximum(row: int, chain: int, column: Expr | int) -> None:
        larger = simd.maximum(simd.load(maxima[row][chain], 0), load(row, column))
        simd.store(maxima[row][chain], 0, larger)

    def to_exponential(row: int, chain: int, column: Expr | int) -> None:
        value = T.bind(exponential(simd, load(row, column) - maximum[row], constants))
        simd.store(scores, rows[row] + column, value)
        simd.store(sums[row][chain], 0, simd.load(sums[row][chain], 0) + value)

    for_each_vector(to_maximum, first=chains)
    maximum = [T.bind(simd.splat(_reduce(simd, chains_of, T.max))) for chains_of in maxima]
    for_each_vector(to_exponential)
    totals = [_reduce(simd, chains_of, operator.add) for chains_of in sums]
    return [T.bind(T.float32(1.0) / total) for total in totals]


def _chains(simd: Simd, columns: int) -> int:
    """Registers of maxima and of partial sums that a row takes."""
    return min(PARTIAL_SUMS // simd.lanes, -(-columns // simd.lanes))


def _reduce(
    simd: Simd, variables: list[tirx.Buffer], combine: Callable[[Expr, Expr], Expr]
) -> Expr:
    """One value from up to 16 in `variables`: halves are combined, 8, 4, 2 and 1 at a time."""
    registers = [simd.load(variable, 0) for variable in variables]
    halves = PARTIAL_SUMS // simd.lanes // 2
    while halves:
        pairs = [
            T.bind(combine(registers[i], registers[i + halves]))
            if i + halves < len(registers)
            else registers[i]
            for i in range(min(halves, len(registers)))
        ]
        registers, halves = pairs, halves // 2
    (vector,) = registers
    half = simd.lanes // 2
    while half:
        low = tirx.Shuffle([vector], [tirx.const(i, "int32") for i in range(half)])
        high = tirx.Shuffle([vector], [tirx.const(i + half, "int32") for i in range(half)])
        vector = T.bind(combine(low, high))
        half //= 2
    return vector
