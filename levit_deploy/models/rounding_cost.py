"""What float32 costs the reference network on some images."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from levit_deploy.models.reference import Levit

Floats = NDArray[np.float32]

ORDERS = 8  # float32 sums in another order, in multiples of `rounding_cost`: verify/tolerance.py
LEAST = 2.0**-18  # of the range: 32 units in the last place of the largest logit
EVALUATIONS = 8  # one alone, of one logit, may happen to round to what is exact


def rounding_bound(net: Levit, images: Floats) -> float:
    """How far two float32 evaluations of the network may be apart, as a share of the range."""
    return max(LEAST, ORDERS * rounding_cost(net, images))


def rounding_cost(net: Levit, images: Floats) -> float:
    """How far float32 takes the reference from itself in float64, as a share of the range.

    The largest error of a logit in `EVALUATIONS` or more evaluations: of few images more than once,
    each pixel then moved by up to one unit in its last place, which is how normalising rounds it.
    """
    exact = evaluate(copy.deepcopy(net).double(), images.astype(np.float64))
    rng = np.random.default_rng(0)
    costs = [share_of_range(exact, evaluate(net, images))]
    for _ in range(1, -(-EVALUATIONS // len(images))):
        move = rng.uniform(-1, 1, images.shape) * np.finfo(np.float32).eps
        moved = (images * (1 + move)).astype(np.float32)
        costs.append(share_of_range(exact, evaluate(net, moved)))
    return float(np.max(costs))


def share_of_range(expected: NDArray[np.floating], got: NDArray[np.floating]) -> float:
    """The largest difference as a share of the range of `expected` and zero."""
    return float(np.abs(expected - got).max() / np.ptp(np.append(expected, 0.0)))


def evaluate(net: Levit, images: NDArray[np.floating]) -> NDArray[np.floating]:
    """Image by image, as a device would."""
    import torch  # the numbers above are read by commands that have no need of it

    with torch.inference_mode():
        return torch.cat([net(one[None]) for one in torch.from_numpy(images)]).numpy()
