"""What a linear layer is, and how its product is cut: values without code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from levit_deploy.compiler.kernels.family import CutBy
from levit_deploy.compiler.kernels.kernel import Activation
from levit_deploy.half_format import HalfFormat

PANEL_COLUMNS = 16  # of Layout.PANELS


class Layout(StrEnum):
    """How (rows, columns) values lie in memory.

    ROWS: row-major. PANELS: 16 columns at a time, [ceil(columns/16)][rows][16]: what attention
    reads, so that one head's keys or values are contiguous.
    """

    ROWS = "rows"
    PANELS = "panels"


@dataclass(frozen=True)
class GemmTile:
    """The register tile: at most `mr` rows x `nr` columns, in vectors of `lanes` values.

    `nr` is a multiple of `lanes`; `lanes` is the target's. `depth_unroll`: steps of the depth in
    one turn of the loop. `shared`: the weights lie in panels of PANEL_COLUMNS, as for every other
    target, so that one constant serves them all; `nr` is a multiple or a divisor of that. Else a
    panel is as wide as its tile, and read from one end to the other.
    """

    mr: int
    nr: int
    lanes: int
    depth_unroll: int
    shared: bool = False

    def __str__(self) -> str:
        return f"{self.mr}x{self.nr}{' shared' * self.shared}"

    def for_sharing(self) -> GemmTile:
        """The nearest tile that reads shared panels."""
        parts = self.nr // PANEL_COLUMNS * PANEL_COLUMNS or 1 << self.nr.bit_length() - 1
        return replace(self, nr=parts, shared=True)


@dataclass(frozen=True)
class GemmSpec(CutBy[GemmTile]):
    """out[rows, columns] = activation(a[rows, depth] @ w[depth, columns] + bias) (+ residual).

    `layout`: of the float output. `gather_side`: 0, or the side of the square grid of tokens that
    `a` holds, of which every second one in both directions is taken (the shrinking attention's
    queries): rows == ceil(side / 2) ** 2, and `a` has side * side rows.
    """

    rows: int
    columns: int
    depth: int
    activation: Activation
    residual: bool
    layout: Layout
    gather_side: int = 0

    def __post_init__(self) -> None:
        if self.residual and self.layout is Layout.PANELS:
            raise ValueError("a residual is row-major")

    @property
    def output_size(self) -> int:
        """float32 values in the output buffer; in PANELS columns are padded to 16."""
        if self.layout is Layout.ROWS:
            return self.rows * self.columns
        return -(-self.columns // PANEL_COLUMNS) * PANEL_COLUMNS * self.rows

    @property
    def input_rows(self) -> int:
        """Rows of `a`, of which all or every second of a grid are taken."""
        return self.gather_side**2 if self.gather_side else self.rows

    @property
    def group_rows(self) -> int:
        """Rows that lie at one distance from each other: all, or those of one row of the grid."""
        return (self.gather_side + 1) // 2 if self.gather_side else self.rows

    def words(self, layout: bool = True) -> list[str]:
        """What the layer is, for people; `layout`: whether it has a float output."""
        return [
            f"{self.rows}x{self.columns}x{self.depth}",
            self.activation.value,
            *["residual"] * self.residual,
            *[self.layout.value] * layout,
        ]

    @property
    def gather_words(self) -> list[str]:
        """Which rows of `a` are taken, for people, if not all."""
        return [f"every second of {self.gather_side}x{self.gather_side}"] * bool(self.gather_side)


@dataclass(frozen=True)
class GemmStoredHalfSpec(GemmSpec):
    """Weights are stored as numbers of `format`; else as `GemmSpec`."""

    format: HalfFormat = HalfFormat.FP16

    def words(self, layout: bool = True) -> list[str]:
        return [*super().words(layout), f"{self.format} weights"]


class GemmHalfSpec(GemmSpec):
    """a and w are float16, and multiplied as they are; else as `GemmSpec`."""

    format: ClassVar = HalfFormat.FP16

    def words(self, layout: bool = True) -> list[str]:
        return [*super().words(layout), "fp16"]


class GemmBf16Spec(GemmSpec):
    """a and w are bfloat16, and multiplied as they are; else as `GemmSpec`."""

    format: ClassVar = HalfFormat.BF16

    def words(self, layout: bool = True) -> list[str]:
        return [*super().words(layout), "bf16"]


class GemmBfmmlaSpec(GemmBf16Spec):
    """The same, multiplied by bfmmla, whose sums are other ones; `a` lies in pairs of rows."""


class GemmInt8Spec(GemmSpec):
    """x[rows, columns] = activation((q - zero_point) @ w * multiplier + bias) (+ residual).

    q are stored 8-bit activations; else as `GemmSpec`.
    """
