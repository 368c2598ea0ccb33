"""Sums of float16 products, in registers: float16 chains, which are added up in float32.

Chain n is of the terms from n * FP16_CHAIN on:

    h = a * w of its first term, then h = fma(a, w, h)         each rounded to float16
    total = start; total = total + (h of chain 2 n + h of chain 2 n + 1), the sum in brackets
            rounded to float16, the other to float32; a last chain without another is added alone

In linear layers it is (h of chain 4 n + h of 4 n + 1) + (h of 4 n + 2 + h of 4 n + 3), all rounded
to float16; of a last group, what there is.

Of several chains all wait, done, in the worker's memory. The order depends on the depth alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.lanes import lanes_of
from levit_deploy.compiler.kernels.isa.simd import Simd, unknown
from levit_deploy.compiler.kernels.product import Accumulators, accumulators
from levit_deploy.half_format import FP16_CHAIN

LANES = 8  # of a register
_UNROLLED_CHAINS = 16

# Takes the first step, how many, and whether the first of them starts a chain.
Steps = Callable[[Expr, int, bool], None]


def chain_memory(rows: int, vectors: int, depth: int) -> int:
    """Float16 values that `Fp16Chains` of so many rows and vectors keep in memory."""
    return rows * vectors * LANES * -(-depth // FP16_CHAIN)


class Fp16Chains:
    """Sums of `depth` products for `rows` rows x `vectors` vectors of LANES columns.

    `memory`: where chains wait, from `at` on, `chain_memory` values; None if there is one chain,
    which stays in registers. `together`: steps of a turn of the loop. `group`: chains that are
    added in float16, 2 or 4.
    """

    def __init__(
        self,
        simd: Simd,
        rows: int,
        vectors: int,
        depth: int,
        memory: tirx.Buffer | None,
        at: int = 0,
        together: int = LANES,
        group: int = 2,
    ) -> None:
        assert simd.lanes == LANES
        self.simd, self.vectors, self.depth = simd, vectors, depth
        self.memory, self.at, self.together, self.group = memory, at, together, group
        self.acc: Accumulators = accumulators(simd, rows, vectors, "float16")
        self.size = rows * vectors * LANES

    def add(self, steps: Steps) -> None:
        """Emit all steps."""
        whole, rest = divmod(self.depth, FP16_CHAIN)
        if whole:
            with T.serial(whole) as number:
                self._chain(steps, T.bind(number * FP16_CHAIN), FP16_CHAIN, number)
        if rest:
            self._chain(steps, T.int32(whole * FP16_CHAIN), rest, whole)

    def _chain(self, steps: Steps, first: Expr, count: int, number: Expr | int) -> None:
        turns, rest = divmod(count, self.together)
        if turns:
            steps(first, self.together, True)
        if turns > 1:
            with T.serial(1, unknown(2) if turns == 2 else turns) as turn:
                steps(T.bind(first + turn * self.together), self.together, False)
        if rest:
            steps(first + turns * self.together, rest, not turns)
        if self.memory is not None:
            at = T.bind(self.at + number * self.size)
            for i, row in enumerate(self.acc):
                for v, register in enumerate(row):
                    # Of one term it would be contracted with the addition that follows.
                    h = self.simd.fence(self.simd.load(register, 0))
                    self.simd.store(self.memory, at + self._place(i, v), h)

    def multiply(
        self,
        values: Iterable[Sequence[Expr]],
        weights: tirx.Buffer,
        places: Sequence[Sequence[Expr]],
        starts: bool,
    ) -> None:
        """Emit a step for each of `places`, the vectors of `weights` that it multiplies.

        `values`: of each step those of all rows, each in all lanes of a register.
        """
        simd, of_rows = self.simd, iter(values)
        row_values: list[Sequence[Expr]] = []
        products = [(k, v) for k in range(len(places)) for v in range(self.vectors)]
        for group in simd.load_groups(len(products)):
            some = products[group.start : group.stop]
            loaded = [T.bind(simd.load(weights, places[k][v])) for k, v in some]
            while len(row_values) <= some[-1][0]:
                row_values.append(next(of_rows))
            for i, registers in enumerate(self.acc):
                for (k, v), weight in zip(some, loaded, strict=True):
                    total, begins = simd.load(registers[v], 0), starts and k == 0
                    value = row_values[k][i]
                    h = value * weight if begins else simd.fma(value, weight, total)
                    simd.store(registers[v], 0, h)

    def total(self, row: Expr | int, vector: int, start: Expr | None = None) -> Expr:
        """start (default: 0) + the sums of a vector, as float32; `row`: int if no chains wait."""
        if self.memory is None:
            assert isinstance(row, int)
            return add_up(start, [self.simd.load(self.acc[row][vector], 0)])
        simd, at = self.simd, self.at + self._place(row, vector)
        count = -(-self.depth // FP16_CHAIN)
        if count > _UNROLLED_CHAINS:
            total, group = simd.register(), self.group
            simd.store(total, 0, simd.splat(0.0) if start is None else start)
            with T.serial(count // group) as number:
                chains = self._waiting(T.bind(at + number * (group * self.size)), group)
                simd.store(total, 0, add_up(simd.load(total, 0), chains, group))
            at, count = at + count // group * group * self.size, count % group
            start = simd.load(total, 0)
        return add_up(start, self._waiting(at, count), self.group)

    def _waiting(self, at: Expr | int, count: int) -> list[Expr]:
        return [self.simd.load(self.memory, at + number * self.size) for number in range(count)]

    def _place(self, row: Expr | int, vector: int) -> Expr | int:
        return (row * self.vectors + vector) * LANES


def add_up(start: Expr | None, chains: Sequence[Expr], group: int = 2) -> Expr:
    """start + the sums of chains, as float32; of `group` of them float16, in pairs."""
    for first in range(0, len(chains), group):
        sums = list(chains[first : first + group])
        while len(sums) > 1:
            sums = [sum(sums[i + 1 : i + 2], start=sums[i]) for i in range(0, len(sums), 2)]
        wide = T.cast(sums[0], f"float32x{lanes_of(sums[0])}")
        start = T.bind(wide if start is None else start + wide)
    return start


def by_lane(
    simd: Simd, values: tirx.Buffer, rows: Sequence[Expr], count: int, padded: bool = False
) -> list[list[Expr]]:
    """The values of `count` steps, at most LANES, for `Fp16Chains.multiply`: those of a row lie
    side by side, from where `rows` says on. `padded`: behind them lies enough to read vectors."""
    if count == LANES or padded:
        vectors = [T.bind(simd.load(values, at)) for at in rows]
        return [[simd.lane(vector, k) for vector in vectors] for k in range(count)]
    return [[T.broadcast(values[at + k], LANES) for at in rows] for k in range(count)]
