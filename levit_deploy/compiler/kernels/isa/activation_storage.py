"""How 8-bit activations lie in memory: a property of the target's multiplying instruction.

An activation is q in 0 ... 255 and stands for (q - zero_point) * scale. Rows are padded to a
multiple of 16 channels; what lies in the padding is never defined, and meets weights of zero.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from tvm.ir import Expr

CHANNEL_ALIGNMENT = 16
PAIR_CHANNELS = 8  # of S8_PAIRS: neighbouring channels of one row

Index: TypeAlias = Expr | int


class ActivationStorage(StrEnum):
    """U8, S8: row-major. S8_PAIRS: two rows and eight channels at a time,
    [ceil(rows / 2)][channels / 8][2][8], the operand of smmla."""

    U8 = "u8"  # q
    S8 = "s8"  # q - 128
    S8_PAIRS = "s8_pairs"  # q - 128

    @property
    def dtype(self) -> str:
        return "uint8" if self is ActivationStorage.U8 else "int8"

    @property
    def offset(self) -> int:
        """stored value - q."""
        return 0 if self is ActivationStorage.U8 else -128

    def size(self, rows: int, channels: int) -> int:
        """Stored values of a (rows, channels) tensor."""
        even = rows + rows % 2 if self is ActivationStorage.S8_PAIRS else rows
        return even * row_stride(channels)

    def strides(self, channels: int) -> tuple[int, int, int]:
        """Stored values from a pair of rows to the next, between the rows of a pair, and from
        PAIR_CHANNELS channels to the next."""
        stride = row_stride(channels)
        if self is ActivationStorage.S8_PAIRS:
            return 2 * stride, PAIR_CHANNELS, 2 * PAIR_CHANNELS
        return 2 * stride, stride, PAIR_CHANNELS

    def place(self, row: Index, channel: Index, channels: int) -> Index:
        """Where (row, channel) of a tensor with `channels` is."""
        stride = row_stride(channels)
        if self is not ActivationStorage.S8_PAIRS:
            return row * stride + channel
        block = channel // PAIR_CHANNELS * (2 * PAIR_CHANNELS) + channel % PAIR_CHANNELS
        return row // 2 * (2 * stride) + row % 2 * PAIR_CHANNELS + block


def row_stride(channels: int) -> int:
    """`channels` rounded up to what a row takes."""
    return -(-channels // CHANNEL_ALIGNMENT) * CHANNEL_ALIGNMENT
