"""Convolutions of 16-bit integers and of bfloat16 with 25 multiplications for 36 of the definition:
Winograd's filtering.

The columns that a stride of 2 reads are two sequences: u[n] = x[2 n - 1], with the outer weights of
the kernel, and v[n] = x[2 n], with the middle one. Of two neighbouring outputs

    y[0] = (u[0] - u[1]) * w[0]  +  v[0] * w[1]  +  u[1] * (w[0] + w[2])
    y[1] = (u[2] - u[1]) * w[2]  +  v[1] * w[1]  +  u[1] * (w[0] + w[2])

the last product is the same one, F(2, 2) of Lavin and Gray ("Fast Algorithms for Convolutional
Neural Networks", CVPR 2016, section 4.1): 5 for 6. Rows are treated alike: a tile of 2 x 2 outputs
has 5 x 5 differences of inputs, each of which is multiplied by one of 4 x 4 sums of weights.

Integers: four steps or weights are added at most, and fit 16 bits. Sums on the way may wrap in 32
bits, which does no harm, for all instructions wrap and the results fit: they are those of the
definition to the bit.

bfloat16: weights are added in float32, rows first, and inputs subtracted, rows first; both are then
rounded once, to nearest, ties to even. A sum is one chain of `vdpbf16ps`, over differences by rows,
then columns, then channels; sums are added in float32:

    shared      = from the bias, u[1] of rows and columns
    row[i]      = (from 0, what output i has of rows, u[1] of columns) + shared
    column[j]   = from 0, u[1] of rows, what output j has of columns
    y[i, j]     = ((from 0, what i has of rows, j of columns) + row[i]) + column[j]

Output 0 has u[0] - u[1], then v[0]; output 1 has u[2] - u[1], then v[1]. A border of zeros is
multiplied like all else. Four numbers are added at most, and must not leave bfloat16's range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.conv.block import PixelBlock, Registers
from levit_deploy.compiler.kernels.conv.output_int16 import Int16Output
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, padded_size
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.simd import CACHE_LINE_BYTES, Simd
from levit_deploy.compiler.kernels.output import Output

OUTPUTS = 2  # in a row or a column of a tile
TAPS = 4  # in a row or a column of the sums of weights: three weights, and that of the outer two
_DIFFERENCES = 5  # in a row or a column: u[0] - u[1], v[0], u[1], v[1], u[2] - u[1]

# Sums that outputs of a tile share, by their place in the scratch: all four, those of a row, those
# of a column.
_BOTH, _ROWS, _COLUMNS = 0, 1, 1 + OUTPUTS
_GROUPS = 1 + 2 * OUTPUTS

NumberT = TypeVar("NumberT", np.int16, np.float32)


@dataclass(frozen=True)
class _Places:
    """The rows, or the columns, of `count` differences and of the sums of weights that they are
    multiplied by: those of number i are i * `step` behind `difference` and `tap`."""

    count: int
    difference: Expr | int
    tap: Expr | int
    step: Expr | int


_SHARED = _Places(1, 2, 3, 0)  # u[1], and the sum of the outer weights


def _own(output: Expr) -> _Places:
    """u[0] - u[1] and v[0], or u[2] - u[1] and v[1]."""
    return _Places(2, 4 * output, 2 * output, 1 - 2 * output)


def weight_sums(weights: NDArray[NumberT]) -> NDArray[NumberT]:
    """(out, in, 3, 3) -> (out, in, 4, 4): first over rows, then over columns."""
    rows = np.concatenate([weights, weights[:, :, :1] + weights[:, :, 2:]], axis=2)
    return np.concatenate([rows, rows[..., :1] + rows[..., 2:]], axis=3)


@dataclass(frozen=True)
class TileWriter:
    """Emits rows of tiles of the output. `source`: a padded buffer; `scratch`: `scratch_size`."""

    spec: ConvSpec
    tile: ConvTile
    isa: Isa
    family: type[PixelBlock]
    source: tirx.Buffer
    w: tirx.Buffer
    output: Output | Int16Output
    scratch: tirx.Buffer

    @staticmethod
    def scratch_size(spec: ConvSpec, tile: ConvTile) -> int:
        """Values of 16 bits."""
        differences = _DIFFERENCES**2 * spec.in_channels
        return (differences + _GROUPS * 2 * tile.width) * tile.pixels

    def emit(self, y: Expr, panel: Expr | int) -> None:
        """Row y of tiles for the channels of `panel`."""
        tiles = Blocks.of(self.spec.out_size // OUTPUTS, self.tile.pixels)
        tiles.each(lambda x, count: self.block(count, y, T.bind(T.int32(0) + x), panel))

    def subtract(self, tiles: int, y: Expr, x: Expr) -> None:
        """Differences of the inputs of `tiles` neighbours: [5][5][tiles][channels]; over rows, then
        over columns."""
        channels, size = self.spec.in_channels, padded_size(self.spec.in_size)
        lanes = min(self.isa.vector_bytes // 2, channels & -channels)
        corner = T.bind(2 * OUTPUTS * (y * size + x) * channels)

        def less(a: Registers, b: Registers) -> Registers:
            return tuple(map(sub, a, b))

        def differences(values: Sequence[Registers]) -> list[Registers]:
            shared = values[2]
            return [less(values[0], shared), *values[1:4], less(values[4], shared)]

        with T.serial(tiles) as tile, T.serial(channels // lanes) as part:
            at = T.bind(corner + 2 * OUTPUTS * tile * channels + part * lanes)
            to = T.bind(tile * channels + part * lanes)

            def load(row: int, column: int) -> Registers:
                place = at + (row * size + column) * channels
                return self.family.wide(Simd(self.isa, lanes // 2), self.source, place)

            columns = [
                differences([load(row, column) for row in range(_DIFFERENCES)])
                for column in range(_DIFFERENCES)
            ]
            for row in range(_DIFFERENCES):
                values = differences([tuple(map(T.bind, column[row])) for column in columns])
                for column, value in enumerate(values):
                    place = to + (row * _DIFFERENCES + column) * tiles * channels
                    narrow = self.family.narrow(value)
                    T.buffer_store(self.scratch, narrow, [T.ramp(place, 1, lanes)])

    def block(self, tiles: int, y: Expr, x: Expr, panel: Expr | int) -> None:
        """`tiles` neighbours from column x on: the sums that outputs share, then each output's."""
        self.subtract(tiles, y, x)
        block = self.family(self.isa, self.tile.vectors, tiles)
        panel_at = T.bind(panel * block.panel_size(TAPS**2 * self.spec.in_channels))
        first = T.bind(panel * block.width)
        number = T.bind((y * (self.spec.out_size // OUTPUTS) + x) * _DIFFERENCES**2)

        def products(acc: tirx.Buffer, rows: _Places, columns: _Places) -> tirx.Buffer:
            """`acc` plus products of some differences and their weights, by rows and columns."""
            with T.serial(rows.count) as i, T.serial(columns.count) as j:
                below, beside = i * rows.step, j * columns.step
                difference = (rows.difference + below) * _DIFFERENCES + columns.difference + beside
                tap = (rows.tap + below) * TAPS + columns.tap + beside
                self.prefetch_weights(block, panel_at, number + difference * tiles)
                self.products(block, acc, difference, tap, panel_at)
            return acc

        acc = products(block.start(self.w, panel_at), _SHARED, _SHARED)
        self.put(block, acc, _BOTH)
        with T.serial(OUTPUTS) as row:
            acc = products(block.zeros(), _own(row), _SHARED)
            self.add(block, acc, _BOTH)
            self.put(block, acc, _ROWS + row)
        with T.serial(OUTPUTS) as column:
            acc = products(block.zeros(), _SHARED, _own(column))
            self.put(block, acc, _COLUMNS + column)
        with T.serial(OUTPUTS) as row, T.serial(OUTPUTS) as column:
            acc = products(block.zeros(), _own(row), _own(column))
            self.add(block, acc, _ROWS + row)
            self.add(block, acc, _COLUMNS + column)
            pixel = T.bind(self.spec.output_row(OUTPUTS * y + row, OUTPUTS * x + column))

            def store(tile: int, channel: int, simd: Simd, values: list[Expr]) -> None:
                self.output.store(simd, pixel + OUTPUTS * tile, first + channel, values)

            block.finish(acc, self.w, panel_at, self.spec.activation, store)

    def products(
        self, block: PixelBlock, acc: tirx.Buffer, difference: Expr, tap: Expr, panel_at: Expr
    ) -> None:
        """Those of one difference of each tile and one sum of weights, over the channels."""
        channels = self.spec.in_channels
        at = T.bind(difference * block.pixels * channels)
        before = block.header + block.weight_size(tap * channels)
        w_at = T.bind(panel_at + before * block.width)
        tiles = [at + tile * channels for tile in range(block.pixels)]
        turns, rest = divmod(channels, block.load_depth)
        if turns:
            with T.serial(turns) as turn:
                k = turn * block.load_depth
                block.steps(acc, self.scratch, tiles, self.w, w_at, k, block.load_depth)
        if rest:
            block.steps(acc, self.scratch, tiles, self.w, w_at, channels - rest, rest)

    def prefetch_weights(self, block: PixelBlock, panel_at: Expr, number: Expr) -> None:
        """Ask for the next panel, a little for each difference of each tile. `number`: of the first
        one of a block's, in the whole panel."""
        if not self.isa.runs_ahead or block.width == self.spec.out_channels:
            return
        size = block.panel_size(TAPS**2 * self.spec.in_channels)
        share = -(-size // (self.spec.out_size // OUTPUTS * _DIFFERENCES) ** 2)
        for at in range(0, share * block.pixels, CACHE_LINE_BYTES // 2):
            place = panel_at + size + number * share + at
            Simd(self.isa).prefetch(self.w, place, level=1)

    def put(self, block: PixelBlock, acc: tirx.Buffer, group: Expr | int) -> None:
        """Store the sums of a block as those of `group`."""
        for at, simd in self._registers(block):
            words = T.reinterpret(self._halves(simd), simd.load(acc, at))
            T.buffer_store(self.scratch, words, [T.ramp(self._place(group, at), 1, 2 * simd.lanes)])

    def add(self, block: PixelBlock, acc: tirx.Buffer, group: Expr | int) -> None:
        """Add what `put` has stored."""
        for at, simd in self._registers(block):
            words = self.scratch.vload([self._place(group, at)], self._halves(simd))
            sums = T.reinterpret(f"{block.sum_dtype}x{simd.lanes}", words)
            simd.store(acc, at, simd.load(acc, at) + sums)

    def _halves(self, simd: Simd) -> str:
        """The type of sums as values of the scratch, two of which each takes."""
        return f"{self.family.dtype}x{2 * simd.lanes}"

    def _place(self, group: Expr | int, at: int) -> Expr | int:
        size = 2 * self.tile.pixels * self.tile.width
        return self.scratch_size(self.spec, self.tile) - (_GROUPS - group) * size + 2 * at

    def _registers(self, block: PixelBlock) -> list[tuple[int, Simd]]:
        return [
            (row * block.width + channel, simd)
            for row in range(block.rows)
            for simd, channel in block.registers
        ]
