"""Attention of 8-bit integers: layers, and their results by its definition and by torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.attention.family import ATTENTION_INT8
from levit_deploy.compiler.kernels.attention.int8 import pack_bias
from levit_deploy.compiler.kernels.attention.spec import AttentionInt8Spec, AttentionSpec
from tests.compiler.kernels.attention_cases import (
    LOWEST,
    AttentionLayer,
    close,
    dense_bias,
    equal_scores,
    hardswish_of,
    name,
    own_value_only,
    plain,
    shrinking,
)
from tests.compiler.kernels.harness import Array, undefined
from tests.compiler.kernels.kernel_targets import TARGETS
from tests.compiler.kernels.suite import Case, Suite

Float64 = NDArray[np.float64]
Check = Callable[[AttentionLayer, Array], None]


def inputs(layer: AttentionLayer) -> list[Array]:
    packed = pack_bias(layer.bias, layer.spec)
    assert packed is not None
    return [*layer.inputs()[:-1], packed]


def defined(layer: AttentionLayer) -> tuple[Float64, Float64]:
    """What the kernel's formulas say, in float64, and what a step of a value is worth."""
    q, k, v = (a.astype(np.float64).transpose(1, 0, 2) for a in (layer.q, layer.k, layer.v))
    key_step = np.abs(k).max(1, keepdims=True) / 127
    value_step = np.abs(v).max(1, keepdims=True) / 127
    scaled = q * key_step
    query_step = np.abs(scaled).max(2, keepdims=True) / 127
    products = np.rint(scaled / query_step) @ np.rint(k / key_step).transpose(0, 2, 1)
    scores = products * query_step + layer.bias
    exact = 254 * np.exp(scores - scores.max(2, keepdims=True))
    weights = np.empty_like(exact)
    residual = np.zeros((*exact.shape[:2], 16))
    for first in range(0, layer.spec.keys, 16):
        some = exact[:, :, first : first + 16]
        wanted = some + residual[:, :, : some.shape[2]]
        weights[:, :, first : first + 16] = np.rint(wanted)
        residual[:, :, : some.shape[2]] = wanted - np.rint(wanted)
    mean = weights @ np.rint(v / value_step) / weights.sum(2, keepdims=True)
    z = mean * value_step
    out = z * np.clip(z / 6 + 0.5, 0, 1)
    steps = np.broadcast_to(value_step, z.shape)
    return out.transpose(1, 0, 2).ravel(), steps.transpose(1, 0, 2).ravel()


def signal_to_noise(expected: Float64, got: Array) -> float:
    """In decibels."""
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - got).sum()))


def as_defined(layer: AttentionLayer, out: Array) -> None:
    """And close to torch. A factor in the middle of two steps may be rounded the other way."""
    expected, step = defined(layer)
    off = np.abs(out - expected) / step
    assert off.max() < 1
    assert np.median(off) < 0.02
    decibels(33)(layer, out)


def decibels(least: float) -> Check:
    def check(layer: AttentionLayer, out: Array) -> None:
        assert signal_to_noise(layer.reference()[0], out) > least

    return check


def case(layer: AttentionLayer, check: Check = as_defined) -> Case:
    return Case(
        AttentionInt8Spec(*astuple(layer.spec)),
        lambda tile, target: inputs(layer),
        lambda target: [undefined(layer.output_size)],
        lambda outputs, target: check(layer, outputs[0]),
    )


def many_small_weights() -> AttentionLayer:
    """195 keys of a third of a step each beside one of 254 steps: a fifth of the sum."""
    spec = plain(14)
    by_distance = np.full((spec.heads, 14, 14), np.log(1 / 3 / 254), np.float32)
    by_distance[:, 0, 0] = 0
    layer = AttentionLayer.random(spec)
    layer = replace(layer, q=np.zeros_like(layer.q), bias=dense_bias(by_distance, spec))
    return replace(layer, v=np.abs(layer.v) + 1)


def equal_large_values() -> AttentionLayer:
    """The sums are then as large as they can be, and exact: all values are the largest."""
    layer = equal_scores(shrinking(33, heads=1, value_dim=16), -3.5)
    return replace(layer, v=np.full_like(layer.v, 6))


def largest_scores() -> AttentionLayer:
    """Every factor is 127 or -127."""
    layer = AttentionLayer.random(plain(4, key_dim=32), scale=1e-3)
    q, k = np.sign(layer.q) * np.float32(0.25), np.sign(layer.k) * np.float32(4)
    return replace(layer, q=q, k=k, v=np.sign(layer.v))


def without(part: str) -> AttentionLayer:
    layer = AttentionLayer.random(plain(7))
    return replace(layer, **{part: np.zeros_like(getattr(layer, part))})


def signs_of_own_values(low: float) -> AttentionLayer:
    layer = own_value_only(low)
    return replace(layer, v=np.sign(layer.v))


def large_key_channel() -> AttentionLayer:
    """Keys have a scale for each channel, which queries take over."""
    layer = AttentionLayer.random(plain(7))
    layer.q[:, :, 3] /= 1000
    layer.k[:, :, 3] *= 1000
    return layer


def large_value_channel() -> AttentionLayer:
    layer = large_key_channel()
    layer.v[:, :, 5] *= 1000
    return layer


def _takes_nothing_from_the_others(layer: AttentionLayer, out: Array) -> None:
    others = np.arange(out.size) % layer.spec.value_dim != 5
    assert signal_to_noise(layer.reference()[0][others], out[others]) > 33


SPECS: tuple[AttentionSpec, ...] = (
    plain(7),
    plain(14, heads=4),
    shrinking(7, heads=3),
    plain(4, key_dim=32, value_dim=64),
    shrinking(7, key_dim=32, value_dim=128),
    plain(1),
    shrinking(15),
    shrinking(24, heads=1),  # at 384 px: in parts where float32 would not hold the sums
)
SUITE = Suite(
    ATTENTION_INT8,
    TARGETS,
    {
        **{name(spec): case(AttentionLayer.random(spec)) for spec in SPECS},
        "many small weights are not lost": case(many_small_weights(), decibels(35)),
        "equal scores average the values": case(
            equal_large_values(), close(1e-6, 0, np.float32(6))
        ),
        "the largest scores are exact": case(largest_scores(), decibels(45)),
        **{
            f"others at {low:g} have no influence": case(
                signs_of_own_values(low),
                close(1e-6, 1e-7, hardswish_of(signs_of_own_values(low).v)),
            )
            for low in (-1e30, -100.0, LOWEST / 2)
        },
        **{f"{part} of zero": case(without(part), close(0, 0.05)) for part in "qkv"},
        "a large channel of keys": case(large_key_channel(), decibels(33)),
        "a large channel of values": case(large_value_channel(), _takes_nothing_from_the_others),
    },
    cut=name(plain(7)),
)
