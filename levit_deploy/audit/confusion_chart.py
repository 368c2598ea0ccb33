"""Confusion cells -> a picture of the whole matrix for each runner, and what classes cost.

A cell is a stroke one unit long in an SVG of as many units as there are classes. Up to NAMED
classes each cell has its title; beyond, cells of one shade are one path, so that a thousand classes
make a picture of some hundred kilobytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from levit_deploy.audit.result import AuditResult, ConfusionCell

NAMED = 50  # classes: above, a cell is too small to point at
NUMBERED = 20  # classes whose indices and counts can be read in the picture
SHADES = 8
_SEEN = 150  # classes whose cells are some pixels wide on any screen; beyond, cells overlap
_UNDER_TEXT = 0.5  # the deepest shade on which a count can be read
_ALONE = 0.6  # the faintest shade in which a single mistake is seen among a thousand classes


@dataclass(frozen=True)
class Cells:
    """Strokes of one shade, `opacity`; `right`: on the diagonal. `title`: empty for many."""

    path: str
    opacity: float
    right: bool
    title: str


@dataclass(frozen=True)
class Count:
    """How many images are in the cell at (x, y)."""

    x: int
    y: int
    text: str


@dataclass(frozen=True)
class Matrix:
    """Of one runner: rows are labels, columns what images are called. `thickness`: of strokes."""

    classes: int
    thickness: float
    cells: tuple[Cells, ...]
    counts: tuple[Count, ...]


@dataclass(frozen=True)
class ClassCost:
    """Of one class: its images, and how many of them each gets right."""

    label: int
    images: int
    reference_right: int
    artifact_right: int

    @property
    def drop(self) -> float:
        """The share of its images that is lost."""
        return (self.reference_right - self.artifact_right) / self.images


def matrices(result: AuditResult) -> tuple[Matrix, Matrix]:
    """(the reference's, the artifact's); of results with labels."""
    reference = [(cell, cell.reference_count) for cell in result.confusion]
    artifact = [(cell, cell.artifact_count) for cell in result.confusion]
    return _matrix(result, reference), _matrix(result, artifact)


def class_costs(result: AuditResult) -> tuple[ClassCost, ...]:
    """Of every class that has images, those that lose most first."""
    images, right = (
        _images(result),
        {c.label: c for c in result.confusion if c.label == c.predicted},
    )
    found = []
    for label, count in images.items():
        own = right.get(label)
        pair = (own.reference_count, own.artifact_count) if own else (0, 0)
        found.append(ClassCost(label, count, *pair))
    return tuple(sorted(found, key=lambda cost: (-cost.drop, cost.label)))


def worst_pairs(result: AuditResult) -> tuple[ConfusionCell, ...]:
    """Mistakes, those that the artifact makes most often first."""
    wrong = [cell for cell in result.confusion if cell.label != cell.predicted]
    order = sorted(wrong, key=lambda c: (-c.artifact_count, -c.reference_count, c.label))
    return tuple(order)


def _images(result: AuditResult) -> dict[int, int]:
    images: dict[int, int] = {}
    for cell in result.confusion:
        images[cell.label] = images.get(cell.label, 0) + cell.reference_count
    return images


def _matrix(result: AuditResult, counts: Iterable[tuple[ConfusionCell, int]]) -> Matrix:
    classes, images = result.audited.answers, _images(result)
    shaded = [
        (cell, count, -(-SHADES * count // images[cell.label])) for cell, count in counts if count
    ]
    thickness = max(1.0, round(classes / _SEEN, 1))
    numbers = shaded if classes <= NUMBERED else []
    deepest = _UNDER_TEXT if numbers else 1.0
    cells = _named(result, shaded, deepest) if classes <= NAMED else _merged(shaded, thickness)
    return Matrix(
        classes=classes,
        thickness=thickness,
        cells=tuple(cells),
        counts=tuple(Count(cell.predicted, cell.label, str(count)) for cell, count, _ in numbers),
    )


def _named(
    result: AuditResult, shaded: Iterable[tuple[ConfusionCell, int, int]], deepest: float
) -> Iterator[Cells]:
    name, images = result.audited.class_name, _images(result)
    for cell, count, shade in shaded:
        called = f"{name(cell.label)} called {name(cell.predicted)}"
        title = f"{called}: {count} of {images[cell.label]}"
        right, opacity = cell.label == cell.predicted, round(deepest * shade / SHADES, 3)
        yield Cells(_stroke(cell, 1.0), opacity, right, title)


def _merged(shaded: Iterable[tuple[ConfusionCell, int, int]], thickness: float) -> Iterator[Cells]:
    paths: dict[tuple[bool, int], list[str]] = {}
    for cell, _, shade in shaded:
        key = cell.label == cell.predicted, shade
        paths.setdefault(key, []).append(_stroke(cell, thickness))
    for (right, shade), strokes in sorted(paths.items()):
        yield Cells("".join(strokes), max(_ALONE, shade / SHADES), right, "")


def _stroke(cell: ConfusionCell, length: float) -> str:
    """About the middle of the cell."""
    return f"M{cell.predicted + 0.5 - length / 2:g} {cell.label}.5h{length:g}"
