"""head against numpy in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from levit_deploy.compiler.kernels.gemm import pack_weights
from levit_deploy.compiler.kernels.head import HeadSpec, default_head_tile, head_kernel
from levit_deploy.targets.target import Target
from tests.compiler.kernels.running import Array, run

EPS = 2.0**-24  # one float32 rounding


def make_inputs(spec: HeadSpec) -> tuple[Array, Array, Array]:
    """a, weights, bias."""
    rng = np.random.default_rng(spec.classes)
    a = rng.standard_normal((spec.tokens, spec.channels), dtype=np.float32)
    weights = rng.standard_normal((spec.channels, spec.classes), dtype=np.float32)
    return a, weights, rng.standard_normal(spec.classes, dtype=np.float32)


@pytest.mark.parametrize(
    "spec",
    [HeadSpec(tokens, 64, 10) for tokens in (1, 2, 16)]
    + [HeadSpec(4, channels, 10) for channels in (1, 3, 4, 7, 9, 16, 17, 67)]
    + [HeadSpec(4, 32, classes) for classes in (1, 2, 7, 8, 9, 16, 127, 128, 129, 1000)],
    ids=lambda spec: f"{spec.tokens}x{spec.channels}to{spec.classes}",
)
def test_head(spec: HeadSpec, host_target: Target) -> None:
    a, weights, bias = make_inputs(spec)
    tile = default_head_tile(spec, host_target)
    kernel = head_kernel("head", spec, tile, host_target)
    panels = pack_weights(weights, bias, tile)
    logits = run(kernel, host_target, [a, panels], spec.classes)

    mean = a.astype(np.float64).mean(axis=0)
    # Chains of roundings as in the test of gemm: over the tokens, then over the channels.
    roundings = spec.tokens + 2 * spec.channels + 4
    magnitude = np.abs(a).mean(axis=0) @ np.abs(weights) + np.abs(bias)
    assert (np.abs(logits - (mean @ weights + bias)) <= roundings * EPS * magnitude).all()

    cuts = range(kernel.tasks + 1)
    ranges = list(itertools.pairwise(cuts))
    split = run(kernel, host_target, [a, panels], spec.classes, ranges)
    assert split.tobytes() == logits.tobytes()
