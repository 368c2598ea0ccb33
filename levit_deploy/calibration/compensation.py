"""Weights to whole steps so that what the rounding of one does is made up for by others.

What a layer reads is correlated: column after column is rounded, and its error is taken off the
columns that are still to come, each by as much as makes up for it best on what the layer saw
(Frantar et al., "GPTQ", ICLR 2023, section 3; Hassibi and Stork, "Optimal Brain Surgeon", 1993).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.calibration.rounding import PAIR_LIMIT, WEIGHT_LIMIT
from levit_deploy.network.network import Float64

_DAMPING = 1e-2  # of the mean square of an input: directions that were hardly seen stay put
_BLOCK = 64  # columns whose errors the later ones are told of at once: the product is the cost


def linear_steps(
    steps: Float64, nearest: NDArray[np.int8], even: Float64, odd: Float64
) -> NDArray[np.int8]:
    """Whole numbers for a linear layer's `steps` (in, out), not whole yet.

    `nearest`: to `steps`; kept if, on the odd images, what the even ones teach is no better.
    `even`, `odd`: (in, in), mean of the products of two inputs over the images of each half.
    """

    def error(rounded: NDArray[np.int8]) -> float:
        difference = rounded - steps
        return float(np.sum(difference * (odd @ difference)))

    if error(compensated_steps(steps, even, paired=True)) >= error(nearest):
        return nearest
    return compensated_steps(steps, even + odd, paired=True)


def compensated_steps(steps: Float64, squares: Float64, *, paired: bool) -> NDArray[np.int8]:
    """Whole numbers in [-127, 127] for `steps` (in, out), not whole yet.

    `squares`: (in, in), mean of the products of two inputs. `paired`: inputs 2 k and 2 k + 1 have a
    sum in [-128, 128].
    """
    order = np.argsort(-squares.diagonal(), kind="stable")
    position = np.argsort(order)
    depth = len(steps)
    damped = squares + _DAMPING * squares.trace() / depth * np.eye(depth)
    # Row j: how the inputs from j on make up for an error of input j, all before being fixed.
    rows = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    steps = steps[order]
    for start in range(0, depth, _BLOCK):
        block = slice(start, min(start + _BLOCK, depth))
        errors = np.zeros_like(steps[block])
        for j in range(block.start, block.stop):
            low, high = -WEIGHT_LIMIT, WEIGHT_LIMIT
            partner = order[j] ^ 1
            if paired and partner < depth and position[partner] < j:
                other = steps[position[partner]]
                low, high = (
                    np.maximum(low, -PAIR_LIMIT - other),
                    np.minimum(high, PAIR_LIMIT - other),
                )
            rounded = np.clip(np.rint(steps[j]), low, high)
            errors[j - start] = (steps[j] - rounded) / rows[j, j]
            steps[j] = rounded
            steps[j + 1 : block.stop] -= np.outer(rows[j, j + 1 : block.stop], errors[j - start])
        steps[block.stop :] -= rows[block, block.stop :].T @ errors
    return steps[position].astype(np.int8)
