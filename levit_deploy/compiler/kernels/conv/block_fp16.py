"""Convolution in float16: products summed up in float16 over short chains, those in float32.

    for each chain:  s = input value * weight for the first of its products,
                     s = fma(input value, weight, s) for the others, in float16
    total = bias + the sums of all chains, as fp16_chains says

A row of the kernel, 3 x channels products, is cut into the fewest chains of at most FP16_CHAIN,
nearly equal in units of eight: 96 -> 48 + 48. Chains that are done wait in the worker's memory;
those of rows outside the image are 0.

A panel, in float16: the float32 bias[channels], then the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.conv.block import FloatBlock, Value, lane_of
from levit_deploy.compiler.kernels.conv.spec import KERNEL_SIDE
from levit_deploy.compiler.kernels.fp16_chains import add_up
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.lanes import concat
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.half_format import FP16_CHAIN


class Fp16Block(FloatBlock):
    """NEON with FEAT_FP16. Eight input channels of a pixel are one load, then used by lane."""

    dtype = "float16"
    header = 2
    load_depth = 8
    in_memory = True

    @classmethod
    def lanes(cls, isa: Isa) -> int:
        return 2 * isa.lanes

    @classmethod
    def chains(cls, depth: int) -> list[int]:
        unit = cls.load_depth
        cut = Blocks.of(-(-depth // unit), FP16_CHAIN // unit)
        sizes = [unit * size for size, count in cut.sizes for _ in range(count)]
        sizes[-1] -= -depth % unit
        return sizes

    def initial(self, simd: Simd, w: tirx.Buffer, panel_at: Expr, channel: int) -> Expr:
        bias = w.vload([panel_at + 2 * channel], f"float16x{2 * simd.lanes}")
        return T.reinterpret(simd.type(), bias)

    def values(self, source: tirx.Buffer, at: Expr, count: int) -> list[Value]:
        loaded = source.vload([at], f"float16x{count}")
        full = T.bind(concat(*[loaded] * (self.load_depth // count)))
        return [lane_of(full, i) for i in range(count)]

    def memory_size(self, depth: int) -> int:
        return KERNEL_SIDE * len(self.chains(depth)) * self.chain_size

    @property
    def chain_size(self) -> int:
        """Values of all outputs' chains of one number."""
        return self.pixels * self.width

    @contextmanager
    def chain(self, acc: tirx.Buffer, number: Expr) -> Iterator[tirx.Buffer]:
        sums = T.alloc_buffer((self.chain_size,), self.dtype, scope="local")
        places = [
            (simd, pixel * self.width + channel)
            for pixel in range(self.pixels)
            for simd, channel in self.registers
        ]
        for simd, at in places:
            simd.store(sums, at, T.broadcast(T.float16(-0.0), simd.lanes))  # p + -0.0 is p
        yield sums
        first = T.bind(number * self.chain_size)
        for simd, at in places:
            simd.store(acc, first + at, simd.load(sums, at))

    def result(
        self,
        simd: Simd,
        acc: tirx.Buffer,
        pixel: Expr | int,
        w: tirx.Buffer,
        panel_at: Expr,
        channel: int,
    ) -> Expr:
        total = self.initial(simd, w, panel_at, channel)
        first = pixel * self.width + channel
        count = int(acc.shape[0]) // self.chain_size
        return add_up(total, [simd.load(acc, first + i * self.chain_size) for i in range(count)])
