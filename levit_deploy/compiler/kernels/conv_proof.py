"""Why no sum of a convolution in 16-bit integers wraps, shown from the weights themselves.

panels, as the kernel reads them  ->  "vpdpwssd, 32 bits: at most 2147.1 million"
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.conv_block_int16 import INT32_MAX, int16_block
from levit_deploy.compiler.kernels.conv_spec import ConvSpec, ConvTile
from levit_deploy.targets.target import Target


def prove_exact(
    panels: NDArray[np.int8], spec: ConvSpec, tile: ConvTile, target: Target, largest: int
) -> str:
    """What the sums can reach for any input of at most `largest` steps, in words.

    Two products of 16 bits fit 32, since no step is -32768. Raises AssertionError if a sum could
    leave its type: a mistake in a kernel or its packing.
    """
    family = int16_block(target)
    header = family.header * tile.width
    by_panel = panels.view(np.int16).reshape(-1, header + spec.depth * tile.width)
    shape = (len(by_panel), -1, tile.width, family.step_depth)
    magnitudes = np.abs(by_panel[:, header:].astype(np.int64)).reshape(shape)
    reached = largest * int(magnitudes.sum(axis=(1, 3)).max())
    assert reached <= INT32_MAX, f"a sum of 32 bits can reach {reached}"
    return f"{family.instruction(target)}, 32 bits: at most {reached / 1e6:.1f} million"
