"""Where a float kernel puts its result (rows, channels): as float32, in 8 bits, or both.

    registers of x  ->  out[row, channel] and / or out_quantized, as `quantize` says

A kernel declares its output among its parameters, at the place of `out`:

    output = Output.declare(stored, rows, channels, simd)
    output.store(simd, row, channel, registers)            # neighbouring channels of one row
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.activation_storage import CHANNEL_ALIGNMENT
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import parameter
from levit_deploy.compiler.kernels.quantize import Quantizer, quantization_size


class Stored(StrEnum):
    """What a kernel makes of its result: the tensor, its 8-bit copy, or both."""

    FLOAT = "float"
    QUANTIZED = "quantized"
    BOTH = "float and quantized"

    @property
    def float(self) -> bool:
        return self is not Stored.QUANTIZED

    @property
    def quantized(self) -> bool:
        return self is not Stored.FLOAT

    @property
    def value_bytes(self) -> int:
        """Bytes that are written for each value."""
        return 4 * self.float + self.quantized


@dataclass(frozen=True)
class Output:
    """The result of a kernel that is being written; float rows lie one after another."""

    channels: int
    out: tirx.Buffer | None
    quantizer: Quantizer | None

    @staticmethod
    def declare(
        stored: Stored,
        rows: int,
        channels: int,
        simd: Simd,
        alignment: int = CHANNEL_ALIGNMENT,
        floats: int | None = None,
    ) -> Output:
        """Parameters: quantization (of `quantize.pack_quantization`) if quantized, out (float32)
        if float, out_quantized if quantized.

        `alignment`: what the first channels of all that is stored are multiples of. `floats`: the
        size of `out` where its rows are padded.
        """
        out, quantizer = None, None
        if stored.quantized:
            constants = parameter("quantization", quantization_size(channels))
        if stored.float:
            out = parameter("out", floats or rows * channels)
        if stored.quantized:
            storage = simd.isa.storage
            copy = parameter("out_quantized", storage.size(rows, channels), storage.dtype)
            quantizer = Quantizer(simd, channels, constants, copy, alignment)
        return Output(channels, out, quantizer)

    def store(
        self,
        simd: Simd,
        row: Expr | int,
        channel: Expr | int,
        registers: Sequence[Expr],
        last: int | None = None,
    ) -> None:
        """Registers of `simd`, the first of them at `channel`; `last`: how many lanes of the last
        one are channels (default: all)."""
        lanes = simd.lanes
        values = [T.bind(x) for x in registers]
        if self.out is not None:
            for i, x in enumerate(values):
                count = last if last and i == len(values) - 1 else lanes
                simd.store_first(self.out, row * self.channels + channel + i * lanes, x, count)
        if self.quantizer is not None:
            quantizer = self.quantizer.of_registers(simd)
            factors = quantizer.factors(channel, len(values))
            steps = [quantizer.steps(x, f) for x, f in zip(values, factors, strict=True)]
            quantizer.store(row, channel, steps)
