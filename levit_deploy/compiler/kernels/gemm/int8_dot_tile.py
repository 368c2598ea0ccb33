"""8-bit products by instructions that add up neighbouring k within a 32-bit lane.

    sdot (ARMv8.2 dotprod)                       signed by signed, four k
    vpdpbusd (AVX-VNNI, AVX-512 VNNI)            unsigned by signed, four k
    pmaddubsw, pmaddwd by ones, paddd            signed by signed, four k: see `MaddubsTile`

All of them are exact for any weights and activations; none saturates (vpdpbusds would).
A panel's weights are [depth / 4][columns][4].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm.int8_tile import (
    Int8Tile,
    int32_register,
    load_int32,
    read,
    write,
)
from levit_deploy.compiler.kernels.isa.integer_instructions import (
    pmaddubsw,
    pmaddwd,
    sdot,
    vpdpbusd,
)

GROUP = 4  # k in one lane
WEIGHTS_TOGETHER = 2  # registers of weights that all rows use before the next are loaded


class _DotTile(Int8Tile):
    """Accumulators by row and register of columns."""

    @classmethod
    def pack(cls, weights: NDArray[np.integer]) -> NDArray[np.integer]:
        depth, columns = weights.shape
        grouped = weights.reshape(depth // GROUP, GROUP, columns)
        return np.ascontiguousarray(grouped.transpose(0, 2, 1)).ravel()

    def start(
        self, a: tirx.Buffer, rows: list[Expr], w: tirx.Buffer, at: Expr
    ) -> list[list[tirx.Buffer]]:
        simd = self.simd
        acc = [[int32_register(simd) for _ in range(self.vectors)] for _ in range(self.mr)]
        for v in range(self.vectors):
            initial = T.bind(load_int32(simd, w, at + 4 * v * simd.lanes))
            for row in acc:
                write(row[v], initial)
        return acc

    def finish(self, acc: list[list[tirx.Buffer]], w: tirx.Buffer, at: Expr) -> list[list[Expr]]:
        return [[read(register) for register in row] for row in acc]


class _BroadcastTile(_DotTile):
    """x86. a: U8, four k of which are broadcast to all lanes."""

    step_depth = GROUP

    def step(
        self,
        acc: list[list[tirx.Buffer]],
        a: tirx.Buffer,
        rows: list[Expr],
        k: Expr | int,
        w: tirx.Buffer,
        at: Expr,
    ) -> None:
        lanes = self.simd.lanes
        wide = self.vectors > WEIGHTS_TOGETHER
        splats = [self.splat(a, row + k) for row in rows] if wide else []
        for first in range(0, self.vectors, WEIGHTS_TOGETHER):
            group = range(first, min(first + WEIGHTS_TOGETHER, self.vectors))
            places = [at + GROUP * lanes * v for v in group]
            weights = [T.bind(w.vload([place], f"int8x{GROUP * lanes}")) for place in places]
            for i, registers in enumerate(acc):
                activations = splats[i] if wide else self.splat(a, rows[i] + k)
                for v, weight in zip(group, weights, strict=True):
                    write(registers[v], self.dot(read(registers[v]), activations, weight))

    def splat(self, a: tirx.Buffer, at: Expr) -> Expr:
        """Four k in every lane."""
        four = T.reinterpret("int32", a.vload([at], f"uint8x{GROUP}"))
        splat = T.bind(T.broadcast(four, self.simd.lanes))
        return T.bind(T.reinterpret(f"uint8x{GROUP * self.simd.lanes}", splat))

    def dot(self, total: Expr, a: Expr, w: Expr) -> Expr:
        """`total` plus the products of the four k of each lane."""
        raise NotImplementedError


class VpdpbusdTile(_BroadcastTile):
    instruction = "vpdpbusd"

    def dot(self, total: Expr, a: Expr, w: Expr) -> Expr:
        return vpdpbusd(total, a, w)


class MaddubsTile(_BroadcastTile):
    """x86 without a dot product. a: U8.

    pmaddubsw saturates the sum of two products of an unsigned and a signed byte at 16 bits. So the
    weights of neighbouring k, the pairs that it adds up, have sums from -PAIR_LIMIT to PAIR_LIMIT:
    255 * 128 = 32640 fits.
    """

    instruction = "pmaddubsw"

    @classmethod
    def extremes_of_16_bits(cls, weights: NDArray[np.int8]) -> tuple[int, int]:
        """A lane adds k and k + 1."""
        pairs = weights.astype(np.int32).reshape(-1, 2, weights.shape[1])
        lowest = 255 * np.minimum(pairs, 0).sum(axis=1).min()
        return int(lowest), int(255 * np.maximum(pairs, 0).sum(axis=1).max())

    def dot(self, total: Expr, a: Expr, w: Expr) -> Expr:
        ones = T.broadcast(T.int16(1), 2 * self.simd.lanes)
        # Unfenced, LLVM adds up the sums of several steps first, and spills.
        return self.simd.fence(total + pmaddwd(pmaddubsw(a, w), ones))


class SdotTile(_DotTile):
    """a: S8. A step is one load of each row: 16 k, four by four."""

    instruction = "sdot"
    step_depth = 16

    def step(
        self,
        acc: list[list[tirx.Buffer]],
        a: tirx.Buffer,
        rows: list[Expr],
        k: Expr | int,
        w: tirx.Buffer,
        at: Expr,
    ) -> None:
        simd = self.simd
        loaded = [T.bind(T.reinterpret("int32x4", a.vload([row + k], "int8x16"))) for row in rows]
        for lane in range(4):
            for first in range(0, self.vectors, simd.load_group):
                group = range(first, min(first + simd.load_group, self.vectors))
                offsets = [(lane * self.vectors + v) * 16 for v in group]
                weights = [T.bind(w.vload([at + offset], "int8x16")) for offset in offsets]
                for registers, quads in zip(acc, loaded, strict=True):
                    four = T.reinterpret("int8x16", simd.lane(quads, lane))
                    for v, weight in zip(group, weights, strict=True):
                        write(registers[v], sdot(read(registers[v]), weight, four))
