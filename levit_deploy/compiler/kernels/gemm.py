"""Matrix product of tokens and weights with its epilogue: every linear layer of LeViT."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from levit_deploy.compiler.kernels.kernel import Activation


class Layout(StrEnum):
    """How (rows, columns) values lie in memory.

    ROWS: row-major. PANELS: 16 columns at a time, [ceil(columns/16)][rows][16]: what attention
    reads, so that one head's keys or values are contiguous.
    """

    ROWS = "rows"
    PANELS = "panels"


@dataclass(frozen=True)
class GemmSpec:
    """out[rows, columns] = activation(a[rows, depth] @ w[depth, columns] + bias) (+ residual).

    `gather_side`: 0, or the side of the square grid of tokens that `a` holds, of which every
    second one in both directions is taken (the shrinking attention's queries):
    rows == ceil(side / 2) ** 2, and `a` has side * side rows.
    """

    rows: int
    columns: int
    depth: int
    activation: Activation
    residual: bool
    layout: Layout
    gather_side: int = 0
