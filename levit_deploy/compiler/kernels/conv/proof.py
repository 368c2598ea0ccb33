"""Why no sum of a convolution in 16-bit integers wraps, shown from the weights themselves.

panels, as the kernel reads them  ->  "vpdpwssd, 32 bits: at most 2147.1 million"
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.conv.int16 import (
    INT32_MAX,
    LARGEST,
    largest_sum,
)
from levit_deploy.compiler.kernels.conv.spec import ConvSpec, ConvTile
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.targets.target import Target


def prove_exact(
    panels: NDArray[np.int8], spec: ConvSpec, tile: ConvTile, target: Target, largest: int
) -> str:
    """What the sums can reach for any input of at most `largest` steps, in words.

    Raises AssertionError if one could leave its type: a mistake in a kernel or its packing.
    """
    family = isa_of(target).int16_block(spec.in_channels)
    header = family.header * tile.width
    by_panel = panels.view(np.int16).reshape(
        -1, header + family.weight_size(spec.depth) * tile.width
    )
    weights = np.stack([family.unpack(panel[header:], tile.width) for panel in by_panel])
    magnitudes = np.abs(weights.astype(np.int64))
    assert max(largest, int(magnitudes.max())) <= LARGEST, "a byte does not hold its half"
    reached = largest_sum(largest, int(magnitudes.sum(axis=1).max()), spec.depth)
    assert reached <= INT32_MAX, f"a sum of 32 bits can reach {reached}"
    return f"{family.instruction}, 32 bits: at most {reached / 1e6:.1f} million"
