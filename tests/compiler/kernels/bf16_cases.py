"""Matrix products in bfloat16: random and hostile layers, and their results to the bit by numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.gemm.family import GEMM_BF16, GEMM_BFMMLA
from levit_deploy.compiler.kernels.gemm.spec import (
    GemmBf16Spec,
    GemmBfmmlaSpec,
    GemmSpec,
    GemmTile,
    Layout,
)
from levit_deploy.compiler.kernels.gemm.stored_half import pack_bias, pack_halves
from levit_deploy.compiler.kernels.isa.half_storage import HalfStorage
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Arch, Target
from tests.compiler.kernels import gemm_cases
from tests.compiler.kernels.gemm_cases import gathered, make_inputs, narrow, rows_of
from tests.compiler.kernels.harness import Buffer, undefined
from tests.compiler.kernels.rounding import (
    Float32,
    bf16_bits,
    bfmmla,
    fma,
    hardswish,
    vdpbf16ps,
)
from tests.compiler.kernels.suite import Case, Suite

BF16 = HalfFormat.BF16
TARGET = get_target("x86-64-v4-bf16")
ARM_TARGET = get_target("arm64-i8mm")
NAN = 0x7FC0


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
        panels = pack_halves(self.weights, BF16, tile, target)
        a = self.a.astype(BF16.dtype).view(np.uint16)
        if isinstance(self.spec, GemmBfmmlaSpec):
            a = in_pairs(a)
        return [a, panels, pack_bias(self.bias, tile), *[self.residual] * self.spec.residual]


def in_pairs(tokens: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """(rows, channels) as `HalfStorage.PAIRS` says, with NaN where nothing is."""
    rows, channels = tokens.shape
    padded = np.pad(tokens, ((0, rows % 2), (0, -channels % 4)), constant_values=NAN)
    return padded.reshape(-1, 2, padded.shape[1] // 4, 4).transpose(0, 2, 1, 3).ravel()


def of_pairs(stored: NDArray[np.uint16], rows: int, channels: int) -> NDArray[np.uint16]:
    """The inverse."""
    tokens = stored.reshape(-(-rows // 2), -(-channels // 4), 2, 4).transpose(0, 2, 1, 3)
    return tokens.reshape(-(-rows // 2) * 2, -1)[:rows, :channels]


def make_layer(
    base: GemmSpec,
    stored: Stored = Stored.FLOAT,
    scale: float = 1,
    kind: type[GemmBf16Spec] = GemmBf16Spec,
    **shape: object,
) -> Layer:
    """`scale`: of a and of weights; products and bias are of its square."""
    spec = kind(**vars(replace(base, **shape)))
    a, weights, bias, residual = make_inputs(spec)
    a, weights = (BF16.rounded(x * np.float32(scale)) for x in (a, weights))
    return Layer(spec, stored, a, weights, (bias * np.float64(scale**2)).astype("f4"), residual)


def sums(layer: Layer) -> Float32:
    """(rows, columns) before the activation, as gemm.bf16 and gemm.bfmmla say."""
    by_matrix = isinstance(layer.spec, GemmBfmmlaSpec)
    step, multiply = (4, bfmmla) if by_matrix else (2, vdpbf16ps)
    rest = -layer.spec.depth % step
    a = np.pad(gathered(layer.spec, layer.a), ((0, 0), (0, rest)))
    w = np.pad(layer.weights, ((0, rest), (0, 0)))
    total = np.broadcast_to(layer.bias, (len(a), w.shape[1]))
    for k in range(0, len(w), step):
        total = multiply(total, a[:, None, k : k + step], w[k : k + step].T[None])
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

    pairs = isinstance(spec, GemmBfmmlaSpec) and spec.layout is Layout.ROWS

    def outputs(target: Target) -> list[Buffer]:
        size = spec.output_size
        if pairs:
            size = HalfStorage.PAIRS.size(spec.rows, spec.columns)
        copy = [undefined(size, "uint16")] * stored.half
        return [undefined(spec.output_size)] * stored.float + copy

    def check(written: Sequence[Buffer], target: Target) -> None:
        x = result(layer)
        if stored.float:
            np.testing.assert_array_equal(rows_of(spec, written[0]), x)
        if stored.half:
            half = of_pairs(written[-1], *x.shape) if pairs else rows_of(spec, written[-1])
            flush = target.arch is Arch.X86_64
            np.testing.assert_array_equal(half.reshape(x.shape), bf16_bits(x, flush=flush))

    return Case(spec, layer.inputs, outputs, check, tile, stored=stored, portable=False)


PLAIN, STREAM, PANELS = gemm_cases.PLAIN, gemm_cases.STREAM, gemm_cases.PANELS
BOTH = Stored.FLOAT_AND_BF16


def cases(kind: type[GemmBf16Spec]) -> dict[str, Case]:
    make = partial(make_layer, kind=kind)
    return {
        "in many ways": case(make(STREAM, BOTH, rows=23, columns=75, depth=77), None),
        **{f"depth {depth}": case(make(PLAIN, BOTH, depth=depth)) for depth in (1, 8, 33)},
        **{f"{rows} rows": case(make(PLAIN, rows=rows)) for rows in (1, 9)},
        **{f"{n} columns": case(make(STREAM, BOTH, columns=n)) for n in (3, 33)},
        "bfloat16 only": case(make(replace(PLAIN, activation=Activation.HARDSWISH), Stored.BF16)),
        "denormal products": case(make(PLAIN, BOTH, scale=2.0**-65)),
        "denormal sums": case(make(PLAIN, BOTH, scale=2.0**-63)),
        "denormal factors": case(make(PLAIN, scale=2.0**-126)),
        "infinite sums": case(make(PLAIN, BOTH, scale=2.0**62)),
        "residual": case(make(replace(PLAIN, residual=True))),
        "panels": case(make(PANELS, BOTH, columns=40)),
        **{
            f"every second of {side}": case(
                make(PANELS, rows=((side + 1) // 2) ** 2, gather_side=side), None
            )
            for side in (6, 7, 9)
        },
        **{
            f"shared panels, {n} columns": case(
                make(STREAM, rows=rows, columns=n),
                lambda target, n=n: gemm_cases.shared(target, n),
            )
            for rows, n in ((5, 7), (5, 24), (2, 130))
        },
    }


SUITE = Suite(GEMM_BF16, (TARGET,), cases(GemmBf16Spec), cut="in many ways")
ARM_SUITE = Suite(GEMM_BFMMLA, (ARM_TARGET,), cases(GemmBfmmlaSpec), cut="in many ways")
