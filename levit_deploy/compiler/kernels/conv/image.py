"""What the first convolution reads: rows of channel planes, floats or 8 bits, RGB or grey.

A caller's float image is read where it lies. Of an 8-bit image, the rows that a task needs are
converted into the worker's scratch first; both are then read by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.lanes import shuffle
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.models.spec import Normalization

CONVERTED_PIXELS = 16  # at a time: a full load of 16 bytes for each channel


@dataclass(frozen=True)
class Planes:
    """Float rows, `row_stride` apart; the channels of a row are `plane` apart."""

    buffer: tirx.Buffer
    row_stride: int
    plane: int
    first_row: Expr | int = 0

    def at(self, y: Expr) -> Expr:
        """Where row y of channel 0 begins."""
        return (y - self.first_row) * self.row_stride


def whole_image(image: tirx.Buffer, size: int) -> Planes:
    """The caller's NCHW image."""
    return Planes(image, row_stride=size, plane=size * size)


def scratch_floats(size: int, channels: int, rows: int) -> int:
    """Scratch of `convert_rows` for at most `rows` rows."""
    return rows * channels * size


def convert_rows(
    image: tirx.Buffer,
    scratch: tirx.Buffer,
    size: int,
    begin: Expr,
    end: Expr,
    normalization: Normalization,
    isa: Isa,
) -> Planes:
    """Emit the normalisation of rows [begin, end) of a size x size HWC 8-bit image.

    fma(value, 1 / (255 std), -mean / std), both factors rounded once from float64. The part of the
    range that lies outside the image stays unwritten.
    """
    simd, channels = Simd(isa, CONVERTED_PIXELS), normalization.channels
    planes = Planes(scratch, row_stride=channels * size, plane=size, first_row=begin)
    first = T.bind(T.max(begin, 0))
    with T.serial(T.min(end, size) - first) as row:
        y = T.bind(first + row)
        row_at = T.bind(planes.at(y))
        with T.serial(-(-size // CONVERTED_PIXELS)) as step:
            # The last step overlaps the one before, so that no step leaves its row.
            x = T.bind(T.min(step * CONVERTED_PIXELS, size - CONVERTED_PIXELS))
            pixels = image.vload([(y * size + x) * channels], f"uint8x{channels * simd.lanes}")
            pixels = T.bind(pixels)
            for channel in range(channels):
                lanes = range(channel, channels * simd.lanes, channels)
                values = shuffle([pixels], lanes)
                std = normalization.std[channel]
                scale = simd.splat(1 / (255 * std))
                shift = simd.splat(-normalization.mean[channel] / std)
                normal = simd.fma(T.cast(values, simd.type()), scale, shift)
                simd.store(scratch, row_at + channel * size + x, normal)
    return planes
