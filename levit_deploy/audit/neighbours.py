"""Features of all images -> whose nearest neighbour stays the same: what a search would find."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from levit_deploy.audit.result import RunnerName
from levit_deploy.verify.comparison import Logits

Pair = tuple[RunnerName, RunnerName]

_ROWS = 256  # images at a time, each against all: a block of similarities stays small
_SAME = 1e-9  # what rounding of sums in float64 may cost a cosine of two images that are equal


def same_neighbours(
    features: Mapping[RunnerName, Logits], pairs: Iterable[Pair]
) -> dict[Pair, int]:
    """Of how many images (runner, reference) find the same neighbour among the others.

    `features`: (images, values) of each runner. The neighbour is the other image whose features
    have the largest cosine; it is the same if, by the reference, none is nearer. An image that is
    alone has the same.
    """
    unit = {name: _unit(rows) for name, rows in features.items()}
    same = dict.fromkeys(pairs, 0)
    count = len(next(iter(unit.values())))
    for start in range(0, count, _ROWS):
        near = {name: _near(rows, start) for name, rows in unit.items()}
        for pair in same:
            found, wanted = (near[name] for name in pair)
            chosen = np.take_along_axis(wanted, found.argmax(axis=1)[:, None], axis=1)[:, 0]
            same[pair] += int((chosen >= wanted.max(axis=1) - _SAME).sum())
    return same


def _near(unit: NDArray[np.float64], start: int) -> NDArray[np.float64]:
    """Cosines of some images with all, (at most _ROWS, images); -1 with itself."""
    rows = unit[start : start + _ROWS]
    cosines: NDArray[np.float64] = rows @ unit.T
    cosines[np.arange(len(rows)), np.arange(start, start + len(rows))] = -1.0
    return cosines


def _unit(features: Logits) -> NDArray[np.float64]:
    """Each image's features at length 1; those of length 0 stay so."""
    wide = features.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: NDArray[np.float64] = wide / np.where(lengths == 0.0, 1.0, lengths)
    return unit
