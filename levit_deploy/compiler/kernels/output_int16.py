"""Where a kernel puts a result that is multiplied in 16-bit integers: int16 steps, row-major.

    q = rint(min(max(x * factor[channel], -largest), largest))

rint rounds ties to even and the product is rounded once, so every target stores the same q. What
lies beyond `largest` saturates, infinities too; x must not be NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.narrowing import lanes_of, nearest, saturate_to_16
from levit_deploy.compiler.kernels.simd import Simd

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
    low: Expr
    high: Expr

    @staticmethod
    def declare(rows: int, channels: int) -> Int16Output:
        """Parameters: quantization (of `pack_steps`), out (int16)."""
        constants = T.arg("quantization", T.Buffer((channels + _TAIL_FLOATS,), "float32"))
        out = T.arg("out", T.Buffer((rows * channels,), "int16"))
        high = T.bind(constants[channels])
        return Int16Output(channels, constants, out, T.bind(T.float32(0) - high), high)

    def store(
        self, simd: Simd, row: Expr | int, channel: Expr | int, registers: Sequence[Expr]
    ) -> None:
        """Registers of `simd`, the first of them at `channel`."""
        steps = [
            self._steps(simd, x, simd.load(self.constants, channel + i * simd.lanes))
            for i, x in enumerate(registers)
        ]
        at = row * self.channels + channel
        for words in _narrowed(simd, steps):
            T.buffer_store(self.out, words, [T.ramp(at, 1, lanes_of(words))])
            at = at + lanes_of(words)

    def _steps(self, simd: Simd, x: Expr, factor: Expr) -> Expr:
        limited = simd.maximum(
            simd.minimum(x * factor, simd.splat(self.high)), simd.splat(self.low)
        )
        return T.bind(nearest(simd, limited, self.low, self.high))


def _narrowed(simd: Simd, steps: Sequence[Expr]) -> list[Expr]:
    """int32 registers of int16's range, in as few int16 vectors as is cheap."""
    if simd.lanes == _ZMM_LANES:
        return [T.cast(step, f"int16x{_ZMM_LANES}") for step in steps]
    pairs = [steps[i : i + 2] for i in range(0, len(steps), 2)]
    return [saturate_to_16(simd, pair) for pair in pairs]
