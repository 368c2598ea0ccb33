"""Layers of the mean over the tokens: sizes around vectors, and their results in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from levit_deploy.compiler.kernels.gemm.float32 import pack_weights
from levit_deploy.compiler.kernels.gemm.spec import GemmTile
from levit_deploy.compiler.kernels.head import HEAD, HeadSpec
from levit_deploy.targets.target import Target
from tests.compiler.kernels.gemm_cases import EPS
from tests.compiler.kernels.harness import Array, Buffer, undefined
from tests.compiler.kernels.kernel_targets import FLOAT_TARGETS
from tests.compiler.kernels.suite import AROUND_VECTORS, Case, Suite, assert_within


def make_inputs(spec: HeadSpec) -> tuple[Array, Array, Array, Array]:
    """a, weights, bias, residual."""
    rng = np.random.default_rng(spec.classes)
    a = rng.standard_normal((spec.tokens, spec.channels), dtype=np.float32)
    weights = rng.standard_normal((spec.channels, spec.classes), dtype=np.float32)
    bias = rng.standard_normal(spec.classes, dtype=np.float32)
    return a, weights, bias, rng.standard_normal((spec.tokens, spec.classes), dtype=np.float32)


def constants_and_inputs(spec: HeadSpec, tile: GemmTile) -> list[Array]:
    a, weights, bias, residual = make_inputs(spec)
    return [a, pack_weights(weights, bias, tile), *[residual] * spec.residual]


def case(spec: HeadSpec) -> Case:
    def check(outputs: Sequence[Buffer], target: Target) -> None:
        a, weights, bias, residual = make_inputs(spec)
        mean = a.astype(np.float64).mean(axis=0)
        # Chains of roundings as in a matrix product: over the tokens, then over the channels.
        roundings = spec.tokens + 2 * spec.channels + 6
        magnitude = np.abs(a).mean(axis=0) @ np.abs(weights) + np.abs(bias)
        exact = mean @ weights + bias
        if spec.residual:
            exact += residual.astype(np.float64).mean(axis=0)
            magnitude += np.abs(residual).mean(axis=0)
        assert_within(outputs[0], exact, roundings * EPS * magnitude)

    return Case(
        spec,
        lambda tile, target: constants_and_inputs(spec, tile),
        lambda target: [undefined(spec.classes)],
        check,
    )


_SPECS = (
    [HeadSpec(4, 32, 1000)]
    + [HeadSpec(tokens, 64, 10) for tokens in (1, 2, 16)]
    + [HeadSpec(4, channels, 10) for channels in (1, *AROUND_VECTORS, 67)]
    + [HeadSpec(4, 32, classes) for classes in (1, 2, *AROUND_VECTORS, 127, 128, 129)]
    + [HeadSpec(tokens, 32, 48, residual=True) for tokens in (1, 2, 16)]
    + [HeadSpec(4, 19, classes, residual=True) for classes in (1, *AROUND_VECTORS, 130)]
)
SUITE = Suite(
    HEAD,
    FLOAT_TARGETS,
    {
        f"{spec.tokens}x{spec.channels}to{spec.classes}{'+' * spec.residual}": case(spec)
        for spec in _SPECS
    },
    cut="4x32to1000",
)
