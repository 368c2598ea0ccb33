"""Attention in bfloat16: layers, and their results by its definition, to the bit, and by torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from levit_deploy.compiler.kernels.attention.family import ATTENTION_BF16, ATTENTION_BFMMLA
from levit_deploy.compiler.kernels.attention.spec import (
    AttentionBf16Spec,
    AttentionBfmmlaSpec,
    AttentionSpec,
)
from levit_deploy.compiler.kernels.exponential import ExpConstants, ShortExpConstants
from levit_deploy.compiler.kernels.isa.half_storage import HalfStorage
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.target import Target
from tests.compiler.kernels.attention_cases import (
    AttentionLayer,
    equal_scores,
    name,
    own_value_only,
    plain,
    shrinking,
)
from tests.compiler.kernels.bf16_cases import ARM_TARGET, BF16, TARGET, of_pairs
from tests.compiler.kernels.harness import Buffer, undefined
from tests.compiler.kernels.rounding import Float32, bf16_bits, bfmmla, fma, hardswish, vdpbf16ps
from tests.compiler.kernels.suite import Case, Suite


def exponential(x: Float32, short: bool) -> Float32:
    """As `kernels.exponential`, operation by operation."""
    numbers = ShortExpConstants() if short else ExpConstants()
    k = type(numbers)(*map(np.float32, numbers))
    x = np.maximum(x, k.smallest)
    rounded = fma(x, k.log2_e, k.round)
    r = fma(rounded - k.round, k.minus_ln_2, x)
    r2 = r * r
    series = fma(r, k.c3, k.c2)
    if isinstance(k, ExpConstants):
        series = fma(r2, fma(r, k.c5, k.c4), series)
    fraction = fma(r2, series, r)
    power = (rounded.view(np.int32) << 23).view(np.float32)
    return fma(power, fraction, power)


def chains(total: Float32, rows: Float32, columns: Float32, by_matrix: bool) -> Float32:
    """total (heads, n, m) + rows (heads, n, depth) @ columns (heads, m, depth)^T, step by step."""
    step, multiply = (4, bfmmla) if by_matrix else (2, vdpbf16ps)
    rest = ((0, 0), (0, 0), (0, -rows.shape[2] % step))
    rows, columns = np.pad(rows, rest), np.pad(columns, rest)
    for k in range(0, rows.shape[2], step):
        total = multiply(total, rows[:, :, None, k : k + step], columns[:, None, :, k : k + step])
    return total


def defined(layer: AttentionLayer) -> Float32:
    """(queries, heads, value_dim), as attention.bf16 and attention.bfmmla say."""
    spec, by_matrix = layer.spec, isinstance(layer.spec, AttentionBfmmlaSpec)
    q, k, v = (a.transpose(1, 0, 2) for a in (layer.q, layer.k, layer.v))
    if by_matrix:
        scores = layer.bias + chains(np.zeros_like(layer.bias), q, k, by_matrix)
    else:
        scores = chains(layer.bias, q, k, by_matrix)
    weights = exponential(scores - scores.max(2, keepdims=True), by_matrix)
    sums = np.zeros((*weights.shape[:2], 16), np.float32)
    for first in range(0, spec.keys, 16):
        some = weights[:, :, first : first + 16]
        sums[:, :, : some.shape[2]] += some
    while sums.shape[2] > 1:
        half = sums.shape[2] // 2
        sums = sums[:, :, :half] + sums[:, :, half:]
    rounded = HalfFormat.BF16.rounded(weights)
    total = np.zeros((spec.heads, spec.queries, spec.value_dim), np.float32)
    total = chains(total, rounded, v.transpose(0, 2, 1), by_matrix)
    return hardswish(total * (np.float32(1) / sums)).transpose(1, 0, 2)


def in_bf16(layer: AttentionLayer, kind: type[AttentionBf16Spec]) -> AttentionLayer:
    operands = {part: BF16.rounded(getattr(layer, part)) for part in "qkv"}
    return replace(layer, spec=kind(**vars(layer.spec)), **operands)


def case(layer: AttentionLayer, stored: Stored, kind: type[AttentionBf16Spec], like: float) -> Case:
    """`like`: how far results may be from float32's, beside roundings to bfloat16."""
    layer = in_bf16(layer, kind)
    spec, pairs = layer.spec, kind is AttentionBfmmlaSpec

    def inputs(tile: object, target: Target) -> list[Buffer]:
        *operands, bias = layer.inputs()
        return [*(a.astype(BF16.dtype).view(np.uint16) for a in operands), bias]

    def outputs(target: Target) -> list[Buffer]:
        storage = HalfStorage.PAIRS if pairs else HalfStorage.ROWS
        half = undefined(storage.size(spec.queries, spec.heads * spec.value_dim), "uint16")
        return [undefined(layer.output_size), *[half] * stored.half]

    def check(outputs: Sequence[Buffer], target: Target) -> None:
        np.testing.assert_array_equal(outputs[0], defined(layer).ravel())
        if stored.half:
            half = outputs[1]
            if pairs:
                half = of_pairs(half, spec.queries, spec.heads * spec.value_dim).ravel()
            np.testing.assert_array_equal(half, bf16_bits(outputs[0]))
        off = np.abs(outputs[0] - layer.reference()[0])
        values = np.abs(layer.v).max()  # a weight is off by half a unit
        assert off.max() <= (1.5 * BF16.unit / 2 + like) * values

    return Case(layer.spec, inputs, outputs, check, stored=stored, portable=False)


SPECS: tuple[AttentionSpec, ...] = (
    plain(7),
    plain(14, heads=1),
    shrinking(7, heads=3),
    plain(4, key_dim=32, value_dim=64),
    shrinking(7, heads=1, key_dim=32, value_dim=128),
    plain(3),
    shrinking(1),
)


def cases(kind: type[AttentionBf16Spec], like: float) -> dict[str, Case]:
    def of(layer: AttentionLayer, stored: Stored = Stored.FLOAT) -> Case:
        return case(layer, stored, kind, like)

    both = Stored.FLOAT_AND_BF16
    return {
        **{name(spec): of(AttentionLayer.random(spec)) for spec in SPECS},
        "of both types": of(AttentionLayer.random(plain(4)), both),
        "of both types, odd": of(AttentionLayer.random(plain(3)), both),
        "large scores": of(AttentionLayer.random(plain(7), scale=100)),
        "equal scores": of(equal_scores(plain(7), -3.5)),
        "others have no influence": of(own_value_only(-100.0)),
    }


SUITE = Suite(ATTENTION_BF16, (TARGET,), cases(AttentionBf16Spec, like=1e-5), cut=name(plain(7)))
ARM_SUITE = Suite(
    ATTENTION_BFMMLA, (ARM_TARGET,), cases(AttentionBfmmlaSpec, like=3e-4), cut=name(plain(7))
)
