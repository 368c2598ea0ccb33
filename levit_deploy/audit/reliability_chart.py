"""Confidence bins -> a reliability diagram: how often what is said to be sure is right.

C. Guo et al., On Calibration of Modern Neural Networks (2017), figure 1. Units are percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from levit_deploy.audit.result import Accuracy, RunnerName

_LEAST, _MOST = 1.0, 4.0  # radius of a dot with next to no images, and with all


@dataclass(frozen=True)
class Dot:
    """A bin: `x` its confidence, `y` down from 100 to its accuracy."""

    x: float
    y: float
    radius: float
    title: str


@dataclass(frozen=True)
class Curve:
    runner: RunnerName
    path: str
    dots: tuple[Dot, ...]


def reliability(accuracies: tuple[Accuracy, ...]) -> tuple[Curve, ...]:
    """One curve a runner, the artifact's last, so that it lies on top."""
    order = sorted(accuracies, key=lambda entry: entry.runner is RunnerName.ARTIFACT)
    return tuple(map(_curve, order))


def _curve(accuracy: Accuracy) -> Curve:
    total = sum(one.images for one in accuracy.bins)
    dots = tuple(
        Dot(
            x=round(100 * one.confidence, 2),
            y=round(100 - 100 * one.accuracy, 2),
            radius=round(_LEAST + (_MOST - _LEAST) * math.sqrt(one.images / total), 2),
            title=f"{one.images:,} images of confidence {one.confidence:.2f}: "
            f"{one.accuracy:.2f} are right",
        )
        for one in accuracy.bins
    )
    path = " ".join(f"{dot.x},{dot.y}" for dot in dots)
    return Curve(accuracy.runner, path, dots)
