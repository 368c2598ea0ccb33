"""8-bit products by pmaddubsw, of which two are added in 16 bits: x86 without a dot product.

A lane of 16 bits holds the products of two k. Where the weights allow, those of another step are
added to it before pmaddwd widens the sum, so two steps take three multiplying instructions instead
of four. They do if in each lane of the two steps the positive weights have a sum of at most
LANE_LIMIT, and the negative ones, too: 255 * 128 = 32640 fits 16 bits.

Each panel has its pairs of steps. Its weights lie in their order, and behind them, as uint16, how
many pairs there are, then the first k of every step: those of the pairs, then those left alone.
"""

from __future__ import annotations

import operator
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.gemm.int8_dot_tile import GROUP, MaddubsTile
from levit_deploy.compiler.kernels.gemm.int8_tile import HEADER_BYTES, Bytes
from levit_deploy.compiler.kernels.isa.integer_instructions import pmaddubsw
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.simd import CACHE_LINE_BYTES
from levit_deploy.compiler.kernels.product import Accumulators

LANE_LIMIT = 128  # of the weights of one sign that a lane adds up
_ENTRY_BYTES = 2


class MaddubsPairTile(MaddubsTile):
    fewest_sums = 4  # only a paddd, of one cycle, waits for the one before

    @staticmethod
    def largest(isa: Isa) -> tuple[int, int, int]:
        if isa.registers == 32:
            return 8, 2, 1
        # 6 sums, 4 weights, ones, 2 a, 2 products: 15 of 16.
        return 3, 2, 1

    @staticmethod
    def order_bytes(depth: int, columns: int) -> int:
        """In whole floats."""
        return -(-_ENTRY_BYTES * (1 + depth // GROUP) // (4 * columns)) * 4

    @classmethod
    def pack_order(cls, weights: NDArray[np.int8]) -> NDArray[np.int8]:
        pairs, alone = _pairs(_lane_sums(weights))
        steps = [step for pair in pairs for step in pair] + alone
        order = np.array([len(pairs), *(GROUP * step for step in steps)], np.uint16)
        return order.view(np.int8)

    @classmethod
    def depth_order(cls, order: NDArray[np.int8], depth: int) -> NDArray[np.intp]:
        first = order.view(np.uint16)[1 : 1 + depth // GROUP].astype(np.intp)
        return (first[:, None] + np.arange(GROUP)).ravel()

    @classmethod
    def extremes_of_16_bits(
        cls, weights: NDArray[np.int8], order: NDArray[np.int8]
    ) -> tuple[int, int]:
        depth = len(weights)
        sums = _lane_sums(weights[cls.depth_order(order, depth)]).astype(np.int64)
        paired = 2 * int(order.view(np.uint16)[0])
        together = sums[:paired:2] + sums[1:paired:2]
        positive, negative = np.concatenate([together, sums[paired:]]).max(axis=(0, 2))
        return -255 * int(negative), 255 * int(positive)

    def add_products(
        self, acc: Accumulators, starts: list[Expr], panel: Expr, inside: Expr | int, share: Expr
    ) -> None:
        steps = self.depth // GROUP
        weights = T.bind(self.weights_at(panel, inside))
        order = T.bind(panel + (HEADER_BYTES + self.depth) * self.panel_width)
        # A pointer of their own: otherwise each step adds the start of the rows.
        first_row = T.bind(T.address_of(self.a[starts[0]]))
        rows = T.decl_buffer((self.row_step * self.mr,), self.a.dtype, data=first_row)
        pairs = self.entry(order)
        with T.serial(pairs) as pair:
            self.prefetch_lines(panel, share, pair)
            self.add_steps(acc, rows, order, weights, 2 * pair, 2)
        paired = T.bind(2 * pairs)
        with T.serial(steps - paired) as alone:
            self.prefetch_lines(panel, share, pairs + alone)
            self.add_steps(acc, rows, order, weights, paired + alone, 1)

    @property
    def row_step(self) -> int:
        """From a row to the next."""
        return self.depth * (2 if self.gathered else 1)

    def prefetch_lines(self, panel: Expr, share: Expr, turn: Expr) -> None:
        """Of this tile's share of the next panel, and what follows it, a line or more."""
        mine = -(-self.panel_bytes // (CACHE_LINE_BYTES * self.tiles_per_panel))
        count = -(-mine // (self.depth // GROUP // 2))
        for i in range(count):
            line = share * mine + turn * count + i
            self.simd.prefetch(self.w, panel + self.panel_bytes + line * CACHE_LINE_BYTES)

    def entry(self, at: Expr) -> Expr:
        two = self.w.vload([at], "int8x2")
        return T.bind(T.cast(T.reinterpret("uint16", two), "int32"))

    def add_steps(
        self,
        acc: Accumulators,
        rows: tirx.Buffer,
        order: Expr,
        weights: Expr,
        first: Expr,
        count: int,
    ) -> None:
        """The products of `count` steps from number `first` on."""
        simd, size = self.simd, GROUP * self.simd.lanes
        numbers = [T.bind(first) + i for i in range(count)]
        # Rows are at fixed distances: one address of a step serves them all.
        at = [self.entry(order + (1 + i) * _ENTRY_BYTES) for i in numbers]
        places = [self.place(v * simd.lanes, GROUP) for v in range(self.vectors)]
        factors = [
            Bytes(self.w, weights + i * (GROUP * self.panel_width)).vectors(places, size)
            for i in numbers
        ]
        for i, registers in enumerate(acc):
            products = []
            for k, step_factors in zip(at, factors, strict=True):
                splat = self.splat(Bytes(rows, k), i * self.row_step)
                products.append([T.bind(pmaddubsw(splat, factor)) for factor in step_factors])
            for register, narrow in zip(registers, zip(*products, strict=True), strict=True):
                total = simd.load(register, 0)
                simd.store(register, 0, self.widened(total, reduce(operator.add, narrow)))


def _lane_sums(weights: NDArray[np.int8]) -> NDArray[np.int16]:
    """weights (depth, columns) -> (steps, 2, lanes of 16 bits): the sums of the positive and of the
    negative weights that a step adds to each lane."""
    wide = weights.astype(np.int16)
    signs = np.stack([np.maximum(wide, 0), np.maximum(-wide, 0)])
    lanes = signs.reshape(2, len(weights) // GROUP, GROUP // 2, 2, -1)
    sums = lanes.sum(axis=3, dtype=np.int16).transpose(1, 0, 2, 3)
    return np.ascontiguousarray(sums.reshape(len(weights) // GROUP, 2, -1))


def _pairs(sums: NDArray[np.int16]) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs of steps, and those left alone: whoever has the fewest partners comes first, and takes
    the one that has the fewest others. `sums` as of `_lane_sums`."""
    lanes = np.ascontiguousarray(sums.reshape(len(sums), -1).T, dtype=np.uint8)
    room = LANE_LIMIT - lanes
    fit = np.asarray((lanes[:, None, :] <= room[:, :, None]).all(axis=0))
    np.fill_diagonal(fit, False)
    partners, pairs = fit.sum(axis=1), []
    never = len(sums) + 1
    while partners.any():
        one = int(np.where(partners > 0, partners, never).argmin())
        other = int(np.where(fit[one], partners, never).argmin())
        pairs.append((one, other))
        partners -= fit[one]
        partners -= fit[other]
        for step in (one, other):
            fit[step] = fit[:, step] = False
            partners[step] = 0
    taken = {step for pair in pairs for step in pair}
    return pairs, [step for step in range(len(sums)) if step not in taken]
