"""gemm and head on every kind of CPU: the same bits where there is FMA, and the code."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from levit_deploy.compiler.kernels.gemm.float32 import default_tile, gemm_kernel, pack_weights
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, Layout
from levit_deploy.compiler.kernels.head import HeadSpec, head_kernel
from levit_deploy.compiler.kernels.head import default_tile as default_head_tile
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.tuning.assembly import assembly, innermost_loops
from levit_deploy.targets.table import get_target
from tests.compiler.kernels.gemm_cases import constants_and_inputs, reference, rows_of
from tests.compiler.kernels.linked import run_linked
from tests.compiler.kernels.running import Array

# Two sizes of rows and of panels, an edge that is no whole vector, a rest of the depth.
ROWS = GemmSpec(23, 75, 37, Activation.HARDSWISH, True, Layout.ROWS)
PANELS = GemmSpec(16, 80, 33, Activation.NONE, False, Layout.PANELS, gather_side=7)
SPECS = pytest.mark.parametrize("spec", [ROWS, PANELS], ids=["rows", "panels"])


def compute(spec: GemmSpec, target_name: str, folder: Path, scale: float = 1) -> Array:
    target = get_target(target_name)
    tile = default_tile(spec, target)
    kernel = gemm_kernel("gemm", spec, tile, target)
    inputs = [array * np.float32(scale) for array in constants_and_inputs(spec, tile)]
    return rows_of(spec, run_linked(kernel, target, inputs, spec.output_size, folder))


@pytest.mark.parametrize("name", ["x86-64-v4", "arm64"])
@SPECS
def test_fma_targets_give_the_same_bits(spec: GemmSpec, name: str, tmp_path: Path) -> None:
    other = compute(spec, name, tmp_path / name)
    assert other.tobytes() == compute(spec, "x86-64-v3", tmp_path / "v3").tobytes()


@pytest.mark.parametrize("scale", [1e-25, 1e15], ids=["denormal", "large"])
def test_denormal_and_large_numbers_too(scale: float, tmp_path: Path) -> None:
    """Products of 1e-50 vanish beside a denormal bias; those of 1e30 are near the end of floats."""
    spec = replace(ROWS, activation=Activation.NONE)
    result = compute(spec, "x86-64-v3", tmp_path / "v3", scale)
    assert np.isfinite(result).all()
    assert result.any()
    assert result.tobytes() == compute(spec, "arm64", tmp_path / "arm64", scale).tobytes()


@pytest.mark.parametrize("name", ["x86-64", "armv7"])
@SPECS
def test_targets_without_fma_are_close(spec: GemmSpec, name: str, tmp_path: Path) -> None:
    expected, error = reference(spec)
    assert (np.abs(compute(spec, name, tmp_path) - expected) <= error).all()


@pytest.mark.parametrize("name", ["x86-64-v4", "arm64"])
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_head_gives_the_same_bits_at_any_address(residual: bool, name: str, tmp_path: Path) -> None:
    spec = HeadSpec(tokens=5, channels=37, classes=77, residual=residual)
    rng = np.random.default_rng(0)
    a, weights, bias, added = (
        rng.standard_normal(shape, dtype=np.float32) for shape in [(5, 37), (37, 77), 77, (5, 77)]
    )

    def logits(target_name: str, shift: int) -> bytes:
        target = get_target(target_name)
        tile = default_head_tile(spec, target)
        inputs = [a, pack_weights(weights, bias, tile), *[added] * residual]
        kernel = head_kernel("head", spec, tile, target)
        folder = tmp_path / f"{target_name}-{shift}"
        return run_linked(kernel, target, inputs, spec.classes, folder, shift=shift).tobytes()

    assert logits(name, shift=4) == logits("x86-64-v3", shift=0)


X86_FMA, NEON_FMA = r"\tvfmadd\d+ps\t", r"\tfmla\tv.*\.s\[[0-3]\]"
MULTIPLY_ADD = {
    "x86-64": r"\tmulps\t",
    "x86-64-v3": X86_FMA + ".*%ymm",
    "x86-64-v4": X86_FMA + ".*%zmm",
    "arm64": NEON_FMA,
    "rpi3": NEON_FMA,
    "arm64-dotprod": NEON_FMA,
    "arm64-i8mm": NEON_FMA,
    "armv7": r"\tvmul\.f32\tq",
}
# Of the instructions of a loop. AVX loads a splat for every second or third multiply-add; SSE and
# ARMv7 add apart, and SSE copies a splat before it multiplies.
LEAST_SHARE = {"x86-64": 0.25, "x86-64-v3": 0.5, "x86-64-v4": 0.5, "armv7": 0.3}
NEON_LEAST_SHARE = 0.79  # weights by ldp, four values of a by one load
STACK = re.compile(r"%[xyz]mm.*\(%rsp|\(%rsp.*%[xyz]mm|\t(?:ld|st)\S*\t[qvd].*\[sp|\tadd\t.*\bsp\b")
COPY = re.compile(r"\tvmov[au]p[sd]\t%[xyz]mm\d+, %[xyz]mm|\tmov\tv\d+.16b, v\d+.16b")
LAYERS = (
    GemmSpec(196, 640, 128, Activation.NONE, False, Layout.PANELS),
    GemmSpec(49, 512, 256, Activation.HARDSWISH, False, Layout.ROWS),
    GemmSpec(49, 128, 128, Activation.NONE, False, Layout.PANELS, gather_side=14),
    GemmSpec(16, 384, 768, Activation.NONE, True, Layout.ROWS),
)


@pytest.mark.parametrize("name", MULTIPLY_ADD)
@pytest.mark.parametrize("spec", LAYERS, ids=lambda spec: f"{spec.rows}x{spec.columns}")
def test_the_loop_over_the_depth_multiplies_adds_and_loads(spec: GemmSpec, name: str) -> None:
    target = get_target(name)
    kernel = gemm_kernel("gemm", spec, default_tile(spec, target), target)
    loops = innermost_loops(assembly(kernel, target))
    products = [[re.search(MULTIPLY_ADD[name], line) for line in loop] for loop in loops]
    assert any(map(any, products))
    for loop, multiply_adds in zip(loops, products, strict=True):
        if any(multiply_adds):
            share = sum(map(bool, multiply_adds)) / len(loop)
            assert share >= LEAST_SHARE.get(name, NEON_LEAST_SHARE)
            assert not [line for line in loop if STACK.search(line) or COPY.search(line)]
