"""Vector instructions of one target as TIR expressions, for use inside an IRBuilder prim_func.

Floating-point results are defined: `fma` is one rounding on every target that has it, and nothing
here is left for LLVM to contract. Kernels must not write `a * b + c`; they call `fma`.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import PrimExpr
from tvm.tirx.script import builder as T  # noqa: N812

from levit_deploy.targets.target import Arch, Target


class Simd:
    """float32 vector operations of `target`; `lanes` values in a register."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.lanes = target.float_lanes

    def type(self, lanes: int | None = None) -> str:
        """TIR type name of a float32 vector (default: one register)."""
        return f"float32x{lanes or self.lanes}"

    def load(self, buffer: tirx.Buffer, index: PrimExpr | int) -> PrimExpr:
        """`lanes` consecutive values from `index`."""
        return buffer.vload([index], self.type())

    def store(self, buffer: tirx.Buffer, index: PrimExpr | int, value: PrimExpr) -> None:
        T.buffer_store(buffer, value, [T.ramp(index, 1, self.lanes)])

    def splat(self, value: PrimExpr | float) -> PrimExpr:
        if isinstance(value, float | int):
            value = T.float32(value)
        return T.broadcast(value, self.lanes)

    def lane(self, vector: PrimExpr, index: int) -> PrimExpr:
        """A register filled with lane `index` of `vector` (NEON: folds into fmla by element)."""
        return tirx.Shuffle([vector], [tirx.const(index, "int32")] * self.lanes)

    def fma(self, a: PrimExpr, b: PrimExpr, c: PrimExpr) -> PrimExpr:
        """a * b + c: one rounding where the target has FMA, two where it has not."""
        if not self.target.fma:
            return a * b + c
        return T.call_llvm_pure_intrin(self.type(), "llvm.fma", a, b, c)

    def maximum(self, a: PrimExpr, b: PrimExpr) -> PrimExpr:
        return self._extremum("max", a, b)

    def minimum(self, a: PrimExpr, b: PrimExpr) -> PrimExpr:
        return self._extremum("min", a, b)

    def _extremum(self, which: str, a: PrimExpr, b: PrimExpr) -> PrimExpr:
        # One instruction each: maxps/minps is compare-and-select; NEON's is fmaxnm/fminnm, which
        # LLVM takes only from the intrinsic.
        if self.target.arch is Arch.AARCH64:
            return T.call_llvm_pure_intrin(self.type(), f"llvm.{which}num", a, b)
        return T.max(a, b) if which == "max" else T.min(a, b)

    def hardswish(self, z: PrimExpr) -> PrimExpr:
        """z * min(max(z / 6 + 0.5, 0), 1), with 1/6 as a float32 factor."""
        gate = self.fma(z, self.splat(1 / 6), self.splat(0.5))
        return z * self.minimum(self.maximum(gate, self.splat(0.0)), self.splat(1.0))
