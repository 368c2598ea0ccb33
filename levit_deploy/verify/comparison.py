"""Do two sets of logits say the same? Truthy when they do; a failure says what would pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from levit_deploy.records import Extended
from levit_deploy.verify.tolerance import Tolerance

Logits = NDArray[np.float32]  # (images, classes)


@dataclass(frozen=True)
class Comparison:
    """The outcome of `compare`; `bool()` of it is whether it passed.

    `max_error`: largest absolute difference; `error_of_range`: the same as a fraction of the
    range of the reference's logits and zero, the smallest tolerance that would pass. Both are
    infinite if a value is not finite on one side only. `same_top1`: images on which both rank the
    same class first, a draw within the tolerance included.
    """

    tolerance: Tolerance
    images: int
    max_error: Extended
    error_of_range: Extended
    same_top1: int

    def __bool__(self) -> bool:
        return self.error_of_range <= self.tolerance.fraction and self.same_top1 == self.images

    def describe(self) -> str:
        """One line for people, with the smallest tolerance that would pass if it failed."""
        figures = (
            f"largest error {self.error_of_range:.1e} of the logits' range "
            f"(allowed {self.tolerance.fraction:.1e}), "
            f"same top-1 on {self.same_top1} of {self.images} images"
        )
        if self:
            return figures
        if self.error_of_range <= self.tolerance.fraction:
            return f"{figures}; no tolerance would pass"
        return f"{figures}; a tolerance of {self.error_of_range:.1e} would pass the error"


def compare(reference: Logits, actual: Logits, tolerance: Tolerance) -> Comparison:
    """Hold `actual` against `reference`, both (images, classes).

    Raises ValueError if the shapes differ: that is a mistake of the caller, not of the artifact.
    """
    if reference.shape != actual.shape or reference.ndim != 2 or reference.size == 0:
        raise ValueError(f"cannot compare logits {reference.shape} with {actual.shape}")
    expected, got = reference.astype(np.float64), actual.astype(np.float64)
    max_error = _largest_difference(expected, got)
    # Zero counts in, so that a single class has a range; non-finite logits have none.
    span = float(np.ptp(np.append(expected, 0.0))) if np.isfinite(expected).all() else 0.0
    error_of_range = 0.0 if max_error == 0.0 else (max_error / span if span > 0 else np.inf)
    return Comparison(
        tolerance=tolerance,
        images=len(expected),
        max_error=max_error,
        error_of_range=float(error_of_range),
        same_top1=int(_ranks_alike(expected, got, slack=tolerance.fraction * span).sum()),
    )


def _largest_difference(expected: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    """Largest |expected - got|; two NaN or two equal infinities are no difference."""
    if np.array_equal(expected, got, equal_nan=True):
        return 0.0
    if not (np.isfinite(expected).all() and np.isfinite(got).all()):
        return float("inf")
    return float(np.abs(expected - got).max())


def _ranks_alike(
    expected: NDArray[np.float64], got: NDArray[np.float64], slack: float
) -> NDArray[np.bool_]:
    """Per image: does `got` put first a class that the reference has within `slack` of first?"""
    chosen = np.take_along_axis(expected, got.argmax(axis=1)[:, None], axis=1)[:, 0]
    alike: NDArray[np.bool_] = got.argmax(axis=1) == expected.argmax(axis=1)
    alike |= chosen >= expected.max(axis=1) - slack
    return alike
