"""What an 8-bit linear layer is, how it is cut for a target, and its constants.

weights int8 (depth, columns), multiplier, bias (columns,), zero point  ->  panels
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm.float32 import PANEL_COLUMNS, GatheredRows, GemmTile, Layout
from levit_deploy.compiler.kernels.gemm.int8_dot_tile import (
    MaddubsTile,
    SdotTile,
    VpdpbusdTile,
)
from levit_deploy.compiler.kernels.gemm.int8_long_tile import MlalTile
from levit_deploy.compiler.kernels.gemm.int8_matrix_tile import SmmlaTile
from levit_deploy.compiler.kernels.gemm.int8_tile import HEADER_BYTES, Int8Tile
from levit_deploy.compiler.kernels.isa.activation_storage import activation_storage, row_stride
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.targets.target import Arch, Int8Dot, Target

# Registers of sums under way that keep the multipliers busy: as in `gemm`.
MIN_ACCUMULATORS = 8
# Of a weight, and of the sum of two for neighbouring k: with activations of 0..255 two products
# fit 16 bits.
WEIGHT_LIMIT = 127
PAIR_LIMIT = 128


@dataclass(frozen=True)
class GemmInt8Spec(GatheredRows):
    """x[rows, columns] = activation((q - zero_point) @ w * multiplier + bias) (+ residual).

    `layout`: that of the float output; None if x is not stored as float. `quantized`: x is stored
    as 8-bit activations too, or instead.
    `gather_side`: as in `gemm.GemmSpec`.
    """

    rows: int
    columns: int
    depth: int
    activation: Activation
    residual: bool
    layout: Layout | None
    quantized: bool
    gather_side: int = 0

    def __post_init__(self) -> None:
        assert self.layout or self.quantized, "the result is stored"
        assert not (self.residual and self.layout is Layout.PANELS), "the stream is row-major"

    @property
    def output_size(self) -> int:
        """float32 values in the float output; in PANELS columns are padded to 16."""
        if self.layout is Layout.PANELS:
            return -(-self.columns // PANEL_COLUMNS) * PANEL_COLUMNS * self.rows
        return self.rows * self.columns if self.layout else 0


def tile_family(target: Target) -> type[Int8Tile]:
    """The instructions by which `target` multiplies."""
    families: dict[Int8Dot, type[Int8Tile]] = {
        Int8Dot.MADD: MaddubsTile,
        Int8Dot.VPDPBUSD: VpdpbusdTile,
        Int8Dot.SDOT: SdotTile,
        Int8Dot.SMMLA: SmmlaTile,
        Int8Dot.MLAL: MlalTile,
    }
    return families[target.int8_dot]


def default_tile(spec: GemmInt8Spec, target: Target) -> GemmTile:
    """The largest tile of the target, made wider where there are too few rows to fill it."""
    mr, vectors, unroll = _largest_tile(target)
    rows = Blocks.of(spec.group_rows, mr)
    if rows.size < mr:
        sums = rows.size * tile_family(target).sums_per_vector
        vectors = max(vectors, -(-MIN_ACCUMULATORS // sums))
    lanes = target.float_lanes
    return GemmTile(rows.size, vectors * lanes, lanes, unroll)


def _largest_tile(target: Target) -> tuple[int, int, int]:
    """(rows, registers of columns, steps in one turn of the loop) that fit without spills.

    Figures are for LeViT-128S. x86: the time of its linear layers against that of the fp32 ones, by
    `levit-deploy bench DIR --per-kernel` on Zen 4. ARM: instructions of an inference beside those
    with the tile that is taken, by `python -m benchmarks.instructions DIR`.
    """
    if target.arch is Arch.X86_64:
        return _largest_x86_tile(target)
    if target.int8_dot is Int8Dot.SDOT:
        # 20 sums, 5 times 16 k, 2 weights. 6x16, whose loop has room for one step, and 7x12: 0.5
        # million more.
        return 5, 4, 2
    if target.int8_dot is Int8Dot.SMMLA:
        # 24 sums of 2x2, 3 times two rows, 2 weights. 8x8: 0.7 million more.
        return 6, 4, 2
    if target.vector_registers == 32:
        # 16 times four sums, 4 times 16 k, twice where LLVM loads two steps together, 2 weights,
        # products. Two steps in a turn: 1.1 million more; 5x4: 0.1 million more, with two steps
        # 0.9.
        return 4, 1, 4
    return 2, 1, 1  # 8 times four sums, 2 times 16 k, 2 weights, products: 15 of 16


def _largest_x86_tile(target: Target) -> tuple[int, int, int]:
    if target.vector_registers == 32:
        # vpdpbusd: 0.26 (0.25 is the limit), and so are 14x32 and 6x64. pmaddubsw: 0.50, the limit.
        return 8, 2, 2
    if target.int8_dot is Int8Dot.VPDPBUSD:
        return 6, 2, 2  # 12 sums, 2 weights, a: 15 of 16
    if not target.fma:
        return 4, 2, 1  # two operands: one more for a copy
    # 10 sums, 2 weights, a, ones, a product: 15 of 16. 0.52 (0.50 is the limit), and so are 4x16,
    # 3x24 and 2x32.
    return 5, 2, 2


class PanelCut:
    """A weight matrix cut into column panels for the instructions of `family`.

    `unit`: columns that stay together; `columns`, `depth`: with their padding.
    """

    def __init__(self, columns: int, depth: int, tile: GemmTile, family: type[Int8Tile]) -> None:
        self.family = family
        self.unit = tile.lanes * family.vector_granule
        self.panels = Blocks.of(-(-columns // self.unit), -(-tile.nr // self.unit))
        self.columns = -(-columns // self.unit) * self.unit
        self.depth = row_stride(depth)

    @property
    def bytes(self) -> int:
        """Of all panels."""
        return (HEADER_BYTES + self.depth) * self.columns

    def slices(self) -> list[slice]:
        """The columns of each panel."""
        count, large = self.panels.count, self.panels.large
        widths = [(self.panels.size - (panel >= large)) * self.unit for panel in range(count)]
        ends = np.cumsum(widths)
        return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]


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
    family = tile_family(target)
    depth, columns = weights.shape
    cut = PanelCut(columns, depth, tile, family)
    padded = np.zeros((cut.depth, cut.columns), np.int8)
    padded[:depth, :columns] = weights
    # What the zero point's stored value adds to the sums is taken off where they start.
    zero = zero_point + activation_storage(target).offset
    header = np.zeros((3, cut.columns), np.int32)
    header[0] = -zero * padded.sum(axis=0, dtype=np.int32)
    header[1, :columns] = multiplier.astype(np.float32).view(np.int32)
    header[2, :columns] = bias.astype(np.float32).view(np.int32)
    parts: list[NDArray[np.int8]] = []
    for panel in cut.slices():
        parts.append(np.ascontiguousarray(header[:, panel]).view(np.int8).ravel())
        parts.append(np.asarray(family.pack(padded[:, panel]), np.int8))
    return np.concatenate(parts)


def within_limits(weights: NDArray[np.int8]) -> bool:
    """Whether no sum of two products overflows 16 bits, weights (depth, columns)."""
    wide = np.pad(weights.astype(np.int32), ((0, len(weights) % 2), (0, 0)))
    sums = wide.reshape(-1, 2, weights.shape[1]).sum(axis=1)
    return bool(np.abs(wide).max() <= WEIGHT_LIMIT and np.abs(sums).max() <= PAIR_LIMIT)
