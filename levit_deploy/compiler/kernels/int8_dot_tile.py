"""8-bit products by instructions that add up neighbouring k within a 32-bit lane.

    sdot (ARMv8.2 dotprod)                       signed by signed, four k
    vpdpbusd (AVX-VNNI, AVX-512 VNNI)            unsigned by signed, four k
    pmaddubsw, pmaddwd by ones, paddd            signed by signed, four k: see `MaddubsTile`

All of them are exact for any weights and activations; none saturates (vpdpbusds would).
A panel's weights are [depth / 4][columns][4].
"""

from __future__ import annotations

import math

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
from levit_deploy.compiler.kernels.narrowing import lanes_of, shuffle

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
_SAD = {
    16: "llvm.x86.sse2.psad.bw",
    32: "llvm.x86.avx2.psad.bw",
    64: "llvm.x86.avx512.psad.bw.512",
}
_VPDPBUSD = {8: "llvm.x86.avx512.vpdpbusd.256", 16: "llvm.x86.avx512.vpdpbusd.512"}
_SDOT = "llvm.aarch64.neon.sdot.v4i32.v16i8"


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
    """x86. Four k of `a` are broadcast to all lanes."""

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

    def splat(self, a: tirx.Buffer, at: Expr) -> list[Expr]:
        """Four k in every lane, as `dot` takes them."""
        four = T.reinterpret("int32", a.vload([at], f"{a.dtype}x{GROUP}"))
        kind = f"{a.dtype}x{GROUP * self.simd.lanes}"
        splat = T.bind(T.broadcast(four, self.simd.lanes))
        return self.activations(T.bind(T.reinterpret(kind, splat)))

    def activations(self, splat: Expr) -> list[Expr]:
        """What `dot` takes, from four bytes in every lane."""
        return [splat]

    def dot(self, total: Expr, a: list[Expr], w: Expr) -> Expr:
        """`total` plus the products of the four k of each lane."""
        raise NotImplementedError

    def call(self, kind: str, name: str, *operands: Expr) -> Expr:
        return T.call_llvm_pure_intrin(kind, name, *operands)


class VpdpbusdTile(_BroadcastTile):
    """a: U8."""

    instruction = "vpdpbusd"

    def dot(self, total: Expr, a: list[Expr], w: Expr) -> Expr:
        lanes = self.simd.lanes
        return self.call(f"int32x{lanes}", _VPDPBUSD[lanes], total, *a, w)


class MaddubsTile(_BroadcastTile):
    """x86 without a dot product. a: S8.

    pmaddubsw saturates the sum of two products of an unsigned and a signed byte at 16 bits, which
    bytes of any value exceed. So the unsigned one is |a|, at most 128, and where a is negative all
    bits of w are inverted, which makes it -w - 1, from -128 to 126:

        |a| * (a < 0 ? -w - 1 : w) = a * w - (a < 0 ? |a| : 0)

    Two of the left side lie between -2 * 128 * 128 = -32768 and 2 * 127 * 127: they fit. What is
    missing on the right depends on the row alone and is added once, where the sums start. The
    prices of the other ways are in docs/pipeline.md.
    """

    instruction = "pmaddubsw"

    @classmethod
    def extremes_of_16_bits(cls, weights: NDArray[np.int8]) -> tuple[int, int]:
        """A lane adds k and k + 1."""
        pairs = weights.astype(np.int32).reshape(-1, 2, weights.shape[1])
        ends = np.stack([np.zeros_like(pairs), 127 * pairs, 128 * (-pairs - 1)])
        return int(ends.min(0).sum(1).min()), int(ends.max(0).sum(1).max())

    def start(
        self, a: tirx.Buffer, rows: list[Expr], w: tirx.Buffer, at: Expr
    ) -> list[list[tirx.Buffer]]:
        acc = super().start(a, rows, w, at)
        for registers, row in zip(acc, rows, strict=True):
            missing = T.bind(self._sum_of_negatives(a, row))
            for register in registers:
                write(register, read(register) + missing)
        return acc

    def _sum_of_negatives(self, a: tirx.Buffer, row: Expr) -> Expr:
        """The sum of -a over the negative ones of a row, in all lanes."""
        size = math.gcd(self.depth, GROUP * self.simd.lanes)
        total = T.alloc_buffer((size // 4,), "int32", scope="local")
        write(total, T.broadcast(T.int32(0), size // 4))
        with T.serial(self.depth // size) as block:
            stored = a.vload([row + block * size], f"int8x{size}")
            q = T.bitwise_xor(T.reinterpret(f"uint8x{size}", stored), _bytes(128, size))
            negatives = self.call(f"uint8x{size}", "llvm.usub.sat", _bytes(128, size), q)
            sums = self.call(f"int64x{size // 8}", _SAD[size], negatives, _bytes(0, size))
            write(total, read(total) + T.reinterpret(f"int32x{size // 4}", sums))
        return T.broadcast(shuffle([_sum_of_lanes(read(total))], [0]), self.simd.lanes)

    def activations(self, splat: Expr) -> list[Expr]:
        """|a|, and all bits where a is negative."""
        # The absolute value of -128 is 128: the bits are read as unsigned.
        magnitude = self.call(str(splat.ty), "llvm.abs", splat, tirx.const(False, "bool"))
        sign_bit = T.broadcast(T.int8(7), GROUP * self.simd.lanes)
        return [T.bind(magnitude), T.bind(T.shift_right(splat, sign_bit))]

    def dot(self, total: Expr, a: list[Expr], w: Expr) -> Expr:
        lanes = self.simd.lanes
        magnitude, negative = a
        inverted = T.bitwise_xor(w, negative)
        pairs = self.call(f"int16x{2 * lanes}", _MADDUBS[lanes], magnitude, inverted)
        ones = T.broadcast(T.int16(1), 2 * lanes)
        # Unfenced, LLVM adds up the sums of several steps first, and spills.
        return self.simd.fence(total + self.call(f"int32x{lanes}", _MADD[lanes], pairs, ones))


def _sum_of_lanes(vector: Expr) -> Expr:
    """In every lane."""
    distance = lanes_of(vector) // 2
    while distance:
        order = [lane ^ distance for lane in range(lanes_of(vector))]
        vector = T.bind(vector + shuffle([vector], order))
        distance //= 2
    return vector


def _bytes(value: int, count: int) -> Expr:
    return T.broadcast(T.uint8(value), count)


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
