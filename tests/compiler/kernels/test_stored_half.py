"""Products with stored weights of 16 bits have the bits of the float kernel on the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from levit_deploy.compiler.kernels.gemm.float32 import default_tile, gemm_kernel, pack_weights
from levit_deploy.compiler.kernels.gemm.spec import GemmSpec, GemmStoredHalfSpec, Layout
from levit_deploy.compiler.kernels.gemm.stored_half import (
    pack_bias,
    pack_halves,
    stored_half_kernel,
)
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.half_format import HalfFormat
from levit_deploy.targets.table import get_target
from tests.compiler.kernels.half_cases import stored_inputs
from tests.compiler.kernels.harness import Call, run, undefined

SHAPE = (9, 40, 33, Activation.HARDSWISH, True, Layout.ROWS)


@pytest.mark.parametrize("name", ["x86-64", "x86-64-v4", "arm64", "armv7"])
@pytest.mark.parametrize("format", HalfFormat)
def test_the_bits_are_those_of_the_widened_weights(format: HalfFormat, name: str) -> None:
    """Denormal weights of float16 included, where it is widened by an instruction and by hand."""
    target, spec = get_target(name), GemmStoredHalfSpec(*SHAPE, format=format)
    tile = default_tile(spec, target)
    a, weights, bias, residual = stored_inputs(spec, hostile=True)
    halves = [a, pack_halves(weights, format, tile, target), pack_bias(bias, tile), residual]
    floats = [a, pack_weights(weights, bias, tile), residual]
    kernels = [
        stored_half_kernel("stored", spec, tile, target),
        gemm_kernel("floats", GemmSpec(*SHAPE), tile, target),
    ]
    [[got], [expected]] = run(
        [
            Call(kernel, inputs, [undefined(spec.output_size)])
            for kernel, inputs in zip(kernels, (halves, floats), strict=True)
        ],
        target,
    )
    np.testing.assert_array_equal(got, expected)
