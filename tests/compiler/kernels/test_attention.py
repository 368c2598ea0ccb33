"""attention against torch in float64: all of LeViT's shapes, hostile numbers, tiles, splits."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.compiler.kernels.attention.spec import (
    AttentionSpec,
    AttentionTile,
    is_supported,
    pack_bias,
)
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
from tests.compiler.kernels.running import Array, run
from tests.machine import require_native

SPECS = (
    *WHOLE_SPECS,
    shrinking(8),
    shrinking(3),
    shrinking(2),
    plain(4, heads=3, key_dim=8, value_dim=16),  # two heads' parts in a panel
    shrinking(4, heads=3, key_dim=8, value_dim=32),
    shrinking(2, heads=4, key_dim=8, value_dim=16),
    plain(2, heads=3, key_dim=12, value_dim=16),  # a head's part lies across panels
    shrinking(3, heads=3, key_dim=12, value_dim=16),
)


def compute(case: AttentionCase, target: Target) -> Array:
    return run(case.kernel(target), target, case.inputs(), case.output_size)


@pytest.fixture
def avx2() -> Target:
    target = get_target("x86-64-v3")
    require_native(target, "a kernel called from Python")
    return target


def check(case: AttentionCase, target: Target) -> None:
    expected, error = case.reference()
    off = np.abs(compute(case, target) - expected)
    assert (off <= error).all(), f"off by {(off / error).max():.2g} times what is allowed"


@pytest.mark.parametrize("spec", SPECS, ids=name)
def test_matches_torch(avx2: Target, spec: AttentionSpec) -> None:
    check(AttentionCase.random(spec), avx2)


@pytest.mark.parametrize("spec", SPECS[1::3], ids=name)
def test_matches_torch_at_every_vector_width(host_target: Target, spec: AttentionSpec) -> None:
    check(AttentionCase.random(spec), host_target)


def test_huge_scores_select_one_key(avx2: Target) -> None:
    """Scores of 1e4 and more: the weights are 0 and 1, and nothing overflows."""
    case = AttentionCase.random(plain(7), scale=5e3)
    expected, _ = case.reference()
    np.testing.assert_allclose(compute(case, avx2), expected, rtol=1e-5, atol=1e-5)


def test_equal_scores_average_the_values(avx2: Target) -> None:
    case = AttentionCase.random(plain(7))
    case = replace(case, q=np.zeros_like(case.q), bias=np.full_like(case.bias, -3.5))
    expected, _ = case.reference()
    np.testing.assert_allclose(compute(case, avx2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("low", [-1e30, -100.0, float(np.finfo(np.float32).min)])
def test_excluded_keys_have_no_influence(host_target: Target, low: float) -> None:
    """A bias far below for every other token: each query gets its own value, unchanged."""
    spec = plain(7)
    by_distance = np.full((spec.heads, 7, 7), low, np.float32)
    by_distance[:, 0, 0] = 0
    case = AttentionCase.random(spec, scale=1e-3)
    case = replace(case, bias=dense_bias(by_distance, spec))
    z = case.v.reshape(-1)
    expected = z * np.clip(z / np.float32(6) + np.float32(0.5), 0, 1)
    np.testing.assert_allclose(compute(case, host_target), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("low", [-1e30, float(np.finfo(np.float32).min)])
def test_padded_keys_have_no_influence_when_all_scores_are_low(
    host_target: Target, low: float
) -> None:
    """Equal scores at the very bottom: the 49 keys count, what fills the last vector does not."""
    case = AttentionCase.random(plain(7), scale=0)
    case = replace(case, bias=np.full_like(case.bias, low))
    expected, _ = case.reference()
    np.testing.assert_allclose(compute(case, host_target), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", [plain(7), shrinking(7, heads=3, key_dim=8)], ids=name)
def test_any_split_of_the_tasks_gives_the_same_bits(avx2: Target, spec: AttentionSpec) -> None:
    case = AttentionCase.random(spec)
    kernel = case.kernel(avx2)
    assert kernel.tasks == spec.heads * spec.query_side

    def split(*bounds: int) -> Array:
        ranges = list(itertools.pairwise(bounds))
        arguments = (kernel, avx2, case.inputs(), case.output_size)
        return run(*arguments, ranges=reversed(ranges))

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
    tiled = run(case.kernel(avx2, tile), avx2, case.inputs(), case.output_size)
    np.testing.assert_array_equal(tiled, compute(case, avx2))


def test_nan_in_a_value_reaches_every_query_of_its_head(avx2: Target) -> None:
    case = AttentionCase.random(plain(4))
    case.v[5, 1, 3] = np.nan
    out = compute(case, avx2).reshape(16, 2, 32)
    assert np.isnan(out[:, 1, 3]).all()
    assert np.isnan(out).sum() == 16


def test_dense_tables_are_not_kept() -> None:
    spec = plain(14, heads=4)
    packed = pack_bias(AttentionCase.random(spec).bias, spec)
    assert packed is not None
    assert packed.size <= 4 * 14 * 27 + 16


def test_another_form_of_bias_is_declined() -> None:
    spec = plain(4)
    bias = AttentionCase.random(spec).bias
    bias[1, 3, 2] += 1
    assert pack_bias(bias, spec) is None


def test_every_levit_is_supported() -> None:
    assert all(is_supported(spec) for spec in SPECS)
    assert not is_supported(plain(4, key_dim=6))
    assert not is_supported(plain(4, value_dim=24))
