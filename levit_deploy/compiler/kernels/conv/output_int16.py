"""Where a kernel puts a result that is multiplied in 16-bit integers: int16 steps, row-major.

    q = rint(min(max(x * factor[channel], -largest), largest))

rint rounds ties to even and the product is rounded once, so every target stores the same q. What
lies beyond `largest` saturates, infinities too; x must not be NaN. For a reader that multiplies
bytes they are stored apart, as `block_bytes` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.conv.block_bytes import GROUP, SPLIT
from levit_deploy.compiler.kernels.isa.lanes import lanes_of
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import parameter

_TAIL_FLOATS = 4  # behind the factors: the largest step and padding
_ZMM_LANES = 16


def pack_steps(factors: NDArray[np.float32], largest: int) -> NDArray[np.float32]:
    """The constant of an `Int16Output`, flat: `factors` (channels,), then the largest step."""
    return np.concatenate([factors, [largest, 0, 0, 0]]).astype(np.float32)


@dataclass(frozen=True)
class Int16Output:
    """The result of a kernel that is being written."""

    channels: int
    constants: tirx.Buffer
    out: tirx.Buffer
    splits_bytes: bool
    in_groups: bool
    low: Expr
    high: Expr

    @staticmethod
    def declare(rows: int, channels: int, simd: Simd, alignment: int) -> Int16Output:
        """Parameters: quantization (of `pack_steps`), out (int16).

        `alignment`: what the first channels of all that is stored are multiples of.
        """
        constants = parameter("quantization", channels + _TAIL_FLOATS)
        out = parameter("out", rows * channels, "int16")
        high = T.bind(constants[channels])
        low = T.bind(T.float32(0) - high)
        splits_bytes = simd.isa.int16_block(channels).splits_bytes
        in_groups = alignment % GROUP == 0
        return Int16Output(channels, constants, out, splits_bytes, in_groups, low, high)

    def store(
        self, simd: Simd, row: Expr | int, channel: Expr | int, registers: Sequence[Expr]
    ) -> None:
        """Registers of `simd`, the first of them at `channel`."""
        for words in self._steps(simd, channel, registers):
            lanes = lanes_of(words)
            if self.splits_bytes:
                self._store_parts(row, channel, words)
            else:
                at = row * self.channels + channel
                T.buffer_store(self.out, words, [T.ramp(at, 1, lanes)])
            channel = channel + lanes

    def _steps(self, simd: Simd, channel: Expr | int, registers: Sequence[Expr]) -> list[Expr]:
        """The registers as int16, limited, in as few vectors as can be stored together."""
        steps = []
        for i, x in enumerate(registers):
            factor = simd.load(self.constants, channel + i * simd.lanes)
            steps.append(T.bind(simd.nearest(x * factor, self.low, self.high)))
        if simd.lanes == _ZMM_LANES:  # not above the largest step, but perhaps below
            lowest = T.broadcast(T.cast(self.low, "int32"), simd.lanes)
            return [T.cast(T.max(step, lowest), f"int16x{simd.lanes}") for step in steps]
        together = 1 if self.splits_bytes and not self.in_groups else 2
        words = [
            simd.isa.saturate_to_16(steps[i : i + together]) for i in range(0, len(steps), together)
        ]
        return [T.bind(self._limited(word)) for word in words]

    def _limited(self, words: Expr) -> Expr:
        low, high = (
            T.broadcast(T.cast(limit, "int16"), lanes_of(words)) for limit in (self.low, self.high)
        )
        return T.max(T.min(words, high), low)

    def _store_parts(self, row: Expr | int, channel: Expr | int, words: Expr) -> None:
        """Places are counted in int16: of eight channels, four for low and four for high parts."""
        lanes = lanes_of(words)
        bits, rest, half = (
            T.broadcast(T.int16(n), lanes) for n in (SPLIT, 16 - SPLIT, 1 << SPLIT - 1)
        )
        low = T.shift_right(T.shift_left(words, rest), rest)
        high = T.shift_right(words + half, bits)
        at = row * self.channels + channel // GROUP * GROUP + channel % GROUP // 2
        for place, part in ((at, low), (at + GROUP // 2, high)):
            pairs = T.reinterpret(f"int16x{lanes // 2}", T.cast(part, f"int8x{lanes}"))
            T.buffer_store(self.out, pairs, [T.ramp(place, 1, lanes // 2)])
