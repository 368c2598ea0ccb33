"""head against numpy in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from levit_deploy.compiler.kernels.gemm.float32 import pack_weights
from levit_deploy.compiler.kernels.head import HeadSpec, head_kernel
from levit_deploy.compiler.kernels.head import default_tile as default_head_tile
from levit_deploy.targets.target import Target
from tests.compiler.kernels.running import Array, run

EPS = 2.0**-24  # one float32 rounding


def make_inputs(spec: HeadSpec) -> tuple[Array, Array, Array, Array]:
    """a, weights, bias, residual."""
    rng = np.random.default_rng(spec.classes)
    a = rng.standard_normal((spec.tokens, spec.channels), dtype=np.float32)
    weights = rng.standard_normal((spec.channels, spec.classes), dtype=np.float32)
    bias = rng.standard_normal(spec.classes, dtype=np.float32)
    return a, weights, bias, rng.standard_normal((spec.tokens, spec.classes), dtype=np.float32)


@pytest.mark.parametrize(
    "spec",
    [HeadSpec(tokens, 64, 10) for tokens in (1, 2, 16)]
    + [HeadSpec(4, channels, 10) for channels in (1, 3, 4, 7, 9, 16, 17, 67)]
    + [HeadSpec(4, 32, classes) for classes in (1, 2, 7, 8, 9, 16, 127, 128, 129, 1000)]
    + [HeadSpec(tokens, 32, 48, residual=True) for tokens in (1, 2, 16)]
    + [HeadSpec(4, 19, classes, residual=True) for classes in (1, 7, 8, 9, 15, 16, 17, 130)],
    ids=lambda spec: f"{spec.tokens}x{spec.channels}to{spec.classes}{'+' * spec.residual}",
)
def test_head(spec: HeadSpec, host_target: Target) -> None:
    a, weights, bias, residual = make_inputs(spec)
    tile = default_head_tile(spec, host_target)
    kernel = head_kernel("head", spec, tile, host_target)
    panels = pack_weights(weights, bias, tile)
    inputs = [a, panels, *[residual] * spec.residual]
    logits = run(kernel, host_target, inputs, spec.classes)

    mean = a.astype(np.float64).mean(axis=0)
    # Chains of roundings as in the test of gemm: over the tokens, then over the channels.
    roundings = spec.tokens + 2 * spec.channels + 6
    magnitude = np.abs(a).mean(axis=0) @ np.abs(weights) + np.abs(bias)
    exact = mean @ weights + bias
    if spec.residual:
        exact += residual.astype(np.float64).mean(axis=0)
        magnitude += np.abs(residual).mean(axis=0)
    assert (np.abs(logits - exact) <= roundings * EPS * magnitude).all()

    cuts = range(kernel.tasks + 1)
    ranges = list(itertools.pairwise(cuts))
    split = run(kernel, host_target, inputs, spec.classes, ranges)
    assert split.tobytes() == logits.tobytes()
