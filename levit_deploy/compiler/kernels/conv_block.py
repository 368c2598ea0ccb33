"""The inner kernel of every convolution: a few pixels of one output row x one panel of channels.

    bias, then acc = fma(input value, weight, acc) for one tap and input channel after the other

A panel is [1 + depth][channels]: the bias first, then the weights in the order of the taps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.simd import Simd
from levit_deploy.targets.target import Target

# Takes a pixel of the block and neighbouring registers of it, the first at the given channel.
Store = Callable[[int, int, Simd, list[Expr]], None]

# One input value, in all lanes of a register of the given width.
Splat = Callable[[Simd], Expr]


def consecutive(target: Target, buffer: tirx.Buffer, at: Expr, count: int) -> list[Splat]:
    """`count` neighbouring values of `buffer` from `at`; nothing beyond them is read.

    NEON: loaded here, four at a time, then used by lane. x86: a broadcasting load at each use.
    """
    simd = Simd(target)
    if simd.splat_group == 1 or count < simd.splat_group:
        return [_broadcast(buffer, at + i) for i in range(count)]
    values: list[Splat] = []
    for first in range(0, count, simd.splat_group):
        start = min(first, count - simd.splat_group)  # the last load may overlap the one before
        quad = T.bind(simd.load(buffer, at + start))
        values += [_lane(quad, i) for i in range(first - start, simd.splat_group)]
    return values


def _broadcast(buffer: tirx.Buffer, at: Expr) -> Splat:
    return lambda simd: simd.splat(buffer[at])


def _lane(vector: Expr, index: int) -> Splat:
    return lambda simd: simd.lane(vector, index)


@dataclass(frozen=True)
class PixelBlock:
    """`pixels` neighbouring output pixels x the channels of one panel, kept in registers.

    `vectors`: lanes of each register that a panel's channels are spread over.
    """

    target: Target
    vectors: tuple[int, ...]
    pixels: int

    @property
    def width(self) -> int:
        """Channels of a panel."""
        return sum(self.vectors)

    @property
    def registers(self) -> list[tuple[Simd, int]]:
        """Each register of one pixel, with its first channel."""
        starts = accumulate(self.vectors, initial=0)
        return [(Simd(self.target, n), next(starts)) for n in self.vectors]

    def start(self, w: tirx.Buffer, panel_at: Expr) -> tirx.Buffer:
        """Accumulators (pixels * width,) that hold the bias."""
        acc = T.alloc_buffer((self.pixels * self.width,), "float32", scope="local")
        for simd, channel in self.registers:
            bias = T.bind(simd.load(w, panel_at + channel))
            for pixel in range(self.pixels):
                simd.store(acc, pixel * self.width + channel, bias)
        return acc

    def multiply(
        self, acc: tirx.Buffer, w: tirx.Buffer, weights_at: Expr, values: Sequence[Splat | None]
    ) -> None:
        """One tap of one input channel: its value for each pixel (None: outside the image).

        Weights first, then pixel by pixel: the order in which LLVM needs the fewest registers.
        """
        group = Simd(self.target).load_group
        for first in range(0, len(self.vectors), group):
            registers = self.registers[first : first + group]
            weights = [T.bind(simd.load(w, weights_at + channel)) for simd, channel in registers]
            for pixel, value in enumerate(values):
                if value is None:
                    continue
                factors = {simd.lanes: T.bind(value(simd)) for simd, _ in registers}
                for (simd, channel), weight in zip(registers, weights, strict=True):
                    at = pixel * self.width + channel
                    simd.store(acc, at, simd.fma(factors[simd.lanes], weight, simd.load(acc, at)))

    def finish(self, acc: tirx.Buffer, activation: Activation, store: Store) -> None:
        """Activation, then each pixel to `store`."""
        for pixel in range(self.pixels):
            for _, alike in groupby(self.registers, lambda register: register[0].lanes):
                registers = list(alike)
                simd, first = registers[0]
                values = []
                for _, channel in registers:
                    z = T.bind(simd.load(acc, pixel * self.width + channel))
                    values.append(simd.hardswish(z) if activation is Activation.HARDSWISH else z)
                store(pixel, first, simd, values)
