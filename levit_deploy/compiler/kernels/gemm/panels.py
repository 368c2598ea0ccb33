"""How a weight matrix is cut into column panels, each contiguous and in the order it is read.

A tile's own panels are as wide as the tile: kernels read each from one end to the other. Shared
ones are PANEL_COLUMNS wide whatever the tile is, so that one constant serves several targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm.ir import Expr

from levit_deploy.compiler.kernels.blocks import Blocks
from levit_deploy.compiler.kernels.gemm.spec import PANEL_COLUMNS, GemmTile


@dataclass(frozen=True)
class Panels:
    """`columns` of weights, cut for `tile`.

    `column_size`: values that a panel has for each of its columns. `alignment`: registers of
    columns that belong together in the tile's instructions.
    """

    columns: int
    column_size: int
    tile: GemmTile
    alignment: int

    @property
    def unit(self) -> int:
        """Columns that no tile parts."""
        smallest = self.tile.lanes * self.alignment
        return min(self.tile.nr, PANEL_COLUMNS) if self.tile.shared else smallest

    @property
    def padded(self) -> int:
        """Columns with their padding."""
        unit = PANEL_COLUMNS if self.tile.shared else self.unit
        return -(-self.columns // unit) * unit

    @property
    def tiles(self) -> Blocks:
        """What is computed at a time, in units."""
        return Blocks.of(-(-self.columns // self.unit), -(-self.tile.nr // self.unit))

    def width(self, columns: int) -> int:
        """Of the panels that a tile of so many columns reads."""
        return PANEL_COLUMNS if self.tile.shared else columns

    def start(self, column: Expr) -> Expr:
        """Where the panel begins that has the first column of a tile."""
        if not self.tile.shared:
            return column * self.column_size
        return column // PANEL_COLUMNS * (PANEL_COLUMNS * self.column_size)

    def inside(self, column: Expr) -> Expr | int:
        """How many columns of that panel lie before it."""
        within = self.tile.shared and self.tile.nr < PANEL_COLUMNS
        return column % PANEL_COLUMNS if within else 0

    def left(self, column: int, width: int) -> int:
        """Columns there are from `column` of a last tile of `width` on; may be negative."""
        end = -(-self.columns // self.unit) * self.unit
        return self.columns - (end - width) - column

    def slices(self) -> list[slice]:
        """The columns of each panel."""
        if self.tile.shared:
            ends = np.arange(PANEL_COLUMNS, self.padded + 1, PANEL_COLUMNS)
        else:
            tiles = self.tiles
            sizes = [tiles.size - (index >= tiles.large) for index in range(tiles.count)]
            ends = np.cumsum(sizes) * self.unit
        return [slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
