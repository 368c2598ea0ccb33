"""attention of 8-bit integers: against torch in float64, against its definition, on every CPU."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.attention.int8 import (
    attention_int8_kernel,
    default_tile,
    is_supported,
    pack_bias,
)
from levit_deploy.compiler.kernels.attention.packed_dot import MOST_KEYS
from levit_deploy.compiler.kernels.attention.spec import AttentionSpec, AttentionTile
from levit_deploy.compiler.kernels.kernel import Kernel
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.compiler.kernels.attention_cases import (
    WHOLE_SPECS,
    AttentionCase,
    dense_bias,
    name,
    plain,
    shrinking,
)
from tests.compiler.kernels.linked import run_linked
from tests.compiler.kernels.running import Array, run
from tests.machine import require_native


def make(case: AttentionCase, target: Target, tile: AttentionTile | None = None) -> Kernel:
    tile = tile or default_tile(case.spec, target)
    return attention_int8_kernel("attention", case.spec, tile, target)


def inputs(case: AttentionCase) -> list[Array]:
    packed = pack_bias(case.bias, case.spec)
    assert packed is not None
    return [*case.inputs()[:-1], packed]


def compute(case: AttentionCase, target: Target, tile: AttentionTile | None = None) -> Array:
    return run(make(case, target, tile), target, inputs(case), case.output_size)


def defined(case: AttentionCase) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the module's formulas say, in float64, and what a step of a value is worth."""
    q, k, v = (a.astype(np.float64).transpose(1, 0, 2) for a in (case.q, case.k, case.v))
    key_step = np.abs(k).max(1, keepdims=True) / 127
    value_step = np.abs(v).max(1, keepdims=True) / 127
    scaled = q * key_step
    query_step = np.abs(scaled).max(2, keepdims=True) / 127
    products = np.rint(scaled / query_step) @ np.rint(k / key_step).transpose(0, 2, 1)
    scores = products * query_step + case.bias
    exact = 254 * np.exp(scores - scores.max(2, keepdims=True))
    weights = np.empty_like(exact)
    residual = np.zeros((*exact.shape[:2], 16))
    for first in range(0, case.spec.keys, 16):
        some = exact[:, :, first : first + 16]
        wanted = some + residual[:, :, : some.shape[2]]
        weights[:, :, first : first + 16] = np.rint(wanted)
        residual[:, :, : some.shape[2]] = wanted - np.rint(wanted)
    mean = weights @ np.rint(v / value_step) / weights.sum(2, keepdims=True)
    z = mean * value_step
    out = z * np.clip(z / 6 + 0.5, 0, 1)
    return out.transpose(1, 0, 2).ravel(), np.broadcast_to(value_step, z.shape).transpose(
        1, 0, 2
    ).ravel()


def signal_to_noise(expected: NDArray[np.float64], got: Array) -> float:
    """In decibels."""
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - got).sum()))


@pytest.fixture
def avx2() -> Target:
    target = get_target("x86-64-v3")
    require_native(target, "a kernel called from Python")
    return target


@pytest.mark.parametrize("spec", WHOLE_SPECS, ids=name)
def test_computes_what_is_defined(host_target: Target, spec: AttentionSpec) -> None:
    """A factor in the middle of two steps may be rounded the other way."""
    case = AttentionCase.random(spec)
    expected, step = defined(case)
    off = np.abs(compute(case, host_target) - expected) / step
    assert off.max() < 1
    assert np.median(off) < 0.02


@pytest.mark.parametrize("spec", WHOLE_SPECS, ids=name)
def test_is_close_to_torch(avx2: Target, spec: AttentionSpec) -> None:
    case = AttentionCase.random(spec)
    expected, _ = case.reference()
    assert signal_to_noise(expected, compute(case, avx2)) > 33


def test_many_small_weights_are_not_lost(avx2: Target) -> None:
    """195 keys of a third of a step each beside one of 254 steps: a fifth of the sum."""
    spec = plain(14)
    by_distance = np.full((spec.heads, 14, 14), np.log(1 / 3 / 254), np.float32)
    by_distance[:, 0, 0] = 0
    case = AttentionCase.random(spec)
    case = replace(case, q=np.zeros_like(case.q), bias=dense_bias(by_distance, spec))
    case = replace(case, v=np.abs(case.v) + 1)
    expected, _ = case.reference()
    assert signal_to_noise(expected, compute(case, avx2)) > 35


def test_equal_scores_average_the_values(host_target: Target) -> None:
    """The sums are then as large as they can be, and exact: all values are the largest."""
    case = AttentionCase.random(plain(22, heads=1, value_dim=16))
    ones = np.ones_like(case.v)
    case = replace(case, q=0 * case.q, bias=np.full_like(case.bias, -3.5), v=ones * [[[6.0]]])
    case = replace(case, v=case.v.astype(np.float32))
    np.testing.assert_allclose(compute(case, host_target), 6, rtol=1e-6)


