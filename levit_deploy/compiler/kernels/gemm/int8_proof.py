"""Why no integer of an 8-bit product saturates or wraps, shown from the weights themselves.

panels, as the kernel reads them  ->  "pmaddubsw, 16 bits: -32,640 to 32,385, 32 bits: ..."
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.gemm.int8_panels import PanelCut
from levit_deploy.compiler.kernels.gemm.int8_tile import HEADER_BYTES

INT16 = np.iinfo(np.int16)
INT32 = np.iinfo(np.int32)


def prove_exact(panels: NDArray[np.int8], cut: PanelCut) -> str:
    """What the sums on the way can reach for any activations, in words.

    Raises AssertionError if they could leave their type: a mistake in a kernel or its packing.
    """
    initial, weights = unpack_panels(panels, cut)
    magnitudes = np.abs(weights.astype(np.int64))
    # Stored activations are at most 255 in magnitude.
    largest = int((np.abs(initial) + 255 * magnitudes.sum(axis=0)).max())
    assert largest <= INT32.max, f"a sum of 32 bits can reach {largest}"
    words = [cut.family.instruction]
    narrow = cut.family.extremes_of_16_bits(weights)
    if narrow:
        lowest, highest = narrow
        assert INT16.min <= lowest, f"a sum of 16 bits can reach {lowest}"
        assert highest <= INT16.max, f"a sum of 16 bits can reach {highest}"
        words.append(f"16 bits: {lowest:,} to {highest:,}")
    return ", ".join([*words, f"32 bits: at most {largest / 1e6:.1f} million"])


def unpack_panels(
    panels: NDArray[np.int8], cut: PanelCut
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Initial values (columns,) and weights (depth, columns), both with their padding."""
    initial = np.empty(cut.columns, np.int64)
    weights = np.empty((cut.depth, cut.columns), np.int8)
    at = 0
    for columns in cut.slices():
        width = columns.stop - columns.start
        initial[columns] = panels[at : at + 4 * width].view(np.int32)
        at += HEADER_BYTES * width
        size = cut.depth * width
        order = cut.family.pack(np.arange(size).reshape(cut.depth, width))
        panel = np.empty(size, np.int8)
        panel[order] = panels[at : at + size]
        weights[:, columns] = panel.reshape(cut.depth, width)
        at += size
    return initial, weights
