"""How 8-bit activations lie in memory: a property of the target's multiplying instruction.

An activation is q in 0 ... 255 and stands for (q - zero_point) * scale. Rows are padded to a
multiple of 16 channels; what lies in the padding is never defined, and meets weights of zero.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr

from levit_deploy.targets.target import Int8Dot, Target

CHANNEL_GRANULE = 16
PAIR_CHANNELS = 8  # of S8_PAIRS: neighbouring channels of one row

Index: TypeAlias = Expr | int


class ActivationStorage(StrEnum):
    """U8, S8, S16: row-major. S8_PAIRS: two rows and eight channels at a time,
    [ceil(rows / 2)][channels / 8][2][8], the operand of smmla."""

    U8 = "u8"  # q
    S8 = "s8"  # q - 128
    S8_PAIRS = "s8_pairs"  # q - 128
    S16 = "s16"  # q - zero_point

    @property
    def dtype(self) -> str:
        return {"u8": "uint8", "s16": "int16"}.get(self.value, "int8")

    def zero(self, zero_point: int) -> int:
        """The stored value that stands for 0."""
        if self is ActivationStorage.S16:
            return 0
        return zero_point if self is ActivationStorage.U8 else zero_point - 128

    def size(self, rows: int, channels: int) -> int:
        """Stored values of a (rows, channels) tensor."""
        even = rows + rows % 2 if self is ActivationStorage.S8_PAIRS else rows
        return even * row_stride(channels)

    def index(self, row: Index, channel: Index, channels: int) -> Index:
        """Where (row, channel) of a tensor with `channels` is."""
        stride = row_stride(channels)
        if self is not ActivationStorage.S8_PAIRS:
            return row * stride + channel
        block = channel // PAIR_CHANNELS * (2 * PAIR_CHANNELS) + channel % PAIR_CHANNELS
        return row // 2 * (2 * stride) + row % 2 * PAIR_CHANNELS + block

    def pack(self, q: NDArray[np.uint8], zero_point: int) -> NDArray[np.generic]:
        """`q` (rows, channels) as it is stored, flat; the padding holds what stands for 0."""
        rows, channels = q.shape
        flat = np.full(self.size(rows, channels), self.zero(zero_point), self.dtype)
        flat[self._places(rows, channels)] = q.astype(np.int16) - (zero_point - self.zero(zero_point))
        return flat

    def unpack(
        self, flat: NDArray[np.generic], rows: int, channels: int, zero_point: int
    ) -> NDArray[np.uint8]:
        """The inverse of `pack`: q as uint8 (rows, channels)."""
        stored = flat[self._places(rows, channels)].astype(np.int16)
        return (stored + (zero_point - self.zero(zero_point))).astype(np.uint8)

    def _places(self, rows: int, channels: int) -> NDArray[np.int64]:
        row, channel = np.mgrid[:rows, :channels]
        places: NDArray[np.int64] = self.index(row, channel, channels)
        return places


def row_stride(channels: int) -> int:
    """`channels` rounded up to what a row takes."""
    return -(-channels // CHANNEL_GRANULE) * CHANNEL_GRANULE


def activation_storage(target: Target) -> ActivationStorage:
    """What `target` multiplies without changing it first.

    vpdpbusd takes unsigned by signed bytes; sdot, smmla and smull signed by signed; pmaddwd
    16 bits by 16 bits, and there q - zero_point needs no correction by the zero point.
    """
    return {
        Int8Dot.VPDPBUSD: ActivationStorage.U8,
        Int8Dot.MADD: ActivationStorage.S16,
        Int8Dot.SDOT: ActivationStorage.S8,
        Int8Dot.MLAL: ActivationStorage.S8,
        Int8Dot.SMMLA: ActivationStorage.S8_PAIRS,
    }[target.int8_dot]
