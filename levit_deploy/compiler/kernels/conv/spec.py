"""What a convolution of the stem computes, and how its work is cut: values without code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tvm.ir import Expr

from levit_deploy.compiler.kernels.family import CutBy
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.widen import STORED
from levit_deploy.half_format import HalfFormat

KERNEL_SIDE = 3
TAPS = KERNEL_SIDE**2


class Source(StrEnum):
    """What the kernel reads. PADDED and what follows it: see `padded_size`."""

    IMAGE_F32 = "f32"  # the caller's NCHW float32 image, unpadded, any alignment
    IMAGE_RGB8 = "rgb8"  # the caller's HWC 8-bit RGB image; normalised while it is read
    IMAGE_GRAY8 = "gray8"  # the same of one channel
    PADDED = "padded"
    PADDED_INT16 = "int16"  # multiplied by 16-bit integers
    PADDED_INT16_BYTES = "int16_by_int8"  # the same steps, multiplied by weights of 8 bits
    PADDED_FP16 = "fp16"  # multiplied in float16
    PADDED_BF16 = "bf16"  # multiplied in bfloat16

    @property
    def image(self) -> bool:
        return self is Source.IMAGE_F32 or self.eight_bit

    @property
    def eight_bit(self) -> bool:
        return self in (Source.IMAGE_RGB8, Source.IMAGE_GRAY8)

    @property
    def dtype(self) -> str:
        if self.eight_bit:
            return "uint8"
        if self.half:
            return STORED[self.half]
        return "int16" if self.integers else "float32"

    @property
    def half(self) -> HalfFormat | None:
        """Of what is multiplied in 16-bit floats."""
        return {Source.PADDED_FP16: HalfFormat.FP16, Source.PADDED_BF16: HalfFormat.BF16}.get(self)

    @property
    def integers(self) -> bool:
        return self in (Source.PADDED_INT16, Source.PADDED_INT16_BYTES)


class Destination(StrEnum):
    PADDED = "padded"  # the next convolution's input, with its zero border written here
    PADDED_INT16 = "to int16"  # the same for one that reads 16-bit integers
    PADDED_FP16 = "to fp16"  # the same for one that reads float16
    PADDED_BF16 = "to bf16"  # the same for one that reads bfloat16
    TOKENS = "tokens"  # (size * size, channels) row-major, no border

    @property
    def dtype(self) -> str:
        return _NARROW.get(self, "float32")

    @property
    def narrow(self) -> bool:
        """Whether values are of 16 bits."""
        return self in _NARROW


_NARROW = {
    Destination.PADDED_INT16: "int16",
    Destination.PADDED_FP16: STORED[HalfFormat.FP16],
    Destination.PADDED_BF16: STORED[HalfFormat.BF16],
}


@dataclass(frozen=True)
class ConvTile:
    """How the work is cut.

    `pixels`: output pixels of a row that are in registers together, at most. `vectors`: lanes of
    the registers that one panel of output channels takes; their sum divides the channels.
    `bands`: groups of output rows. A task is one band for all panels, or, with `panels_apart`, for
    one panel.
    """

    pixels: int
    vectors: tuple[int, ...]
    bands: int
    panels_apart: bool

    def __str__(self) -> str:
        return f"{self.pixels}x{self.width}"

    @property
    def width(self) -> int:
        """Channels of a panel."""
        return sum(self.vectors)


@dataclass(frozen=True)
class ConvSpec(CutBy[ConvTile]):
    """in_size x in_size x in_channels -> ceil(in_size / 2) square x out_channels.

    `out_channels` is a multiple of 4. An image has 3 channels or 1 and at least 16 x 16
    pixels, a source of 16 bits a multiple of 4 channels.
    """

    in_size: int
    in_channels: int
    out_channels: int
    activation: Activation
    source: Source
    destination: Destination

    @property
    def out_size(self) -> int:
        return (self.in_size + 1) // 2

    @property
    def padded_out_size(self) -> int:
        return padded_size(self.out_size)

    @property
    def depth(self) -> int:
        """Multiply-adds of one output."""
        return TAPS * self.in_channels

    @property
    def source_size(self) -> int:
        """Elements of the source buffer."""
        side = self.in_size if self.source.image else padded_size(self.in_size)
        return side**2 * self.in_channels

    def output_row(self, y: Expr, x: Expr) -> Expr:
        """Which row of the output is pixel (y, x)."""
        if self.destination is Destination.TOKENS:
            return y * self.out_size + x
        return (y + 1) * self.padded_out_size + x + 1

    @property
    def destination_size(self) -> int:
        """Elements of the output buffer."""
        side = self.out_size if self.destination is Destination.TOKENS else self.padded_out_size
        return side**2 * self.out_channels


def padded_size(size: int) -> int:
    """Side of the padded square buffer (P, P, C) that holds a size x size image at [1:, 1:].

    A 3x3 stride-2 convolution reads rows -1 ... 2 * ceil(size / 2) - 1.
    """
    return 2 * ((size + 1) // 2) + 1
