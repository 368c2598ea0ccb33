"""The inner kernel of every convolution: a few pixels of one output row x one panel of channels.

    start; then acc += input value * weight for one tap and input channel after the other; finish

What multiplies is a `PixelBlock`: of float32 here, of 16-bit integers in `block_int16`, of
16-bit floats in `block_fp16`, `block_bf16` and `block_bfmmla`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import ClassVar, TypeAlias

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.activation import activate
from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.simd import Simd, unknown
from levit_deploy.compiler.kernels.kernel import Activation

# Takes a pixel of the block and neighbouring registers of it, the first at the given channel.
Store = Callable[[Expr | int, int, Simd, list[Expr]], None]

# An input value, or those of one step, in all lanes of a register of the given width.
Splat = Callable[[Simd], Expr]

# The input of one step for one pixel: a splat, or a register that holds all of it.
Value: TypeAlias = Splat | Expr

# What is loaded of a padded source to be subtracted: see `PixelBlock.wide`.
Registers: TypeAlias = tuple[Expr, ...]


@dataclass(frozen=True)
class PixelBlock(ABC):
    """`pixels` neighbouring output pixels x the channels of one panel, kept in registers.

    `vectors`: lanes of each register that a panel's channels are spread over. A panel is a header,
    `header` values for each channel, then [depth / step_depth][channels][step_depth] weights in
    the order of the taps.
    """

    isa: Isa
    vectors: tuple[int, ...]
    pixels: int

    # Of the source and of a panel.
    dtype: ClassVar[str] = "float32"
    # Of the accumulators.
    sum_dtype: ClassVar[str] = "float32"
    header: ClassVar[int] = 1
    # Whether half of the registers, as accumulators, keep the multipliers busy: a sum waits for an
    # addition of one cycle only, and LLVM spills with more.
    half_suffices: ClassVar[bool] = False
    # Accumulators of one output.
    sums: ClassVar[int] = 1
    # Instructions of one step for four outputs.
    products: ClassVar[int] = 1
    # Instructions that the input of a pixel takes in such a step.
    input_cost: ClassVar[float] = 1
    # Registers that they need for the input of a pixel.
    input_registers: ClassVar[float] = 1.5
    # Bytes that a weight is read as, where bytes are multiplied.
    weight_parts: ClassVar[int] = 1
    # Input channels that one step multiplies.
    step_depth: ClassVar[int] = 1
    # Input channels that one load serves where multiplications take them by lane.
    load_depth: ClassVar[int] = 4
    # Registers of a panel, at most, of a default tile: more leave so few pixels that LLVM runs out
    # of registers on NEON.
    most_vectors: ClassVar[int] = 4
    # Whether outputs are made in tiles, as `winograd` says.
    in_tiles: ClassVar[bool] = False
    # Whether sums are chains that wait, done, in the worker's memory until they are added up.
    in_memory: ClassVar[bool] = False

    @classmethod
    def lanes(cls, isa: Isa) -> int:
        """Channels that a register holds."""
        return isa.lanes

    @property
    def width(self) -> int:
        """Channels of a panel."""
        return sum(self.vectors)

    @property
    def registers(self) -> list[tuple[Simd, int]]:
        """Each register of one pixel, with its first channel."""
        starts = accumulate(self.vectors, initial=0)
        return [(Simd(self.isa, n), next(starts)) for n in self.vectors]

    @classmethod
    def weight_size(cls, depth: Expr | int) -> Expr | int:
        """Values that so many weights of an output channel take."""
        return depth

    @classmethod
    def wide(cls, simd: Simd, source: tirx.Buffer, at: Expr) -> Registers:
        """Two neighbouring values of a padded source for each lane, as they are subtracted."""
        return (source.vload([at], f"{cls.dtype}x{2 * simd.lanes}"),)

    @classmethod
    def narrow(cls, differences: Registers) -> Expr:
        """What has been subtracted, in the order of the source and rounded to its type."""
        return differences[0]

    def panel_size(self, depth: int) -> int:
        """Values of a panel."""
        size: int = (self.header + self.weight_size(depth)) * self.width
        return size

    def memory_size(self, depth: int) -> int:
        """Values of sums `in_memory`, `depth` being that of a row of the kernel."""
        return 0

    def start(self, w: tirx.Buffer, panel_at: Expr) -> tirx.Buffer:
        """Accumulators (sums * rows * width,) with what they start from."""
        return self._filled(lambda simd, channel: self.initial(simd, w, panel_at, channel))

    def zeros(self) -> tirx.Buffer:
        """Accumulators that start from 0."""
        zero = T.cast(0, self.sum_dtype)
        return self._filled(lambda simd, _: T.broadcast(zero, simd.lanes))

    def _filled(self, initial: Callable[[Simd, int], Expr]) -> tirx.Buffer:
        rows = self.sums * self.rows
        acc = T.alloc_buffer((rows * self.width,), self.sum_dtype, scope="local")
        for simd, channel in self.registers:
            value = T.bind(initial(simd, channel))
            for row in range(rows):
                simd.store(acc, row * self.width + channel, value)
        return acc

    @classmethod
    def chains(cls, depth: int) -> list[int]:
        """How many products of a row of the kernel, which has `depth`, each chain adds up."""
        return [depth]

    @contextmanager
    def chain(self, acc: tirx.Buffer, number: Expr) -> Iterator[tirx.Buffer]:
        """What `multiply` adds the products of chain `number` to; they are part of `acc` then."""
        yield acc

    @property
    def rows(self) -> int:
        """Of accumulators: pixels."""
        return self.pixels

    @abstractmethod
    def initial(self, simd: Simd, w: tirx.Buffer, panel_at: Expr, channel: int) -> Expr:
        """What the sums of a register of channels start from."""

    @abstractmethod
    def values(self, source: tirx.Buffer, at: Expr, count: int) -> list[Value]:
        """`count` neighbouring values of `source` from `at`, for one step after the other; nothing
        beyond them is read."""

    @abstractmethod
    def multiply(
        self, acc: tirx.Buffer, w: tirx.Buffer, weights_at: Expr, values: Sequence[Value | None]
    ) -> None:
        """One step: its values for each pixel (None: outside the image)."""

    def steps(
        self,
        acc: tirx.Buffer,
        source: tirx.Buffer,
        pixels: Sequence[Expr],
        w: tirx.Buffer,
        weights_at: Expr,
        k: Expr | int,
        count: int,
    ) -> None:
        """The products of `count` input channels from number `k` on. `pixels`: where the first
        channel of each is in `source`."""
        loaded = [self.values(source, pixel + k, count) for pixel in pixels]
        for step, values in enumerate(zip(*loaded, strict=True)):
            before = self.weight_size(k + step * self.step_depth)
            self.multiply(acc, w, weights_at + before * self.width, values)

    def total(self, simd: Simd, acc: tirx.Buffer, pixel: int, channel: int) -> Expr:
        """The sums of a register of channels."""
        return simd.load(acc, pixel * self.width + channel)

    @abstractmethod
    def result(
        self,
        simd: Simd,
        acc: tirx.Buffer,
        pixel: Expr | int,
        w: tirx.Buffer,
        panel_at: Expr,
        channel: int,
    ) -> Expr:
        """The same as float32, with their bias."""

    def finish(
        self,
        acc: tirx.Buffer,
        w: tirx.Buffer,
        panel_at: Expr,
        activation: Activation,
        store: Store,
    ) -> None:
        """Activation, then each pixel to `store`."""

        def finish(pixel: Expr | int) -> None:
            for _, alike in groupby(self.registers, lambda register: register[0].lanes):
                registers = list(alike)
                simd, first = registers[0]
                values = []
                for _, channel in registers:
                    z = T.bind(self.result(simd, acc, pixel, w, panel_at, channel))
                    values.append(activate(simd, activation, z))
                store(pixel, first, simd, values)

        if self.in_memory:
            with T.serial(unknown(self.pixels)) as index:
                finish(index)
        else:
            for pixel in range(self.pixels):
                finish(pixel)


class FloatBlock(PixelBlock):
    """bias, then acc = fma(input value, weight, acc)."""

    def initial(self, simd: Simd, w: tirx.Buffer, panel_at: Expr, channel: int) -> Expr:
        return simd.load(w, panel_at + channel)

    def values(self, source: tirx.Buffer, at: Expr, count: int) -> list[Value]:
        """Loaded here, a register at a time, if multiplications then take them by lane; otherwise
        there is a broadcasting load at each use."""
        simd, together = Simd(self.isa), self.isa.splat_group
        if together == 1 or count < together:
            return [_broadcast(source, at + i) for i in range(count)]
        values: list[Value] = []
        for first in range(0, count, together):
            start = min(first, count - together)  # the last load may overlap the one before
            quad = T.bind(simd.load(source, at + start))
            values += [lane_of(quad, i) for i in range(first - start, together)]
        return values

    def multiply(
        self, acc: tirx.Buffer, w: tirx.Buffer, weights_at: Expr, values: Sequence[Value | None]
    ) -> None:
        # Weights first, then pixel by pixel: the order in which LLVM needs the fewest registers.
        for group in Simd(self.isa).load_groups(len(self.vectors)):
            registers = self.registers[group.start : group.stop]
            weights = [T.bind(simd.load(w, weights_at + channel)) for simd, channel in registers]
            for pixel, value in enumerate(values):
                if value is None:
                    continue
                factors = {simd.lanes: T.bind(value(simd)) for simd, _ in registers}
                for (simd, channel), weight in zip(registers, weights, strict=True):
                    at = pixel * self.width + channel
                    simd.store(acc, at, simd.fma(factors[simd.lanes], weight, simd.load(acc, at)))

    def result(
        self,
        simd: Simd,
        acc: tirx.Buffer,
        pixel: Expr | int,
        w: tirx.Buffer,
        panel_at: Expr,
        channel: int,
    ) -> Expr:
        return self.total(simd, acc, pixel, channel)


def _broadcast(buffer: tirx.Buffer, at: Expr) -> Splat:
    return lambda simd: simd.splat(buffer[at])


def lane_of(vector: Expr, index: int) -> Splat:
    """Lane `index` of `vector`, which stays in its register."""
    return lambda simd: simd.lane(vector, index)
