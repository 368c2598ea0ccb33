"""Comparisons against numpy, and what a failure says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from levit_deploy.verify.comparison import compare
from levit_deploy.verify.tolerance import EXACT, STEPS, Tolerance

CLOSE = Tolerance("close", 1e-4, "a number for these tests")

LOGITS = np.random.default_rng(0).normal(0, 3, (5, 10)).astype(np.float32)
SPAN = float(LOGITS.max() - LOGITS.min())


def test_equal_logits_pass_exactly():
    result = compare(LOGITS, LOGITS.copy(), EXACT)
    assert result
    assert (result.max_error, result.error_of_range, result.same_top1) == (0.0, 0.0, 5)


def test_one_changed_bit_is_not_exact():
    other = LOGITS.copy()
    other[3, 4] = np.nextafter(other[3, 4], np.float32(np.inf))
    assert not compare(LOGITS, other, EXACT)
    assert compare(LOGITS, other, CLOSE)


@given(st.floats(1e-7, 1.0))
def test_the_error_is_a_fraction_of_the_range(fraction):
    other = LOGITS.copy()
    other[2, 7] -= np.float32(fraction * SPAN)
    expected = float(np.abs(LOGITS.astype(np.float64) - other).max())
    result = compare(LOGITS, other, CLOSE)
    assert result.max_error == expected
    assert result.error_of_range == pytest.approx(expected / SPAN, rel=1e-6)
    if fraction > 1.01 * CLOSE.fraction:
        assert not result


def test_a_failure_prints_the_tolerance_that_would_pass():
    other = LOGITS + np.float32(0.01 * SPAN)
    result = compare(LOGITS, other, CLOSE)
    assert not result
    assert "a tolerance of 1.0e-02 would pass" in result.describe()
    assert "allowed 1.0e-04" in result.describe()


def test_another_answer_fails_even_within_the_error():
    reference = np.array([[1.0, 1.002, 100.0, -100.0]], np.float32)
    winner = np.array([[3.0, 0.0, 2.9]], np.float32)
    loser = np.array([[2.8, 0.0, 2.9]], np.float32)
    assert not compare(winner, loser, CLOSE)
    assert compare(winner, loser, CLOSE).same_top1 == 0
    assert compare(reference, reference, CLOSE).same_top1 == 1


def test_a_draw_within_the_tolerance_is_no_other_answer():
    reference = np.array([[5.0, 5.0001, -5.0]], np.float32)
    swapped = np.array([[5.0001, 5.0, -5.0]], np.float32)
    assert compare(reference, swapped, CLOSE)
    assert not compare(reference, swapped, EXACT)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_fails(poison):
    other = LOGITS.copy()
    other[0, 0] = poison
    result = compare(LOGITS, other, CLOSE)
    assert not result
    assert result.error_of_range == np.inf
    assert not compare(other, LOGITS, CLOSE)


def test_logits_of_zero_allow_no_error():
    flat = np.zeros((2, 3), np.float32)
    assert compare(flat, flat, CLOSE)
    assert not compare(flat, flat + np.float32(1e-6), CLOSE)


def test_a_single_class_has_a_range_from_zero():
    one = np.array([[4.0]], np.float32)
    assert compare(one, one + np.float32(1e-4), CLOSE)
    assert not compare(one, one + np.float32(1e-3), CLOSE)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="cannot compare"):
        compare(LOGITS, LOGITS[:4], CLOSE)
    with pytest.raises(ValueError, match="cannot compare"):
        compare(LOGITS[:0], LOGITS[:0], CLOSE)


def test_a_class_multiplies_what_rounding_costs():
    tolerance = STEPS.of(3e-3)
    assert (tolerance.name, tolerance.fraction) == ("steps", pytest.approx(6e-3))
    assert tolerance.made_of.startswith("2 x 3.0e-03, of the model from itself")
    assert STEPS.of(0.0).fraction == STEPS.floor


@pytest.mark.parametrize("cost", [np.nan, np.inf])
def test_what_is_not_finite_allows_the_least(cost):
    """Logits that overflow are compared as they are, never within an infinite bound."""
    assert STEPS.of(cost).fraction == STEPS.floor
