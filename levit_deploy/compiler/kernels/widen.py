"""Stored floats of 16 bits -> float32 registers, exactly. They are finite.

bfloat16   its bits are the upper half of the float32's; they come in pairs, which are int32
float16    an instruction where there is one; else exponent and fraction are moved into place:
           bits << 13, with 127 - 15 more in the exponent. Those of exponent 0 are fractions of
           2^-14: as 2^-14 more they are normal numbers, and 2^-14 is taken away again.
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.isa import Isa
from levit_deploy.compiler.kernels.isa.lanes import lanes_of, shuffle
from levit_deploy.compiler.kernels.isa.simd import CACHE_LINE_BYTES, Simd
from levit_deploy.half_format import HalfFormat

# Types of buffers.
STORED = {HalfFormat.FP16: "float16", HalfFormat.BF16: "uint16"}
LINE_HALVES = CACHE_LINE_BYTES // 2
_REBIASED = 112 << 23  # 127 - 15, as a float32's exponent
_ONE_EXPONENT = 1 << 23


def step_of(format: HalfFormat, isa: Isa) -> int:
    """Weights of so many steps of the depth lie side by side."""
    return isa.bf16_step if format is HalfFormat.BF16 else 1


def load_widened(
    simd: Simd, buffer: tirx.Buffer, at: Expr | int, format: HalfFormat
) -> tuple[Expr, ...]:
    """Registers of float32 from a buffer of type `STORED[format]`, from `buffer[at]` on, where
    there are as many groups of `step_of` values as lanes: of the first ones of all groups, of the
    second ones ..."""
    if format is HalfFormat.FP16:
        return (_widened(simd, simd.load(buffer, at)),)
    lanes, count = simd.lanes, simd.isa.bf16_step // 2
    places = [at + i * 2 * lanes for i in range(count)]
    loaded = [buffer.vload([place], f"{buffer.dtype}x{2 * lanes}") for place in places]
    words = [T.bind(T.reinterpret(f"int32x{lanes}", pairs)) for pairs in loaded]
    parts: list[Expr] = []
    for i in range(count):
        pairs = words[0]
        if count > 1:
            pairs = T.bind(shuffle(words, range(i, count * lanes, count)))
        parts += [_shifted(simd, pairs, 16), pairs & _splat(simd, -0x10000)]
    return tuple(T.reinterpret(simd.type(), part) for part in parts)


def _widened(simd: Simd, half: Expr) -> Expr:
    if simd.isa.widens_float16:
        return T.cast(half, simd.type())
    bits = T.bind(_bits(simd, T.reinterpret(f"uint16x{simd.lanes}", half)))
    magnitude = T.bind(_shifted(simd, bits & _splat(simd, 0x7FFF), 13))
    normal = T.reinterpret(simd.type(), magnitude + _splat(simd, _REBIASED))
    above = T.reinterpret(simd.type(), magnitude + _splat(simd, _REBIASED + _ONE_EXPONENT))
    tiny = above - simd.splat(2.0**-14)
    value = tirx.Select(magnitude < _splat(simd, _ONE_EXPONENT), tiny, normal)
    sign = _shifted(simd, bits & _splat(simd, 0x8000), 16)
    return T.reinterpret(simd.type(), T.reinterpret(f"int32x{simd.lanes}", value) | sign)


def narrowed(simd: Simd, x: Expr, stored: str) -> Expr:
    """float32 -> the nearest of a type of `STORED`, where the CPU multiplies that."""
    if stored == STORED[HalfFormat.BF16]:
        return simd.isa.to_bf16(x)
    return T.cast(x, f"{stored}x{lanes_of(x)}")


def _bits(simd: Simd, half: Expr) -> Expr:
    return T.cast(half, f"int32x{simd.lanes}")


def _splat(simd: Simd, bits: int) -> Expr:
    return T.broadcast(T.int32(bits), simd.lanes)


def _shifted(simd: Simd, bits: Expr, count: int) -> Expr:
    return T.shift_left(bits, _splat(simd, count))
