"""Matrix products of floats beyond test_families: extreme numbers, packing, the code of loops."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from levit_deploy.compiler.kernels.gemm.float32 import default_tile, gemm_kernel, pack_weights
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmTile, Layout
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.compiler.tuning.assembly import assembly, innermost_loops
from levit_deploy.targets.table import get_target
from tests.compiler.kernels.gemm_cases import STREAM, constants_and_inputs
from tests.compiler.kernels.harness import Array, run_one
from tests.compiler.kernels.kernel_targets import FMA_TARGET

# An edge that is no whole vector, a rest of the depth.
SPEC = replace(STREAM, rows=23, columns=75, depth=37, activation=Activation.NONE)


@pytest.mark.parametrize("name", ["x86-64-v4", "arm64"])
@pytest.mark.parametrize("scale", [1e-25, 1e15], ids=["denormal", "large"])
def test_denormal_and_large_numbers_have_the_same_bits(scale: float, name: str) -> None:
    """Products of 1e-50 vanish beside a denormal bias; those of 1e30 are near the end of floats."""

    def result(target_name: str) -> Array:
        target = get_target(target_name)
        tile = default_tile(SPEC, target)
        inputs = [array * np.float32(scale) for array in constants_and_inputs(SPEC, tile)]
        kernel = gemm_kernel("gemm", SPEC, tile, target)
        return run_one(kernel, target, inputs, SPEC.output_size)

    here = result(FMA_TARGET.name)
    assert np.isfinite(here).all()
    assert here.any()
    assert here.tobytes() == result(name).tobytes()


def test_pack_weights_by_hand() -> None:
    weights = np.arange(1, 13, dtype=np.float32).reshape(2, 6)
    bias = np.float32([10, 20, 30, 40, 50, 60])
    tile = GemmTile(mr=1, nr=4, lanes=2, depth_unroll=1)
    first = [10, 20, 30, 40, 1, 2, 3, 4, 7, 8, 9, 10]
    second = [50, 60, 5, 6, 11, 12]
    assert pack_weights(weights, bias, tile).tolist() == first + second


X86_FMA, NEON_FMA = r"\tvfmadd\d+ps\t", r"\tfmla\tv.*\.s\[[0-3]\]"
MULTIPLY_ADD = {
    "x86-64": r"\tmulps\t",
    "x86-64-v3": X86_FMA + ".*%ymm",
    "x86-64-v4": X86_FMA + ".*%zmm",
    "arm64": NEON_FMA,
    "rpi3": NEON_FMA,
    "arm64-dotprod": NEON_FMA,
    "arm64-i8mm": NEON_FMA,
    "armv7": r"\tvmla\.f32\tq",
}
# Of the instructions of a loop. AVX loads a splat for every second or third multiply-add; SSE adds
# apart, and copies a splat before it multiplies; ARMv7 counts addresses up.
LEAST_SHARE = {"x86-64": 0.25, "x86-64-v3": 0.5, "x86-64-v4": 0.5, "armv7": 0.6}
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
