"""gemm against numpy in float64, around the edges of tiles and vectors."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.compiler.kernels.gemm.float32 import default_tile, gemm_kernel, pack_weights
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmTile, Layout
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.targets.target import Target
from tests.compiler.kernels.gemm_cases import constants_and_inputs, reference, rows_of
from tests.compiler.kernels.running import run

PLAIN = GemmSpec(13, 48, 24, Activation.NONE, False, Layout.ROWS)


def check(spec: GemmSpec, tile: GemmTile, target: Target) -> None:
    kernel = gemm_kernel("gemm", spec, tile, target)
    flat = run(kernel, target, constants_and_inputs(spec, tile), spec.output_size)
    expected, error = reference(spec)
    difference = np.abs(rows_of(spec, flat) - expected)
    assert (difference <= error).all(), f"worst is {np.nanmax(difference / error)} of the bound"


def small_tile(target: Target, mr: int = 4, vectors: int = 2) -> GemmTile:
    lanes = target.float_lanes
    return GemmTile(mr=mr, nr=vectors * lanes, lanes=lanes, depth_unroll=4)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 9])
def test_rows_around_the_tile(rows: int, host_target: Target) -> None:
    check(replace(PLAIN, rows=rows), small_tile(host_target), host_target)


@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("vectors", [1, 2, 3])
def test_columns_around_vectors_and_panels(vectors: int, offset: int, host_target: Target) -> None:
    spec = replace(PLAIN, rows=5, columns=vectors * host_target.float_lanes + offset, residual=True)
    check(spec, small_tile(host_target), host_target)


@pytest.mark.parametrize("depth", [1, 3, 4, 5, 8, 33])
def test_any_depth(depth: int, host_target: Target) -> None:
    check(replace(PLAIN, depth=depth), small_tile(host_target), host_target)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", Activation)
def test_epilogues(
    activation: Activation, residual: bool, layout: Layout, host_target: Target
) -> None:
    if residual and layout is Layout.PANELS:
        pytest.skip("the residual stream is row-major")
    spec = replace(PLAIN, activation=activation, residual=residual, layout=layout)
    check(spec, small_tile(host_target), host_target)


@pytest.mark.parametrize("columns", [16, 24, 40, 48])
@pytest.mark.parametrize("vectors", [1, 2, 3])
def test_panels_of_16_from_tiles_of_any_width(
    vectors: int, columns: int, host_target: Target
) -> None:
    spec = replace(PLAIN, columns=columns, layout=Layout.PANELS)
    check(spec, small_tile(host_target, vectors=vectors), host_target)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 14])
def test_gather_takes_every_second_token(side: int, host_target: Target) -> None:
    spec = replace(PLAIN, rows=((side + 1) // 2) ** 2, gather_side=side, layout=Layout.PANELS)
    check(spec, small_tile(host_target, mr=5), host_target)


@pytest.mark.parametrize(
    ("rows", "columns", "depth"),
    [(196, 256, 128), (49, 256, 512), (16, 768, 384), (9, 96, 48), (4, 64, 64), (1, 48, 64)],
)
def test_default_tile(rows: int, columns: int, depth: int, host_target: Target) -> None:
    spec = replace(PLAIN, rows=rows, columns=columns, depth=depth)
    check(spec, default_tile(spec, host_target), host_target)


def test_any_split_into_ranges_gives_the_same_bits(host_target: Target) -> None:
    spec = replace(PLAIN, activation=Activation.HARDSWISH, residual=True)
    tile = small_tile(host_target)
    kernel = gemm_kernel("gemm", spec, tile, host_target)
    inputs = constants_and_inputs(spec, tile)
    cuts = [0, 1, 3, kernel.tasks - 1, kernel.tasks]
    ranges = list(itertools.pairwise(cuts))[::-1]
    whole = run(kernel, host_target, inputs, spec.output_size)
    split = run(kernel, host_target, inputs, spec.output_size, ranges)
    assert kernel.tasks > 4
    assert whole.tobytes() == split.tobytes()


def test_tasks_write_disjoint_parts(host_target: Target) -> None:
    tile = small_tile(host_target)
    kernel = gemm_kernel("gemm", PLAIN, tile, host_target)
    inputs = constants_and_inputs(PLAIN, tile)
    written = np.zeros(PLAIN.output_size, int)
    for task in range(kernel.tasks):
        part = run(kernel, host_target, inputs, PLAIN.output_size, [(task, task + 1)])
        written += ~np.isnan(part)
    assert (written == 1).all()


@pytest.mark.parametrize("mr", [1, 3, 6])
@pytest.mark.parametrize("vectors", [1, 2, 3])
def test_the_bits_do_not_depend_on_the_tile(mr: int, vectors: int, host_target: Target) -> None:
    def result(tile: GemmTile) -> bytes:
        kernel = gemm_kernel("gemm", PLAIN, tile, host_target)
        inputs = constants_and_inputs(PLAIN, tile)
        return run(kernel, host_target, inputs, PLAIN.output_size).tobytes()

    assert result(small_tile(host_target, mr, vectors)) == result(small_tile(host_target))


def test_pack_weights_by_hand() -> None:
    weights = np.arange(1, 13, dtype=np.float32).reshape(2, 6)
    bias = np.float32([10, 20, 30, 40, 50, 60])
    tile = GemmTile(mr=1, nr=4, lanes=2, depth_unroll=1)
    first = [10, 20, 30, 40, 1, 2, 3, 4, 7, 8, 9, 10]
    second = [50, 60, 5, 6, 11, 12]
    assert pack_weights(weights, bias, tile).tolist() == first + second
