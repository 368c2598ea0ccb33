"""3x3 convolution, stride 2, padding 1, channels last: the stem of LeViT."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from levit_deploy.compiler.kernels.kernel import Activation


class Source(StrEnum):
    """What the kernel reads. PADDED: see `padded_size`."""

    IMAGE_F32 = "f32"  # the caller's NCHW float32 image, unpadded, any alignment
    IMAGE_RGB8 = "rgb8"  # the caller's HWC 8-bit RGB image; normalised while it is read
    PADDED = "padded"


class Destination(StrEnum):
    PADDED = "padded"  # the next convolution's input, with its zero border written here
    TOKENS = "tokens"  # (size * size, channels) row-major, no border


@dataclass(frozen=True)
class ConvSpec:
    """in_size x in_size x in_channels -> ceil(in_size / 2) square x out_channels."""

    in_size: int
    in_channels: int
    out_channels: int
    activation: Activation
    source: Source
    destination: Destination

    @property
    def out_size(self) -> int:
        return (self.in_size + 1) // 2


def padded_size(size: int) -> int:
    """Side of the padded square buffer (P, P, C) that holds a size x size image at [1:, 1:].

    A 3x3 stride-2 convolution reads rows -1 ... 2 * ceil(size / 2) - 1.
    """
    return 2 * ((size + 1) // 2) + 1
