"""Where a float kernel puts its result (rows, channels): as float32, in a copy of fewer bits, or
both.

    registers of x  ->  out[row, channel] and / or out_quantized, as `quantize` says,
                                            or out_half[row, channel]

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
from levit_deploy.compiler.kernels.isa.half_storage import HalfStorage
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import parameter
from levit_deploy.compiler.kernels.quantize import Quantizer, quantization_size
from levit_deploy.compiler.kernels.widen import STORED, narrowed
from levit_deploy.half_format import HalfFormat


class Stored(StrEnum):
    """What a kernel makes of its result: the tensor, its copy in 8 bits, in float16 (`half`) or in
    bfloat16, or both."""

    FLOAT = "float"
    QUANTIZED = "quantized"
    BOTH = "float and quantized"
    HALF = "half"
    FLOAT_AND_HALF = "float and half"
    BF16 = "bf16"
    FLOAT_AND_BF16 = "float and bf16"

    @property
    def float(self) -> bool:
        return self not in (Stored.QUANTIZED, Stored.HALF, Stored.BF16)

    @property
    def quantized(self) -> bool:
        return self in (Stored.QUANTIZED, Stored.BOTH)

    @property
    def half(self) -> bool:
        return self.half_format is not None

    @property
    def half_format(self) -> HalfFormat | None:
        """Of the copy in 16-bit floats."""
        if self in (Stored.HALF, Stored.FLOAT_AND_HALF):
            return HalfFormat.FP16
        return HalfFormat.BF16 if self in (Stored.BF16, Stored.FLOAT_AND_BF16) else None

    @property
    def with_float(self) -> Stored:
        """The same with the tensor."""
        return _WITH_FLOAT.get(self, self)

    @property
    def words(self) -> str:
        """For people, behind what the kernel computes."""
        return "" if self is Stored.FLOAT else f" {self}"

    @property
    def value_bytes(self) -> int:
        """Bytes that are written for each value."""
        return 4 * self.float + self.quantized + 2 * self.half


_WITH_FLOAT = {
    Stored.QUANTIZED: Stored.BOTH,
    Stored.HALF: Stored.FLOAT_AND_HALF,
    Stored.BF16: Stored.FLOAT_AND_BF16,
}


@dataclass(frozen=True)
class Output:
    """The result of a kernel that is being written; float rows lie one after another."""

    channels: int
    out: tirx.Buffer | None
    quantizer: Quantizer | None
    half: tirx.Buffer | None
    half_storage: HalfStorage

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
        if float, out_quantized if quantized, out_half if half.

        `alignment`: what the first channels of all that is stored are multiples of. `floats`: the
        size of `out` and `out_half` where rows are padded; `out_half` then lies as `out` does, else
        as the target stores tokens.
        """
        out, quantizer, half, storage = None, None, None, HalfStorage.ROWS
        if stored.quantized:
            constants = parameter("quantization", quantization_size(channels))
        if stored.float:
            out = parameter("out", floats or rows * channels)
        if stored.quantized:
            quantized = simd.isa.storage
            copy = parameter("out_quantized", quantized.size(rows, channels), quantized.dtype)
            quantizer = Quantizer(simd, channels, constants, copy, alignment)
        if stored.half_format is not None:
            if floats is None:
                storage = simd.isa.half_storage(stored.half_format)
            size = floats or storage.size(rows, channels)
            half = parameter("out_half", size, STORED[stored.half_format])
        return Output(channels, out, quantizer, half, storage)

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
        for i, x in enumerate(values):
            count = last if last and i == len(values) - 1 else lanes
            if self.out is not None:
                simd.store_first(self.out, row * self.channels + channel + i * lanes, x, count)
            if self.half is not None:
                at = self.half_storage.place(row, channel + i * lanes, self.channels)
                simd.store_first(self.half, at, narrowed(simd, x, self.half.dtype), count)
        if self.quantizer is not None:
            quantizer = self.quantizer.of_registers(simd)
            factors = quantizer.factors(channel, len(values))
            steps = [quantizer.steps(x, f) for x, f in zip(values, factors, strict=True)]
            quantizer.store(row, channel, steps)

    def store_at(self, simd: Simd, at: Expr, x: Expr, count: int | None = None) -> None:
        """The first lanes (default: all) of a register, from float number `at` on, unquantized, of
        one that is flat."""
        if self.out is not None:
            simd.store_first(self.out, at, x, count or simd.lanes)
        if self.half is not None:
            simd.store_first(self.half, at, narrowed(simd, x, self.half.dtype), count or simd.lanes)
