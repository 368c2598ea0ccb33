"""The stem's convolutions against torch in float64, around the edges of images and tiles."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.compiler.kernels.conv.family import default_tile
from levit_deploy.compiler.kernels.conv.kernel import conv_kernel, pack_weights
from levit_deploy.compiler.kernels.conv.spec import (
    ConvSpec,
    ConvTile,
    Destination,
    Source,
    padded_size,
)
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.models.spec import IMAGENET
from levit_deploy.targets.target import Target
from tests.compiler.kernels.conv_cases import Case, make_case, reference
from tests.compiler.kernels.running import Array, run

FIRST = ConvSpec(32, 3, 8, Activation.HARDSWISH, Source.IMAGE_F32, Destination.PADDED)
MIDDLE = ConvSpec(16, 8, 16, Activation.HARDSWISH, Source.PADDED, Destination.PADDED)
LAST = ConvSpec(8, 16, 32, Activation.NONE, Source.PADDED, Destination.TOKENS)
FLOAT_SOURCES = (Source.IMAGE_F32, Source.IMAGE_RGB8, Source.PADDED)

Ranges = list[tuple[int, int]]


def run_case(case: Case, tile: ConvTile, target: Target) -> Array:
    [output] = run_ranges(case, tile, target, [[(0, tasks_of(case.spec, tile, target))]])
    return output


def run_ranges(case: Case, tile: ConvTile, target: Target, runs: list[Ranges]) -> list[Array]:
    """The output of each run; a run is a list of task ranges."""
    kernel = conv_kernel("conv", case.spec, tile, target, IMAGENET)
    inputs, size = case.inputs(tile), case.spec.destination_size
    return [run(kernel, target, inputs, size, ranges) for ranges in runs]


def tasks_of(spec: ConvSpec, tile: ConvTile, target: Target) -> int:
    return conv_kernel("conv", spec, tile, target, IMAGENET).tasks


def check(spec: ConvSpec, tile: ConvTile, target: Target) -> None:
    case = make_case(spec)
    expected, error = reference(case)
    difference = np.abs(run_case(case, tile, target) - expected)
    assert (difference <= error).all(), f"worst is {np.nanmax(difference / error)} of the bound"


def narrow_tile(pixels: int, bands: int, panels_apart: bool = False) -> ConvTile:
    return ConvTile(pixels, (4, 4), bands, panels_apart)


@pytest.mark.parametrize("size", [32, 33, 63, 112])
@pytest.mark.parametrize("source", FLOAT_SOURCES)
def test_any_size_from_any_source(source: Source, size: int, host_target: Target) -> None:
    channels = 8 if source is Source.PADDED else 3
    spec = replace(FIRST, in_size=size, in_channels=channels, source=source)
    check(spec, default_tile(spec, host_target), host_target)


@pytest.mark.parametrize(
    ("activation", "destination"),
    [(Activation.HARDSWISH, Destination.TOKENS), (Activation.NONE, Destination.PADDED)],
)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 14, 15])
def test_small_images_and_epilogues(
    size: int, activation: Activation, destination: Destination, host_target: Target
) -> None:
    spec = replace(MIDDLE, in_size=size, activation=activation, destination=destination)
    check(spec, default_tile(spec, host_target), host_target)


@pytest.mark.parametrize("spec", [FIRST, replace(FIRST, in_size=35), MIDDLE])
@pytest.mark.parametrize("pixels", [1, 3, 8, 17])
def test_blocks_of_any_size(pixels: int, spec: ConvSpec, host_target: Target) -> None:
    check(spec, narrow_tile(pixels, bands=3), host_target)


@pytest.mark.parametrize("in_channels", [1, 2, 5, 12])
def test_any_number_of_input_channels(in_channels: int, host_target: Target) -> None:
    spec = replace(MIDDLE, in_channels=in_channels)
    check(spec, default_tile(spec, host_target), host_target)


@pytest.mark.parametrize("out_channels", [4, 12, 16, 24, 40, 48])
@pytest.mark.parametrize("first", [True, False], ids=["image", "padded"])
def test_output_channels_around_vectors(
    first: bool, out_channels: int, host_target: Target
) -> None:
    spec = replace(FIRST if first else MIDDLE, out_channels=out_channels)
    check(spec, default_tile(spec, host_target), host_target)


@pytest.mark.parametrize("size", [32, 63])
def test_an_8_bit_image_gives_the_bits_of_the_normalised_float_image(
    size: int, host_target: Target
) -> None:
    if not host_target.fma:
        pytest.skip("the normalisation is defined with one rounding")
    spec = replace(FIRST, in_size=size, source=Source.IMAGE_RGB8)
    case = make_case(spec)
    as_float = replace(case, spec=replace(spec, source=Source.IMAGE_F32))
    tile = default_tile(spec, host_target)
    from_bytes = run_case(case, tile, host_target)
    assert from_bytes.tobytes() == run_case(as_float, tile, host_target).tobytes()


@pytest.mark.parametrize("source", FLOAT_SOURCES)
@pytest.mark.parametrize("panels_apart", [False, True])
def test_any_split_into_ranges_gives_the_same_bits(
    panels_apart: bool, source: Source, host_target: Target
) -> None:
    spec = replace(FIRST, in_size=35, out_channels=16, source=source)
    case = make_case(spec)
    tile = narrow_tile(5, bands=4, panels_apart=panels_apart)
    tasks = tasks_of(spec, tile, host_target)
    assert tasks > 3
    backwards = list(itertools.pairwise([0, 1, tasks - 1, tasks]))[::-1]
    whole, split = run_ranges(case, tile, host_target, [[(0, tasks)], backwards])
    assert whole.tobytes() == split.tobytes()


@pytest.mark.parametrize("spec", [replace(FIRST, in_size=35), MIDDLE, LAST])
def test_tasks_write_disjoint_parts(spec: ConvSpec, host_target: Target) -> None:
    case = make_case(spec)
    tile = narrow_tile(5, bands=3, panels_apart=True)
    tasks = tasks_of(spec, tile, host_target)
    parts = run_ranges(case, tile, host_target, [[(task, task + 1)] for task in range(tasks)])
    written = sum(~np.isnan(part) for part in parts)
    assert (written == 1).all()


@pytest.mark.parametrize("spec", [FIRST, MIDDLE, LAST])
def test_the_bits_do_not_depend_on_the_tile(spec: ConvSpec, host_target: Target) -> None:
    case = make_case(spec)
    tiles = [
        default_tile(spec, host_target),
        narrow_tile(3, bands=2),
        ConvTile(2, (4,), 1, True),
    ]
    results = {run_case(case, tile, host_target).tobytes() for tile in tiles}
    assert len(results) == 1


def test_pack_weights_by_hand() -> None:
    spec = replace(MIDDLE, in_channels=2, out_channels=8)
    weights = np.zeros((8, 2, 3, 3), np.float32)
    weights[5, 1, 2, 0] = 7  # channel 5: second panel of 4, place 1
    bias = np.arange(8, dtype=np.float32)
    packed = pack_weights(weights, bias, spec, ConvTile(1, (4,), 1, False)).reshape(2, 19, 4)
    assert packed[:, 0].ravel().tolist() == list(range(8))
    assert np.argwhere(packed[:, 1:]).tolist() == [[1, (2 * 3 + 0) * 2 + 1, 1]]
    of_image = replace(spec, source=Source.IMAGE_F32)
    packed = pack_weights(weights, bias, of_image, ConvTile(1, (4,), 1, False)).reshape(2, 19, 4)
    assert np.argwhere(packed[:, 1:]).tolist() == [[1, (2 * 2 + 1) * 3 + 0, 1]]


@pytest.mark.parametrize(("size", "padded"), [(14, 15), (28, 29), (33, 35), (1, 3)])
def test_padded_size(size: int, padded: int) -> None:
    assert padded_size(size) == padded
