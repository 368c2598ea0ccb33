"""8-bit matrix products beyond test_families: their limits, and the code of their loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.compiler.kernels.gemm.int8 import default_tile, gemm_int8_kernel
from levit_deploy.compiler.kernels.gemm.int8_panels import pack_weights_int8
from levit_deploy.compiler.kernels.gemm.spec import GemmTile
from levit_deploy.compiler.tuning.assembly import Loop, assembly, innermost_loops, spills
from levit_deploy.targets.table import get_target
from tests.compiler.kernels.int8_cases import HIDDEN, LAYERS, PLAIN, reference


def test_cases_reach_both_limits_of_q() -> None:
    for name in ("zero points at the ends", "other ends", "largest sums"):
        _, q = reference(LAYERS[name])
        assert q.min() == 0
        assert q.max() == 255


@pytest.mark.parametrize("column", [(-128,), (64, 65), (-2, -127), (0, 0, -128), (1, 1, 127, 2)])
def test_weights_beyond_the_limits_are_refused(column: tuple[int, ...]) -> None:
    tile = default_tile(PLAIN, get_target("arm64"))
    one = np.ones(1, np.float32)
    with pytest.raises(AssertionError, match="16 bits"):
        pack_weights_int8(np.int8([column]).T, one, one, 0, tile, get_target("arm64"))


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("x86-64", "pmaddubsw"),
        ("x86-64-v3", "vpmaddubsw"),
        ("x86-64-v3-vnni", "{vex}\tvpdpbusd"),
        ("x86-64-v4", "vpmaddubsw"),
        ("x86-64-v4-vnni", "vpdpbusd"),
        ("arm64", "smlal2"),
        ("arm64-dotprod", "sdot"),
        ("arm64-i8mm", "smmla"),
        ("armv7", "vmlal.s8"),
    ],
)
def test_hot_loops(name: str, instruction: str, shared: bool) -> None:
    """They multiply by the instruction that they should, and keep their sums in registers."""
    target = get_target(name)
    spec = replace(HIDDEN, rows=49, columns=256, depth=256)
    tile = default_tile(spec, target, shared)
    kernel = gemm_int8_kernel("gemm", spec, tile, target, spec.stored)
    loops = innermost_loops(assembly(kernel, target))
    hot = [loop for loop in loops if any(f"\t{instruction}" in line for line in loop)]
    assert hot
    assert spills(hot) <= 1


def loops_of_whole_tiles(name: str) -> tuple[GemmTile, list[Loop]]:
    """The default tile of a target, and the loops of a kernel that has no other size of it."""
    target = get_target(name)
    spec = replace(HIDDEN, rows=48, columns=256, depth=256)
    tile = default_tile(spec, target)
    kernel = gemm_int8_kernel("gemm", spec, tile, target, spec.stored)
    return tile, innermost_loops(assembly(kernel, target))


@pytest.mark.parametrize("name", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_two_products_are_widened_together(name: str) -> None:
    tile, loops = loops_of_whole_tiles(name)
    counts = [
        [sum(f"{word}\t" in line for line in loop) for word in ("pmaddubsw", "pmaddwd", "paddw")]
        for loop in loops
    ]
    sums = tile.mr * tile.nr // tile.lanes
    assert [2 * sums, sums, sums] in counts


@pytest.mark.parametrize("name", ["arm64", "rpi3", "armv7"])
def test_four_products_are_widened_together(name: str) -> None:
    tile, loops = loops_of_whole_tiles(name)
    sums = tile.mr * tile.nr * tile.depth_unroll
    found = [
        loop
        for loop in loops
        if [sum(word in line for line in loop) for word in ("mull", "mlal", "adal")]
        == [sums, 3 * sums, sums]
    ]
    assert found
    assert not spills(found)
    assert not any("vstmia" in line for loop in found for line in loop)  # ARMv7's spills
