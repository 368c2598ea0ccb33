"""16-bit convolutions: their constants, how far steps may go, and why no sum wraps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.conv.row import panel_depth, row_height
from levit_deploy.compiler.kernels.conv.spec import KERNEL_SIDE, ConvSpec, ConvTile, Source
from levit_deploy.compiler.kernels.conv.winograd import TAPS, weight_sums
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.targets.target import Target

# Of steps and of weights: what `block_bytes` can multiply.
LARGEST = 8191
INT32_MAX = int(np.iinfo(np.int32).max)

Steps = NDArray[np.int16] | NDArray[np.int8]  # weights: of 16 or of 8 bits


def largest_step(weights: Steps) -> int:
    """The largest |q| for which `largest_sum` of `weights` (out, in, 3, 3) fits int32; 0 if weights
    are too large themselves."""
    magnitudes = np.abs(weights.astype(np.int64)).reshape(len(weights), -1)
    if magnitudes.max() > LARGEST:
        return 0
    largest, depth = int(magnitudes.sum(axis=1).max()), magnitudes.shape[1]
    spare = INT32_MAX - largest_sum(0, largest, depth, weights.dtype == np.int8)
    return min(LARGEST, spare // max(largest, 1))


def largest_sum(step: int, magnitudes: int, depth: int, by_bytes: bool) -> int:
    """What sums of steps up to `step`, and of weights whose magnitudes add up to `magnitudes`, can
    reach on the way: where bytes are multiplied, the sum of low parts comes last.

    `by_bytes`: whether the weights have 8 bits and are no parts themselves.
    """
    return step * magnitudes + 64 * (magnitudes if by_bytes else 64 * depth)


def pack_weights_int16(
    weights: Steps,
    multiplier: NDArray[np.float32],
    bias: NDArray[np.float32],
    spec: ConvSpec,
    tile: ConvTile,
    target: Target,
) -> NDArray[np.int16]:
    """The constant of a 16-bit `conv_kernel`, flat, as `block_int16` says.

    `weights` (out, in, 3, 3), of 8 bits for a kernel that reads PADDED_INT16_BYTES; `multiplier`
    (out,): what one step of the input times one step of the weights is worth; `bias` (out,).
    """
    isa = isa_of(target)
    family = isa.int16_block(weights.shape[1], weights.dtype == np.int8)
    wide = weights.astype(np.int16)
    taps = wide if row_height(spec, isa) == 1 else weight_sums(wide)
    columns = taps.transpose(2, 3, 1, 0).reshape(-1, len(weights))
    parts: list[NDArray[np.int16]] = []
    for first in range(0, len(weights), tile.width):
        panel = slice(first, first + tile.width)
        header = np.concatenate([multiplier[panel], bias[panel]]).astype(np.float32)
        parts += [header.view(np.int16), family.pack(columns[:, panel])]
    return np.concatenate(parts)


def prove_exact(
    panels: NDArray[np.int8], spec: ConvSpec, tile: ConvTile, target: Target, largest: int
) -> str:
    """What sums of `panels`, as the kernel reads them, can reach for any input of at most `largest`
    steps, such as "vpdpwssd, 32 bits: at most 2147.1 million".

    Raises AssertionError if one could leave its type: a mistake in a kernel or its packing.
    """
    by_bytes = spec.source is Source.PADDED_INT16_BYTES
    isa = isa_of(target)
    family = isa.int16_block(spec.in_channels, by_bytes)
    header = family.header * tile.width
    weights_size = family.weight_size(panel_depth(spec, isa)) * tile.width
    by_panel = panels.view(np.int16).reshape(-1, header + weights_size)
    weights = np.stack([family.unpack(panel[header:], tile.width) for panel in by_panel])
    if row_height(spec, isa) > 1:
        weights = _summed(weights, spec.in_channels)
    magnitudes = np.abs(weights.astype(np.int64))
    assert max(largest, int(magnitudes.max())) <= LARGEST, "a byte does not hold its half"
    largest_of_all = int(magnitudes.sum(axis=1).max())
    reached = largest_sum(largest, largest_of_all, spec.depth, by_bytes)
    assert reached <= INT32_MAX, f"a sum of 32 bits can reach {reached}"
    return f"{family.instruction}, 32 bits: at most {reached / 1e6:.1f} million"


def _summed(columns: NDArray[np.int16], channels: int) -> NDArray[np.int16]:
    """The weights (panels, 9 * channels, width) of which `columns` (panels, 16 * channels, width)
    are the sums of `winograd`; no sum has wrapped."""
    taps = columns.reshape(len(columns), TAPS, TAPS, channels, -1).transpose(0, 4, 3, 1, 2)
    weights = taps[..., :KERNEL_SIDE, :KERNEL_SIDE]
    sums = weight_sums(weights.reshape(-1, channels, KERNEL_SIDE, KERNEL_SIDE))
    assert np.array_equal(sums.reshape(taps.shape), taps), "weights are not the sums of others"
    return weights.transpose(0, 3, 4, 2, 1).reshape(len(columns), -1, columns.shape[-1])
