"""8-bit products by instructions that add up neighbouring k within a 32-bit lane.

| instruction | k | a | weights |
|---|---|---|---|
| vpdpbusd (AVX-VNNI, AVX-512 VNNI) | 4 | unsigned bytes, broadcast | signed bytes |
| pmaddwd and an addition | 2 | int16, broadcast | signed bytes, widened as they are loaded |
| sdot (dotprod) | 4 | signed bytes, by lane | signed bytes |

None of them saturates: vpdpbusd and sdot add four products to 32 bits exactly (vpdpbusds would
saturate), pmaddwd's two products are at most 2 * 255 * 127. vpmaddubsw, which saturates at 16
bits, is left alone: it takes as many multiplier slots as pmaddwd, for it needs one to widen.

A panel's weights are [depth / k][columns][k].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.int8_tile import (
    Int8Tile,
    int32_register,
    load_int32,
    read,
    write,
)
from levit_deploy.compiler.kernels.simd import Simd

_MADD = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}
_VPDPBUSD = {8: "llvm.x86.avx512.vpdpbusd.256", 16: "llvm.x86.avx512.vpdpbusd.512"}
_SDOT = "llvm.aarch64.neon.sdot.v4i32.v16i8"


class _DotTile(Int8Tile):
    """`group`: k in one lane."""

    group: int

    @classmethod
    def pack(cls, weights: NDArray[np.int8]) -> NDArray[np.int8]:
        depth, columns = weights.shape
        grouped = weights.reshape(depth // cls.group, cls.group, columns)
        return np.ascontiguousarray(grouped.transpose(0, 2, 1)).ravel()

    def start(self, w: tirx.Buffer, at: Expr) -> list[list[tirx.Buffer]]:
        simd = self.simd
        acc = [[int32_register(simd) for _ in range(self.vectors)] for _ in range(self.mr)]
        for v in range(self.vectors):
            initial = T.bind(load_int32(simd, w, at + 4 * v * simd.lanes))
            for row in acc:
                write(row[v], initial)
        return acc

    def finish(
        self, acc: list[list[tirx.Buffer]], w: tirx.Buffer, at: Expr
    ) -> list[list[Expr]]:
        return [[read(register) for register in row] for row in acc]


class VpdpbusdTile(_DotTile):
    """a: U8."""

    step_depth = group = 4

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
        kind = f"int32x{lanes}"
        weights = [
            T.bind(w.vload([at + 4 * lanes * v], f"int8x{4 * lanes}")) for v in range(self.vectors)
        ]
        for registers, row in zip(acc, rows, strict=True):
            splat = T.broadcast(T.reinterpret("int32", a.vload([row + k], "uint8x4")), lanes)
            four = T.bind(T.reinterpret(f"uint8x{4 * lanes}", splat))
            for register, weight in zip(registers, weights, strict=True):
                write(
                    register,
                    T.call_llvm_pure_intrin(kind, _VPDPBUSD[lanes], read(register), four, weight),
                )


class MaddTile(_DotTile):
    """a: S16."""

    step_depth = group = 2

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
        kind, words = f"int32x{lanes}", f"int16x{2 * lanes}"
        weights = [
            T.bind(T.cast(w.vload([at + 2 * lanes * v], f"int8x{2 * lanes}"), words))
            for v in range(self.vectors)
        ]
        for registers, row in zip(acc, rows, strict=True):
            splat = T.broadcast(T.reinterpret("int32", a.vload([row + k], "int16x2")), lanes)
            pair = T.bind(T.reinterpret(words, splat))
            for register, weight in zip(registers, weights, strict=True):
                product = T.call_llvm_pure_intrin(kind, _MADD[lanes], pair, weight)
                # Unfenced, LLVM adds up the products of several steps first, and spills.
                write(register, self.simd.fence(read(register) + product))


class SdotTile(_DotTile):
    """a: S8. A step is one load of each row: 16 k, by four lanes."""

    group = 4
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
                        total = T.call_llvm_pure_intrin(
                            "int32x4", _SDOT, read(registers[v]), weight, four
                        )
                        write(registers[v], total)
