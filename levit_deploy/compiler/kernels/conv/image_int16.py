"""What the first convolution reads where it multiplies 16-bit integers: rows of int16 steps.

The rows that a task needs are rounded into the worker's scratch, as the kernels read them: of each
row two neighbouring channels in one strip, a last one without a neighbour in a strip of its own,
each with a zero on either side:

    0 0 | r0 g0 | r1 g1 | ... | 0 0      0 | b0 | b1 | ... | 0

An output reads three columns of each strip, that is three pairs, and two of which the last is half
a pair: its other half has a weight of zero.

    q = rint(min(max(x, -limit[channel]), limit[channel]) / step[channel])

as in `output_int16`, x being the normalised image. A step is a power of two: in the sum of x and
1.5 * 2^23 steps the last bit of the mantissa is worth one, so that the addition rounds, ties to
even, and the lower half of the bits is q.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.conv.block import PixelBlock
from levit_deploy.compiler.kernels.conv.image import CONVERTED_PIXELS, normalized
from levit_deploy.compiler.kernels.conv.spec import KERNEL_SIDE, ConvSpec
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.lanes import lanes_of, shuffle
from levit_deploy.compiler.kernels.isa.simd import ROUNDING, Simd
from levit_deploy.models.spec import Normalization

LEFT = 32  # columns before the first pixel, which starts a cache line then
SLACK = 16  # int16 behind the last row: a load may take more than it needs


@dataclass(frozen=True)
class Strip:
    """`channels` neighbouring channels of a row, from channel `first` on, `at` in the row.

    `step`: int16 that one multiplication takes: 1 or 2.
    """

    first: int
    channels: int
    at: int
    step: int

    @property
    def steps(self) -> int:
        """Multiplications of one row of the kernel."""
        return -(-KERNEL_SIDE * self.channels // self.step)

    @property
    def apart(self) -> int:
        """Steps from one output to the next."""
        return 2 * self.channels // self.step


def strips(spec: ConvSpec, step: int) -> list[Strip]:
    """Those of a row."""
    columns = row_columns(spec)
    return [
        Strip(first, min(2, spec.in_channels - first), first * columns, step)
        for first in range(0, spec.in_channels, 2)
    ]


def row_columns(spec: ConvSpec) -> int:
    return LEFT + -(-(2 * spec.out_size + 1) // LEFT) * LEFT


def depth_of_steps(spec: ConvSpec, step: int) -> int:
    """Weights of one output, with those that are zero."""
    return KERNEL_SIDE * step * sum(strip.steps for strip in strips(spec, step))


def weights_of_steps(weights: NDArray[np.int16], step: int, spec: ConvSpec) -> NDArray[np.int16]:
    """(out, in, 3, 3) -> (depth, out), in the order in which they are read."""
    rows = []
    for y in range(KERNEL_SIDE):
        for strip in strips(spec, step):
            channels = slice(strip.first, strip.first + strip.channels)
            values = weights[:, channels, y].transpose(2, 1, 0).reshape(-1, len(weights))
            rows.append(np.pad(values, ((0, strip.steps * step - len(values)), (0, 0))))
    return np.concatenate(rows)


def pack_limits(steps: NDArray[np.float32], largest: int) -> NDArray[np.float32]:
    """The constant of `convert_to_steps`, flat, of what a step is worth, powers of two (channels,),
    and the largest one: limits, then what rounds."""
    return np.concatenate([largest * steps, ROUNDING * steps]).astype(np.float32)


@dataclass(frozen=True)
class StepRows:
    """Rows of strips, `row_stride` apart."""

    buffer: tirx.Buffer
    row_stride: int
    first_row: Expr

    def at(self, y: Expr, column: Expr, strip: Strip) -> Expr:
        """Where that column of row y is in the strip; column 0 is the first pixel."""
        row = (y - self.first_row) * self.row_stride
        return row + strip.at + (column + LEFT) * strip.channels


def scratch_steps(spec: ConvSpec, rows: int) -> int:
    """Scratch of `convert_to_steps` for at most `rows` rows."""
    return rows * spec.in_channels * row_columns(spec) + SLACK


def convert_to_steps(
    image: tirx.Buffer,
    limits: tirx.Buffer,
    scratch: tirx.Buffer,
    spec: ConvSpec,
    begin: Expr,
    end: Expr,
    normalization: Normalization | None,
    isa: Isa,
) -> StepRows:
    """Emit the rounding of rows [begin, end), by `limits` (of `pack_limits`).

    `normalization`: of an 8-bit image. The part of the range that lies outside the image stays
    unwritten.
    """
    size, channels = spec.in_size, spec.in_channels
    rows = StepRows(scratch, channels * row_columns(spec), begin)
    first = T.bind(T.max(begin, 0))
    with T.serial(T.min(end, size) - first) as row:
        y = T.bind(first + row)
        for strip in strips(spec, 2):
            for column in (-1, size):
                for channel in range(strip.channels):
                    T.buffer_store(scratch, T.int16(0), [rows.at(y, column, strip) + channel])
        with T.serial(-(-size // CONVERTED_PIXELS)) as step:
            # The last step overlaps the one before, so that no step leaves its row.
            x = T.bind(T.min(step * CONVERTED_PIXELS, size - CONVERTED_PIXELS))
            if normalization is None:
                pixels = _loaded(image, spec, y, x, isa)
            else:
                pixels = normalized(image, size, y, x, normalization, isa)
            steps = [
                [_rounded(Simd(isa), value, limits, channel, channels) for value in registers]
                for channel, registers in enumerate(pixels)
            ]
            for strip in strips(spec, 2):
                at = T.bind(rows.at(y, x, strip))
                for words in _words(steps[strip.first : strip.first + strip.channels], isa):
                    T.buffer_store(scratch, words, [T.ramp(at, 1, lanes_of(words))])
                    at = at + lanes_of(words)
    return rows


def _rounded(simd: Simd, x: Expr, limits: tirx.Buffer, channel: int, channels: int) -> Expr:
    """int32 whose lower halves are steps."""
    x = simd.maximum(simd.minimum(x, simd.splat(limits[channel])), simd.splat(-limits[channel]))
    at_last_bit = x + simd.splat(limits[channels + channel])
    return T.bind(T.reinterpret(f"int32x{simd.lanes}", at_last_bit))


def _loaded(image: tirx.Buffer, spec: ConvSpec, y: Expr, x: Expr, isa: Isa) -> list[list[Expr]]:
    """The same of a float image."""
    simd = Simd(isa)
    starts = [(c * spec.in_size + y) * spec.in_size + x for c in range(spec.in_channels)]
    return [
        [simd.load(image, at + i) for i in range(0, CONVERTED_PIXELS, simd.lanes)] for at in starts
    ]


def _words(channels: Sequence[Sequence[Expr]], isa: Isa) -> list[Expr]:
    """The lower halves of int32, as int16: of two channels in turn, or of one."""
    if len(channels) == 2:
        joined = [isa.join(low, high, 16) for low, high in zip(*channels, strict=True)]
        return [T.reinterpret(f"int16x{2 * lanes_of(word)}", word) for word in joined]
    (registers,) = channels
    halves = [T.reinterpret(f"int16x{2 * lanes_of(r)}", r) for r in registers]
    pairs = [halves[i : i + 2] for i in range(0, len(halves), 2)]
    return [shuffle(pair, range(0, sum(map(lanes_of, pair)), 2)) for pair in pairs]


def multiply_steps(
    block: PixelBlock,
    acc: tirx.Buffer,
    w: tirx.Buffer,
    weights_at: Expr,
    spec: ConvSpec,
    rows: StepRows,
    y: Expr,
    x: Expr,
    kernel_rows: tuple[Expr, Expr],
) -> None:
    """Add the products of a block whose first pixel is (y, x).

    `kernel_rows`: the first that lies inside the image, and how many do. The columns from 2 x - 1
    on of each strip are read once.
    """
    size = block.step_depth
    in_row = strips(spec, size)
    row_size = size * sum(strip.steps for strip in in_row) * block.width
    first, count = kernel_rows
    with T.serial(count) as turn:
        row = T.bind(T.min(first + turn, KERNEL_SIDE - 1))
        w_at = T.bind(weights_at + row * row_size)
        for strip in in_row:
            at = T.bind(rows.at(2 * y + row - 1, 2 * x - 1, strip))
            needed = (strip.apart * (block.pixels - 1) + strip.steps) * size
            values = block.values(rows.buffer, at, -(-needed // 4) * 4)
            for step in range(strip.steps):
                block.multiply(acc, w, w_at, values[step :: strip.apart][: block.pixels])
                w_at = w_at + size * block.width
