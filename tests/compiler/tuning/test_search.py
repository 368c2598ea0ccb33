"""The search for tiles: what is tried, what is dropped, what is believed."""

import re
from collections.abc import Callable, Sequence

import pytest

from levit_deploy.compiler.kernels.attention.spec import AttentionInt8Spec, AttentionSpec
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.kernels.gemm.family import GEMM as GEMM_FAMILY
from levit_deploy.compiler.kernels.gemm.spec import GemmInt8Spec, GemmSpec, GemmTile, Layout
from levit_deploy.compiler.kernels.head import HeadSpec
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.program import Program
from levit_deploy.compiler.tiles.registry import Spec, family_of, is_legal
from levit_deploy.compiler.tuning.assembly import (
    assembly,
    hot_loops,
    instructions_per_multiply_add,
    spills,
)
from levit_deploy.compiler.tuning.search import candidates, fastest, generate
from levit_deploy.compiler.tuning.specs import distinct_specs
from levit_deploy.export.exported import ExportedModel
from levit_deploy.targets.table import TARGETS, get_target
from levit_deploy.targets.target import Target
from tests.compiler.levit import compiled_tiny, exported_tiny
from tests.compiler.quantized import compiled_int8_attention, quantized_attention

GEMM = GemmSpec(49, 64, 32, Activation.HARDSWISH, residual=False, layout=Layout.ROWS)
SPECS = (
    GEMM,
    HeadSpec(tokens=16, channels=48, classes=100),
    ConvSpec(56, 32, 64, Activation.HARDSWISH, Source.PADDED, Destination.PADDED),
    ConvSpec(224, 3, 16, Activation.HARDSWISH, Source.IMAGE_F32, Destination.PADDED),
    AttentionSpec(2, 16, 32, query_side=7, key_side=7, stride=1, fused_qkv=True),
    AttentionInt8Spec(2, 16, 32, query_side=7, key_side=7, stride=1, fused_qkv=True),
    GemmInt8Spec(49, 64, 32, Activation.HARDSWISH, residual=False, layout=Layout.ROWS),
    ConvSpec(56, 32, 64, Activation.HARDSWISH, Source.PADDED_INT16, Destination.PADDED_INT16),
)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_candidates_are_possible_and_the_default_is_the_first(spec: Spec, target: Target):
    tiles = candidates(spec, target)
    assert tiles[0] == family_of(spec).default_tile(spec, target)
    assert 6 <= len(tiles) <= 12
    assert len(set(tiles)) == len(tiles)
    assert all(is_legal(tile, spec, target) for tile in tiles)
    assert candidates(spec, target, count=2) == tiles[:2]


@pytest.mark.parametrize(
    ("model", "program"),
    [(exported_tiny, compiled_tiny), (quantized_attention, compiled_int8_attention)],
)
def test_every_kernel_of_the_model_is_searched(
    model: Callable[[], ExportedModel], program: Callable[[], Program]
):
    compiled = program()
    target = get_target(compiled.target)
    specs = distinct_specs(model(), target)
    assert len(set(specs)) == len(specs)
    families = [family_of(spec) for spec in specs]
    searched = {
        family.symbol(spec, family.default_tile(spec, target))
        for family, spec in zip(families, specs, strict=True)
    }
    assert searched == {
        re.sub("(_and)?_quantized$", "", call.symbol.removeprefix("tiny_"))
        for call in compiled.calls
        if call.kind not in ("mean", "quantize") and "rgb8" not in call.shape
    }


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4", "arm64"])
def test_too_large_a_tile_is_seen_in_the_assembly(name: str):
    target = get_target(name)
    lanes = target.float_lanes
    fits = GEMM_FAMILY.default_tile(GEMM, target)
    too_large = GemmTile(target.vector_registers // 2, 4 * lanes, lanes, 4)
    loops = [
        hot_loops(assembly(generate("k", GEMM, tile, target), target)) for tile in (fits, too_large)
    ]
    assert spills(loops[0]) == 0
    assert spills(loops[1]) > 0
    costs = [instructions_per_multiply_add(loop) for loop in loops]
    assert 1 < costs[0] < costs[1]


class Script:
    """Times from a list of passes, by kernel."""

    def __init__(self, *passes: Sequence[float | None]) -> None:
        self.passes = list(passes)

    def __call__(self, wanted: Sequence[int], rounds: int) -> list[float | None]:
        times = self.passes.pop(0)
        return [times[index] for index in wanted]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((10, 9, 8), (10, 9, 8), (2, 0.8, 8)),
        ((10, 9, 8), (10, 9, 11), (1, 0.9, 9)),  # a lucky moment is not believed
        ((10, 9, 8), (10, 10, 10), (0, 1.0, 10)),
        ((10, 9.9, 12), (10, 9.9, 9), (0, 1.0, 10)),  # too little, and a lucky moment
        ((20, 9, 8), (10, 9, 8.5), (2, 0.85, 8)),  # the default's unlucky moment
        ((10, None, 8), (10, 1, 8), (2, 0.8, 8)),  # a wrong result
        ((10, 9, 8), (10, 9, None), (1, 0.9, 9)),  # one that is wrong only at times
        ((10, None, None), (10, 1, 1), (0, 1.0, 10)),
    ],
)
def test_a_tile_must_be_better_in_both_passes(
    first: Sequence[float | None],
    second: Sequence[float | None],
    expected: tuple[int, float, float],
):
    assert fastest(Script(first, second), 3) == pytest.approx(expected)
