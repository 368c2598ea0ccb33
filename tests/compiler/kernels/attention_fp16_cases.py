"""Attention in float16, computed by numpy as attention.fp16 defines it, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from levit_deploy.compiler.kernels.attention.family import ATTENTION_FP16
from levit_deploy.compiler.kernels.attention.spec import AttentionFp16Spec, AttentionSpec
from levit_deploy.compiler.kernels.exponential import ShortExpConstants
from levit_deploy.compiler.kernels.output import Stored
from tests.compiler.kernels.attention_cases import (
    AttentionLayer,
    equal_scores,
    own_value_only,
    plain,
    shrinking,
)
from tests.compiler.kernels.attention_cases import name as name_of
from tests.compiler.kernels.half_cases import NATIVE_TARGETS, chained
from tests.compiler.kernels.harness import Array, Buffer, undefined
from tests.compiler.kernels.suite import Case, Suite


def in_half(layer: AttentionLayer) -> AttentionLayer:
    """The same with queries, keys and values rounded."""
    spec = AttentionFp16Spec(**vars(layer.spec))
    q, k, v = (x.astype(np.float16).astype(np.float32) for x in (layer.q, layer.k, layer.v))
    return replace(layer, spec=spec, q=q, k=k, v=v)


def fma(a: Buffer, b: float | Buffer, c: float | Buffer) -> Array:
    """One rounding, but for products whose last bits lie in the middle between two float32."""
    wide = np.float64
    return (a.astype(wide) * wide(np.float32(b)) + wide(np.float32(c))).astype(np.float32)


def exponential(x: Array) -> Array:
    k = ShortExpConstants()
    x = np.maximum(x, np.float32(k.smallest))
    total = fma(x, k.log2_e, k.round)
    r = fma(total - np.float32(k.round), k.minus_ln_2, x)
    fraction = fma(r * r, fma(r, k.c3, k.c2), r)
    power = (total.view(np.int32) << 23).view(np.float32)
    return fma(power, fraction, power)


def context(layer: AttentionLayer) -> Array:
    """(queries, heads * value_dim), float32."""
    spec, heads = layer.spec, []
    for head in range(spec.heads):
        q, k, v = (x[:, head].astype(np.float16) for x in (layer.q, layer.k, layer.v))
        scores = chained(q, k.T, layer.bias[head])
        e = exponential(scores - scores.max(axis=1, keepdims=True))
        partial = np.zeros((len(e), 16), np.float32)
        for key in range(spec.keys):
            partial[:, key % 16] += e[:, key]
        while partial.shape[1] > 1:
            low, high = np.hsplit(partial, 2)
            partial = low + high
        heads.append(chained(e.astype(np.float16), v, np.float32(0)) * (np.float32(1) / partial))
    z = np.concatenate(heads, axis=1)
    return z * np.clip(fma(z, 1 / 6, 0.5), np.float32(0), np.float32(1))


def same_bits(layer: AttentionLayer, stored: Stored) -> Callable[[list[Buffer]], None]:
    def check(outputs: list[Buffer]) -> None:
        expected = context(layer).reshape(-1)
        assert np.isfinite(expected).all()
        if stored.float:
            np.testing.assert_array_equal(outputs[0], expected)
        if stored.half:
            np.testing.assert_array_equal(outputs[-1], expected.astype(np.float16))

    return check


def case(layer: AttentionLayer, stored: Stored = Stored.FP16) -> Case:
    layer = in_half(layer)
    size = layer.output_size
    outputs = [undefined(size)] * stored.float + [undefined(size, "float16")] * stored.half
    *tensors, bias = layer.inputs()
    inputs = [*(tensor.astype(np.float16) for tensor in tensors), bias]
    check = same_bits(layer, stored)
    return Case(
        layer.spec,
        lambda tile, target: inputs,
        lambda target: outputs,
        lambda written, target: check(list(written)),
        stored=stored,
        portable=False,
    )


SPECS: tuple[AttentionSpec, ...] = (
    plain(14, heads=1),  # LeViT-128S at 224 px
    plain(7, heads=3),
    plain(4, heads=3),
    shrinking(14),
    shrinking(7, heads=3),
    plain(4, key_dim=32, value_dim=64),  # LeViT-192 and larger
    shrinking(7, key_dim=32, value_dim=128),
    plain(13, heads=1),  # other image sizes
    plain(3),
    plain(1),
    shrinking(15),
    plain(4, heads=3, key_dim=8, value_dim=16),  # two heads' parts in a panel
    plain(36, heads=1, value_dim=16),  # 21 chains
)
SUITE = Suite(
    ATTENTION_FP16,
    NATIVE_TARGETS,
    {
        "both": case(AttentionLayer.random(plain(7)), Stored.FLOAT_AND_FP16),
        **{name_of(spec): case(AttentionLayer.random(spec)) for spec in SPECS},
        "scores of 1e4": case(AttentionLayer.random(plain(7), scale=2e3)),
        "small queries": case(AttentionLayer.random(plain(7), scale=2.0**-18)),
        "equal scores": case(equal_scores(plain(7), -3.5)),
        "others have no influence": case(own_value_only(-1e30)),
    },
    cut="both",
)
