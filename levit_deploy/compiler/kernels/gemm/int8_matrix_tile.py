"""8-bit products by smmla (i8mm): two rows times two columns, eight k at a time.

A register holds [row 0 column 0, row 0 column 1, row 1 column 0, row 1 column 1], so that one
instruction does 32 multiply-adds, exactly, in 32 bits. a: S8_PAIRS, of which one load is the
operand. A panel's weights are [depth / 8][columns / 2][2][8]. Source: Arm ARM, SMMLA (vector).
"""

from __future__ import annotations

from functools import partial

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm.int8_tile import Bytes, Int8Tile
from levit_deploy.compiler.kernels.isa.activation_storage import PAIR_CHANNELS, ActivationStorage
from levit_deploy.compiler.kernels.isa.integer_instructions import smmla
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.lanes import concat, of_both_rows, row_of_two
from levit_deploy.compiler.kernels.product import Accumulators, accumulators, add_matrices

_BYTES = 16  # of a register


class SmmlaTile(Int8Tile):
    """Accumulators by pair of rows and pair of columns."""

    instruction = "smmla"
    storage = ActivationStorage.S8_PAIRS
    step_depth = 2 * PAIR_CHANNELS
    column_step = PAIR_CHANNELS
    row_alignment = 2
    vector_alignment = 2  # so that the eight channels of S8_PAIRS are in one panel

    @staticmethod
    def largest(isa: Isa) -> tuple[int, int, int]:
        return 6, 4, 2  # 24 sums of 2x2, 3 times two rows, 2 weights

    def start(self, at: Expr) -> Accumulators:
        acc = accumulators(self.simd, self.mr // 2, 2 * self.vectors, "int32")
        for v in range(self.vectors):
            initial = self.initial(at, v)
            for pair, doubled in enumerate(of_both_rows(initial)):
                for row in acc:
                    self.simd.store(row[2 * v + pair], 0, doubled)
        return acc

    def step(self, acc: Accumulators, rows: list[Bytes], k: Expr | int, w: Bytes) -> None:
        for eight in (0, 1):
            loaded = [self._pair(rows[i : i + 2], k, eight) for i in range(0, self.mr, 2)]
            add_matrices(self.simd, acc, loaded, partial(self.weights, w, eight), smmla)

    def weights(self, w: Bytes, eight: int, pairs: range) -> list[Expr]:
        """A register of eight k of both columns for each of some pairs."""
        return w.vectors([(eight * 2 * self.vectors + pair) * _BYTES for pair in pairs])

    def _pair(self, rows: list[Bytes], k: Expr | int, eight: int) -> Expr:
        """Eight k of two rows. Gathered rows are first ones of their pairs."""
        place = 2 * k + eight * _BYTES
        if not self.gathered:
            return T.bind(rows[0].load(place))
        return T.bind(concat(*(row.load(place, PAIR_CHANNELS) for row in rows)))

    def finish(self, acc: Accumulators, at: Expr) -> list[list[Expr]]:
        sums = [[self.simd.load(register, 0) for register in pair] for pair in acc]
        return [
            [T.bind(row_of_two(pair[j : j + 2], row)) for j in range(0, len(pair), 2)]
            for pair in sums
            for row in (0, 1)
        ]
