"""Weights as 8-bit steps: within the limits that kernels rely on, and as near as these allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from levit_deploy.calibration.rounding import weight_scales, weight_steps
from levit_deploy.compiler.kernels.gemm.int8_panels import within_limits

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
WEIGHTS = hnp.arrays(np.float64, SHAPES, elements=st.floats(-1024, 1024, width=32))


@given(WEIGHTS)
def test_steps_of_the_chosen_scales_are_the_nearest(weight: np.ndarray) -> None:
    scales = weight_scales(weight).astype(np.float64)
    steps = weight_steps(weight, scales.astype(np.float32))
    assert within_limits(steps)
    assert (np.abs(steps * scales - weight) <= 0.5001 * scales).all()


@given(WEIGHTS, st.floats(2**-10, 2**10, width=32))
def test_any_scales_give_steps_within_the_limits(weight: np.ndarray, scale: float) -> None:
    steps = weight_steps(weight, np.full(weight.shape[1], scale, np.float32))
    assert within_limits(steps)
    assert (steps * weight >= 0).all(), "no weight changes its sign"


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([127, 0, 0], [127, 0, 0]),
        ([100, 100, -127], [64, 64, -127]),
        ([-127, -2], [-127, -1]),
        ([127, -127], [127, -127]),
        ([4, 200], [3, 125]),
    ],
)
def test_what_exceeds_the_limits_is_taken_off(column: list[float], expected: list[int]) -> None:
    steps = weight_steps(np.array(column, np.float64)[:, None], np.ones(1, np.float32))
    assert steps.ravel().tolist() == expected


def test_scales_are_no_greater_than_needed() -> None:
    weight = np.array([[204.0, 102, 0], [0, 102, 0], [1, 1, 0]])
    np.testing.assert_array_equal(weight_scales(weight), np.float32([2, 2, 1]))
