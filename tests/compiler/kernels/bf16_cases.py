"""Matrix products in bfloat16: random and hostile layers, and their results to the bit by numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from levit_deploy.compiler.kernels.gemm.family import GEMM_BF16
from levit_deploy.compiler.kernels.gemm.spec import GemmBf16Spec, GemmSpec, GemmTile
from levit_deploy.compiler.kernels.gemm.stored_half import pack_bias, pack_halves
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.compiler.kernels import gemm_cases
from tests.compiler.kernels.gemm_cases import gathered, make_inputs, narrow, rows_of
from tests.compiler.kernels.harness import Buffer, undefined
from tests.compiler.kernels.rounding import Float32, bf16_bits, fma, hardswish, vdpbf16ps
from tests.compiler.kernels.suite import Case, Suite

BF16 = HalfFormat.BF16
TARGET = get_target("x86-64-v4-bf16")


@dataclass(frozen=True)
class Layer:
    """a (rows, depth) and weights (depth, columns) are numbers of bfloat16."""

    spec: GemmBf16Spec
    stored: Stored
    a: Float32
    weights: Float32
    bias: Float32
    residual: Float32

    def inputs(self, tile: GemmTile, target: Target) -> list[Buffer]:
        panels = pack_halves(self.weights, BF16, tile)
        a = self.a.astype(BF16.dtype).view(np.uint16)
        return [a, panels, pack_bias(self.bias, tile), *[self.residual] * self.spec.residual]


def make_layer(
    base: GemmSpec, stored: Stored = Stored.FLOAT, scale: float = 1, **shape: object
) -> Layer:
    """`scale`: of a and of weights; products and bias are of its square."""
    spec = GemmBf16Spec(**vars(replace(base, **shape)))
    a, weights, bias, residual = make_inputs(spec)
    a, weights = (BF16.rounded(x * np.float32(scale)) for x in (a, weights))
    return Layer(spec, stored, a, weights, (bias * np.float64(scale**2)).astype("f4"), residual)


def sums(layer: Layer) -> Float32:
    """(rows, columns) before the activation, as gemm.bf16 says."""
    odd = layer.spec.depth % 2
    a = np.pad(gathered(layer.spec, layer.a), ((0, 0), (0, odd)))
    w = np.pad(layer.weights, ((0, odd), (0, 0)))
    total = np.broadcast_to(layer.bias, (len(a), w.shape[1]))
    for k in range(0, len(w), 2):
        total = vdpbf16ps(total, a[:, None, k : k + 2], w[k : k + 2].T[None])
    return total


@np.errstate(over="ignore", invalid="ignore")
def result(layer: Layer) -> Float32:
    x = sums(layer)
    if layer.spec.activation is Activation.HARDSWISH:
        if layer.spec.residual:
            gate = np.clip(fma(x, np.float32(1 / 6), np.float32(0.5)), 0, 1).astype(np.float32)
            return fma(x, gate, layer.residual)
        return hardswish(x)
    return x + layer.residual if layer.spec.residual else x


def case(layer: Layer, tile: Callable[[Target], GemmTile] | None = narrow) -> Case:
    spec, stored = layer.spec, layer.stored

    def outputs(target: Target) -> list[Buffer]:
        copy = [undefined(spec.rows * spec.columns, "uint16")] * stored.half
        return [undefined(spec.output_size)] * stored.float + copy

    def check(written: Sequence[Buffer], target: Target) -> None:
        x = result(layer)
        if stored.float:
            np.testing.assert_array_equal(rows_of(spec, written[0]), x)
        if stored.half:
            np.testing.assert_array_equal(written[-1], bf16_bits(x).ravel())

    return Case(spec, layer.inputs, outputs, check, tile, stored=stored, portable=False)


PLAIN, STREAM, PANELS = gemm_cases.PLAIN, gemm_cases.STREAM, gemm_cases.PANELS
BOTH = Stored.FLOAT_AND_BF16
SUITE = Suite(
    GEMM_BF16,
    (TARGET,),
    {
        "in many ways": case(make_layer(STREAM, BOTH, rows=23, columns=75, depth=77), None),
        **{f"depth {depth}": case(make_layer(PLAIN, BOTH, depth=depth)) for depth in (1, 8, 33)},
        **{f"{rows} rows": case(make_layer(PLAIN, rows=rows)) for rows in (1, 9)},
        **{f"{n} columns": case(make_layer(STREAM, BOTH, columns=n)) for n in (3, 33)},
        "bfloat16 only": case(
            make_layer(replace(PLAIN, activation=Activation.HARDSWISH), Stored.BF16)
        ),
        "denormal products": case(make_layer(PLAIN, BOTH, scale=2.0**-65)),
        "denormal sums": case(make_layer(PLAIN, BOTH, scale=2.0**-63)),
        "denormal factors": case(make_layer(PLAIN, scale=2.0**-126)),
        "infinite sums": case(make_layer(PLAIN, BOTH, scale=2.0**62)),
        "residual": case(make_layer(replace(PLAIN, residual=True))),
        "panels": case(make_layer(PANELS, columns=40)),
        "every second": case(make_layer(PANELS, rows=16, gather_side=7), None),
        **{
            f"shared panels, {n} columns": case(
                make_layer(STREAM, rows=rows, columns=n),
                lambda target, n=n: gemm_cases.shared(target, n),
            )
            for rows, n in ((5, 7), (5, 24), (2, 130))
        },
    },
    cut="in many ways",
)
