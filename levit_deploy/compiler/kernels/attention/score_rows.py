"""Rows of scores in the scratch buffer: loops over their vectors, and their maxima.

A sum or a maximum over a row is made of 16 partial ones: column j belongs to number j mod 16.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.lanes import Combine
from levit_deploy.compiler.kernels.isa.simd import Simd

PARTIAL_SUMS = 16
_EXCLUDED = -math.inf  # below every score


@dataclass(frozen=True)
class ScoreRows:
    """scores[at : at + columns] for every `at` of `starts`, in whole vectors."""

    simd: Simd
    scores: tirx.Buffer
    starts: Sequence[Expr]
    columns: int

    @property
    def vectors(self) -> int:
        """How many hold a row."""
        return -(-self.columns // self.simd.lanes)

    @property
    def registers(self) -> int:
        """How many hold the partial results of a row."""
        return partial_registers(self.simd, self.columns)

    @property
    def indices(self) -> range:
        return range(len(self.starts))

    def variables(self) -> list[list[tirx.Buffer]]:
        """Registers for partial results, by row."""
        return [[self.simd.register() for _ in range(self.registers)] for _ in self.starts]

    def load(self, row: int, column: Expr | int) -> Expr:
        """A vector of scores; what lies past the last one is minus infinity."""
        value = self.simd.load(self.scores, self.starts[row] + column)
        if not isinstance(column, int) or column + self.simd.lanes <= self.columns:
            return value
        exists = T.ramp(column, 1, self.simd.lanes) < T.broadcast(self.columns, self.simd.lanes)
        return T.Select(exists, value, self.simd.splat(_EXCLUDED))

    def each_vector(self, body: Callable[[int, int, Expr | int], None], first: int = 0) -> None:
        """Emit body(row, register, column) for the vectors from `first`, the last not in a loop."""
        count, lanes = self.registers, self.simd.lanes
        turns = max(self.vectors - 1 - first, 0) // count
        if turns:
            with T.serial(turns) as turn:
                for register, row in itertools.product(range(count), self.indices):
                    body(row, register, (turn * count + first + register) * lanes)
        for vector in range(first + turns * count, self.vectors):
            for row in self.indices:
                body(row, vector % count, vector * lanes)

    def maxima(self) -> list[Expr]:
        """The largest score of each row, in all lanes."""
        simd = self.simd
        return [T.bind(simd.splat(simd.reduce(row, T.max))) for row in self.partial_maxima()]

    def partial_maxima(self) -> list[Expr]:
        """A register of each row, the largest lane of which is the row's largest score."""
        simd, maxima = self.simd, self.variables()
        for row, register in itertools.product(self.indices, range(self.registers)):
            simd.store(maxima[row][register], 0, self.load(row, register * simd.lanes))

        def to_maximum(row: int, register: int, column: Expr | int) -> None:
            larger = simd.maximum(simd.load(maxima[row][register], 0), self.load(row, column))
            simd.store(maxima[row][register], 0, larger)

        self.each_vector(to_maximum, first=self.registers)
        return [
            combine_registers([simd.load(register, 0) for register in row], simd.maximum)
            for row in maxima
        ]


def partial_registers(simd: Simd, columns: int) -> int:
    """How many hold 16 partial results, or fewer columns."""
    return min(PARTIAL_SUMS // simd.lanes, -(-columns // simd.lanes))


def rows_together(simd: Simd, columns: int) -> int:
    """How many rows should be taken at a time, at most.

    With 16 lanes a row is one register of maxima and one of sums, each step waiting for the one
    before: four rows fill each other's gaps. Narrower registers make several of a row.
    """
    return 4 if partial_registers(simd, columns) == 1 else 1


def combine_partials(simd: Simd, variables: list[tirx.Buffer], combine: Combine) -> Expr:
    """One value from up to 16 in `variables`: halves are combined, 8, 4, 2 and 1 at a time."""
    registers = [simd.load(variable, 0) for variable in variables]
    return simd.reduce(combine_registers(registers, combine), combine)


def combine_registers(registers: Sequence[Expr], combine: Combine) -> Expr:
    """One of up to four: the upper half is combined with the lower, again and again."""
    halves = 2
    while halves:
        registers = [
            T.bind(combine(registers[i], registers[i + halves]))
            if i + halves < len(registers)
            else registers[i]
            for i in range(min(halves, len(registers)))
        ]
        halves //= 2
    return registers[0]
