"""The search for tiles: what is tried, what is dropped, what is believed."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

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
from levit_deploy.compiler.tuning.search import Search, candidates, fastest, generate
from levit_deploy.compiler.tuning.specs import distinct_specs
from levit_deploy.compiler.tuning.timing import KernelTimer
from levit_deploy.errors import DeployError
from levit_deploy.export.exported import ExportedModel
from levit_deploy.targets.host import read_cpu
from levit_deploy.targets.table import TARGETS, get_target
from levit_deploy.targets.target import Target
from levit_deploy.targets.toolchain import find_toolchain
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


def test_a_kernel_is_timed_where_it_runs(tmp_path: Path):
    cpu, host = read_cpu(), get_target("host")
    try:
        row = Search(find_toolchain(host), cpu, count=2).find(GEMM, tmp_path)
    except DeployError as error:
        if "too busy" not in error.message:
            raise
        pytest.skip(error.message)  # others use its cores: no time would be right
    assert row.spec == GEMM
    assert row.target == host.base
    assert row.tile in candidates(GEMM, host, 2)
    assert row.microseconds is not None
    assert row.microseconds > 0
    assert cpu.model in row.measured_on


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: family_of(spec).name)
def test_a_kernel_is_modelled_where_it_does_not(spec: Spec, tmp_path: Path):
    target = get_target("rpi4")
    if read_cpu().runs(target):
        pytest.skip("this machine is such a board")
    row = Search(find_toolchain(target), read_cpu(), count=3).find(spec, tmp_path)
    assert row.spec == spec
    assert row.ratio <= 1
    assert row.target == "rpi4"
    assert row.microseconds is None
    assert row.measured_on.startswith("modelled")
    assert list(tmp_path.iterdir()) == []


class Script:
    """A timer that answers from a list of passes, by kernel."""

    def __init__(self, *passes: Sequence[float]) -> None:
        self.passes = list(passes)

    def microseconds(self, wanted: Sequence[int], rounds: int) -> list[float]:
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
    ],
)
def test_a_tile_must_be_better_in_both_passes(
    first: Sequence[float], second: Sequence[float], expected: tuple[int, float, float]
):
    assert fastest(Script(first, second), 3) == pytest.approx(expected)


def test_a_machine_that_stays_noisy_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    host = get_target("host")
    kernel = generate("k", GEMM, GEMM_FAMILY.default_tile(GEMM, host), host)
    timer = KernelTimer([kernel], find_toolchain(host), tmp_path)
    monkeypatch.setattr("levit_deploy.compiler.tuning.timing.CALM", 0.5)
    monkeypatch.setattr("levit_deploy.compiler.tuning.timing.PATIENCE", 3)
    with pytest.raises(DeployError, match="too busy") as caught:
        timer.microseconds([0], rounds=1)
    assert caught.value.hint
