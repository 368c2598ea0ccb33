"""Sums of float16 products, in registers: float16 chains, which are added up in float32.

Chain n is of the terms from n * HALF_CHAIN on:

    h = a * w of its first term, then h = fma(a, w, h)         each rounded to float16
    total = start; total = total + (h of chain 2 n + h of chain 2 n + 1), the sum in brackets
            rounded to float16, the other to float32; a last chain without another is added alone

Chains that are done wait in the worker's memory. The order depends on the depth alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.product import Accumulators, accumulators
from levit_deploy.half_format import HALF_CHAIN

LANES = 8  # of a register; also the steps that one load of values serves
_UNROLLED_PAIRS = 8

# Takes the first step, how many, at most LANES, and whether the first of them starts a chain.
Steps = Callable[[Expr, int, bool], None]


def chain_memory(rows: int, vectors: int, depth: int) -> int:
    """Float16 values that `HalfChains` of so many rows and vectors keep in memory."""
    return rows * vectors * LANES * ((depth - 1) // HALF_CHAIN)


class HalfChains:
    """Sums of `depth` products for `rows` rows x `vectors` vectors of LANES columns.

    `memory`: where chains wait, from `at` on, `chain_memory` values; None if there is one chain.
    """

    def __init__(
        self,
        simd: Simd,
        rows: int,
        vectors: int,
        depth: int,
        memory: tirx.Buffer | None,
        at: int = 0,
    ) -> None:
        assert simd.lanes == LANES
        self.simd, self.vectors, self.depth = simd, vectors, depth
        self.memory, self.at = memory, at
        self.acc: Accumulators = accumulators(simd, rows, vectors, "float16")
        self.size = rows * vectors * LANES
        self.before = (depth - 1) // HALF_CHAIN  # chains in memory: all but the last

    def add(self, steps: Steps) -> None:
        """Emit all steps."""
        if self.before:
            with T.serial(self.before) as number:
                self._chain(steps, T.bind(number * HALF_CHAIN), HALF_CHAIN)
                at = T.bind(self.at + number * self.size)
                for i, row in enumerate(self.acc):
                    for v, register in enumerate(row):
                        h = self.simd.load(register, 0)
                        self.simd.store(self.memory, at + self._place(i, v), h)
        last = self.before * HALF_CHAIN
        self._chain(steps, T.int32(last), self.depth - last)

    def _chain(self, steps: Steps, first: Expr, count: int) -> None:
        turns, rest = divmod(count, LANES)
        if turns == 2:
            for register in itertools.chain(*self.acc):
                self.simd.store(register, 0, T.broadcast(T.float16(-0.0), LANES))  # p + -0.0 is p
            with T.serial(_two()) as turn:
                steps(T.bind(first + turn * LANES), LANES, False)
        elif turns:
            steps(first, LANES, True)
        if turns > 2:
            with T.serial(1, turns) as turn:
                steps(T.bind(first + turn * LANES), LANES, False)
        if rest:
            steps(first + turns * LANES, rest, not turns)

    def multiply(
        self,
        values: tirx.Buffer,
        rows: Sequence[Expr],
        weights: tirx.Buffer,
        places: Sequence[Sequence[Expr]],
        starts: bool,
        padded: bool = False,
    ) -> None:
        """Emit a step for each of `places`, the vectors of `weights` that it multiplies.

        `rows`: where the values of each row are for the first step. `padded`: behind them lies
        enough to read whole vectors.
        """
        simd, count = self.simd, len(places)
        if count == LANES or padded:
            vectors = [T.bind(simd.load(values, at)) for at in rows]
            splats = [[simd.lane(vector, k) for k in range(count)] for vector in vectors]
        else:
            splats = [[T.broadcast(values[at + k], LANES) for k in range(count)] for at in rows]
        for k, at in enumerate(places):
            for some in simd.load_groups(self.vectors):
                loaded = [T.bind(simd.load(weights, at[v])) for v in some]
                for row, registers in zip(splats, self.acc, strict=True):
                    for v, weight in zip(some, loaded, strict=True):
                        total, begins = simd.load(registers[v], 0), starts and k == 0
                        h = row[k] * weight if begins else simd.fma(row[k], weight, total)
                        simd.store(registers[v], 0, h)

    def total(self, row: int, vector: int, start: Expr) -> Expr:
        """start + the sums of a vector, as float32."""
        simd, size = self.simd, 2 * self.size
        at = self.at + self._place(row, vector)
        pairs, single = divmod(self.before, 2)
        last = simd.load(self.acc[row][vector], 0)

        def pair(total: Expr, first: Expr | int) -> Expr:
            halves = [simd.load(self.memory, first + place) for place in (0, self.size)]
            return total + self._widened(halves[0] + halves[1])

        if pairs <= _UNROLLED_PAIRS:
            for number in range(pairs):
                start = T.bind(pair(start, at + number * size))
        else:
            total = simd.register()
            simd.store(total, 0, start)
            with T.serial(pairs) as number:
                simd.store(total, 0, pair(simd.load(total, 0), T.bind(at + number * size)))
            start = simd.load(total, 0)
        if single:
            # Of one term it would be contracted with the addition.
            last = simd.load(self.memory, at + pairs * size) + simd.fence(last)
        return T.bind(start + self._widened(last))

    def _place(self, row: int, vector: int) -> int:
        return (row * self.vectors + vector) * LANES

    def _widened(self, h: Expr) -> Expr:
        return T.cast(h, self.simd.type())


def _two() -> Expr:
    """2, which LLVM does not know: of two turns it makes straight code, in an order that spills."""
    number = T.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", T.float32(2))
    return T.bind(T.call_llvm_pure_intrin("int32", "llvm.smax", T.cast(number, "int32"), 1))
