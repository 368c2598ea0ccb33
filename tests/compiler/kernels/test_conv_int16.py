"""16-bit convolutions on every target, to the bit, against numpy: sums exact, then exact fma."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

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
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile, Destination, Source
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.tuning.assembly import assembly, innermost_loops, spills
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.compiler.kernels.conv_int16_cases import (
    LARGEST,
    Layer,
    extreme_layer,
    float_layer,
    make_layer,
    reference,
)
from tests.compiler.kernels.linked_calls import Buffer, run_linked
from tests.compiler.kernels.test_gemm_int8 import TARGETS

INT16 = Source.PADDED_INT16
MIDDLE = ConvSpec(16, 8, 16, Activation.HARDSWISH, INT16, Destination.PADDED_INT16)
LAST = ConvSpec(8, 16, 32, Activation.NONE, INT16, Destination.TOKENS)
FIRST = replace(MIDDLE, in_size=35, in_channels=3, source=Source.IMAGE_F32)


@dataclass(frozen=True)
class Case:
    """`pixels`: 0 for the default tile; else one of two narrow vectors."""

    layer: Layer
    pixels: int = 0
    split: bool = False


def case(spec: ConvSpec, pixels: int = 0, split: bool = False, **shape: int) -> Case:
    return Case(make_layer(replace(spec, **shape)), pixels, split)


CASES = {
    "second": case(MIDDLE, in_size=112, out_channels=32, split=True),
    "last": case(LAST, in_size=28, in_channels=64, out_channels=128),
    "odd sizes": case(MIDDLE, in_size=33, in_channels=24, out_channels=48),
    "few channels": case(MIDDLE, in_size=9, in_channels=4, out_channels=12),
    "12 channels": case(LAST, in_channels=12, out_channels=24, split=True),
    "one pixel": case(LAST, in_size=1),
    "two pixels": case(MIDDLE, in_size=2),
    "three pixels": case(MIDDLE, in_size=3, split=True),
    "narrow tile": case(MIDDLE, pixels=3, out_channels=40),
    "wide block": case(LAST, pixels=5, in_size=31),
    "largest sums": Case(extreme_layer(replace(LAST, in_channels=24, out_channels=8), 1)),
    "lowest sums": Case(extreme_layer(replace(MIDDLE, in_channels=24), -1)),
    "from a float image": Case(float_layer(FIRST), split=True),
}


def tile_of(chosen: Case, target: Target) -> ConvTile:
    if not chosen.pixels:
        return default_tile(chosen.layer.spec, target)
    return ConvTile(chosen.pixels, (4, 4), 3, True)


@pytest.fixture(scope="module", params=TARGETS, ids=lambda target: target.name)
def outputs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Target, dict[str, Buffer]]:
    """What every case's kernel wrote on one target."""
    target: Target = request.param
    calls = []
    for n, chosen in enumerate(CASES.values()):
        tile = tile_of(chosen, target)
        tasks = conv_kernel("conv", chosen.layer.spec, tile, target).tasks
        cuts = [0, 1, tasks] if chosen.split else [0, tasks]
        ranges = list(itertools.pairwise(cuts))[::-1]
        calls.append(chosen.layer.call(f"conv_{n}", tile, target, ranges))
    written = run_linked(calls, target, tmp_path_factory.mktemp("conv_int16"))
    return target, dict(zip(CASES, (buffers[0] for buffers in written), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_bit(name: str, outputs: tuple[Target, dict[str, Buffer]]) -> None:
    target, written = outputs
    np.testing.assert_array_equal(written[name], reference(CASES[name].layer, target))


def test_cases_saturate_at_the_limit() -> None:
    steps = reference(CASES["second"].layer, get_target("x86-64-v3"))
    assert steps.max() == LARGEST
    assert (steps == LARGEST).mean() > 0.01


def test_cases_reach_the_largest_sums() -> None:
    layer = CASES["largest sums"].layer
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
def test_hot_loops(name: str, instruction: str) -> None:
    """They multiply by the instruction that they should, and keep their sums in registers."""
    target = get_target(name)
    spec = replace(MIDDLE, in_size=56, in_channels=32, out_channels=64)
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
    panels = pack_weights_int16(weights, ones, ones, tile, target).view(np.int8)
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
