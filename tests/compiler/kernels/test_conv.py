"""The stem's convolutions beyond test_families: images, packing, the code of their loops."""

from __future__ import annotations

import re
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
from levit_deploy.compiler.tuning.assembly import STACK, assembly, innermost_loops
from levit_deploy.models.spec import IMAGENET
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Arch, Target
from tests.compiler.kernels.conv_cases import FIRST, MIDDLE, Layer, make_layer
from tests.compiler.kernels.harness import Call, run, undefined
from tests.compiler.kernels.kernel_targets import FLOAT_TARGETS

FMA_TARGETS = [target for target in FLOAT_TARGETS if target.fma]


def call(layer: Layer, target: Target, tile: ConvTile | None = None, shift: int = 0) -> Call:
    spec = layer.spec
    tile = tile or default_tile(spec, target)
    kernel = conv_kernel("conv", spec, tile, target, IMAGENET)
    return Call(kernel, layer.inputs(tile), [undefined(spec.destination_size)], shift=shift)


@pytest.mark.parametrize("target", FMA_TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("size", [32, 63])
def test_an_8_bit_image_gives_the_bits_of_the_normalised_float_image(
    size: int, target: Target
) -> None:
    from_bytes = make_layer(replace(FIRST, in_size=size, source=Source.IMAGE_RGB8))
    as_float = replace(from_bytes, spec=replace(from_bytes.spec, source=Source.IMAGE_F32))
    tile = default_tile(from_bytes.spec, target)
    calls = [call(layer, target, tile) for layer in (from_bytes, as_float)]
    [[ours], [expected]] = run(calls, target)
    assert ours.tobytes() == expected.tobytes()


@pytest.mark.parametrize("target", FLOAT_TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("source", [Source.IMAGE_F32, Source.IMAGE_RGB8])
def test_an_image_may_lie_anywhere(source: Source, target: Target) -> None:
    layer = make_layer(replace(FIRST, in_size=35, out_channels=24, source=source))
    # ARMv7 traps on a misaligned vldr: a float array of the C caller is at a multiple of 4.
    shift = 4 if target.arch is Arch.ARMV7 and source is Source.IMAGE_F32 else 1
    aligned = call(layer, target)
    [[whole], [shifted]] = run([aligned, replace(aligned, shift=shift)], target)
    assert shifted.tobytes() == whole.tobytes()


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


def stem(channels: int) -> list[ConvSpec]:
    """The four convolutions of a LeViT at 224 x 224."""
    hardswish, padded = Activation.HARDSWISH, Source.PADDED
    c8, c4, c2 = channels // 8, channels // 4, channels // 2
    return [
        ConvSpec(224, 3, c8, hardswish, Source.IMAGE_F32, Destination.PADDED),
        ConvSpec(112, c8, c4, hardswish, padded, Destination.PADDED),
        ConvSpec(56, c4, c2, hardswish, padded, Destination.PADDED),
        ConvSpec(28, c2, channels, Activation.NONE, padded, Destination.TOKENS),
    ]


MULTIPLY_ADD = {
    "x86-64-v3": r"\bvfmadd\d+ps\b.*%ymm",
    "x86-64-v4": r"\bvfmadd\d+ps\b.*%[yz]mm",
    "arm64": r"\bfmla\t",
}
COPY = re.compile(r"\tv?mov[au]p[sd]\t%[xyz]mm\d+, %[xyz]mm|\tmov\tv\d+.16b, v\d+.16b")


@pytest.mark.parametrize("channels", [128, 192, 256, 384])
@pytest.mark.parametrize("name", MULTIPLY_ADD)
def test_inner_loops_multiply_and_add_in_registers(name: str, channels: int) -> None:
    """At least half of the instructions are multiply-adds, and nothing is moved about.

    A few values may lie on the stack at the edges of an image, which are one block of a row, and
    on NEON, whose tiles take every register.
    """
    target = get_target(name)
    for spec in stem(channels):
        kernel = conv_kernel("conv", spec, default_tile(spec, target), target)
        loops = innermost_loops(assembly(kernel, target))
        products = [
            loop for loop in loops if any(re.search(MULTIPLY_ADD[name], line) for line in loop)
        ]
        assert products
        for loop in products:
            multiply_adds = sum(bool(re.search(MULTIPLY_ADD[name], line)) for line in loop)
            assert multiply_adds >= 0.5 * len(loop), kernel.shape
            spills = sum(bool(STACK.search(line) or COPY.search(line)) for line in loop)
            strict = spec.source is Source.PADDED and target.arch is Arch.X86_64
            assert spills <= (0 if strict else 0.05 * len(loop)), kernel.shape
