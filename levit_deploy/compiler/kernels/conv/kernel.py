"""3x3 convolution, stride 2, padding 1, channels last: the stem of LeViT.

    image or padded[P, P, in], panels  ->  padded[P', P', out] or tokens[side * side, out]

A row of the output is cut into blocks of a few pixels, which stay in registers for one panel of
output channels over all taps. No input is copied for its padding: the borders of a caller's image
are other variants of the code, and a padded buffer has a border of zeros that its writer made.

Every output is one chain: acc = bias; acc = fma(input, weight, acc) over kernel rows, then columns,
then channels (of an image: rows, channels, columns); then the activation. Kernel rows outside the
image are left out, and so are columns outside a caller's image. Of 16-bit floats: `block_fp16`,
`block_bf16` and `block_bfmmla`; and `winograd`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.conv.image import (
    Planes,
    convert_rows,
    scratch_floats,
    whole_image,
)
from levit_deploy.compiler.kernels.conv.output_int16 import Int16Output
from levit_deploy.compiler.kernels.conv.row import (
    RowWriter,
    block_family,
    panel_depth,
    row_height,
)
from levit_deploy.compiler.kernels.conv.spec import (
    KERNEL_SIDE,
    ConvSpec,
    ConvTile,
    Destination,
    Source,
    padded_size,
)
from levit_deploy.compiler.kernels.conv.winograd import OUTPUTS, TileWriter, weight_sums
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel, kernel_function, parameter, task_range
from levit_deploy.compiler.kernels.output import Output, Stored
from levit_deploy.compiler.kernels.widen import STORED, step_of
from levit_deploy.models.spec import Normalization
from levit_deploy.targets.target import Target

_KINDS = {
    Source.PADDED_INT16: "conv int16",
    Source.PADDED_INT16_BYTES: "conv int16",
    Source.PADDED_FP16: "conv fp16",
    Source.PADDED_BF16: "conv bf16",
}

_COPIES = {Destination.PADDED_FP16: Stored.FP16, Destination.PADDED_BF16: Stored.BF16}


def pack_weights(
    weights: NDArray[np.float32], bias: NDArray[np.float32], spec: ConvSpec, tile: ConvTile
) -> NDArray[np.float32]:
    """The constant of `conv_kernel`, flat, from `weights` (out, in, 3, 3) and `bias` (out,).

    Panel after panel, each [1 + depth][panel channels]: the bias, then the weights in the order in
    which they are read.
    """
    order = (2, 1, 3, 0) if spec.source.image else (2, 3, 1, 0)
    columns = np.concatenate([bias[None], weights.transpose(order).reshape(spec.depth, -1)])
    panels = columns.reshape(1 + spec.depth, -1, tile.width).transpose(1, 0, 2)
    return np.ascontiguousarray(panels, np.float32).ravel()


def pack_weights_half(
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
    spec: ConvSpec,
    tile: ConvTile,
    target: Target,
) -> NDArray[np.generic]:
    """The same for a kernel whose source is of 16-bit floats, to which `weights` are rounded, or
    for tiles of `winograd` their float32 sums.

    Panel after panel, in that format: the float32 bias[channels], then
    [depth / step][panel channels][step], with the step of `step_of`.
    """
    format, isa = spec.source.half, isa_of(target)
    assert format is not None, "a source of 16-bit floats"
    stored = STORED[format]
    taps = weights if row_height(spec, isa) == 1 else weight_sums(weights)
    values = taps.transpose(2, 3, 1, 0).astype(format.dtype).view(stored)
    steps = values.reshape(-1, step_of(format, isa), len(weights)).transpose(0, 2, 1)
    parts: list[NDArray[np.generic]] = []
    for first in range(0, len(weights), tile.width):
        panel = slice(first, first + tile.width)
        parts += [bias[panel].view(stored), steps[:, panel].ravel()]
    return np.concatenate(parts)


def conv_kernel(
    symbol: str,
    spec: ConvSpec,
    tile: ConvTile,
    target: Target,
    normalization: Normalization | None = None,
    stored: Stored = Stored.FLOAT,
) -> Kernel:
    """Parameters: source, panels (of `pack_weights` and its like), those of an `Output` of pixels
    (padded ones as the destination says), scratch if any, begin, end.

    `normalization`: of an 8-bit image, applied before the padding; the result has the bits that a
    float image normalised by the same formula gives. The result does not depend on `tile`, nor on
    the target among those with FMA.
    """
    assert stored is Stored.FLOAT or spec.destination is Destination.TOKENS, "a border"
    stored = _COPIES.get(spec.destination, stored)
    return _Generator(symbol, spec, tile, target, normalization, stored).kernel()


class _Generator:
    """The parts of one kernel while it is being written."""

    def __init__(
        self,
        symbol: str,
        spec: ConvSpec,
        tile: ConvTile,
        target: Target,
        normalization: Normalization | None,
        stored: Stored,
    ) -> None:
        self.symbol = symbol
        self.spec = spec
        self.tile = tile
        self.isa = isa_of(target)
        self.normalization = normalization
        self.stored = stored
        self.side = spec.out_size
        self.panels = spec.out_channels // tile.width
        self.row_height = row_height(spec, self.isa)
        self.band_rows = -(-self.side // self.row_height // tile.bands)
        self.block = block_family(spec, self.isa)(self.isa, tile.vectors, tile.pixels)
        self.panel_size = self.block.panel_size(panel_depth(spec, self.isa))

    def kernel(self) -> Kernel:
        spec = self.spec
        panels_size = self.panels * self.panel_size
        scratch = self.block.memory_size(KERNEL_SIDE * spec.in_channels)
        if spec.source.eight_bit:
            rows = 2 * self.band_rows + 1
            scratch = scratch_floats(spec.in_size, spec.in_channels, rows)
        elif self.row_height == OUTPUTS:
            scratch = TileWriter.scratch_size(spec, self.tile)
        with kernel_function(self.symbol) as builder:
            self.source = parameter("source", spec.source_size, spec.source.dtype)
            self.w = parameter("panels", panels_size, self.block.dtype)
            self.output = self.declare_output()
            self.scratch = parameter("scratch", scratch, self.block.dtype) if scratch else None
            with T.serial(*task_range()) as task:
                self.task(task)
        outputs = self.side**2 * spec.out_channels
        narrow = spec.destination.narrow
        value_bytes = _bytes_of(spec.destination.dtype) if narrow else self.stored.value_bytes
        return Kernel(
            symbol=self.symbol,
            func=builder.get(),
            tasks=self.tile.bands * (self.panels if self.tile.panels_apart else 1),
            scratch_bytes=_bytes_of(self.block.dtype) * scratch,
            unaligned=(0,) if spec.source.image else (),
            kind=_KINDS.get(spec.source, "conv"),
            shape=f"{spec.in_size}x{spec.in_size}x{spec.in_channels} to {spec.out_channels} "
            f"{spec.activation.value} {spec.source.value}"
            + (f" {spec.destination}" if narrow else self.stored.words),
            tile=str(self.tile),
            multiply_adds=outputs * spec.depth,
            bytes_moved=spec.source_size * _bytes_of(spec.source.dtype)
            + panels_size * _bytes_of(self.block.dtype)
            + value_bytes * outputs,
        )

    def declare_output(self) -> Output | Int16Output:
        spec, simd = self.spec, Simd(self.isa)
        rows = spec.destination_size // spec.out_channels
        if spec.destination is Destination.PADDED_INT16:
            return Int16Output.declare(rows, spec.out_channels, simd, self.tile.width)
        floats = None if spec.destination is Destination.TOKENS else spec.destination_size
        return Output.declare(
            self.stored, rows, spec.out_channels, simd, self.tile.width, floats=floats
        )

    def task(self, task: Expr) -> None:
        bands = self.tile.bands
        band = T.bind(task % bands)
        all_rows = self.side // self.row_height
        y0 = T.bind(band * all_rows // bands)
        rows = T.bind((band + 1) * all_rows // bands - y0)
        writer = self.writer(y0, rows)

        def panel_of_band(panel: Expr | int) -> None:
            if self.spec.destination is not Destination.TOKENS:
                self.border(panel, y0 * self.row_height, rows * self.row_height)
            with T.serial(rows) as row:
                writer.emit(T.bind(y0 + row), panel)

        if self.tile.panels_apart:
            panel_of_band(T.bind(task // bands))
        elif self.panels == 1:
            panel_of_band(0)
        else:
            with T.serial(self.panels) as panel:
                panel_of_band(panel)

    def writer(self, y0: Expr, rows: Expr) -> RowWriter | TileWriter:
        """What writes rows y0 ... y0 + rows - 1, of pixels or of tiles."""
        spec, tile, isa = self.spec, self.tile, self.isa
        if self.row_height == OUTPUTS:
            assert self.scratch is not None
            family = block_family(spec, isa)
            return TileWriter(
                spec, tile, isa, family, self.source, self.w, self.output, self.scratch
            )
        source, memory = self.float_rows(y0, rows), self.scratch if self.block.in_memory else None
        return RowWriter(spec, tile, isa, source, self.w, self.output, memory)

    def float_rows(self, y0: Expr, rows: Expr) -> tirx.Buffer | Planes:
        """What output rows y0 ... y0 + rows - 1 are computed from."""
        spec = self.spec
        if not spec.source.image:
            return self.source
        if spec.source is Source.IMAGE_F32:
            return whole_image(self.source, spec.in_size)
        assert self.normalization is not None, "an 8-bit image needs its normalization"
        assert self.scratch is not None
        return convert_rows(
            self.source,
            self.scratch,
            spec.in_size,
            T.bind(2 * y0 - 1),
            2 * (y0 + rows),
            self.normalization,
            self.isa,
        )

    def border(self, panel: Expr | int, y0: Expr, rows: Expr) -> None:
        """Zeros around rows y0 ... of the output, for the channels of `panel`."""
        size = padded_size(self.side)

        def zero(pixel: Expr | int) -> None:
            first = T.bind(panel * self.tile.width)
            for simd, channel in self.block.registers:
                self.output.store(simd, pixel, first + channel, [simd.splat(0.0)])

        with T.serial(rows) as row:
            line = T.bind((y0 + row + 1) * size)
            for x in (0, *range(self.side + 1, size)):
                zero(line + x)
        with T.serial(tirx.Select(y0 == 0, T.int32(size), T.int32(0))) as x:
            zero(x)
        if size == self.side + 2:
            last = y0 + rows == self.side
            with T.serial(tirx.Select(last, T.int32(size), T.int32(0))) as x:
                zero(x + (size - 1) * size)


def _bytes_of(dtype: str) -> int:
    return np.dtype(dtype).itemsize
