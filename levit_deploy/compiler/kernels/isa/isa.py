"""What kernels know of an instruction set: a value with its sizes, habits and instructions.

`X86`, `Neon64` and `Neon32` are the instruction sets; `isa_of` says which one a target has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.activation_storage import ActivationStorage
from levit_deploy.compiler.kernels.isa.half_storage import HalfStorage
from levit_deploy.compiler.kernels.isa.lanes import lanes_of
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.target import Int8Dot, Target

if TYPE_CHECKING:
    from levit_deploy.compiler.kernels.attention.packed_dot import PackedDot
    from levit_deploy.compiler.kernels.conv.block import FloatBlock
    from levit_deploy.compiler.kernels.conv.block_int16 import Int16Block
    from levit_deploy.compiler.kernels.gemm.int8_tile import Int8Tile
    from levit_deploy.compiler.kernels.isa.simd import Simd


class IntegerProducts(NamedTuple):
    """How a CPU multiplies integers, by what kernels of each kind emit.

    `tile`: of 8-bit matrix products; `shared_tile`: of those whose weights lie as every CPU of the
    architecture can read them. `dot`: of operands that attention packs. `blocks`: of
    convolutions in 16 bits, the fastest first; `byte_blocks`: of those whose weights have 8.
    """

    tile: type[Int8Tile]
    shared_tile: type[Int8Tile]
    dot: type[PackedDot]
    blocks: tuple[type[Int16Block], ...]
    byte_blocks: tuple[type[Int16Block], ...]

    def tile_for(self, shared: bool) -> type[Int8Tile]:
        return self.shared_tile if shared else self.tile


@dataclass(frozen=True)
class Isa(ABC):
    """An instruction set as one CPU has it.

    `vector_bytes`: of a register, of which there are `registers`. `fma`: a multiply-add is one
    instruction that rounds once.
    """

    vector_bytes: int
    registers: int
    fma: bool
    products: IntegerProducts

    # The products of each set of instructions for integers that there is.
    PRODUCTS: ClassVar[Mapping[Int8Dot, IntegerProducts]]
    # A multiplication can take one lane of a register as its factor: so values that are to be
    # broadcast come in vectors, one load for all lanes. Otherwise a load broadcasts one of them.
    multiplies_by_lane: ClassVar[bool]
    # Vectors of one operand that an inner kernel loads together.
    load_group: ClassVar[int]
    # What CPUs that multiply bfloat16 have for convolutions; how many neighbouring k of weights lie
    # side by side for each column, and how tokens lie, as they want it.
    bf16_block: ClassVar[type[FloatBlock]]
    bf16_step: ClassVar[int] = 2
    bf16_storage: ClassVar[HalfStorage] = HalfStorage.ROWS
    # The core runs far enough ahead to hide the end of a loop, and to fall idle for weights and
    # inputs that nobody asked for early.
    runs_ahead: ClassVar[bool]

    @classmethod
    def of(cls, target: Target) -> Isa:
        """The instruction set of `target`, whose architecture is this one."""
        products = cls.PRODUCTS[target.int8_dot]
        return cls(target.vector_bytes, target.vector_registers, target.fma, products)

    @property
    def lanes(self) -> int:
        """float32 values in a register."""
        return self.vector_bytes // 4

    @property
    def splat_group(self) -> int:
        """How many neighbouring values one load serves that fills registers with each of them."""
        return self.lanes if self.multiplies_by_lane else 1

    @property
    def storage(self) -> ActivationStorage:
        """How 8-bit activations lie in memory: as matrix products want them."""
        return self.products.tile.storage

    @property
    def truncates(self) -> bool:
        """Whether one instruction keeps the lower half of the bits of every lane."""
        return True

    @property
    @abstractmethod
    def widens_float16(self) -> bool:
        """Whether one instruction makes float32 of float16."""

    def half_storage(self, format: HalfFormat) -> HalfStorage:
        """How tokens of `format` lie in memory: as matrix products want them."""
        return self.bf16_storage if format is HalfFormat.BF16 else HalfStorage.ROWS

    def int16_block(self, channels: int, byte_weights: bool = False) -> type[Int16Block]:
        """What multiplies `channels` 16-bit input channels of a convolution; they lie in the same
        way whatever its weights are."""
        blocks = self.products.byte_blocks if byte_weights else self.products.blocks
        return next(b for b in blocks if channels % b.step_depth == 0)

    def window(
        self, buffer: tirx.Buffer, index: Expr | int, size: int
    ) -> tuple[tirx.Buffer, Expr | int]:
        """`size` values from `index`, which nobody writes, as (buffer, index), to be read at
        constant offsets."""
        return buffer, index

    def load_row(self, simd: Simd, buffer: tirx.Buffer, index: Expr, vectors: int) -> list[Expr]:
        """Neighbouring registers from `index` on."""
        return [simd.load(buffer, index + v * simd.lanes) for v in range(vectors)]

    def maximum(self, a: Expr, b: Expr) -> Expr:
        """The larger float of each lane: one instruction, as all that follow."""
        return T.max(a, b)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        """The smaller float of each lane."""
        return T.min(a, b)

    def remainder(self, x: Expr, nearest: Expr) -> Expr:
        """What rounding x to the integer `nearest`, ties to even, takes from it."""
        return x - nearest

    def join(self, low: Expr, high: Expr, bits: int) -> Expr:
        """int32: as many low bits of `low`, and above them those of `high`."""
        mask, shift = (T.broadcast(T.int32(n), lanes_of(low)) for n in (2**bits - 1, bits))
        return T.bitwise_or(T.bitwise_and(low, mask), T.shift_left(high, shift))

    def to_bf16(self, x: Expr) -> Expr:
        """The nearest bfloat16 of float32, ties to even, where the CPU multiplies bfloat16."""
        raise NotImplementedError

    @abstractmethod
    def nearest(self, simd: Simd, x: Expr, low: Expr, high: Expr) -> Expr:
        """See `Simd.nearest`."""

    @abstractmethod
    def saturate_to_16(self, vectors: Sequence[Expr]) -> Expr:
        """One or two int32 registers of 4 or 8 lanes as one int16 vector, the nearest values."""

    @abstractmethod
    def saturate_to_8(self, vector: Expr, dtype: str) -> Expr:
        """8 or 16 lanes of int16 as the nearest int8 or, on x86, uint8."""
