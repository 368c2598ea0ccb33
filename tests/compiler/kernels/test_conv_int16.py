"""16-bit convolutions beyond test_families: their limits, their proof, the code of their loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.compiler.kernels.conv.family import default_tile
from levit_deploy.compiler.kernels.conv.int16 import (
    INT32_MAX,
    largest_step,
    pack_weights_int16,
    prove_exact,
)
from levit_deploy.compiler.kernels.conv.int16 import (
    LARGEST as LARGEST_INT16,
)
from levit_deploy.compiler.kernels.conv.kernel import conv_kernel
from levit_deploy.compiler.kernels.conv.spec import Source
from levit_deploy.compiler.tuning.assembly import assembly, innermost_loops, spills
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.compiler.kernels.conv_int16_cases import (
    LARGEST,
    LAST,
    LAYERS,
    MIDDLE,
    make_layer,
    reference,
)
from tests.compiler.kernels.kernel_targets import TARGETS


def test_cases_saturate_at_the_limit() -> None:
    steps = reference(LAYERS["second"], get_target("x86-64-v3"))
    assert steps.max() == LARGEST
    assert (steps == LARGEST).mean() > 0.01


def test_cases_reach_the_largest_sums() -> None:
    layer = LAYERS["largest sums"]
    magnitudes = np.abs(layer.weights.astype(np.int64)).sum(axis=(1, 2, 3))
    assert 0.99 * 2**31 < int(layer.x.max()) * int(magnitudes.max()) < 2**31


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("x86-64", "pmaddwd"),
        ("x86-64-v3", "vpmaddwd"),
        ("x86-64-v3-vnni", "{vex}\tvpdpwssd"),
        ("x86-64-v4", "vpmaddwd"),
        ("x86-64-v4-vnni", "vpdpwssd"),
        ("arm64", "smlal2"),
        ("arm64-dotprod", "sdot"),
        ("arm64-i8mm", "smmla"),
        ("armv7", "vmlal.s16"),
    ],
)
@pytest.mark.parametrize("source", [Source.PADDED_INT16, Source.PADDED_INT16_BYTES])
def test_hot_loops(name: str, instruction: str, source: Source) -> None:
    """They multiply by the instruction that they should, and keep their sums in registers."""
    target = get_target(name)
    spec = replace(MIDDLE, in_size=56, in_channels=32, out_channels=64, source=source)
    loops = innermost_loops(
        assembly(conv_kernel("c", spec, default_tile(spec, target), target), target)
    )
    hot = [loop for loop in loops if any(f"\t{instruction}" in line for line in loop)]
    assert hot
    for loop in hot:
        assert spills([loop]) <= 0.03 * len(loop)  # NEON's tiles take every register
        if "vpdpwssd" in instruction:
            assert not any("vpmaddwd" in line for line in loop)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_proof_reads_the_weights_back(target: Target) -> None:
    weights = 4 * make_layer(LAST).weights
    weights[5] = 0
    weights[7, 3, 1, 1] = -8191
    largest_sum = np.abs(weights.astype(np.int64)).sum(axis=(1, 2, 3)).max()
    tile, ones = default_tile(LAST, target), np.ones(LAST.out_channels, np.float32)
    panels = pack_weights_int16(weights, ones, ones, LAST, tile, target).view(np.int8)
    most = largest_step(weights)
    low_parts = 64 * 64 * LAST.depth
    assert most == (INT32_MAX - low_parts) // largest_sum
    words = prove_exact(panels, LAST, tile, target, most)
    reached = most * largest_sum + low_parts
    assert words.endswith(f"32 bits: at most {reached / 1e6:.1f} million")
    with pytest.raises(AssertionError, match="32 bits"):
        prove_exact(panels, LAST, tile, target, most + 1)


def test_largest_step_of_small_weights_is_that_of_its_type() -> None:
    assert largest_step(np.zeros((4, 8, 3, 3), np.int16)) == LARGEST_INT16
    assert largest_step(np.ones((4, 8, 3, 3), np.int16)) == LARGEST_INT16
    too_large = np.zeros((4, 8, 3, 3), np.int16)
    too_large[1, 2, 0, 0] = -LARGEST_INT16 - 1
    assert largest_step(too_large) == 0
