"""8-bit products of weights that lie as sdot wants them, on ARM CPUs that have no sdot, or better.

A panel's weights are [depth / 4][columns][4], so that one constant serves every CPU. What that
costs beside an order of their own: smlal takes activations from registers that repeat four k; smmla
interleaves two registers of weights wherever a tile of rows loads them.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm.int8_dot_tile import GROUP
from levit_deploy.compiler.kernels.gemm.int8_long_tile import LongTile
from levit_deploy.compiler.kernels.gemm.int8_matrix_tile import SmmlaTile
from levit_deploy.compiler.kernels.gemm.int8_tile import Bytes
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.lanes import half, shuffle
from levit_deploy.compiler.kernels.isa.neon import neon_of
from levit_deploy.compiler.kernels.product import Accumulators


class MlalSharedTile(LongTile):
    """Accumulators by row and pair of columns, two sums of each: four k of two columns are eight
    products, to which those of the next four k are added in the same 16-bit lanes."""

    step_depth = 4 * GROUP
    column_step = GROUP
    sums_per_vector = 2
    apart = GROUP

    @staticmethod
    def largest(isa: Isa) -> tuple[int, int, int]:
        # 16 times two sums of two columns, 2 times two splats of four k, 2 weights, products.
        return (2, 4, 2) if isa.registers == 32 else (2, 1, 1)

    def step(self, acc: Accumulators, rows: list[Bytes], k: Expr | int, w: Bytes) -> None:
        simd, neon = self.simd, neon_of(self.simd)
        loaded = [T.bind(T.reinterpret("int32x4", row.load(k))) for row in rows]
        for eight in (0, 1):
            fours = [2 * eight, 2 * eight + 1]
            splats = [
                [T.bind(T.reinterpret("int8x16", simd.lane(quads, four))) for four in fours]
                for quads in loaded
            ]
            for v in range(self.vectors):
                place = self.place(v * simd.lanes, GROUP)
                weights = w.vectors(place + four * GROUP * self.panel_width for four in fours)
                for registers, row in zip(acc, splats, strict=True):
                    for pair in (0, 1):
                        first, second = (
                            neon.long_product("int16x8", half(weight, pair), half(a, pair))
                            for weight, a in zip(weights, row, strict=True)
                        )
                        register = registers[2 * v + pair]
                        total = neon.add_pairs(simd, simd.load(register, 0), first + second)
                        simd.store(register, 0, total)

    def finish(self, acc: Accumulators, at: Expr) -> list[list[Expr]]:
        initial = [self.initial(at, v) for v in range(self.vectors)]
        sums = [[self.simd.load(register, 0) for register in row] for row in acc]
        return [
            [T.bind(_added_pairs(row[2 * v : 2 * v + 2]) + initial[v]) for v in range(self.vectors)]
            for row in sums
        ]


class SmmlaSharedTile(SmmlaTile):
    """As smmla's own, but for the order of the weights."""

    column_step = GROUP
    rearranges_weights = True

    @staticmethod
    def largest(isa: Isa) -> tuple[int, int, int]:
        return 8, 2, 2  # 16 sums of 2x2, 8 times two rows, 4 weights, 1 of the next

    def bytes(self, buffer: tirx.Buffer, start: Expr) -> Bytes:
        """By a pointer of its own, from which ldp reaches all that one turn of the loop loads."""
        return Bytes(*self.simd.isa.window(buffer, start, self.panel_bytes))

    def weights(self, w: Bytes, eight: int, pairs: range) -> list[Expr]:
        """Two columns in each register, eight k of one after those of the other."""
        registers = []
        for pair in pairs:
            place = self.place(pair // 2 * 4, GROUP)
            fours = [place + four * GROUP * self.panel_width for four in (2 * eight, 2 * eight + 1)]
            low, high = (T.reinterpret("int32x4", four) for four in w.vectors(fours))
            lanes = [0, 4, 1, 5] if pair % 2 == 0 else [2, 6, 3, 7]
            registers.append(T.bind(T.reinterpret("int8x16", shuffle([low, high], lanes))))
        return registers


def _added_pairs(registers: list[Expr]) -> Expr:
    """The sums of neighbouring lanes of two registers, in one."""
    return shuffle(registers, [0, 2, 4, 6]) + shuffle(registers, [1, 3, 5, 7])
