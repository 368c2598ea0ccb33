"""Activations of a register of float32 values z: each is z times a gate between 0 and 1.

    hardswish   z * min(max(z / 6 + 0.5, 0), 1)
    SiLU        z / (1 + exp(-z))
    ReLU        max(z, 0)
    GELU        z * (1 + erf(z / sqrt(2))) / 2

exp is that of `exponential`, so the bits are equal wherever multiply-adds are fused. erf(x) is
1 - (a1 t + ... + a5 t^5) exp(-x^2) with t = 1 / (1 + p x) for x >= 0, absolute error below 1.5e-7
(Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26).
"""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from levit_deploy.compiler.kernels.exponential import ExpConstants, exponential
from levit_deploy.compiler.kernels.isa.simd import Simd
from levit_deploy.compiler.kernels.kernel import Activation

_ERF_P = 0.3275911
_ERF_A = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)  # a1 ... a5


def activate(simd: Simd, activation: Activation, z: Expr) -> Expr:
    """The activation of z."""
    match activation:
        case Activation.NONE:
            return z
        case Activation.RELU:
            return simd.maximum(z, simd.splat(0.0))
    return z * gate(simd, activation, z)


def gate(simd: Simd, activation: Activation, z: Expr) -> Expr:
    """What z is multiplied by."""
    one, zero = simd.splat(1.0), simd.splat(0.0)
    match activation:
        case Activation.NONE:
            return one
        case Activation.HARDSWISH:  # 1/6 as a float32 factor
            ramp = simd.fma(z, simd.splat(1 / 6), simd.splat(0.5))
            return simd.minimum(simd.maximum(ramp, zero), one)
        case Activation.RELU:
            return tirx.Select(z > zero, one, zero)
        case Activation.SILU:
            e = T.bind(_exp(simd, zero - simd.magnitude(z)))
            return tirx.Select(z >= zero, one, e) / (one + e)
        case Activation.GELU:
            x = T.bind(simd.magnitude(z) * simd.splat(0.5**0.5))
            t = T.bind(one / simd.fma(x, simd.splat(_ERF_P), one))
            polynomial = simd.splat(_ERF_A[-1])
            for a in reversed(_ERF_A[:-1]):
                polynomial = T.bind(simd.fma(polynomial, t, simd.splat(a)))
            e = T.bind(_exp(simd, zero - x * x))
            tail = T.bind(simd.splat(0.5) * t * polynomial * e)
            return tirx.Select(z >= zero, one - tail, tail)


def hardswish_float16(simd: Simd, z: Expr) -> Expr:
    """hardswish of eight float16 values, each operation rounded to float16."""
    sixth, half, zero, one = (T.broadcast(T.float16(c), 8) for c in (1 / 6, 0.5, 0.0, 1.0))
    ramp = simd.fma(z, sixth, half)
    return z * simd.minimum(simd.maximum(ramp, zero), one)


def _exp(simd: Simd, x: Expr) -> Expr:
    return exponential(simd, x, ExpConstants(*(simd.splat(number) for number in ExpConstants())))
