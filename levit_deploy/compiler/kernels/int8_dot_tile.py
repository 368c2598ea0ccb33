"""8-bit products by instructions that add up neighbouring k within a 32-bit lane.

    sdot (ARMv8.2 dotprod)                                    signed by signed, four k
    vpdpbusd (AVX-VNNI, AVX-512 VNNI)                         unsigned by signed, four k
    vpmaddubsw, vpmaddwd by ones, vpaddd                      the same without VNNI
    vpmaddwd, vpaddd, twice, after widening to 16 bits        the same, any weights

All of them are exact. sdot and vpdpbusd do not saturate (vpdpbusds would). vpmaddwd's two
products of 16 bits fit 32. vpmaddubsw saturates its sum of two products at 16 bits, so it is used
for weights alone of which `pairs_fit` proves that no activation can make them exceed it: then it
does 32 multiply-adds with two multiplications and an addition, not with two and two (on Zen 4,
measured in registers: 1.00 against 1.33 cycles).

A panel's weights are [depth / 4][columns][4].
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

GROUP = 4  # k in one lane
WEIGHTS_TOGETHER = 2  # registers of weights that all rows use before the next are loaded
_MADD = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}
_MADDUBS = {
    4: "llvm.x86.ssse3.pmadd.ub.sw.128",
    8: "llvm.x86.avx2.pmadd.ub.sw",
    16: "llvm.x86.avx512.pmaddubs.w.512",
}
_VPDPBUSD = {8: "llvm.x86.avx512.vpdpbusd.256", 16: "llvm.x86.avx512.vpdpbusd.512"}
_SDOT = "llvm.aarch64.neon.sdot.v4i32.v16i8"


def pairs_fit(weights: NDArray[np.int8]) -> bool:
    """Whether vpmaddubsw is exact for `weights` (depth, columns) and any activations.

    It adds a[k] * w[k] + a[k + 1] * w[k + 1] for even k. With 0 <= a <= 255 the sum is largest
    where a is 255 for positive weights and 0 for negative ones, and the other way round; both
    must fit int16.
    """
    depth, columns = weights.shape
    even = np.zeros((depth + depth % 2, columns), np.int32)
    even[:depth] = weights
    largest = 255 * np.maximum(even, 0).reshape(-1, 2, columns).sum(axis=1)
    smallest = 255 * np.minimum(even, 0).reshape(-1, 2, columns).sum(axis=1)
    return bool(largest.max() <= 32767 and smallest.min() >= -32768)


class _DotTile(Int8Tile):
    """Accumulators by row and register of columns."""

    @classmethod
    def pack(cls, weights: NDArray[np.int8]) -> NDArray[np.int8]:
        depth, columns = weights.shape
        grouped = weights.reshape(depth // GROUP, GROUP, columns)
        return np.ascontiguousarray(grouped.transpose(0, 2, 1)).ravel()

    def start(self, w: tirx.Buffer, at: Expr) -> list[list[tirx.Buffer]]:
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
    """x86. a: U8, of which four k are broadcast to all lanes."""

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
            weights = [self.weights(w.vload([place], f"int8x{GROUP * lanes}")) for place in places]
            for i, registers in enumerate(acc):
                activations = splats[i] if wide else self.splat(a, rows[i] + k)
                for v, weight in zip(group, weights, strict=True):
                    write(registers[v], self.dot(read(registers[v]), activations, weight))

    def splat(self, a: tirx.Buffer, at: Expr) -> list[Expr]:
        """Four k in every lane, as `dot` takes them."""
        four = T.reinterpret("int32", a.vload([at], f"uint8x{GROUP}"))
        return self.activations(T.broadcast(four, self.simd.lanes))

    def weights(self, loaded: Expr) -> list[Expr]:
        """What `dot` takes, from a register of bytes."""
        return [T.bind(loaded)]

    def activations(self, splat: Expr) -> list[Expr]:
        """What `dot` takes, from four bytes in every lane."""
        return [T.bind(T.reinterpret(f"uint8x{GROUP * self.simd.lanes}", splat))]

    def dot(self, total: Expr, a: list[Expr], w: list[Expr]) -> Expr:
        """`total` plus the products of the four k of each lane."""
        raise NotImplementedError

    def call(self, kind: str, name: str, *operands: Expr) -> Expr:
        return T.call_llvm_pure_intrin(kind, name, *operands)


class VpdpbusdTile(_BroadcastTile):
    instruction = "vpdpbusd"

    def dot(self, total: Expr, a: list[Expr], w: list[Expr]) -> Expr:
        lanes = self.simd.lanes
        return self.call(f"int32x{lanes}", _VPDPBUSD[lanes], total, *a, *w)


class MaddubsTile(_BroadcastTile):
    """For weights that `pairs_fit` accepts."""

    instruction = "pmaddubsw"

    def dot(self, total: Expr, a: list[Expr], w: list[Expr]) -> Expr:
        lanes = self.simd.lanes
        pairs = self.call(f"int16x{2 * lanes}", _MADDUBS[lanes], *a, *w)
        ones = T.broadcast(T.int16(1), 2 * lanes)
        # Unfenced, LLVM adds up the sums of several steps first, and spills.
        return self.simd.fence(total + self.call(f"int32x{lanes}", _MADD[lanes], pairs, ones))


class MaddTile(_BroadcastTile):
    """For any weights. Bytes become words where they are: even ones and odd ones apart."""

    instruction = "pmaddwd"

    def weights(self, loaded: Expr) -> list[Expr]:
        words = T.bind(T.reinterpret(f"int16x{2 * self.simd.lanes}", loaded))
        eight = T.broadcast(T.int16(8), 2 * self.simd.lanes)
        even = T.shift_right(T.shift_left(words, eight), eight)
        return [T.bind(even), T.bind(T.shift_right(words, eight))]

    def activations(self, splat: Expr) -> list[Expr]:
        kind = f"uint16x{2 * self.simd.lanes}"
        words = T.bind(T.reinterpret(kind, splat))
        eight = T.broadcast(T.uint16(8), 2 * self.simd.lanes)
        low = T.broadcast(T.uint16(255), 2 * self.simd.lanes)
        return [T.bind(T.bitwise_and(words, low)), T.bind(T.shift_right(words, eight))]

    def dot(self, total: Expr, a: list[Expr], w: list[Expr]) -> Expr:
        lanes = self.simd.lanes
        for words, weights in zip(a, w, strict=True):
            product = self.call(f"int32x{lanes}", _MADD[lanes], words, weights)
            total = self.simd.fence(total + product)
        return total


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
                        total = T.call_llvm_pure_intrin(
                            "int32x4", _SDOT, read(registers[v]), weight, four
                        )
                        write(registers[v], total)
