"""What NEON is in AArch64 and in ARMv7 alike: 16-byte registers, and long and narrow operations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.lanes import concat
from levit_deploy.compiler.kernels.isa.simd import Simd


class Neon(Isa):
    """Loads come in pairs (ldp), and a multiplication takes its factor by lane."""

    multiplies_by_lane = True
    load_group = 2
    runs_ahead = False

    # LLVM's names of two instructions.
    NARROW: ClassVar[str]
    LONG_PRODUCT: ClassVar[str]

    def saturate_to_16(self, vectors: Sequence[Expr]) -> Expr:
        return concat(*(T.call_llvm_pure_intrin("int16x4", self.NARROW, v) for v in vectors))

    def saturate_to_8(self, vector: Expr, dtype: str) -> Expr:
        return T.call_llvm_pure_intrin("int8x8", self.NARROW, vector)

    def long_product(self, kind: str, a: Expr, b: Expr) -> Expr:
        """Products lane by lane, in lanes of twice the width: those of `kind`."""
        return T.call_llvm_pure_intrin(kind, self.LONG_PRODUCT, a, b)

    @abstractmethod
    def add_pairs(self, simd: Simd, total: Expr, vector: Expr) -> Expr:
        """int32x4 `total` plus neighbours of int16x8 `vector`."""

    @abstractmethod
    def sums_of_each(self, vectors: Sequence[Expr]) -> Expr:
        """The sums of the lanes of four int32x4, in one int32x4."""


def neon_of(simd: Simd) -> Neon:
    """The NEON of a kernel that is for NEON only."""
    assert isinstance(simd.isa, Neon)
    return simd.isa
