"""The stem's convolutions on every kind of CPU: the same bits where there is FMA, and the code."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.compiler.kernels.conv.family import default_tile
from levit_deploy.compiler.kernels.conv.kernel import conv_kernel
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, Destination, Source
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.tuning.assembly import STACK, assembly, innermost_loops
from levit_deploy.models.spec import IMAGENET
from levit_deploy.targets.table import get_target
from levit_deploy.targets.target import Arch
from tests.compiler.kernels.conv_cases import make_case, reference
from tests.compiler.kernels.linked import run_linked
from tests.compiler.kernels.running import Array

FIRST = ConvSpec(35, 3, 24, Activation.HARDSWISH, Source.IMAGE_F32, Destination.PADDED)
SPECS = (
    FIRST,
    replace(FIRST, source=Source.IMAGE_RGB8),
    ConvSpec(18, 8, 48, Activation.HARDSWISH, Source.PADDED, Destination.PADDED),
    ConvSpec(9, 12, 32, Activation.NONE, Source.PADDED, Destination.TOKENS),
)


def compute(spec: ConvSpec, target_name: str, folder: Path, shift: int = 0) -> Array:
    target = get_target(target_name)
    tile = default_tile(spec, target)
    kernel = conv_kernel("conv", spec, tile, target, IMAGENET)
    inputs = make_case(spec).inputs(tile)
    return run_linked(kernel, target, inputs, spec.destination_size, folder, shift=shift)


@pytest.mark.parametrize("name", ["x86-64-v4", "arm64"])
@pytest.mark.parametrize("spec", SPECS)
def test_fma_targets_give_the_same_bits(spec: ConvSpec, name: str, tmp_path: Path) -> None:
    other = compute(spec, name, tmp_path / name)
    assert other.tobytes() == compute(spec, "x86-64-v3", tmp_path / "v3").tobytes()


@pytest.mark.parametrize("name", ["x86-64", "armv7"])
@pytest.mark.parametrize("spec", SPECS)
def test_targets_without_fma_are_close(spec: ConvSpec, name: str, tmp_path: Path) -> None:
    expected, error = reference(make_case(spec))
    assert (np.abs(compute(spec, name, tmp_path) - expected) <= error).all()


@pytest.mark.parametrize("name", ["x86-64", "x86-64-v3", "x86-64-v4", "arm64", "armv7"])
@pytest.mark.parametrize("spec", SPECS[:2], ids=["f32", "rgb8"])
def test_an_image_may_lie_anywhere(spec: ConvSpec, name: str, tmp_path: Path) -> None:
    # ARMv7 traps on a misaligned vldr: a float array of the C caller is at a multiple of 4.
    shift = 4 if name == "armv7" and spec.source is Source.IMAGE_F32 else 1
    aligned = compute(spec, name, tmp_path / "aligned")
    assert aligned.tobytes() == compute(spec, name, tmp_path / "shifted", shift).tobytes()


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
