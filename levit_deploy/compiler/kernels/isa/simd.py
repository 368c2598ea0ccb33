"""Vector instructions of one target as TIR expressions, for use inside an IRBuilder prim_func.

Floating-point results are defined: `fma` is one rounding on every target that has it, and nothing
here is left for LLVM to contract. Kernels must not write `a * b + c`; they call `fma`.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.targets.target import Arch, Target


class Simd:
    """float32 vector operations of `target`; `lanes` values in a register (default: a full one)."""

    def __init__(self, target: Target, lanes: int | None = None) -> None:
        self.target = target
        self.lanes = lanes or target.float_lanes
        self.neon = target.arch is not Arch.X86_64
        # How many consecutive splats `splats` makes from one load.
        self.splat_group = 4 if self.neon else 1
        # Vectors of one operand that an inner kernel loads together: NEON loads in pairs (ldp).
        self.load_group = 2 if self.neon else 4

    def type(self, lanes: int | None = None) -> str:
        """TIR type name of a float32 vector (default: one register)."""
        return f"float32x{lanes or self.lanes}"

    def load(self, buffer: tirx.Buffer, index: Expr | int) -> Expr:
        """`lanes` consecutive values from `index`."""
        return buffer.vload([index], self.type())

    def store(self, buffer: tirx.Buffer, index: Expr | int, value: Expr) -> None:
        T.buffer_store(buffer, value, [T.ramp(index, 1, self.lanes)])

    def register(self) -> tirx.Buffer:
        """A variable of one vector, to be used with `load` and `store` at index 0."""
        return T.alloc_buffer((self.lanes,), "float32", scope="local")

    def splat(self, value: Expr | float) -> Expr:
        if isinstance(value, float | int):
            value = T.float32(value)
        return T.broadcast(value, self.lanes)

    def lane(self, vector: Expr, index: int) -> Expr:
        """A register filled with lane `index` of `vector` (NEON: folds into fmla by element)."""
        return tirx.Shuffle([vector], [tirx.const(index, "int32")] * self.lanes)

    def splats(self, buffer: tirx.Buffer, index: Expr | int, count: int) -> list[Expr]:
        """`count` consecutive values, each in a register of its own; count <= `splat_group`.

        NEON with count 4: one load, here; the multiplications then take it by lane. Otherwise one
        broadcasting load each, where it is used.
        """
        if self.neon and count == self.lanes:
            values = T.bind(self.load(buffer, index))
            return [self.lane(values, i) for i in range(count)]
        return [self.splat(buffer[index + i]) for i in range(count)]

    def load_first(self, buffer: tirx.Buffer, index: Expr | int, count: int) -> Expr:
        """The first `count` lanes from `index`, zeros above; reads nothing else."""
        if count == self.lanes:
            return self.load(buffer, index)
        values = [buffer[index + i] for i in range(count)]
        values += [T.float32(0)] * (self.lanes - count)
        return tirx.Shuffle(values, [tirx.const(i, "int32") for i in range(self.lanes)])

    def store_first(self, buffer: tirx.Buffer, index: Expr | int, value: Expr, count: int) -> None:
        """Store the first `count` lanes at `index`; writes nothing else."""
        if count == self.lanes:
            self.store(buffer, index, value)
            return
        for i in range(count):
            T.buffer_store(buffer, self.extract(value, i), [index + i])

    def extract(self, vector: Expr, index: int) -> Expr:
        """Lane `index` of `vector` as a scalar."""
        return tirx.Shuffle([vector], [tirx.const(index, "int32")])

    def window(
        self, buffer: tirx.Buffer, index: Expr | int, size: int
    ) -> tuple[tirx.Buffer, Expr | int]:
        """`size` values from `index` as (buffer, index), to be read at constant offsets.

        On AArch64 their address becomes a pointer of its own. Otherwise LLVM shares it with other
        addresses of the loop at a distance that ldp cannot reach, and loads one vector at a time.
        """
        if self.target.arch is not Arch.AARCH64:
            return buffer, index
        address = T.address_of(buffer[index])
        # Means nothing for such a pointer, but LLVM does not look through it.
        opaque = T.call_llvm_pure_intrin("handle", "llvm.launder.invariant.group", address)
        return T.decl_buffer((size,), "float32", data=T.bind(opaque)), 0

    def prefetch(self, buffer: tirx.Buffer, index: Expr | int, level: int = 2) -> None:
        """Ask for the cache line of `buffer[index]`, which may lie past the buffer's end.

        `level`: the cache that it should come into.
        """
        read, locality, data_cache = 0, 4 - level, 1
        address = T.address_of(buffer[index])
        T.evaluate(T.call_intrin("void", "tirx.prefetch", address, read, locality, data_cache))

    def fma(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """a * b + c: one rounding where the target has FMA, two where it has not."""
        if not self.target.fma:
            return a * b + c
        return T.call_llvm_pure_intrin(self.type(), "llvm.fma", a, b, c)

    def fence(self, vector: Expr) -> Expr:
        """`vector`, float32 or int32, as it is: LLVM neither contracts a product with the addition
        that follows nor reorders additions across it. Costs nothing."""
        kind = str(vector.ty)
        value = T.reinterpret(self.type(), vector)
        return T.reinterpret(
            kind, T.call_llvm_pure_intrin(self.type(), "llvm.arithmetic.fence", value)
        )

    def maximum(self, a: Expr, b: Expr) -> Expr:
        return self._extremum("max", a, b)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        return self._extremum("min", a, b)

    def _extremum(self, which: str, a: Expr, b: Expr) -> Expr:
        # One instruction each: maxps/minps is compare-and-select; NEON's is fmaxnm/fminnm, which
        # LLVM takes only from the intrinsic.
        if self.target.arch is Arch.AARCH64:
            return T.call_llvm_pure_intrin(self.type(), f"llvm.{which}num", a, b)
        return T.max(a, b) if which == "max" else T.min(a, b)

    def magnitude(self, x: Expr) -> Expr:
        return T.call_llvm_pure_intrin(self.type(), "llvm.fabs", x)

    def reduce(self, vector: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """One value from all lanes: the upper half is combined with the lower, again and again."""
        half = self.lanes // 2
        while half:
            low = tirx.Shuffle([vector], [tirx.const(i, "int32") for i in range(half)])
            high = tirx.Shuffle([vector], [tirx.const(i + half, "int32") for i in range(half)])
            vector = T.bind(combine(low, high))
            half //= 2
        return vector

    def hardswish(self, z: Expr) -> Expr:
        return z * self.hardswish_gate(z)

    def hardswish_gate(self, z: Expr) -> Expr:
        """min(max(z / 6 + 0.5, 0), 1), with 1/6 as a float32 factor: what z is multiplied by."""
        gate = self.fma(z, self.splat(1 / 6), self.splat(0.5))
        return self.minimum(self.maximum(gate, self.splat(0.0)), self.splat(1.0))
