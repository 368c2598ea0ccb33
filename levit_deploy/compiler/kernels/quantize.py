"""Float registers -> stored 8-bit activations: the last step of a kernel before an 8-bit layer.

    q = min(max(rint(x * factor[channel]), -zero_point), 255 - zero_point) + zero_point

rint rounds ties to even and the product is rounded once, so every target stores the same q, in
its own `ActivationStorage`. A kernel that writes such a tensor ends like this:

    quantizer = Quantizer(simd, channels, constants, out)      # at the top, outside all loops
    factors = quantizer.factors(channel, len(values))          # perhaps once for many rows
    steps = [quantizer.steps(x, factor) for x, factor in zip(values, factors)]
    quantizer.store(row, channel, steps)

`values` are registers of neighbouring channels of one row, the first of them `channel`, a
multiple of the register's lanes and of `alignment`. `constants` is the parameter that
`pack_quantization` fills, `out` has the size and type of the storage. x must not be NaN;
infinities saturate.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.activation_storage import (
    CHANNEL_ALIGNMENT,
    PAIR_CHANNELS,
    ActivationStorage,
    row_stride,
)
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.isa.lanes import concat, lanes_of
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Kernel, kernel_function, parameter, task_range
from levit_deploy.targets.target import Target

LARGEST_Q = 255
_TAIL_FLOATS = 16  # behind the factors: the zero point and padding
_ZMM_LANES = 16


def quantization_size(channels: int) -> int:
    """float32 values of `pack_quantization`."""
    return row_stride(channels) + _TAIL_FLOATS


def pack_quantization(factors: NDArray[np.float32], zero_point: int) -> NDArray[np.float32]:
    """The constant of a `Quantizer`, flat: `factors` (channels,), zeros, then the zero point."""
    packed = np.zeros(quantization_size(len(factors)), np.float32)
    packed[: len(factors)] = factors
    packed[row_stride(len(factors))] = zero_point
    return packed


class Quantizer:
    """Emits the quantization of a tensor with `channels`, as registers of `simd`.

    `alignment`: what the first channels of all that is stored are multiples of.
    """

    def __init__(
        self,
        simd: Simd,
        channels: int,
        constants: tirx.Buffer,
        out: tirx.Buffer,
        alignment: int = CHANNEL_ALIGNMENT,
    ) -> None:
        self.simd = simd
        self.channels = channels
        self.constants = constants
        self.out = out
        self.storage = simd.isa.storage
        in_blocks = self.storage is ActivationStorage.S8_PAIRS and alignment % PAIR_CHANNELS
        self.together = 1 if in_blocks else 2  # registers that one store takes at least
        zero_point = T.bind(constants[row_stride(channels)])
        self.low = T.bind(T.float32(0) - zero_point)
        self.high = T.bind(T.float32(LARGEST_Q) - zero_point)
        # What is added to the steps to store them.
        self.offset = T.bind(T.cast(zero_point, "int32") + self.storage.offset)

    def of_registers(self, simd: Simd) -> Quantizer:
        """The same for registers of `simd`, which may have fewer lanes."""
        same = copy.copy(self)
        same.simd = simd
        return same

    def factors(self, channel: Expr | int, count: int) -> list[Expr]:
        """The factors of `count` registers of channels from `channel` on."""
        lanes = self.simd.lanes
        return [T.bind(self.simd.load(self.constants, channel + i * lanes)) for i in range(count)]

    def steps(self, x: Expr, factor: Expr) -> Expr:
        """rint(x * factor) as int32, not yet limited."""
        return T.bind(self.simd.nearest(x * factor, self.low, self.high))

    def store(self, row: Expr | int, channel: Expr | int, steps: Sequence[Expr]) -> None:
        """Limit the steps of neighbouring channels and store them."""
        for vector in self._packed(steps):
            lanes = lanes_of(vector)
            at = self.storage.place(row, channel, self.channels)
            T.buffer_store(self.out, vector, [T.ramp(at, 1, lanes)])
            channel = channel + lanes

    def _packed(self, steps: Sequence[Expr]) -> list[Expr]:
        """What is stored, in order, in as few vectors as the storage allows."""
        lanes = self.simd.lanes
        if lanes == _ZMM_LANES:
            return [self._packed_512(step) for step in steps]
        pairs = [steps[i : i + self.together] for i in range(0, len(steps), self.together)]
        words = [self.simd.isa.saturate_to_16(pair) for pair in pairs]
        dtype = self.storage.dtype
        packed = [self.simd.saturate_to_8(self._add_offset(word), dtype) for word in words]
        if self.storage is ActivationStorage.S8_PAIRS:
            return packed
        whole = len(steps) // 4 * 2
        quads = [concat(*packed[i : i + 2]) for i in range(0, whole, 2)]
        return [*quads, *packed[whole:]]

    def _add_offset(self, words: Expr) -> Expr:
        """int16 steps, saturated, to what is stored before it is limited to 8 bits."""
        offset = T.broadcast(T.cast(self.offset, "int16"), lanes_of(words))
        return T.call_llvm_pure_intrin(str(words.ty), "llvm.sadd.sat", words, offset)

    def _packed_512(self, steps: Expr) -> Expr:
        """The steps are at most 255 - zero_point; below, they have no limit yet."""
        lowest = T.broadcast(self.storage.offset - self.offset, _ZMM_LANES)
        stored = T.max(steps, lowest) + T.broadcast(self.offset, _ZMM_LANES)
        return T.cast(stored, f"{self.storage.dtype}x{_ZMM_LANES}")


@dataclass(frozen=True)
class QuantizeSpec:
    """x float32 (rows, channels) row-major -> stored 8-bit activations."""

    rows: int
    channels: int


def quantize_kernel(symbol: str, spec: QuantizeSpec, target: Target) -> Kernel:
    """Parameters: x, constants (of `pack_quantization`), out, begin, end. A task is one row.

    For tensors whose producer cannot do it.
    """
    simd = Simd(isa_of(target))
    storage = simd.isa.storage
    with kernel_function(symbol) as builder:
        x = parameter("x", spec.rows * spec.channels)
        constants = parameter("quantization", quantization_size(spec.channels))
        out = parameter("out", storage.size(spec.rows, spec.channels), storage.dtype)
        begin, end = task_range()
        quantizer = Quantizer(simd, spec.channels, constants, out)

        def quantize(row: Expr, channel: Expr | int, vectors: int, last: int) -> None:
            """`vectors` registers from `channel`, of which the last holds `last` channels."""
            steps = []
            for v, factor in enumerate(quantizer.factors(channel, vectors)):
                at = row * spec.channels + channel + v * simd.lanes
                count = last if v == vectors - 1 else simd.lanes
                steps.append(quantizer.steps(simd.load_first(x, at, count), factor))
            quantizer.store(row, channel, steps)

        width = 4 * simd.lanes
        whole, rest = divmod(spec.channels, width)
        with T.serial(begin, end) as row:
            if whole:
                with T.serial(whole) as block:
                    quantize(row, block * width, 4, simd.lanes)
            if rest:
                vectors = -(-rest // simd.lanes)
                quantize(row, whole * width, vectors, rest - (vectors - 1) * simd.lanes)

    return Kernel(
        symbol=symbol,
        func=builder.get(),
        tasks=spec.rows,
        kind="quantize",
        shape=f"{spec.rows}x{spec.channels}",
        tile=f"1x{width}",
        multiply_adds=0,
        bytes_moved=5 * spec.rows * spec.channels,
    )
