"""exp of a register, our own: the same bits wherever multiply-adds are fused, and no libm."""

from __future__ import annotations

from typing import NamedTuple

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.isa.simd import ROUNDING, Simd

_MANTISSA_BITS = 23


class ExpConstants(NamedTuple):
    """What `exponential` computes with: numbers, or registers filled with them."""

    # Below it, exp is taken for zero; the multiple of ln 2 that is nearest to it is -127.
    smallest: Expr | float = -88.0
    log2_e: Expr | float = 1.4426950408889634
    minus_ln_2: Expr | float = -0.6931471805599453
    # 1.5 * 2^23 + 127: adding it rounds to an integer, which ends up in the low bits of the
    # mantissa, plus the bias of a float32's exponent.
    round: Expr | float = ROUNDING + 127
    # exp(r) = 1 + r + r^2 (c2 + c3 r + c4 r^2 + c5 r^3) for |r| <= ln(2) / 2: the least maximum
    # relative error of this form, 1.06e-7, found by Lawson's iterated weights in float64.
    c2: Expr | float = 0.499992311
    c3: Expr | float = 0.166671157
    c4: Expr | float = 0.0418903306
    c5: Expr | float = 0.00831250101


class ShortExpConstants(NamedTuple):
    """The same for results that are rounded to float16: exp(r) = 1 + r + r^2 (c2 + c3 r), with a
    relative error of 1.23e-4 at most, a quarter of that rounding."""

    smallest: Expr | float = ExpConstants().smallest
    log2_e: Expr | float = ExpConstants().log2_e
    minus_ln_2: Expr | float = ExpConstants().minus_ln_2
    round: Expr | float = ExpConstants().round
    c2: Expr | float = 0.50394106
    c3: Expr | float = 0.16662814


def exponential(simd: Simd, x: Expr, constants: ExpConstants | ShortExpConstants) -> Expr:
    """exp(x) of a register of values x <= 0: relative error below 2e-7 + 3e-9 |x|, or 1.3e-4.

    Without FMA 2e-7 + 6e-8 |x|: there n ln 2 is rounded. NEON of ARMv7 is 2^-126 farther off: it
    takes a denormal product for 0.

    exp(0) is 1; x < -87.4 gives 0, as -inf and NaN do.

    x = n ln 2 + r; exp(x) = 2^n exp(r). 2^n is made by shifting n + 127 into the exponent of a
    float32: n = -127 makes it 0.
    """
    k = constants
    x = T.bind(simd.maximum(x, k.smallest))
    sum_bits = T.reinterpret(f"int32x{simd.lanes}", simd.fma(x, k.log2_e, k.round))
    biased = T.bind(sum_bits)  # through its bits, or TVM would simplify (a + b) - b to a
    n = T.reinterpret(simd.type(), biased) - k.round
    r = T.bind(simd.fma(n, k.minus_ln_2, x))
    r2 = T.bind(r * r)
    series = simd.fma(r, k.c3, k.c2)
    if isinstance(k, ExpConstants):
        series = simd.fma(r2, simd.fma(r, k.c5, k.c4), series)
    fraction = T.bind(simd.fma(r2, series, r))  # exp(r) - 1
    shift = T.broadcast(T.int32(_MANTISSA_BITS), simd.lanes)
    power = T.bind(T.reinterpret(simd.type(), T.shift_left(biased, shift)))
    return simd.fma(power, fraction, power)
