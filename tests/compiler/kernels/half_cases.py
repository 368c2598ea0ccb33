"""Matrix products with weights of 16 bits: stored, and multiplied as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from levit_deploy.compiler.kernels.gemm.family import GEMM_HALF, GEMM_STORED_HALF
from levit_deploy.compiler.kernels.gemm.spec import (
    GemmHalfSpec,
    GemmSpec,
    GemmStoredHalfSpec,
    GemmTile,
    Layout,
)
from levit_deploy.compiler.kernels.gemm.stored_half import pack_bias, pack_halves
from levit_deploy.compiler.kernels.half_chains import LANES
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.half_format import HALF_CHAIN, HalfFormat
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.compiler.kernels import gemm_cases
from tests.compiler.kernels.gemm_cases import gathered, make_inputs, narrow, reference, rows_of
from tests.compiler.kernels.harness import Array, Buffer, undefined
from tests.compiler.kernels.kernel_targets import FLOAT_TARGETS
from tests.compiler.kernels.suite import Case, Suite, assert_within

NATIVE_TARGETS = (get_target("arm64-dotprod"),)

HOSTILE = (0.0, -0.0, 2.0**-24, -(2.0**-24), 1023 * 2.0**-24, 2.0**-14, 60000.0, -65504.0)


def stored_inputs(spec: GemmStoredHalfSpec, hostile: bool) -> tuple[Array, Array, Array, Array]:
    """As `make_inputs`, with weights that the format has: the hostile ones are denormal, too."""
    a, weights, bias, residual = make_inputs(spec)
    if hostile:
        weights.flat[::3] = np.resize(np.float32(HOSTILE), weights.flat[::3].shape)
    return a, spec.format.rounded(weights), bias, residual


def stored_case(
    spec: GemmStoredHalfSpec,
    tile: Callable[[Target], GemmTile] | None = narrow,
    hostile: bool = False,
) -> Case:
    def inputs(tile: GemmTile, target: Target) -> list[Buffer]:
        a, weights, bias, residual = stored_inputs(spec, hostile)
        panels = pack_halves(weights, spec.format, tile, target)
        return [a, panels, pack_bias(bias, tile), *[residual] * spec.residual]

    def check(outputs: Sequence[Buffer], target: Target) -> None:
        expected, bound = reference(spec, stored_inputs(spec, hostile))
        assert_within(rows_of(spec, outputs[0]), expected, bound)

    return Case(
        spec,
        inputs,
        lambda target: [undefined(spec.output_size)],
        check,
        tile,
        portable=spec.layout is Layout.ROWS,
    )


def _stored(base: GemmSpec, format: HalfFormat, **shape: object) -> GemmStoredHalfSpec:
    return GemmStoredHalfSpec(**vars(replace(base, **shape)), format=format)


FP16, BF16 = HalfFormat.FP16, HalfFormat.BF16
STORED_SUITE = Suite(
    GEMM_STORED_HALF,
    FLOAT_TARGETS,
    {
        "in many ways": stored_case(
            _stored(gemm_cases.STREAM, FP16, rows=23, columns=75, depth=37), None
        ),
        "bfloat16": stored_case(_stored(gemm_cases.STREAM, BF16, columns=33)),
        "denormal and large weights": stored_case(
            _stored(gemm_cases.STREAM, FP16, rows=9), hostile=True
        ),
        "bfloat16 of any size": stored_case(_stored(gemm_cases.PLAIN, BF16), hostile=True),
        "one row": stored_case(_stored(gemm_cases.PLAIN, FP16, rows=1, columns=10), None),
        "panels": stored_case(_stored(gemm_cases.PANELS, FP16, columns=40)),
        "every second": stored_case(_stored(gemm_cases.PANELS, BF16, rows=16, gather_side=7), None),
        **{
            f"shared panels, {n} columns": stored_case(
                _stored(gemm_cases.STREAM, FP16, rows=rows, columns=n),
                lambda target, n=n: gemm_cases.shared(target, n),
            )
            for rows, n in ((5, 7), (5, 24), (2, 130))
        },
    },
    cut="in many ways",
)


@dataclass(frozen=True)
class HalfLayer:
    """a and weights are float16."""

    spec: GemmHalfSpec
    stored: Stored
    a: Buffer
    weights: Buffer
    bias: Array
    residual: Array


def make_layer(
    base: GemmSpec, stored: Stored = Stored.FLOAT, scale: float = 1.0, **shape: object
) -> HalfLayer:
    spec = GemmHalfSpec(**vars(replace(base, **shape)))
    a, weights, bias, residual = make_inputs(spec)
    return HalfLayer(
        spec, stored, (a * scale).astype(np.float16), weights.astype(np.float16), bias, residual
    )


def chained(a: Buffer, w: Buffer, start: Buffer) -> Array:
    """start + a @ w in float16 chains, as half_chains says.

    The product of two float16 and its sum with a third are exact in float64 for numbers of one
    size, so that the one rounding is that of the fused operation.
    """
    depth, shape = len(w), (len(a), w.shape[1])
    a, w = a.astype(np.float64), w.astype(np.float64)

    def chain(first: int) -> Buffer:
        h = np.zeros(shape, np.float16)
        for k in range(first, min(first + HALF_CHAIN, depth)):
            h = (np.outer(a[:, k], w[k]) + h.astype(np.float64)).astype(np.float16)
        return h

    total = np.broadcast_to(start, shape)
    for first in range(0, depth, 2 * HALF_CHAIN):
        second = first + HALF_CHAIN
        pair = chain(first) + chain(second) if second < depth else chain(first)
        total = total + pair.astype(np.float32)
    return total


def exact_sums(layer: HalfLayer) -> Array:
    """What gemm.half promises."""
    return chained(gathered(layer.spec, layer.a), layer.weights, layer.bias)


def half_case(layer: HalfLayer, tile: Callable[[Target], GemmTile] | None = None) -> Case:
    spec = layer.spec

    def inputs(tile: GemmTile, target: Target) -> list[Buffer]:
        panels = pack_halves(layer.weights.astype(np.float32), FP16, tile, target)
        return [layer.a, panels, pack_bias(layer.bias, tile), *[layer.residual] * spec.residual]

    def outputs(target: Target) -> list[Buffer]:
        halves = [undefined(spec.rows * spec.columns, "float16")] * layer.stored.half
        return [undefined(spec.output_size)] * layer.stored.float + halves

    def check(written: Sequence[Buffer], target: Target) -> None:
        sums = exact_sums(layer)
        if spec.activation is Activation.HARDSWISH:
            x = F.hardswish(torch.from_numpy(sums.astype(np.float64))).numpy()
            bound = 8 * gemm_cases.EPS * np.abs(sums)
        else:
            x, bound = sums, np.zeros_like(sums)
        if spec.residual:
            x = x + layer.residual
            bound = bound + gemm_cases.EPS * np.abs(x)
        if layer.stored.float:
            got = rows_of(spec, written[0])
            assert (np.abs(got - x) <= bound).all()
        if layer.stored.half:
            half = written[-1].reshape(spec.rows, spec.columns)
            if layer.stored.float:
                np.testing.assert_array_equal(half, written[0].reshape(half.shape).astype("f2"))
            else:
                assert (np.abs(half - x) <= bound + 2.0**-11 * np.abs(x) + 2.0**-25).all()

    return Case(spec, inputs, outputs, check, tile, stored=layer.stored, portable=False)


def own(mr: int, vectors: int) -> Callable[[Target], GemmTile]:
    return lambda target: GemmTile(mr, vectors * LANES, LANES, LANES)


PLAIN = replace(gemm_cases.PLAIN, depth=72)
STREAM = replace(PLAIN, activation=Activation.HARDSWISH, residual=True)
BOTH = Stored.FLOAT_AND_HALF
HALF_SUITE = Suite(
    GEMM_HALF,
    NATIVE_TARGETS,
    {
        "in many ways": half_case(make_layer(STREAM, BOTH, rows=23, columns=75, depth=149)),
        **{
            f"depth {depth}": half_case(make_layer(PLAIN, BOTH, depth=depth))
            for depth in (1, 12, 63, 64, 65, 200)
        },
        **{f"{rows} rows": half_case(make_layer(PLAIN, rows=rows)) for rows in (1, 9)},
        **{
            f"{n} columns": half_case(make_layer(STREAM, BOTH, rows=5, columns=n), own(3, 2))
            for n in (3, 8, 23, 33)
        },
        "half only": half_case(
            make_layer(replace(PLAIN, activation=Activation.HARDSWISH), Stored.HALF)
        ),
        "small numbers": half_case(make_layer(PLAIN, scale=2.0**-18)),
        "large numbers": half_case(make_layer(PLAIN, scale=2.0**8)),
        "panels": half_case(make_layer(replace(PLAIN, layout=Layout.PANELS), columns=40)),
        "every second": half_case(
            make_layer(replace(PLAIN, layout=Layout.PANELS), rows=16, gather_side=7)
        ),
        "deep": half_case(make_layer(PLAIN, rows=16, columns=64, depth=384)),
        **{
            f"shared panels, {n} columns": half_case(
                make_layer(STREAM, rows=rows, columns=n),
                lambda target, n=n: GEMM_HALF.shared_tile(
                    GemmHalfSpec(**vars(replace(STREAM, columns=n))), target
                ),
            )
            for rows, n in ((5, 7), (5, 24), (2, 130))
        },
    },
    cut="in many ways",
)
