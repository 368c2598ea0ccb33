"""The constant of an 8-bit linear layer: its weights in the order in which they are read, and why
no integer of a product with them saturates or wraps, shown from the constant itself.

weights int8 (depth, columns), multiplier, bias (columns,), zero point  ->  panels
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.gemm.int8_tile import HEADER_BYTES, Int8Tile
from levit_deploy.compiler.kernels.gemm.panels import Panels
from levit_deploy.compiler.kernels.gemm.spec import GemmTile
from levit_deploy.compiler.kernels.isa.activation_storage import row_stride
from levit_deploy.compiler.kernels.isa.isa_of import isa_of
from levit_deploy.targets.target import Target

# Of a weight, and of the sum of two for neighbouring k: with activations of 0..255 two products
# fit 16 bits.
WEIGHT_LIMIT = 127
PAIR_LIMIT = 128

INT16 = np.iinfo(np.int16)
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Int8Panels(Panels):
    """Panels of 8-bit weights for the instructions of `family`; `depth` with its padding."""

    family: type[Int8Tile]
    depth: int

    @staticmethod
    def of(columns: int, depth: int, tile: GemmTile, target: Target) -> Int8Panels:
        family, padded = isa_of(target).products.tile_for(tile.shared), row_stride(depth)
        plain = Int8Panels(
            columns, HEADER_BYTES + padded, tile, family.vector_alignment, family, padded
        )
        narrowest = plain.tiles.smallest * plain.unit
        order = family.order_bytes(padded, narrowest)
        return replace(plain, column_size=plain.column_size + order)

    @property
    def order_size(self) -> int:
        """What a panel stores behind the weights of each column."""
        return self.column_size - HEADER_BYTES - self.depth

    @property
    def bytes(self) -> int:
        """What all panels take."""
        return self.column_size * self.padded


def pack_weights_int8(
    weights: NDArray[np.int8],
    multiplier: NDArray[np.float32],
    bias: NDArray[np.float32],
    zero_point: int,
    tile: GemmTile,
    target: Target,
) -> NDArray[np.int8]:
    """The constant `panels` of `gemm_int8_kernel`, flat.

    `weights` (depth, columns) `within_limits`; `multiplier` (columns,): input scale * weight
    scale; `bias` (columns,); `zero_point`: that of the input. Panel after panel as `int8_tile`
    says; columns and depth are padded with zeros to what the instructions take.
    """
    assert within_limits(weights), "a sum of 16 bits could overflow"
    depth, columns = weights.shape
    cut = Int8Panels.of(columns, depth, tile, target)
    padded = np.zeros((cut.depth, cut.padded), np.int8)
    padded[:depth, :columns] = weights
    # What the zero point's stored value adds to the sums is taken off where they start.
    zero = zero_point + cut.family.storage.offset
    header = np.zeros((3, cut.padded), np.int32)
    header[0] = -zero * padded.sum(axis=0, dtype=np.int32)
    header[1, :columns] = multiplier.astype(np.float32).view(np.int32)
    header[2, :columns] = bias.astype(np.float32).view(np.int32)
    parts: list[NDArray[np.int8]] = []
    for panel in cut.slices():
        parts.append(np.ascontiguousarray(header[:, panel]).view(np.int8).ravel())
        order = cut.family.pack_order(padded[:, panel])
        in_order = padded[cut.family.depth_order(order, cut.depth), panel]
        parts.append(np.asarray(cut.family.pack(in_order), np.int8))
        size = cut.order_size * (panel.stop - panel.start)
        parts.append(np.pad(order, (0, size - len(order))))
    return np.concatenate(parts)


def within_limits(weights: NDArray[np.int8]) -> bool:
    """Whether no sum of two products overflows 16 bits, weights (depth, columns)."""
    wide = np.pad(weights.astype(np.int32), ((0, len(weights) % 2), (0, 0)))
    sums = wide.reshape(-1, 2, weights.shape[1]).sum(axis=1)
    return bool(np.abs(wide).max() <= WEIGHT_LIMIT and np.abs(sums).max() <= PAIR_LIMIT)


def prove_exact(panels: NDArray[np.int8], cut: Int8Panels) -> str:
    """What the sums on the way can reach for any activations, such as "pmaddubsw, 16 bits: -32,640
    to 32,385, 32 bits: at most 3.1 million".

    Raises AssertionError if they could leave their type: a mistake in a kernel or its packing.
    """
    initial, weights, orders = unpack_panels(panels, cut)
    magnitudes = np.abs(weights.astype(np.int64))
    # Stored activations are at most 255 in magnitude.
    largest = int((np.abs(initial) + 255 * magnitudes.sum(axis=0)).max())
    assert largest <= INT32.max, f"a sum of 32 bits can reach {largest}"
    words = [cut.family.instruction]
    narrow = [
        cut.family.extremes_of_16_bits(weights[:, columns], order)
        for columns, order in zip(cut.slices(), orders, strict=True)
    ]
    extremes = [extreme for extreme in narrow if extreme is not None]
    if extremes:
        lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
        assert INT16.min <= lowest, f"a sum of 16 bits can reach {lowest}"
        assert highest <= INT16.max, f"a sum of 16 bits can reach {highest}"
        words.append(f"16 bits: {lowest:,} to {highest:,}")
    return ", ".join([*words, f"32 bits: at most {largest / 1e6:.1f} million"])


def unpack_panels(
    panels: NDArray[np.int8], cut: Int8Panels
) -> tuple[NDArray[np.int64], NDArray[np.int8], list[NDArray[np.int8]]]:
    """Initial values (columns,) and weights (depth, columns), both with their padding, and what
    each panel stores of their order."""
    initial = np.empty(cut.padded, np.int64)
    weights = np.empty((cut.depth, cut.padded), np.int8)
    orders: list[NDArray[np.int8]] = []
    at = 0
    for columns in cut.slices():
        width = columns.stop - columns.start
        initial[columns] = panels[at : at + 4 * width].view(np.int32)
        at += HEADER_BYTES * width
        size = cut.depth * width
        order = cut.family.pack(np.arange(size).reshape(cut.depth, width))
        panel = np.empty(size, np.int8)
        panel[order] = panels[at : at + size]
        at += size
        orders.append(panels[at : at + cut.order_size * width])
        at += len(orders[-1])
        rows = cut.family.depth_order(orders[-1], cut.depth)
        assert sorted(rows) == list(range(cut.depth)), "some k is not multiplied once"
        weights[rows, columns] = panel.reshape(cut.depth, width)
    return initial, weights, orders
