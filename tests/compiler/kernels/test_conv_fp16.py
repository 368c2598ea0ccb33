"""Convolutions in float16 beyond test_families: what they compute, the code of their loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from levit_deploy.compiler.kernels.conv.block_fp16 import Fp16Block
from levit_deploy.compiler.kernels.conv.family import default_tile
from levit_deploy.compiler.kernels.conv.kernel import conv_kernel
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.tuning.assembly import assembly, hot_loops, spills
from levit_deploy.half_format import FP16_CHAIN
from levit_deploy.models.spec import IMAGENET
from levit_deploy.targets.table import get_target
from tests.compiler.kernels.conv_cases import FIRST, make_layer
from tests.compiler.kernels.conv_fp16_cases import LAYERS, SUITE, convolution
from tests.compiler.kernels.harness import Call, run, undefined
from tests.compiler.kernels.suite import assert_same_bytes, written

HALF_UNIT = 2.0**-11  # of a rounding to float16, relative
LEAST_HALF = 2.0**-25  # the same of subnormal numbers, absolute


@pytest.mark.parametrize("name", ["in many ways", "two chains", "chains of two sizes", "last"])
def test_the_sums_are_those_of_a_convolution(name: str) -> None:
    """As near to torch's in float64 as rounding to float16 after each product leaves them."""
    layer = LAYERS[name]

    def convolve(*arrays: object) -> np.ndarray:
        x, w, b = (torch.from_numpy(np.asarray(a, np.float64)) for a in arrays)
        x = x.permute(2, 0, 1)[None]
        result = torch.nn.functional.conv2d(x, w, b, stride=2, padding=1)
        return result[0].permute(1, 2, 0).numpy()

    arrays = (layer.x, layer.weights, layer.bias)
    exact = convolve(*arrays)
    magnitude = convolve(*map(np.abs, arrays))
    off = np.abs(convolution(layer) - exact)
    bound = 1.01 * FP16_CHAIN * HALF_UNIT * magnitude + layer.spec.depth * LEAST_HALF
    assert (off <= bound).all()
    assert np.linalg.norm(off) < 2e-3 * np.linalg.norm(exact)  # a wrong product is far above


def test_cases_are_hostile() -> None:
    with np.errstate(all="ignore"):
        too_large, stored = (
            convolution(LAYERS["too large"]),
            convolution(LAYERS["too large to store"]),
        )
    assert np.isnan(too_large).any()
    assert np.isinf(too_large).any()
    assert (np.abs(stored[np.isfinite(stored)]) > 65520).any()
    small = np.finfo(np.float16).smallest_normal
    assert (np.abs(LAYERS["subnormal numbers"].x) < small).mean() > 0.9
    products = LAYERS["subnormal products"]
    sums = convolution(products) - products.bias
    assert (np.abs(sums) < small).all()
    assert sums.any()


def test_the_first_convolution_rounds_its_result() -> None:
    """Of both kinds of images, to the nearest float16."""
    target = get_target("arm64-dotprod")
    layer = make_layer(replace(FIRST, in_size=35, out_channels=16, source=Source.IMAGE_RGB8))

    def call(source: Source, destination: Destination) -> Call:
        spec = replace(layer.spec, source=source, destination=destination)
        tile = default_tile(spec, target)
        kernel = conv_kernel("conv", spec, tile, target, IMAGENET)
        output = undefined(spec.destination_size, destination.dtype)
        return Call(kernel, replace(layer, spec=spec).inputs(tile), [output])

    ways = [
        (Source.IMAGE_F32, Destination.PADDED),
        (Source.IMAGE_F32, Destination.PADDED_FP16),
        (Source.IMAGE_RGB8, Destination.PADDED_FP16),
    ]
    [floats], *others = run([call(*way) for way in ways], target)
    for [halves] in others:
        np.testing.assert_array_equal(halves, floats.astype(np.float16))


@pytest.mark.parametrize(
    ("depth", "chains"),
    [(12, [12]), (48, [48]), (72, [40, 32]), (96, [48, 48]), (132, [48, 48, 36]), (192, [64] * 3)],
)
def test_chains(depth: int, chains: list[int]) -> None:
    assert Fp16Block.chains(depth) == chains


def stem(channels: int) -> list[ConvSpec]:
    """The three convolutions behind the first one of a LeViT at 224 x 224."""
    half, hardswish = Source.PADDED_FP16, Activation.HARDSWISH
    c8, c4, c2 = channels // 8, channels // 4, channels // 2
    return [
        ConvSpec(112, c8, c4, hardswish, half, Destination.PADDED_FP16),
        ConvSpec(56, c4, c2, hardswish, half, Destination.PADDED_FP16),
        ConvSpec(28, c2, channels, Activation.NONE, half, Destination.TOKENS),
    ]


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("arm64-dotprod", 128),
        *(
            pytest.param(name, channels, marks=pytest.mark.slow)
            for name in ("arm64-dotprod", "arm64-i8mm")
            for channels in (192, 256, 384)
        ),
    ],
)
def test_inner_loops_multiply_and_add_in_registers(name: str, channels: int) -> None:
    """Eight products in each of at least 3/4 of the instructions. On the stack are the registers
    that a function must keep, 8 instructions, and for blocks of either size the 8 registers of a
    panel's bias, 32; Neoverse V1's schedule puts a few values there that are read far ahead."""
    target = get_target(name)
    free = 0 if name == "arm64-dotprod" else 10
    for spec in stem(channels):
        text = assembly(conv_kernel("c", spec, default_tile(spec, target), target), target)
        loops = hot_loops(text)
        products = [sum("\tfmla\t" in line and ".8h" in line for line in loop) for loop in loops]
        hot = [(loop, count) for loop, count in zip(loops, products, strict=True) if count]
        assert hot
        for loop, count in hot:
            assert count >= 0.75 * len(loop), spec
            assert spills([loop]) <= free, spec
        assert spills([text.splitlines()]) <= 40, spec


@pytest.mark.slow
def test_every_cpu_gives_the_same_bits() -> None:
    there = written(SUITE, get_target("arm64-dotprod"))
    here = written(SUITE, get_target("arm64-i8mm"))
    for name in SUITE.cases:
        assert_same_bytes(here.cases[name], there.cases[name])
