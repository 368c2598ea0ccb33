"""One row of a convolution's output for one panel of channels: block after block of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import tvm
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.conv.block import FloatBlock, PixelBlock
from levit_deploy.compiler.kernels.conv.block_fp16 import Fp16Block
from levit_deploy.compiler.kernels.conv.image import Planes
from levit_deploy.compiler.kernels.conv.output_int16 import Int16Output
from levit_deploy.compiler.kernels.conv.spec import (
    KERNEL_SIDE,
    ConvSpec,
    ConvTile,
    Source,
    padded_size,
)
from levit_deploy.compiler.kernels.conv.winograd import OUTPUTS, TAPS
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.simd import CACHE_LINE_BYTES, Simd
from levit_deploy.compiler.kernels.output import Output


def block_family(spec: ConvSpec, isa: Isa) -> type[PixelBlock]:
    """What multiplies."""
    match spec.source:
        case Source.PADDED_INT16 | Source.PADDED_INT16_BYTES as source:
            return isa.int16_block(spec.in_channels, source is Source.PADDED_INT16_BYTES)
        case Source.PADDED_FP16:
            return Fp16Block
        case Source.PADDED_BF16:
            return isa.bf16_block
    return FloatBlock


def row_height(spec: ConvSpec, isa: Isa) -> int:
    """Of a row of the output that is written at once: 2 for tiles of `winograd`, else 1."""
    in_tiles = block_family(spec, isa).in_tiles and spec.out_size % OUTPUTS == 0
    return OUTPUTS if in_tiles else 1


def panel_depth(spec: ConvSpec, isa: Isa) -> int:
    """Weights of an output channel in a panel."""
    return spec.depth if row_height(spec, isa) == 1 else TAPS**2 * spec.in_channels


@dataclass(frozen=True)
class _Block:
    """Pixels [x, x + pixels) of a row, of which it is block `number`.

    At an edge of a caller's image, columns beside it are missing; a padded source has them all.
    """

    x: int
    number: int
    pixels: int
    left_edge: bool
    right_edge: bool


def _blocks(spec: ConvSpec, tile: ConvTile, image: bool) -> Iterator[_Block]:
    """The blocks of a row, from left to right."""
    cut = Blocks.of(spec.out_size, tile.pixels)
    x = 0
    for number in range(cut.count):
        pixels = cut.size if number < cut.large else cut.size - 1
        right = number == cut.count - 1 and spec.in_size % 2 == 1
        yield _Block(x, number, pixels, image and number == 0, image and right)
        x += pixels


@dataclass(frozen=True)
class RowWriter:
    """Emits rows of the output. `source`: a padded buffer, or the planes of an image. `memory`: of
    sums that are `in_memory`."""

    spec: ConvSpec
    tile: ConvTile
    isa: Isa
    source: tirx.Buffer | Planes
    w: tirx.Buffer
    output: Output | Int16Output
    memory: tirx.Buffer | None

    @property
    def family(self) -> type[PixelBlock]:
        return block_family(self.spec, self.isa)

    def emit(self, y: Expr, panel: Expr | int) -> None:
        """Row y for the channels of `panel`. Blocks of one kind are a loop over the same code."""
        image = isinstance(self.source, Planes)
        blocks = _blocks(self.spec, self.tile, image)
        for _, alike in groupby(blocks, lambda b: (b.pixels, b.left_edge, b.right_edge)):
            first, *others = alike
            with T.serial(1 + len(others)) as index:
                x = T.bind(first.x + index * first.pixels)
                number = T.bind(y * self.blocks_in_row + first.number + index)
                self.block(first, y, x, number, panel)

    @property
    def blocks_in_row(self) -> int:
        return Blocks.of(self.spec.out_size, self.tile.pixels).count

    def block(self, kind: _Block, y: Expr, x: Expr, number: Expr, panel: Expr | int) -> None:
        """`number`: of the block in its panel."""
        block = self.family(self.isa, self.tile.vectors, kind.pixels)
        panel_at = T.bind(panel * block.panel_size(self.spec.depth))
        if self.memory is None:
            acc = block.start(self.w, panel_at)
        else:
            size = block.memory_size(KERNEL_SIDE * self.spec.in_channels)
            acc = T.decl_buffer((size,), self.memory.dtype, data=self.memory.data)
        weights_at = panel_at + block.header * block.width
        if isinstance(self.source, Planes):
            self.image_taps(block, acc, weights_at, y, x, self.source, kind)
        else:
            self.padded_taps(block, acc, weights_at, y, x, self.source, number)
        row, first = T.bind(self.spec.output_row(y, x)), T.bind(panel * block.width)

        def store(pixel: Expr | int, channel: int, simd: Simd, values: list[Expr]) -> None:
            self.output.store(simd, row + pixel, first + channel, values)

        block.finish(acc, self.w, panel_at, self.spec.activation, store)

    def kernel_rows(self, y: Expr) -> tuple[Expr, Expr]:
        """The first kernel row that lies inside the image at output row y, and how many do.

        The count, 1 to 3, is written with quotients so that LLVM does not see how small it is: it
        would unroll the loop over the kernel rows, and its register allocator then spills. That
        there is at least one it is told, in a way that TVM does not simplify: it would make a
        second version of the kernel for none.
        """
        side = self.spec.out_size
        first = tirx.Select(y == 0, T.int32(1), T.int32(0))
        count = 2 + (y + side - 1) // side
        if self.spec.in_size % 2:
            count = count - (y + 1) // side
        return T.bind(first), T.bind(T.call_llvm_pure_intrin("int32", "llvm.smax", count, 1))

    def padded_taps(
        self,
        block: PixelBlock,
        acc: tirx.Buffer,
        weights_at: Expr,
        y: Expr,
        x: Expr,
        source: tirx.Buffer,
        number: Expr,
    ) -> None:
        """A row of the kernel lies in one piece in the input and in the panel: 3 x channels."""
        channels, depth = self.spec.in_channels, KERNEL_SIDE * self.spec.in_channels
        sizes = block.chains(depth)
        first, count = self.kernel_rows(y)
        if block.in_memory:
            with T.If(count < KERNEL_SIDE), T.Then():
                _clear(acc)
        with T.serial(count) as turn:
            row = T.bind(T.min(first + turn, KERNEL_SIDE - 1))
            at = T.bind(((2 * y + row) * padded_size(self.spec.in_size) + 2 * x) * channels)
            w_at = T.bind(weights_at + row * (block.weight_size(depth) * block.width))
            ahead = T.bind(weights_at + self.next_share(block, number * KERNEL_SIDE + row))

            def chain(number: Expr | int, first: Expr | int, size: int) -> None:
                w_first = w_at + block.weight_size(first) * block.width
                with block.chain(acc, row * len(sizes) + number) as sums:
                    self.chain(block, sums, source, at + first, w_first, size, ahead)

            before = done = 0
            for size, alike in groupby(sizes):
                alike_count = len(list(alike))
                if alike_count == 1:
                    chain(before, done, size)
                else:
                    with T.serial(alike_count) as index:
                        chain(before + index, done + index * size, size)
                before, done = before + alike_count, done + alike_count * size

    def chain(
        self,
        block: PixelBlock,
        sums: tirx.Buffer,
        source: tirx.Buffer,
        at: Expr,
        w_at: Expr,
        depth: int,
        ahead: Expr,
    ) -> None:
        """`depth` products of each sum: of values from `at` and weights from `w_at` on."""
        pixels = [at + pixel * 2 * self.spec.in_channels for pixel in range(block.pixels)]

        def steps(k: Expr | int, count: int) -> None:
            block.steps(sums, source, pixels, self.w, w_at, k, count)

        unroll, begun = self.depth_unroll, 0
        if block.in_memory:  # LLVM sees what sums start from: the first product is no addition
            steps(0, unroll)
            begun = 1
        if depth // unroll > begun:
            with T.serial(begun, depth // unroll) as k:
                self.prefetch_weights(block, ahead, k)
                self.prefetch_input(block, source, at, k)
                for step in range(0, unroll, block.load_depth):
                    steps(k * unroll + step, block.load_depth)
        for k in range(max(begun, depth // unroll) * unroll, depth, block.load_depth):
            steps(k, min(block.load_depth, depth - k))

    @property
    def depth_unroll(self) -> int:
        """Input channels in one turn of the loop, the end of which costs some cores time."""
        family = self.family
        twice = not self.isa.runs_ahead and family.sums == 1 and not family.in_memory
        return family.load_depth * (2 if twice else 1)

    def share_size(self, block: PixelBlock) -> int:
        """What each kernel row of each block asks for of the next panel."""
        shares = KERNEL_SIDE * self.spec.out_size * self.blocks_in_row
        return -(-block.panel_size(self.spec.depth) // shares)

    def next_share(self, block: PixelBlock, share: Expr) -> Expr:
        """How far behind this panel's weights the share begins."""
        weights = block.weight_size(self.spec.depth) * block.width
        return weights + block.header * block.width + share * self.share_size(block)

    def prefetch_weights(self, block: PixelBlock, share_at: Expr, turn: Expr) -> None:
        """Ask for the next panel, a little in each turn of the inner loop.

        Weights come cold from memory; without this, the first block of each panel waits for them.
        The last panel's prefetches fall on what follows in memory: the next kernel's constants.
        """
        if not self.isa.runs_ahead or block.width == self.spec.out_channels:
            return
        step = -(-self.share_size(block) // self.turns)
        Simd(self.isa).prefetch(self.w, share_at + turn * step, level=1)

    @property
    def turns(self) -> int:
        """Of the inner loop, for one row of the kernel."""
        return KERNEL_SIDE * self.spec.in_channels // self.depth_unroll

    def prefetch_input(self, block: PixelBlock, source: tirx.Buffer, at: Expr, turn: Expr) -> None:
        """Ask for the pixels two rows below: what the next row of the output reads first.

        They were written by the kernel before, and a large input is in the outer cache by now; a
        core does not foresee so many short pieces.
        """
        if not self.isa.runs_ahead:
            return
        channels = self.spec.in_channels
        below = T.bind(at + 2 * padded_size(self.spec.in_size) * channels)
        in_line = CACHE_LINE_BYTES // tvm.DataType(block.dtype).itemsize
        lines = -(-2 * block.pixels * channels // (in_line * self.turns))
        for line in range(lines):
            place = below + (turn * lines + line) * in_line
            Simd(self.isa).prefetch(source, place, level=1)

    def image_taps(
        self,
        block: PixelBlock,
        acc: tirx.Buffer,
        weights_at: Expr,
        y: Expr,
        x: Expr,
        planes: Planes,
        kind: _Block,
    ) -> None:
        """The columns 2 x - 1 ... 2 (x + pixels - 1) + 1 of each row are read once."""
        inside = range(kind.left_edge, 2 * block.pixels + 1 - kind.right_edge)
        first, count = self.kernel_rows(y)
        with T.serial(count) as turn:
            row = T.bind(T.min(first + turn, KERNEL_SIDE - 1))
            at = T.bind(planes.at(2 * y + row - 1) + 2 * x - 1)
            w_at = T.bind(weights_at + row * (KERNEL_SIDE * self.spec.in_channels * block.width))
            for channel in range(self.spec.in_channels):
                start = at + channel * planes.plane + inside.start
                columns = block.values(planes.buffer, start, len(inside))
                for tap in range(KERNEL_SIDE):
                    wanted = range(tap, tap + 2 * block.pixels, 2)
                    values = [columns[c - inside.start] if c in inside else None for c in wanted]
                    step = channel * KERNEL_SIDE + tap
                    block.multiply(acc, self.w, w_at + step * block.width, values)


def _clear(buffer: tirx.Buffer) -> None:
    lanes = 4
    with T.serial(int(buffer.shape[0]) // lanes) as i:
        zero = T.broadcast(T.cast(0, buffer.dtype), lanes)
        T.buffer_store(buffer, zero, [T.ramp(i * lanes, 1, lanes)])
