"""What is said about the exactness of 8-bit products, against sums over hostile activations."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.compiler.kernels.gemm.int8 import default_tile
from levit_deploy.compiler.kernels.gemm.int8_dot_tile import MaddubsTile
from levit_deploy.compiler.kernels.gemm.int8_long_tile import MlalTile
from levit_deploy.compiler.kernels.gemm.int8_pair_tile import MaddubsPairTile
from levit_deploy.compiler.kernels.gemm.int8_panels import (
    Int8Panels,
    pack_weights_int8,
    prove_exact,
    unpack_panels,
)
from levit_deploy.compiler.kernels.gemm.int8_tile import HEADER_BYTES
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.compiler.kernels.int8_cases import PLAIN, make_layer
from tests.compiler.kernels.kernel_targets import TARGETS

NO_ORDER = np.empty(0, np.int8)
SPEC = replace(PLAIN, rows=16, columns=84, depth=40)  # panels of several widths, padding


def packed(weights: np.ndarray, target: Target) -> tuple[np.ndarray, Int8Panels]:
    tile = default_tile(SPEC, target)
    ones = np.ones(weights.shape[1], np.float32)
    panels = pack_weights_int8(weights, ones, ones, 100, tile, target)
    return panels, Int8Panels.of(weights.shape[1], weights.shape[0], tile, target)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_panels_are_read_back(target: Target) -> None:
    weights = make_layer(SPEC).weights
    initial, unpacked, _ = unpack_panels(*packed(weights, target))
    np.testing.assert_array_equal(unpacked[:40, :84], weights)
    assert not unpacked[40:].any()
    assert not unpacked[:, 84:].any()
    sums = weights.sum(axis=0, dtype=np.int64)
    assert initial[:84].tolist() in ((-100 * sums).tolist(), (28 * sums).tolist())


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_extreme_weights_are_exact(target: Target) -> None:
    for pair in [(-127, -1), (-64, -64), (0, 0), (64, 64), (1, 127), (-127, 127)]:
        weights = np.tile(np.int8(pair), 20)[:, None].repeat(84, axis=1)
        words = prove_exact(*packed(weights, target))
        assert words.startswith(isa_of(target).products.tile.instruction)
        assert "32 bits: at most " in words


def test_sums_that_do_not_fit_are_a_mistake() -> None:
    panels, cut = packed(np.full((40, 84), 64, np.int8), TARGETS[0])
    panels[:4] = np.int8([-1, -1, -1, 127])  # an initial value near 2^31
    with pytest.raises(AssertionError, match="32 bits"):
        prove_exact(panels, cut)


@pytest.mark.parametrize("value", [-1, 1])
def test_pairs_that_do_not_fit_are_a_mistake(value: int) -> None:
    panels, cut = packed(np.full((40, 84), 64 * value, np.int8), get_target("x86-64-v3"))
    panels[panels == 64 * value] += value
    with pytest.raises(AssertionError, match="16 bits"):
        prove_exact(panels, cut)


def test_steps_are_paired_where_they_fit() -> None:
    """Two of 64 do, to the last bit; one of 65 fits no other."""
    weights = np.zeros((32, 16), np.int8)
    weights[::2], weights[16:24:2] = 64, 65
    weights[:, 1::2] *= -1
    order = MaddubsPairTile.pack_order(weights)
    steps = MaddubsPairTile.depth_order(order, 32)[::4] // 4
    paired = 2 * int(order.view(np.uint16)[0])
    assert sorted(steps[:paired]) == [0, 1, 2, 3, 6, 7]
    assert sorted(steps[paired:]) == [4, 5]
    in_order = weights[MaddubsPairTile.depth_order(order, 32)]
    assert in_order[0::4, 0].tolist() == [64] * 6 + [65] * 2
    assert MaddubsPairTile.extremes_of_16_bits(weights, order) == (-255 * 128, 255 * 128)


def test_a_step_that_is_multiplied_twice_is_a_mistake() -> None:
    panels, cut = packed(np.ones((40, 84), np.int8), get_target("x86-64-v3"))
    width = cut.slices()[0].stop
    first = (HEADER_BYTES + cut.depth) * width + 2
    panels[first : first + 2] = panels[first + 2 : first + 4]
    with pytest.raises(AssertionError, match="not multiplied once"):
        prove_exact(panels, cut)


def test_a_pair_that_does_not_fit_is_a_mistake() -> None:
    weights = np.zeros((40, 84), np.int8)
    weights[::2] = 64
    panels, cut = packed(weights, get_target("x86-64-v3"))
    assert "16 bits: 0 to 32,640," in prove_exact(panels, cut)
    panels[panels == 64] += 1
    with pytest.raises(AssertionError, match="16 bits"):
        prove_exact(panels, cut)


@pytest.mark.parametrize("pair", [(-127, -1), (64, 64), (-127, 127), (3, -90), (0, 0)])
def test_extremes_of_pmaddubsw(pair: tuple[int, int]) -> None:
    """All activations, one product after the other, by the definition of the instruction."""
    sums = [np.arange(256) * w for w in pair]
    weights = np.int8(pair).reshape(2, 1)
    lowest, highest = MaddubsTile.extremes_of_16_bits(weights, NO_ORDER)
    assert lowest == sum(int(s.min()) for s in sums)
    assert highest == sum(int(s.max()) for s in sums)


@pytest.mark.parametrize("four", [(127, 127, 1, 0), (64, -64, -64, 63), (-127, 5, 0, 0)])
def test_extremes_of_smlal(four: tuple[int, ...]) -> None:
    """k and k + 8 of 16 share a lane, or k, k + 8, k + 16 and k + 24 of 32."""
    weights = np.zeros((64, 3), np.int8)
    weights[35::8, 1] = four
    for order, sums in ((0, (four[:2], four[2:])), (1, (four,))):
        ends = [
            sum(a * w for a, w in zip(chosen, each, strict=True))
            for each in sums
            for chosen in itertools.product((-128, 127), repeat=len(each))
        ]
        extremes = MlalTile.extremes_of_16_bits(weights, np.int8([order]))
        assert extremes == (min(ends), max(ends))
    neighbours = np.zeros((32, 1), np.int8)
    neighbours[[0, 1, 7]] = 127
    for order in (0, 1):
        extremes = MlalTile.extremes_of_16_bits(neighbours, np.int8([order]))
        assert extremes == (-128 * 127, 127 * 127)


@pytest.mark.parametrize(
    ("four", "fit"),
    [((64, 64, 64, 64), 1), ((-64, -64, -64, -63), 1), ((-64, -64, -64, -64), 0)],
)
def test_four_products_are_added_where_they_fit(four: tuple[int, ...], fit: int) -> None:
    """128 * 256 is the lowest int16, but not the highest."""
    weights = np.zeros((80, 84), np.int8)
    weights[32:64:8, 70] = four
    assert MlalTile.pack_order(weights).tolist() == [fit]
    panels, cut = packed(weights, get_target("arm64"))
    prove_exact(panels, cut)
    _, _, orders = unpack_panels(panels, cut)
    assert sum(order[0] for order in orders) == len(orders) - 1 + fit
    at = 0
    for order in orders:
        at += len(panels) // len(orders)
        assert order.tobytes() == panels[at - len(order) : at].tobytes()
        panels[at - len(order)] = 1
    if not fit:
        with pytest.raises(AssertionError, match="a sum of 16 bits can reach 32768"):
            prove_exact(panels, cut)
