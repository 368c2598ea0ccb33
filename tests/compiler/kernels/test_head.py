"""The logits are the caller's buffer: they may lie at any address of a float."""

from __future__ import annotations

from dataclasses import replace

import pytest

from levit_deploy.compiler.kernels.head import HeadSpec, default_tile, head_kernel
from levit_deploy.targets.target import Target
from tests.compiler.kernels.harness import Call, run, undefined
from tests.compiler.kernels.head_cases import constants_and_inputs
from tests.compiler.kernels.kernel_targets import FLOAT_TARGETS


@pytest.mark.parametrize("target", FLOAT_TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
def test_the_same_bits_at_any_address(residual: bool, target: Target) -> None:
    spec = HeadSpec(tokens=5, channels=37, classes=77, residual=residual)
    tile = default_tile(spec, target)
    kernel = head_kernel("head", spec, tile, target)
    assert kernel.unaligned
    aligned = Call(kernel, constants_and_inputs(spec, tile), [undefined(spec.classes)])
    [[logits], [shifted]] = run([aligned, replace(aligned, shift=4)], target)
    assert shifted.tobytes() == logits.tobytes()
