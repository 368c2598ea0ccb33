"""8-bit gemm on every target, to the bit, against numpy in 64-bit integers and exact fma."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest

from levit_deploy.compiler.kernels.gemm.int8 import default_tile, gemm_int8_kernel
from levit_deploy.compiler.kernels.gemm.int8_panels import pack_weights_int8
from levit_deploy.compiler.kernels.gemm.spec import GemmTile, Layout
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.kernels.output import Stored
from levit_deploy.compiler.tuning.assembly import assembly, innermost_loops, spills
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Target
from tests.compiler.kernels.int8_cases import (
    Layer,
    StoringSpec,
    arguments,
    extreme_layer,
    make_layer,
    reference,
    rows_of,
)
from tests.compiler.kernels.linked_calls import Buffer, Call, run_linked, undefined
from tests.compiler.kernels.storage import unpack

# AVX-VNNI's kernels by AVX-512's encoding of the same instructions, which more CPUs can run.
EVEX_256 = replace(
    get_target("x86-64-v3-vnni"),
    name="x86-64-v3-vnni, EVEX",
    cpu="x86-64-v4",
    features=("+avx512vnni",),
    required_features=get_target("x86-64-v4-vnni").required_features,
)
TARGETS = [
    get_target("x86-64"),
    get_target("x86-64-v3"),
    EVEX_256,
    get_target("x86-64-v4"),
    get_target("x86-64-v4-vnni"),
    get_target("arm64"),
    get_target("arm64-dotprod"),
    get_target("arm64-i8mm"),
    get_target("armv7"),
]

PLAIN = StoringSpec(7, 48, 32, Activation.NONE, False, Layout.ROWS)
STREAM = replace(PLAIN, residual=True, stored=Stored.BOTH)
HIDDEN = replace(PLAIN, activation=Activation.HARDSWISH, stored=Stored.QUANTIZED)


@dataclass(frozen=True)
class Case:
    """`vectors`: 0 for the default tile; else a tile of 3 rows x so many registers, 3 steps."""

    layer: Layer
    vectors: int = 0
    split: bool = False


def case(spec: StoringSpec, vectors: int = 0, split: bool = False, **shape: int) -> Case:
    return Case(make_layer(replace(spec, **shape)), vectors, split)


def gathered(side: int) -> StoringSpec:
    rows = ((side + 1) // 2) ** 2
    return replace(PLAIN, rows=rows, gather_side=side, layout=Layout.PANELS, stored=Stored.BOTH)


CASES = {
    "hidden layer of an MLP": case(HIDDEN, rows=196, columns=64, depth=128),
    "second layer of an MLP": case(STREAM, rows=49, columns=64, depth=256, split=True),
    "queries, keys, values": case(replace(PLAIN, layout=Layout.PANELS), rows=16, columns=160),
    "one row, few classes": case(PLAIN, rows=1, columns=10, depth=384),
    "one row, more classes": case(PLAIN, rows=1, columns=100),
    "small columns": case(STREAM, rows=5, columns=24, depth=24),
    "columns over the edge": case(STREAM, rows=3, columns=14, depth=33),
    "columns far over the edge": case(STREAM, rows=2, columns=18, depth=8, split=True),
    "one column, one k": case(STREAM, columns=1, depth=1),
    "tile of one vector": case(STREAM, vectors=1, columns=40, depth=80),
    "tile of three vectors": case(STREAM, vectors=3, columns=80, depth=112, split=True),
    "hardswish and residual": case(replace(STREAM, activation=Activation.HARDSWISH)),
    "gather 1": case(gathered(1)),
    "gather 5": case(gathered(5), vectors=2),
    "gather 7": case(gathered(7)),
    "gather 14": case(gathered(14), split=True),
    "largest sums": Case(extreme_layer(replace(STREAM, depth=2048), q=255)),
    "largest sums of the lowest activations": Case(extreme_layer(replace(STREAM, depth=2048), q=0)),
    "zero points at the ends": Case(make_layer(STREAM, zero_points=(255, 0))),
    "other ends": Case(make_layer(STREAM, zero_points=(0, 255))),
}


def tile_of(chosen: Case, target: Target) -> GemmTile:
    if not chosen.vectors:
        return default_tile(chosen.layer.spec, target)
    lanes = target.float_lanes
    return GemmTile(mr=3, nr=chosen.vectors * lanes, lanes=lanes, depth_unroll=3)


def call_of(symbol: str, chosen: Case, target: Target) -> Call:
    spec, storage = chosen.layer.spec, isa_of(target).storage
    tile = tile_of(chosen, target)
    kernel = gemm_int8_kernel(symbol, spec, tile, target, spec.stored)
    outputs = []
    if spec.stored.float:
        outputs.append(undefined(spec.output_size, "float32"))
    if spec.stored.quantized:
        outputs.append(undefined(storage.size(spec.rows, spec.columns), storage.dtype))
    cuts = [0, 1, kernel.tasks // 2, kernel.tasks] if chosen.split else [0, kernel.tasks]
    ranges = list(itertools.pairwise(cuts))[::-1]
    return Call(kernel, arguments(chosen.layer, tile, target), outputs, ranges)


@pytest.fixture(scope="module", params=TARGETS, ids=lambda target: target.name)
def outputs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Target, dict[str, list[Buffer]]]:
    """What every case's kernel wrote on one target."""
    target: Target = request.param
    calls = [call_of(f"gemm_{n}", chosen, target) for n, chosen in enumerate(CASES.values())]
    folder = tmp_path_factory.mktemp("gemm_int8")
    return target, dict(zip(CASES, run_linked(calls, target, folder), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_bit(name: str, outputs: tuple[Target, dict[str, list[Buffer]]]) -> None:
    target, written = outputs
    layer = CASES[name].layer
    spec = layer.spec
    x, q = reference(layer, fused=target.fma)
    if spec.stored.float:
        np.testing.assert_array_equal(rows_of(spec, written[name][0]), x)
    if spec.stored.quantized:
        stored = unpack(isa_of(target).storage, written[name][-1], spec.rows, spec.columns)
        np.testing.assert_array_equal(stored, q)


def test_cases_reach_both_limits_of_q() -> None:
    for name in ("zero points at the ends", "other ends", "largest sums"):
        _, q = reference(CASES[name].layer)
        assert q.min() == 0
        assert q.max() == 255


@pytest.mark.parametrize("column", [(-128,), (64, 65), (-2, -127), (0, 0, -128), (1, 1, 127, 2)])
def test_weights_beyond_the_limits_are_refused(column: tuple[int, ...]) -> None:
    tile = default_tile(PLAIN, get_target("arm64"))
    one = np.ones(1, np.float32)
    with pytest.raises(AssertionError, match="16 bits"):
        pack_weights_int8(np.int8([column]).T, one, one, 0, tile, get_target("arm64"))


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
def test_hot_loops(name: str, instruction: str) -> None:
    """They multiply by the instruction that they should, and keep their sums in registers."""
    target = get_target(name)
    spec = replace(HIDDEN, rows=49, columns=256, depth=256)
    kernel = gemm_int8_kernel("gemm", spec, default_tile(spec, target), target, spec.stored)
    loops = innermost_loops(assembly(kernel, target))
    hot = [loop for loop in loops if any(f"\t{instruction}" in line for line in loop)]
    assert hot
    assert spills(hot) <= 1