def test_the_largest_scores_are_exact(host_target: Target) -> None:
    """Every factor is 127 or -127."""
    case = AttentionCase.random(plain(4, key_dim=32), scale=1e-3)
    q, k = np.sign(case.q) * np.float32(0.25), np.sign(case.k) * np.float32(4)
    case = replace(case, q=q, k=k, v=np.sign(case.v))
    expected, _ = case.reference()
    assert signal_to_noise(expected, compute(case, host_target)) > 45


@pytest.mark.parametrize("low", [-1e30, -100.0, float(np.finfo(np.float32).min) / 2])
def test_excluded_keys_have_no_influence(host_target: Target, low: float) -> None:
    """A bias far below for every other token: each query gets its own value."""
    spec = plain(7)
    by_distance = np.full((spec.heads, 7, 7), low, np.float32)
    by_distance[:, 0, 0] = 0
    case = AttentionCase.random(spec, scale=1e-3)
    case = replace(case, bias=dense_bias(by_distance, spec), v=np.sign(case.v))
    z = case.v.reshape(-1)
    expected = z * np.clip(z / np.float32(6) + np.float32(0.5), 0, 1)
    np.testing.assert_allclose(compute(case, host_target), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_operands_of_zero(host_target: Target, part: str) -> None:
    case = AttentionCase.random(plain(7))
    case = replace(case, **{part: np.zeros_like(getattr(case, part))})
    expected, _ = case.reference()
    np.testing.assert_allclose(compute(case, host_target), expected, rtol=0, atol=0.05)


def test_a_large_channel_takes_nothing_from_the_others(avx2: Target) -> None:
    """Keys and values have a scale for each channel, which queries take over."""
    case = AttentionCase.random(plain(7))
    expected, _ = case.reference()
    case.q[:, :, 3] /= 1000
    case.k[:, :, 3] *= 1000
    assert signal_to_noise(expected, compute(case, avx2)) > 33
    case.v[:, :, 5] *= 1000
    others = np.arange(expected.size) % case.spec.value_dim != 5
    assert signal_to_noise(expected[others], compute(case, avx2)[others]) > 33


def test_any_split_of_the_tasks_gives_the_same_bits(avx2: Target) -> None:
    case = AttentionCase.random(shrinking(7, heads=3))
    kernel = make(case, avx2)

    def split(*bounds: int) -> Array:
        ranges = reversed(list(itertools.pairwise(bounds)))
        return run(kernel, avx2, inputs(case), case.output_size, ranges=ranges)

    whole = split(0, kernel.tasks)
    np.testing.assert_array_equal(split(*range(kernel.tasks + 1)), whole)
    np.testing.assert_array_equal(split(0, 0, 3, 3, 5, kernel.tasks), whole)


@pytest.mark.parametrize(
    "tile",
    [
        AttentionTile(1, 1, 8, 1, 8),
        AttentionTile(3, 3, 16, 2, 32),  # blocks that overlap: 7 = 3 + 3 + 1
        AttentionTile(5, 2, 56, 5, 8),
    ],
    ids=str,
)
def test_any_tile_gives_the_same_bits(avx2: Target, tile: AttentionTile) -> None:
    case = AttentionCase.random(plain(7))
    np.testing.assert_array_equal(compute(case, avx2, tile), compute(case, avx2))


@pytest.mark.parametrize(
    "target_name",
    ["x86-64-v4", "x86-64-v4-vnni", "arm64", "arm64-dotprod", "arm64-i8mm"],
)
@pytest.mark.parametrize("spec", [plain(7), shrinking(7, key_dim=32, value_dim=128)], ids=name)
def test_fma_targets_give_the_same_bits(
    spec: AttentionSpec, target_name: str, tmp_path: Path
) -> None:
    case = AttentionCase.random(spec, scale=3)

    def linked(target_name: str) -> Array:
        target = get_target(target_name)
        folder = tmp_path / target_name
        return run_linked(make(case, target), target, inputs(case), case.output_size, folder)

    np.testing.assert_array_equal(linked(target_name), linked("x86-64-v3"))


@pytest.mark.parametrize("target_name", ["x86-64", "armv7"])
def test_targets_without_fma_are_close(target_name: str, tmp_path: Path) -> None:
    case, target = AttentionCase.random(plain(7)), get_target(target_name)
    got = run_linked(make(case, target), target, inputs(case), case.output_size, tmp_path)
    expected, _ = case.reference()
    assert signal_to_noise(expected, got) > 33


def test_what_is_supported() -> None:
    assert all(map(is_supported, WHOLE_SPECS))
    assert not is_supported(plain(4, key_dim=8))
    assert is_supported(plain(22))
    assert plain(23).keys > MOST_KEYS
    assert not is_supported(plain(23))
