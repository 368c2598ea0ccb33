"""Attention in bfloat16: layers, and their results by its definition, to the bit, and by torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from levit_deploy.compiler.kernels.attention.family import ATTENTION_BF16
from levit_deploy.compiler.kernels.attention.spec import AttentionBf16Spec, AttentionSpec
from levit_deploy.compiler.kernels.exponential import ExpConstants
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
from tests.compiler.kernels.bf16_cases import BF16, TARGET
from tests.compiler.kernels.harness import Buffer, undefined
from tests.compiler.kernels.rounding import Float32, bf16_bits, fma, hardswish, vdpbf16ps
from tests.compiler.kernels.suite import Case, Suite


def exponential(x: Float32) -> Float32:
    """As `kernels.exponential`, operation by operation."""
    k = ExpConstants(*map(np.float32, ExpConstants()))
    x = np.maximum(x, k.smallest)
    rounded = fma(x, k.log2_e, k.round)
    r = fma(rounded - k.round, k.minus_ln_2, x)
    r2 = r * r
    fraction = fma(r2, fma(r2, fma(r, k.c5, k.c4), fma(r, k.c3, k.c2)), r)
    power = (rounded.view(np.int32) << 23).view(np.float32)
    return fma(power, fraction, power)


def defined(layer: AttentionLayer) -> Float32:
    """(queries, heads, value_dim), as attention.bf16 says."""
    spec = layer.spec
    q, k, v = (a.transpose(1, 0, 2) for a in (layer.q, layer.k, layer.v))
    scores = layer.bias
    for d in range(0, spec.key_dim, 2):
        scores = vdpbf16ps(scores, q[:, :, None, d : d + 2], k[:, None, :, d : d + 2])
    weights = exponential(scores - scores.max(2, keepdims=True))
    sums = np.zeros((*weights.shape[:2], 16), np.float32)
    for first in range(0, spec.keys, 16):
        some = weights[:, :, first : first + 16]
        sums[:, :, : some.shape[2]] += some
    while sums.shape[2] > 1:
        half = sums.shape[2] // 2
        sums = sums[:, :, :half] + sums[:, :, half:]
    odd = spec.keys % 2
    rounded = np.pad(HalfFormat.BF16.rounded(weights), ((0, 0), (0, 0), (0, odd)))
    v = np.pad(v, ((0, 0), (0, odd), (0, 0)))
    total = np.zeros((spec.heads, spec.queries, spec.value_dim), np.float32)
    for key in range(0, spec.keys, 2):
        pairs = v[:, None, key : key + 2].transpose(0, 1, 3, 2)
        total = vdpbf16ps(total, rounded[:, :, None, key : key + 2], pairs)
    return hardswish(total * (np.float32(1) / sums)).transpose(1, 0, 2)


def in_bf16(layer: AttentionLayer) -> AttentionLayer:
    operands = {part: BF16.rounded(getattr(layer, part)) for part in "qkv"}
    return replace(layer, spec=AttentionBf16Spec(**vars(layer.spec)), **operands)


def case(layer: AttentionLayer, stored: Stored = Stored.FLOAT) -> Case:
    layer = in_bf16(layer)

    def inputs(tile: object, target: Target) -> list[Buffer]:
        *operands, bias = layer.inputs()
        return [*(a.astype(BF16.dtype).view(np.uint16) for a in operands), bias]

    def outputs(target: Target) -> list[Buffer]:
        types = ["float32", *["uint16"] * stored.half]
        return [undefined(layer.output_size, dtype) for dtype in types]

    def check(outputs: Sequence[Buffer], target: Target) -> None:
        np.testing.assert_array_equal(outputs[0], defined(layer).ravel())
        if stored.half:
            np.testing.assert_array_equal(outputs[1], bf16_bits(outputs[0]))
        off = np.abs(outputs[0] - layer.reference()[0])
        values = np.abs(layer.v).max()  # a weight is off by half a unit
        assert off.max() <= (1.5 * BF16.unit / 2 + 1e-5) * values

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
SUITE = Suite(
    ATTENTION_BF16,
    (TARGET,),
    {
        **{name(spec): case(AttentionLayer.random(spec)) for spec in SPECS},
        "of both types": case(AttentionLayer.random(plain(4)), Stored.FLOAT_AND_BF16),
        "large scores": case(AttentionLayer.random(plain(7), scale=100)),
        "equal scores": case(equal_scores(plain(7), -3.5)),
        "others have no influence": case(own_value_only(-100.0)),
    },
    cut=name(plain(7)),
)
