"""Vector instructions of one target as TIR expressions, for use inside an IRBuilder prim_func.

Floating-point results are defined: `fma` is one rounding on every target that has it, and nothing
here is left for LLVM to contract. Kernels must not write `a * b + c`; they call `fma`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.lanes import concat, half, lanes_of, shuffle

# 1.5 * 2^23: adding it to |x| < 2^22 leaves the nearest integer in the low bits of the mantissa.
ROUNDING = 12582912.0
ROUNDING_BITS = 0x4B400000

CACHE_LINE_BYTES = 64  # of what `prefetch` asks for


class Simd:
    """float32 vector operations of `isa`; `lanes` values in a register (default: a full one)."""

    def __init__(self, isa: Isa, lanes: int | None = None) -> None:
        self.isa = isa
        self.lanes = lanes or isa.lanes

    def type(self, lanes: int | None = None) -> str:
        """TIR type name of a float32 vector (default: one register)."""
        return f"float32x{lanes or self.lanes}"

    def load(self, buffer: tirx.Buffer, index: Expr | int) -> Expr:
        """`lanes` consecutive values from `index`, of the buffer's type."""
        return buffer.vload([index], f"{buffer.dtype}x{self.lanes}")

    def store(self, buffer: tirx.Buffer, index: Expr | int, value: Expr) -> None:
        T.buffer_store(buffer, value, [T.ramp(index, 1, self.lanes)])

    def load_groups(self, count: int) -> Iterator[range]:
        """Numbers of `count` vectors, in groups that an inner kernel loads together."""
        group = self.isa.load_group
        for first in range(0, count, group):
            yield range(first, min(first + group, count))

    def register(self, dtype: str = "float32") -> tirx.Buffer:
        """A variable of one vector, to be used with `load` and `store` at index 0."""
        return T.alloc_buffer((self.lanes,), dtype, scope="local")

    def splat(self, value: Expr | float) -> Expr:
        if isinstance(value, float | int):
            value = T.float32(value)
        return T.broadcast(value, self.lanes)

    def lane(self, vector: Expr, index: int) -> Expr:
        """A register filled with lane `index` of `vector` (NEON: folds into fmla by element)."""
        return shuffle([vector], [index] * self.lanes)

    def splats(self, buffer: tirx.Buffer, index: Expr | int, count: int) -> list[Expr]:
        """`count` consecutive values, each in a register of its own; count <= `isa.splat_group`.

        As many as a register holds are one load, here, if multiplications then take it by lane.
        Otherwise there is one broadcasting load each, where it is used.
        """
        if self.isa.multiplies_by_lane and count == self.lanes:
            values = T.bind(self.load(buffer, index))
            return [self.lane(values, i) for i in range(count)]
        return [self.splat(buffer[index + i]) for i in range(count)]

    def load_first(self, buffer: tirx.Buffer, index: Expr | int, count: int) -> Expr:
        """The first `count` lanes from `index`, zeros above; reads nothing else."""
        if count == self.lanes:
            return self.load(buffer, index)
        values = [buffer[index + i] for i in range(count)]
        values += [tirx.const(0, buffer.dtype)] * (self.lanes - count)
        return shuffle(values, range(self.lanes))

    def store_first(self, buffer: tirx.Buffer, index: Expr | int, value: Expr, count: int) -> None:
        """Store the first `count` lanes at `index`; writes nothing else."""
        if count == self.lanes:
            self.store(buffer, index, value)
            return
        for i in range(count):
            T.buffer_store(buffer, self.extract(value, i), [index + i])

    def extract(self, vector: Expr, index: int) -> Expr:
        """Lane `index` of `vector` as a scalar."""
        return shuffle([vector], [index])

    def store_constants(
        self, buffer: tirx.Buffer, at: int, numbers: Iterable[Expr | float]
    ) -> None:
        """Store a register of each number from `at` on, for `load_constants`.

        Constants of its own LLVM makes anew in every turn of a loop (NEON: dup), or it gives them
        all registers and spills what it computes (AVX2).
        """
        for i, number in enumerate(numbers):
            self.store(buffer, at + i * self.lanes, self.splat(number))

    def load_constants(self, buffer: tirx.Buffer, at: int, count: int) -> list[Expr]:
        """Stored constants, loaded here, or, with 16 registers, where they are used: operands in
        memory cost x86 nothing."""
        loads = [self.load(buffer, at + i * self.lanes) for i in range(count)]
        return [T.bind(load) for load in loads] if self.isa.registers > 16 else loads

    def prefetch(self, buffer: tirx.Buffer, index: Expr | int, level: int = 2) -> None:
        """Ask for the cache line of `buffer[index]`, which may lie past the buffer's end.

        `level`: the cache that it should come into.
        """
        read, locality, data_cache = 0, 4 - level, 1
        address = T.address_of(buffer[index])
        T.evaluate(T.call_intrin("void", "tirx.prefetch", address, read, locality, data_cache))

    def fma(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """a * b + c: one rounding where the target has FMA, two where it has not. They are float32,
        or float16 where the target multiplies it."""
        if not self.isa.fma:
            return a * b + c
        return T.call_llvm_pure_intrin(str(c.ty), "llvm.fma", a, b, c)

    def fence(self, vector: Expr) -> Expr:
        """`vector`, floats or int32, as it is: LLVM neither contracts a product with the addition
        that follows nor reorders additions across it. Costs nothing."""
        kind = str(vector.ty)
        floats = kind if kind.startswith("float") else self.type()
        value = T.reinterpret(floats, vector)
        return T.reinterpret(kind, T.call_llvm_pure_intrin(floats, "llvm.arithmetic.fence", value))

    def maximum(self, a: Expr, b: Expr) -> Expr:
        return self.isa.maximum(a, b)

    def minimum(self, a: Expr, b: Expr) -> Expr:
        return self.isa.minimum(a, b)

    def nearest(self, x: Expr, low: Expr, high: Expr) -> Expr:
        """The nearest integers to a register of floats, ties to even, as int32.

        What is below `low` or above `high` (scalars of int16's range) stays outside or becomes the
        limit, whatever is the cheapest way not to overflow.
        """
        return self.isa.nearest(self, x, low, high)

    def saturate_to_8(self, vector: Expr, dtype: str) -> Expr:
        """4, 8 or 16 lanes of int16 as the nearest int8 or, on x86, uint8."""
        if lanes_of(vector) == 4:
            return half(self.isa.saturate_to_8(concat(vector, vector), dtype), 0)
        return self.isa.saturate_to_8(vector, dtype)

    def magnitude(self, x: Expr) -> Expr:
        return T.call_llvm_pure_intrin(self.type(), "llvm.fabs", x)

    def reduce(self, vector: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """One value from all lanes: the upper half is combined with the lower, again and again."""
        while lanes_of(vector) > 1:
            vector = T.bind(combine(half(vector, 0), half(vector, 1)))
        return vector


def unknown(number: int) -> Expr:
    """`number` >= 1, which LLVM does not know. Otherwise it makes straight code of few turns, in an
    order that spills, one address of two, and loops that count in addresses."""
    known = T.call_llvm_pure_intrin("float32", "llvm.arithmetic.fence", T.float32(number))
    return T.bind(T.call_llvm_pure_intrin("int32", "llvm.smax", T.cast(known, "int32"), 1))
