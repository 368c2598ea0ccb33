"""How many images could tell what these cannot: formulas, in plain numbers."""

from __future__ import annotations

import math
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)  # of a two-sided interval of 95 %


def images_for_drop(images: int, moved: int, drop: float) -> int:
    """How many images a drop (a share) needs to lie outside of the 95 % interval of none.

    `moved`: of `images`, those that only one of two gets right. The paired difference of shares has
    the variance moved / images^2 where there is none. If nothing moved at all, so many that a share
    of `drop` had shown itself (J. A. Hanley, A. Lippman-Hand, If nothing goes wrong, is everything
    all right? JAMA 249 (1983), p. 1743).
    """
    if not moved:
        return math.ceil(-math.log(0.05) / drop)
    return math.ceil(moved / images * (_Z / drop) ** 2)


def images_for_share(images: int, count: int, limit: float) -> int:
    """How many images a share of `count` in `images` needs, so that its interval is above `limit`.

    Wilson's interval holds the shares p0 with (p - p0)^2 <= z^2 p0 (1 - p0) / n, solved for n. A
    share nearer to the limit than half an image is taken to be half an image away.
    """
    distance = max(count / images - limit, 0.5 / images)
    return math.ceil(_Z**2 * limit * (1 - limit) / distance**2)
