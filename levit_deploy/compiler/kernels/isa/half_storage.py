"""How tokens of 16-bit floats lie in memory: a property of the target's multiplying instruction."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from tvm.ir import Expr

PAIR = 2  # rows of an operand of bfmmla, and columns of the other one
QUAD = 4  # neighbouring channels of each of them
REGISTER = PAIR * QUAD  # values

Index: TypeAlias = Expr | int


class HalfStorage(StrEnum):
    """ROWS: row-major. PAIRS: two rows and four channels at a time,
    [ceil(rows / 2)][ceil(channels / 4)][2][4], the operand of bfmmla. What lies in the padding is
    never defined."""

    ROWS = "rows"
    PAIRS = "pairs"

    def stride(self, channels: int) -> int:
        """Values from a row to the next but one, halved."""
        return channels if self is HalfStorage.ROWS else -(-channels // QUAD) * QUAD

    def size(self, rows: int, channels: int) -> int:
        """Values of a (rows, channels) tensor."""
        even = rows + rows % 2 if self is HalfStorage.PAIRS else rows
        return even * self.stride(channels)

    def place(self, row: Index, channel: Index, channels: int) -> Index:
        """Where (row, channel) of a tensor with `channels` is."""
        stride = self.stride(channels)
        if self is HalfStorage.ROWS:
            return row * stride + channel
        quad = channel // QUAD * (2 * QUAD) + channel % QUAD
        return row // 2 * (2 * stride) + row % 2 * QUAD + quad
